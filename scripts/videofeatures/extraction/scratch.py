"""A folder for what a process needs for a while, gone when it ends, however it ends.

Beside the folder is a file that the process has locked. What others find without a lock was that of
a process that was killed: the next one removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "videofeatures-"
LOCK_SUFFIX = ".lock"


def scratch_root(folder: str | None) -> Path:
    """Return the folder that is named by the key `scratch`, or the system's."""
    return Path(folder or tempfile.gettempdir())


@contextmanager
def open_scratch(folder: str | None) -> Iterator[Path]:
    """Make a folder below one, and remove it at the end, with all that is in it.

    Folders of processes that were killed are removed first.

    Args:
        folder: None for the system's.

    Raises:
        OSError: none can be made there, or it has no locks.
    """
    root = scratch_root(folder)
    root.mkdir(parents=True, exist_ok=True)
    remove_scratch_of_killed(root)
    lock, path = _make(root)
    try:
        yield path
    finally:
        _remove(path)
        os.close(lock)


def remove_scratch_of_killed(root: Path) -> None:
    """Remove the folders of processes of this machine that were killed, as far as that can be."""
    for lock_path in root.glob(f"{PREFIX}*{LOCK_SUFFIX}"):
        with contextlib.suppress(OSError):  # somebody else's, or gone by now
            lock = os.open(lock_path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock_path.with_suffix(""))
            finally:
                os.close(lock)


def _make(root: Path) -> tuple[int, Path]:
    """Return a lock that is held, and a new folder."""
    while True:
        path = root / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        lock_path = path.with_suffix(LOCK_SUFFIX)
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who looked at it before it was locked has taken it for one that was left.
            if os.path.exists(lock_path):
                path.mkdir(mode=0o700)
                return lock, path
        os.close(lock)


def _remove(path: Path) -> None:
    """Remove a folder, and then its lock."""
    shutil.rmtree(path, ignore_errors=True)
    path.with_suffix(LOCK_SUFFIX).unlink(missing_ok=True)
