"""The report, up to what a browser makes of it."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd

from conftest import Workflow, make_clip
from videofeatures.report import page
from videofeatures.settings import Config
from videofeatures.source import Source

NASTY = "<script>alert('x')<\\script>&\"é ü.mp4"


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
    assert "<b>2</b><span>done" in text
    assert "<b>3</b><span>pending" in text
    assert "Of 2 rows that are done, no record says how they were made" in text
    assert "2 videos, chosen at random" in text
    # Of another network, whose features are shorter, they are none.
    assert "<b>5</b><span>pending" in make_report(workflow)


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


def test_the_picture_of_a_part_is_from_its_middle(monkeypatch):
    wanted = {}
    monkeypatch.setattr(
        page.samples, "take_pictures", lambda given, **_: wanted.update(given) or {}
    )
    done = pd.DataFrame(
        {
            "video_path": ["a.mp4", "a.mp4"],
            "start_seconds": [20.0, np.nan],
            "end_seconds": [30.0, np.nan],
            "duration_seconds": [10.0, 60.0],
        },
        index=["part.npy", "whole.npy"],
    )
    page._middle_pictures(done, Config())
    assert wanted == {
        "part.npy": (Source("a.mp4", 20.0, 30.0), [25.0]),
        "whole.npy": (Source("a.mp4"), [30.0]),
    }
