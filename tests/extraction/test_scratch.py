"""Folders that are gone when their process is, however it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from conftest import ROOT, wait_for
from videofeatures.extraction.scratch import open_scratch, remove_scratch_of_killed

HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from videofeatures.extraction.scratch import open_scratch
with open_scratch(sys.argv[2]) as folder:
    (folder / "video").write_bytes(b"x")
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that has such a folder."""
    command = [sys.executable, "-c", HOLDER, str(ROOT / "scripts"), str(tmp_path)]
    process = subprocess.Popen(command)
    wait_for(lambda: list(tmp_path.glob("*/video")))
    yield process
    process.kill()
    process.wait()


def test_a_folder_is_gone_at_the_end(tmp_path):
    def fail() -> None:
        with open_scratch(str(tmp_path / "new")) as folder:
            (folder / "video").write_bytes(b"x")
            raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 (its own)
        fail()
    assert list((tmp_path / "new").iterdir()) == []


def test_that_of_a_living_process_stays(tmp_path, holder):
    with open_scratch(str(tmp_path)) as folder:
        assert len(list(tmp_path.glob("*/video"))) == 1
        assert folder.is_dir()
    assert len(list(tmp_path.glob("*/video"))) == 1


def test_that_of_a_killed_process_is_removed(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    (tmp_path / "another file").touch()
    remove_scratch_of_killed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["another file"]
