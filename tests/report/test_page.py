"""The report, up to what a browser makes of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import Workflow, make_clip, run_ffmpeg
from videofeatures.networks.backbones import BACKBONES
from videofeatures.records import Recorder
from videofeatures.report import charts, collect, page, samples
from videofeatures.report.peeking import frames_at

NASTY = "<script>alert('x')<\\script>&\"é ü.mp4"
LITE = BACKBONES["efficientnet_lite0"]


def make_report(workflow: Workflow, **config: object) -> str:
    values = [f"{key}={value}" for key, value in (workflow.config | config).items()]
    command = [sys.executable, "scripts/make_report.py", *values]
    result = subprocess.run(command, cwd=workflow.folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "results/report.html: open it in a browser\n"
    return (workflow.folder / "results" / "report.html").read_text(encoding="utf-8")


def test_a_run_leaves_a_report_of_all_its_rows(workflow, real_clips, tmp_path):
    (tmp_path / NASTY).write_text("nothing")
    workflow.write_rows(
        *((clip, f"features/{stem}.npy") for stem, clip in real_clips.items()),
        (NASTY, "features/broken.npy"),
        ("gone.mp4", "features/gone.npy"),
    )
    result = workflow.run("--cores", "2", check=False, report="true")
    assert "results/report.html: open it in a browser" in result.stderr
    text = (workflow.folder / "results" / "report.html").read_text(encoding="utf-8")
    for tile in ("<b>3</b><span>done", "<b>1</b><span>failed", "<b>1</b><span>missing"):
        assert tile in text
    assert "<b>19 s</b><span>of video done" in text
    assert "moov atom not found" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "57934424" in text
    for key in ("resize_size", "efficientnet_lite0", "cpu on"):
        assert key in text
    # What the network saw in the real clips: as in the demo.
    probabilities = [int(p) for p in re.findall(r">bow tie (\d+)%<", text)]
    assert max(probabilities) > 30  # of features that were divided by their lengths, it is 0


def test_a_report_of_nothing_done(workflow):
    workflow.write_rows(("gone.mp4", "features/gone.npy"))
    text = make_report(workflow)
    assert "<b>0</b><span>done" in text
    assert "<b>1</b><span>missing" in text
    assert "What came out" not in text


def test_a_report_of_no_rows(workflow):
    workflow.write_rows()
    assert "<b>0</b><span>done" in make_report(workflow)


def test_a_report_of_features_that_were_made_elsewhere(workflow, real_clips, tmp_path):
    # No record says how they were made, and one is no feature file at all.
    (tmp_path / "features").mkdir()
    for name, shape in (("a", (10, 2048)), ("b", (5, 2048)), ("c", (5, 7)), ("d", (3,))):
        np.save(tmp_path / "features" / f"{name}.npy", np.ones(shape, np.float16))
    (tmp_path / "features" / "e.npy").write_text("not NumPy's")
    workflow.write_rows(
        *((real_clips["bikes"], f"features/{name}.npy") for name in "abcde"),
    )
    text = make_report(workflow, backbone="resnet152", weights="random")
    # Nor with a classifier that these features are none of.
    assert "<b>5</b><span>done" in make_report(workflow, l2_normalize="false")
    assert "<b>5</b><span>done" in text
    assert "Of 5 rows that are done, no record says how they were made" in text
    assert "2 videos, chosen at random" in text


def test_videos_that_are_gone_have_no_pictures_and_everything_else(workflow, tmp_path):
    clips = [make_clip(tmp_path / f"{k}.mp4", seconds=3) for k in range(3)]
    workflow.write_rows(*((clip.name, f"features/{clip.stem}.npz") for clip in clips))
    workflow.run()
    for clip in clips:
        clip.unlink()
    text = make_report(workflow)
    assert "3 videos, chosen at random" in text
    assert "data:image/jpeg" not in text
    assert 'class="none"' in text


def test_a_run_that_was_stopped_is_not_held_up_by_a_report(workflow, tmp_path):
    # A row that was not tried: its job was never able to start.
    workflow.write_rows((make_clip(tmp_path / "a.mp4"), "features/a.npy"))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "records").write_text("in the way")
    result = workflow.run(check=False, report="true")
    assert "1 not finished" in result.stderr
    assert "report.html" not in result.stderr
    assert "The report" not in result.stderr


def test_a_report_that_fails_costs_the_run_nothing(workflow, tmp_path):
    workflow.write_rows((make_clip(tmp_path / "a.mp4"), "features/a.npy"))
    (tmp_path / "results" / "report.html").mkdir(parents=True)
    result = workflow.run(report="true")
    assert "The report cannot be made (" in result.stderr
    assert "1 of 1 pending rows done" in result.stderr


@pytest.mark.parametrize("name", ["upright", "turned"])
def test_a_peek_shows_the_frame_of_its_time(tmp_path, name):
    # Red for the first 5 s, then green, then, from 10 s on, blue; the left half is black.
    colours = "".join(
        f"color=c={colour}:s=160x120:r=10:d=5,drawbox=w=80:h=120:t=fill:c=black[{k}];"
        for k, colour in enumerate(("red", "lime", "blue"))
    )
    clip = tmp_path / "upright.mp4"
    run_ffmpeg(
        *("-filter_complex", f"{colours}[0][1][2]concat=n=3[out]", "-map", "[out]"),
        *("-c:v", "libx264", "-g", "30", "-pix_fmt", "yuv444p", clip),
    )
    if name == "turned":
        run_ffmpeg("-display_rotation", "90", "-i", clip, "-c", "copy", tmp_path / "turned.mp4")
        clip = tmp_path / "turned.mp4"
    times = [0, 4.95, 5.05, 9, 12, 100]
    pictures = frames_at(str(clip), times, height=60)
    assert all(picture is not None for picture in pictures)
    arrays = [np.asarray(picture) for picture in pictures]
    # To be shown turned left, the black left half goes to the bottom.
    bright = [a[:25] if name == "turned" else a[:, 45:] for a in arrays]
    dark = [a[35:] if name == "turned" else a[:, :35] for a in arrays]
    assert [int(b.mean(axis=(0, 1)).argmax()) for b in bright] == [0, 0, 1, 1, 2, 2]
    assert max(d.mean() for d in dark) < 20
    assert {a.shape[:2] for a in arrays} == {(60, 45) if name == "turned" else (60, 80)}


def test_copies_are_found_and_each_is_shown_once():
    random = np.random.default_rng(0)
    means = random.normal(size=(40, 64)).astype(np.float32)
    means[1] = means[0] * 3  # a copy, at another length
    means[30] = means[0] + 0.001
    means[21] = means[20]
    features = samples.Features([f"{k}.npy" for k in range(40)], means)
    pairs = samples.find_pairs(features, 10)
    found = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    assert frozenset(("20.npy", "21.npy")) in found
    (other,) = (pair for pair in pairs if "20.npy" not in (pair.first, pair.second))
    assert {other.first, other.second} < {"0.npy", "1.npy", "30.npy"}
    assert (other.num_more, len(pairs)) == (1, 2)
    assert samples.find_pairs(features, 1) == pairs[:1]


def test_candidates_are_videos_of_one_length():
    seconds = pd.Series(
        {"a": 10.0, "b": 300.02, "c": 10.04, "d": 300.0, "e": 77.0, "f": None, "g": 0.5, "h": 0.5}
    )
    done = pd.DataFrame({"duration_seconds": seconds})
    assert sorted(samples.find_candidates(done, 100)) == ["a", "b", "c", "d"]
    assert len(samples.find_candidates(done, 2)) == 2


@pytest.mark.parametrize("num_videos", [2, 3, 5, 50])
def test_a_map_has_a_place_for_each_video_near_those_that_are_alike(num_videos):
    random = np.random.default_rng(0)
    centres = random.normal(size=(2, 32)) * 10
    group = np.arange(num_videos) % 2
    means = (centres[group] + random.normal(size=(num_videos, 32))).astype(np.float32)
    points = samples.make_map(means)
    assert points.shape == (num_videos, 2)
    assert np.isfinite(points).all()
    if num_videos == 50:
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        assert (group[distance.argmin(axis=1)] == group).all()


def test_rows_without_times_are_given_those_of_the_backbone():
    np.testing.assert_allclose(samples.times_of_rows(3, LITE), [0.5, 1.5, 2.5])
    times = samples.times_of_rows(2, BACKBONES["resnext101"])
    np.testing.assert_allclose(times, [8 / 24, 24 / 24])


def test_a_long_video_is_shown_by_some_of_its_rows(tmp_path):
    features = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float16)
    np.save(tmp_path / "a.npy", features)
    sample = samples.look_at_video(
        "a.mp4", str(tmp_path / "a.npy"), LITE, num_pictures=10, classifier=None, mean_length=1
    )
    assert sample.num_rows == 1000
    assert len(sample.times) <= samples.MAX_ROWS_SHOWN
    assert len(sample.picture_times) == 10
    assert (sample.times[0], sample.picture_times[0]) == (0.5, 0.5)
    unit = features[::7].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(sample.similarity, unit @ unit.T, atol=1e-5)


def test_records_of_all_processes_are_collected(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "video_path,feature_path,state,reason,num_features,feature_dim,duration_seconds,seconds,"
        "ffmpeg_lines\na.mp4,a.npy,done,,2,8,2.5,1.5,\nNA,b.npy,failed,NA,,,,,x | y\n"
    )
    facts = {"device": "cuda", "host": "n", "digest": "1", "device_uuid": "abcdef"}
    times = dict.fromkeys(collect.TIMES, 1.0)
    for number, uuid in enumerate(("abcdef", "fedcba")):
        with Recorder(tmp_path, f"job{number}", facts | {"device_uuid": uuid}) as recorder:
            recorder.record("started", "a.npy")
            recorder.record("done", "a.npy", width=64 + number, seconds=1, duration_seconds=2)
            if number:
                recorder.note("end", **times)
    found = collect.collect(tmp_path)
    assert list(found.rows["video_path"]) == ["a.mp4", "NA"]
    assert list(found.attempts["process"]) == [0, 1]
    assert list(found.done()["width"]) == [65]
    assert list(found.processes["seconds"].isna()) == [True, False]
    labels = list(collect.device_labels(found.processes))
    assert labels == ["cuda abcd… on n", "cuda fedc… on n"]


def records_of(*spans: tuple[float, float, float, int]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Attempts, of (end, seconds, seconds of video, process), and two processes."""
    attempts = pd.DataFrame(spans, columns=["time", "seconds", "duration_seconds", "process"])
    processes = pd.DataFrame(
        {"device": ["cpu", "cpu"], "host": ["a", "b"], "device_uuid": [None, None]}
    )
    return attempts.assign(status="done"), processes


def test_throughput_is_what_was_done_in_the_last_run():
    attempts, processes = records_of(
        (100, 10, 5000, 0),  # an hour before
        (5010, 10, 100, 0),
        (5020, 10, 100, 0),
        (5020, 20, 400, 1),
    )
    plot = charts.throughput(attempts, processes)
    data = plot.renderers[0].data_source.data
    edges = np.array(data["time"]) / 1000
    assert 4999 < edges[0] < edges[-1] < 5021
    step = edges[1] - edges[0]
    assert sum(data["cpu on a"]) * step == pytest.approx(200)
    assert sum(data["cpu on b"]) * step == pytest.approx(400)
    assert data["cpu on a"][10] == pytest.approx(10, rel=0.01)


def test_no_chart_of_nothing():
    attempts, processes = records_of()
    assert charts.throughput(attempts, processes) is None
    assert charts.where_time_went(processes) is None
    assert charts.histogram(pd.Series([None, "x"]), "", "") is None


@pytest.mark.parametrize(
    ("values", "kind"),
    [([5], "LinearScale"), ([0, 1, 2], "LinearScale"), ([1, 10, 5000], "LogScale")],
)
def test_every_value_is_in_a_histogram(values, kind):
    plot = charts.histogram(pd.Series(values), "", "")
    assert sum(plot.renderers[0].data_source.data["top"]) == len(values)
    assert type(plot.x_scale).__name__ == kind


def test_reasons_that_differ_in_numbers_are_told_together():
    rows = pd.DataFrame(
        {
            "state": ["failed"] * 3 + ["done"],
            "reason": [
                "ends at 3 s of 6 s: truncated",
                "ends at 1.5 s of 60 s: truncated",
                "x",
                "",
            ],
            "ffmpeg_lines": ["", "", "a | b", ""],
            "video_path": list("abcd"),
        }
    )
    found = page._problems(rows)["problems"]
    assert [(problem["count"], problem["paths"]) for problem in found] == [
        ("2", ["a", "b"]),
        ("1", ["c"]),
    ]
    assert found[1]["ffmpeg_lines"] == "a\nb"


def test_records_tell_the_length_of_features_before_they_are_normalised(workflow, real_clips):
    workflow.write_rows((real_clips["bikes"], "features/bikes.npy"))
    workflow.run()
    (workflow.folder / "features" / "bikes.npy").unlink()
    workflow.run(l2_normalize="false", results="results/raw", half_precision="false")
    raw = workflow.features()["bikes"]
    for results in ("results", "results/raw"):
        lines = next((Path(workflow.folder) / results / "records").glob("*")).read_text()
        (done,) = (e for e in map(json.loads, lines.splitlines()) if e["status"] == "done")
        assert done["mean_length"] == pytest.approx(np.linalg.norm(raw, axis=1).mean(), rel=1e-3)
        assert (done["width"], done["height"], done["codec"]) == (640, 272, "h264")
