"""The script by hand, with the original program's command line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

import extract
from conftest import (
    ROOT,
    make_clip,
    make_feature,
    make_job,
    make_target,
    run_ffmpeg,
    run_in_terminal,
    seeded_state,
    start_session,
    write_csv,
)
from decoding.faulty_videos import has_ended, workers
from videofeatures.planning.jobs import job_path, write_job
from videofeatures.settings import Settings


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / "extract.py", *arguments]
    return subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def rows(tmp_path) -> list[tuple[str, str]]:
    for k in range(2):
        make_clip(tmp_path / f"{k}.mp4", seconds=1.7, size="64x64")
    rows = [(f"{k}.mp4", f"new/{k}.npy") for k in range(2)]
    write_csv(tmp_path / "input.csv", rows)
    return rows


@pytest.mark.parametrize(
    ("given", "expected"), [({}, "10000"), ({"OMP_WAIT_POLICY": "passive"}, "0")]
)
def test_threads_that_wait_sleep_soon_unless_told_otherwise(
    tmp_path, rows, monkeypatch, given, expected
):
    """As the library of the threads understands it, which reads the environment once."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (given | {"OMP_DISPLAY_ENV": "verbose"}).items():
        monkeypatch.setenv(name, value)
    options = ("--backbone", "efficientnet_lite0", "--weights", "random")
    told = run(tmp_path, "--csv", "input.csv", *options).stderr
    assert f"GOMP_SPINCOUNT = '{expected}'" in told


def put_weights(folder: Path, backbone: str, path: str) -> None:
    import torch

    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(seeded_state(backbone), folder / path)


def test_the_original_s_command_line_for_2d(tmp_path, rows):
    put_weights(tmp_path, "resnet152", "w.pth")
    command = ["--csv", "input.csv", "--type", "2d", "--batch_size", 64]
    command += ["--num_decoding_thread", 4, "--weights", "w.pth"]
    first = run(tmp_path, *command)
    assert first.returncode == 0, first.stderr
    assert "done    0.mp4: 2 x 2048" in first.stderr
    for _, feature in rows:
        found = np.load(tmp_path / feature)
        assert (found.shape, found.dtype) == ((2, 2048), np.float16)
    # Done rows are skipped.
    (tmp_path / rows[1][1]).unlink()
    times = (tmp_path / rows[0][1]).stat().st_mtime_ns
    second = run(tmp_path, *command)
    assert second.returncode == 0
    assert "2 rows: 1 done, 1 pending" in second.stderr
    assert "0.mp4" not in second.stderr
    assert (tmp_path / rows[0][1]).stat().st_mtime_ns == times
    assert (tmp_path / rows[1][1]).exists()


def test_the_original_s_command_line_for_3d(tmp_path, rows):
    put_weights(tmp_path, "resnext101", "model/resnext101.pth")  # where the original has it
    command = ["--csv", "input.csv", "--type=3d", "--half_precision=0", "--l2_normalize=0"]
    assert run(tmp_path, *command).returncode == 0
    found = np.load(tmp_path / "new" / "0.npy")
    assert (found.shape, found.dtype) == ((3, 2048), np.float32)
    assert np.linalg.norm(found, axis=1).min() > 2
    # The same weights by their path are the same weights: nothing to do.
    (tmp_path / "model" / "resnext101.pth").rename(tmp_path / "other.pth")
    again = run(tmp_path, *command, "--resnext101_model_path", "other.pth")
    assert "2 done, 0 pending" in again.stderr


def test_a_broken_video_ends_with_1_and_the_others_done(tmp_path, rows, real_clips):
    (tmp_path / "0.mp4").write_text("not a video")
    result = run(tmp_path, "--csv", "input.csv", "--backbone", "efficientnet_lite0")
    assert result.returncode == 1
    assert "FAILED  0.mp4: text, not a video: Invalid data found" in result.stderr
    assert "1 of 2 videos failed" in result.stderr
    assert (tmp_path / rows[1][1]).exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "nothing.csv"], "nothing.csv: no such file"),
        (["--csv", "input.csv", "--type", "3d"], "resnext101 are not there. Fetch https://"),
        (["--csv", "input.csv", "--precision", "half"], "precision: 'half' is not one of"),
        (["--csv", "input.csv", "--batch_size", "0"], "batch_size: 0 is not a whole number of 1"),
        (["--csv", "input.csv", "--half_precision", "2"], "'2' must be 1 or 0"),
        (["--csv", "input.csv", "--threads", "0"], "'0' must be 1 or more"),
        (["--csv", "input.csv", "--type", "4d"], "invalid choice"),
        ([], "--csv"),
    ],
)
def test_bad_input_ends_with_2_and_one_message(tmp_path, rows, arguments, message):
    result = run(tmp_path, *arguments)
    assert result.returncode == 2
    assert result.stderr.count(message) >= 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()


def test_nothing_to_do_costs_no_torch(tmp_path, rows):
    for _, feature in rows:
        (tmp_path / feature).parent.mkdir(exist_ok=True)
        make_feature(tmp_path / feature)
    code = (
        "import sys, extract;"
        "status = extract.main(['--csv', 'input.csv']);"
        "sys.exit(status or ('torch' in sys.modules))"
    )
    environment = {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 0


def test_a_job_whose_rows_are_done_by_now_costs_no_torch(tmp_path, rows):
    targets = [make_target(video, feature) for video, feature in rows]
    job = make_job(Settings(), "weights-00000000.pth", tmp_path, targets)
    write_job(job)
    for _, feature in rows:
        (tmp_path / feature).parent.mkdir(exist_ok=True)
        (tmp_path / feature).write_text("somebody else's")
    code = (
        "import sys, extract;"
        "status = extract.main(['--job', sys.argv[1], '--log', 'x.log']);"
        "sys.exit(status or ('torch' in sys.modules))"
    )
    command = [sys.executable, "-c", code, job_path(tmp_path, job.name)]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert f"{len(rows)} rows were done by others meanwhile" in (tmp_path / "x.log").read_text()
    assert result.stderr == ""  # what a job does is shown by the workflow


def test_beside_a_log_stderr_is_told_of_failures_only(tmp_path, rows):
    write_csv(tmp_path / "input.csv", [*rows, ("gone.mp4", "new/gone.npy")])
    arguments = ["--csv", "input.csv", "--backbone", "efficientnet_lite0", "--log", "logs/x.log"]
    result = run(tmp_path, *arguments)
    lines = (tmp_path / "logs" / "x.log").read_text().splitlines()
    done = [line for line in lines if line.startswith("done ")]
    assert len(done) == 2
    assert [line for line in lines if line not in done] == result.stderr.splitlines()
    assert "FAILED  gone.mp4: no such file" in lines


def test_a_terminal_has_a_line_that_says_how_far_it_is(tmp_path, rows):
    command = [sys.executable, ROOT / "scripts" / "extract.py", "--csv", "input.csv"]
    status, told = run_in_terminal([*command, "--backbone", "efficientnet_lite0"], tmp_path)
    assert status == 0
    assert "done    0.mp4" not in told
    assert re.search(r"\r[012] of 2 videos \(\d+ %\); [^\r]*\x1b\[K\r\x1b\[K", told)


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        extract.parse_arguments(["--help"])
    text = capsys.readouterr().out
    config = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
    only_snakemake = {"videos", "report", "videos_per_job", "mem_mb", "minutes_per_video"}
    assert [key for key in config if f"--{key}" not in text and key not in only_snakemake] == []


def test_ctrl_c_ends_with_a_word_and_keeps_what_is_done(tmp_path, rows):
    make_clip(tmp_path / "long.mp4", seconds=600, size="320x240", rate=5)
    write_csv(tmp_path / "input.csv", [*rows, ("long.mp4", "new/long.npy")])
    command = [sys.executable, ROOT / "scripts" / "extract.py", "--csv", "input.csv"]
    process = start_session(
        [*command, "--backbone", "efficientnet_lite0", "--decoders", "1"],
        tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("done    1.mp4"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to ffmpeg, too
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 130
    interrupted, counts = rest.splitlines()
    assert interrupted == "interrupted; what is done is kept, and the next run does the rest"
    assert counts.startswith("2 done, 0 failed, 0 missing, 1 pending")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["0.npy", "1.npy"]


def test_a_stop_ends_a_job_whose_videos_are_looked_through_for_ever(tmp_path, real_clips):
    rows = []
    for k in range(2):
        path = tmp_path / f"{k}.mkv"
        run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=4", path)
        os.truncate(path, 700)
        os.truncate(path, 40_000_000_000)  # of nothing
        rows.append((path.name, f"{k}.npy"))
    write_csv(tmp_path / "input.csv", rows)
    options = ("--csv", "input.csv", "--backbone", "efficientnet_lite0")
    command = [sys.executable, ROOT / "scripts" / "extract.py", *options]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        while not workers(process.pid):
            assert process.poll() is None
            time.sleep(0.1)
        looking = workers(process.pid)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGTERM
    assert "interrupted; what is done is kept" in said
    assert "FAILED" not in said
    assert all(has_ended(worker) for worker in looking)


def test_parts_of_a_video_are_those_of_files_that_are_cut_there(tmp_path):
    codec = ("-c:v", "libx264", "-g", "50", "-pix_fmt", "yuv420p")
    make_clip(tmp_path / "whole.mp4", seconds=30, size="96x64", codec=codec)
    ends = {"middle": (10.0, 13.0), "last": (27.0, 30.0)}
    rows = ["whole.mp4,whole.npz,,", "whole.mp4,behind.npz,40,"]
    for name, (start, end) in ends.items():
        rows += [f"whole.mp4,{name}.npz,{start},{end}", f"{name}.mp4,{name}_cut.npz"]
        cut = f"trim={start}:{end},setpts=PTS-{start}/TB"
        lossless = ("-c:v", "libx264", "-qp", "0", "-bf", "0")
        run_ffmpeg("-i", tmp_path / "whole.mp4", "-vf", cut, *lossless, tmp_path / f"{name}.mp4")
    path = tmp_path / "parts.csv"
    path.write_text("\n".join(["video_path,feature_path,start,end", *rows]) + "\n")
    command = ["--csv", path, "--backbone", "efficientnet_lite0", "--weights", "random"]
    result = run(tmp_path, *command, "--threads", 2)
    assert result.returncode == 1
    reason = "starts at 40 s, and the video ends at 30 s"
    assert f"FAILED  whole.mp4 [from 40 s]: {reason}" in result.stderr
    assert "done    whole.mp4 [10–13 s]: 3 x 1280" in result.stderr
    for name, (start, _) in ends.items():
        with (
            np.load(tmp_path / f"{name}.npz") as part,
            np.load(tmp_path / f"{name}_cut.npz") as cut,
        ):
            np.testing.assert_allclose(part["features"], cut["features"], atol=1e-3)
            np.testing.assert_array_equal(part["timestamps"], cut["timestamps"] + start)
    # Another end is another part, and nothing else is made again.
    path.write_text(path.read_text().replace("10.0,13.0", "10.0,12.0").replace("40,", "29,"))
    result = run(tmp_path, *command)
    assert result.returncode == 0, result.stderr
    assert "6 rows: 4 done, 2 pending" in result.stderr
    assert "1 made of another part of the video" in result.stderr
    with np.load(tmp_path / "middle.npz") as part:
        assert len(part["features"]) == 2
