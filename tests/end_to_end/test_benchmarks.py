"""The benchmark works, in its smallest setting; its figures belong to no test."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from conftest import ROOT


def test_speed_compares_before_ours_and_the_limits(tmp_path, real_clips):
    command = [sys.executable, ROOT / "benchmarks" / "speed.py", "--sets", "tiny", "--kinds", "2d"]
    command += ["--no-cosines", "--clips", real_clips["bikes"].parent, "--output", tmp_path]
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
