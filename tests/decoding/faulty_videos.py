"""Videos that are a nuisance to libav, and the processes that have to do with it."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest

from conftest import make_clip, wait_for

# What Python imports first, in a worker, too: some files are a nuisance to libav from then on.
FAULTS = """
import os, signal, sys, time
if "videofeatures.decoding.worker" in sys.orig_argv:
    import av
    open_file = av.open
    def faulty(url, *args, **options):
        name = os.path.basename(url)
        if name == "crash.mp4":
            os.write(2, b"last words\\n")
            os.kill(os.getpid(), signal.SIGSEGV)
        if name == "abort.mp4":
            raise RuntimeError("nobody has thought of this")
        if name == "killed.mp4":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "disk.mp4":
            raise OSError(116, "Stale file handle")
        if name == "greedy.mp4":
            return bytearray(1 << 40)
        if name == "hang.mp4":
            time.sleep(1000)
        if name == "chatty.mp4":
            print("to whom it may concern")
            os.write(1, b"and to whom it may not")
        return open_file(url, *args, **options)
    av.open = faulty
"""


def make_faulty_videos(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Make files by what becomes of them; `other` is 3 s long, and all others are 2 s.

    No worker is left of the tests before.
    """
    gc.collect()  # pools that nobody closed end theirs with themselves
    wait_for(lambda: not workers())
    faults = folder / "faults"
    faults.mkdir()
    (faults / "sitecustomize.py").write_text(FAULTS)
    monkeypatch.setenv("PYTHONPATH", str(faults))
    good = make_clip(folder / "good.mp4", size="64x48")
    make_clip(folder / "other.mp4", seconds=3, size="64x48")
    for name in ("crash", "abort", "hang", "chatty", "killed", "disk", "greedy"):
        (folder / f"{name}.mp4").write_bytes(good.read_bytes())
    return {path.stem: str(path) for path in folder.glob("*.mp4")}


def workers(pid: int | None = None) -> list[psutil.Process]:
    """The workers of a process that runs, or of this one."""
    return [child for child in psutil.Process(pid).children(recursive=True) if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "videofeatures.decoding.worker" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it has just ended
        return False


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
