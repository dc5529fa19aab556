"""The benchmark works, in its smallest setting; its figures belong to no test."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from conftest import ROOT


def test_speed_compares_before_ours_and_the_limits(tmp_path, real_clips):
    command = [sys.executable, ROOT / "benchmarks" / "speed.py", "--sets", "tiny", "--kinds", "2d"]
    command += [
        "--no-cosines",
        "--no-shapes",
        "--clips",
        real_clips["bikes"].parent,
        "--output",
        tmp_path,
    ]
    result = subprocess.run(list(map(str, command)), cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert [row["what"] for row in saved["rows"]][:4] == ["before", "ours", "network", "decode"]
    before, ours, network, decode = saved["rows"][:4]
    assert before["seconds"] > before["startup_seconds"] > 0
    assert ours["times_before"] == before["work_seconds"] / ours["work_seconds"]
    assert ours["times_before_at_most"] * before["gflops"] == pytest.approx(network["peak_gflops"])
    assert float(ours["worst_cosine"]) > 0.9999
    assert ours["limited_by"] in ("network", "decode")
    assert min(network["cpu_seconds"], decode["cpu_seconds"]) >= 0
    assert (tmp_path / "speed.md").read_text() in result.stdout


def test_planning_is_measured_for_each_state_of_a_collection(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "plan.py", "--output", tmp_path]
    command += ["--sizes", "300", "--slow", "300", "--jobs", "300"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    *dry_runs, job, whole = json.loads((tmp_path / "plan.json").read_text())["rows"]
    found = [(row["what"], row["num_pending"]) for row in dry_runs]
    expected = [("none done", 300), ("99 % done", 3), ("all done", 0)]
    assert found == [*expected, ("none done, slow", 300), ("all done, slow", 0)]
    assert job["rows_of_job"] == 150
    assert whole["jobs"] == 2


def test_decoding_once_is_measured_beside_decoding_for_each(real_clips):
    command = [sys.executable, ROOT / "benchmarks" / "several.py"]
    command += ["--clips", real_clips["bikes"].parent]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rows = [line.split(" | ") for line in result.stdout.splitlines()[2:]]
    assert len(rows) == 2 * len(real_clips)
    assert all(min(map(float, row[2:4])) > 0 for row in rows)


def test_decoding_is_measured_beside_ffmpeg_alone(real_clips):
    command = [sys.executable, ROOT / "benchmarks" / "decoding.py", "--runs", "1"]
    result = subprocess.run([*command, real_clips["bikes"]], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = [line.partition(": ")[0] for line in result.stdout.splitlines()]
    ways = ["ffmpeg alone", "all decoded", "skip_unused", "skip_unused, short ones at once", "PyAV"]
    assert [line for line in found if line.removeprefix("bikes, ") in ways] == [
        f"bikes, {way}" for way in ways
    ]


def test_reading_is_measured_from_files_and_from_packs(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "packing.py", "--videos", 30, "--rows", 2]
    command += ["--folder", tmp_path, "--output", tmp_path / "bench"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    saved = json.loads((tmp_path / "bench" / "pack.json").read_text())["rows"]
    packing, reading = saved[:4], saved[4:]
    assert all(row["cpu_seconds"] > 0 for row in packing)
    found = [row["what"].removeprefix("reading, ") for row in reading]
    assert found == [".npy", ".npz", "hdf5", "webdataset"]
    assert all(min(row["disk"], row["memory"]) > 0 for row in reading)
    assert [path.name for path in tmp_path.iterdir()] == ["bench"]


def test_planning_of_a_bucket_is_measured_with_its_requests():
    for package in ("s3fs", "moto"):
        pytest.importorskip(package)
    command = [sys.executable, ROOT / "benchmarks" / "plan_buckets.py"]
    command += ["--rows", "1000", "--shares", "0", "0.99", "1"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    _, *told = result.stdout.splitlines()
    states = ["0 done, 1000 pending", "990 done, 10 pending", "1000 done, 0 pending"]
    assert [line.partition(" in ")[0] for line in told] == [f"1000 rows: {s}" for s in states]
    # A request for each of the videos and features would be 2,000.
    requests = [re.search(r"\{'GET': (\d+)\} requests", line) for line in told]
    assert all(match and int(match[1]) < 20 for match in requests)
