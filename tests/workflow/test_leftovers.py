"""A run's files are there as long as it lives, and no longer than until the next one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from videofeatures.extraction import claims as claims_module
from videofeatures.planning.jobs import Job, end_path, job_path, new_run_name, write_job
from videofeatures.settings import Settings
from videofeatures.workflow import leftovers
from videofeatures.workflow.leftovers import hold_run, remove_files_of_killed_runs

HOLD = """
import os, signal, sys
from videofeatures.workflow.leftovers import hold_run
with hold_run(sys.argv[1], sys.argv[2], 60):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(results: Path) -> str:
    """Files of a run of two jobs."""
    name = new_run_name()
    for number in (1, 2):
        write_job(Job(f"{name}_{number:04d}", Settings(), (), str(results), ()))
    end_path(results, f"{name}_0001").touch()
    return name


def kill(results: Path, name: str) -> None:
    """The claim that a killed run leaves."""
    command = [sys.executable, "-c", HOLD, str(results), name]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    assert subprocess.run(command, env=environment).returncode == -9


def left(results: Path) -> list[Path]:
    return sorted(job_path(results, "x").parent.iterdir())


def test_files_of_a_run_that_lives_are_kept(tmp_path):
    name = start(tmp_path)
    with hold_run(tmp_path, name, 60):
        before = left(tmp_path)
        assert len(before) == 4
        remove_files_of_killed_runs(tmp_path)
        assert left(tmp_path) == before
    assert len(left(tmp_path)) == 3


@pytest.mark.parametrize("has_claim", [True, False])
def test_files_of_a_run_that_was_killed_are_removed(tmp_path, has_claim):
    name, other = start(tmp_path), start(tmp_path)
    if has_claim:
        kill(tmp_path, name)
    with hold_run(tmp_path, other, 60):
        remove_files_of_killed_runs(tmp_path)
        assert {
            path.name.split("_000")[0] for path in left(tmp_path) if path.suffix == ".json"
        } == {other}
        assert len(left(tmp_path)) == 4
    remove_files_of_killed_runs(tmp_path)
    assert left(tmp_path) == []


def test_of_a_run_that_was_killed_before_it_wrote_anything_nothing_stays(tmp_path):
    kill(tmp_path, new_run_name())
    assert len(left(tmp_path)) == 1
    remove_files_of_killed_runs(tmp_path)
    assert left(tmp_path) == []


def test_a_run_on_another_machine_is_gone_when_its_claim_is_a_day_old(tmp_path, monkeypatch):
    name = start(tmp_path)
    kill(tmp_path, name)
    monkeypatch.setattr(claims_module, "_machine", lambda: "another machine")
    remove_files_of_killed_runs(tmp_path)
    assert len(left(tmp_path)) == 4
    (claim,) = (path for path in left(tmp_path) if path.suffix == ".claim")
    seconds = claim.stat().st_mtime - leftovers.FORGOTTEN_SECONDS - 1
    os.utime(claim, (seconds, seconds))
    remove_files_of_killed_runs(tmp_path)
    assert left(tmp_path) == []


def test_other_files_are_left_alone_and_no_folder_is_no_problem(tmp_path):
    remove_files_of_killed_runs(tmp_path)
    start(tmp_path)
    mine = job_path(tmp_path, "x").parent / "notes.txt"
    mine.touch()
    remove_files_of_killed_runs(tmp_path)
    assert left(tmp_path) == [mine]
