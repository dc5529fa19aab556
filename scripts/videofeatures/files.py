"""Files that take their place in one step, or not at all; their hashes, and what the disk knows."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TextIO

FORGOTTEN_SECONDS = 3600
"""Age of a temporary file at which the process that wrote it is taken to be gone, on a disk that
has no locks."""

HASH_DIGITS = 16
"""Digits of a file's SHA-256 that are kept, to tell it from another file of the same row."""


@contextmanager
def replace_file(
    path: str | os.PathLike,
    *,
    tidy: bool = False,
    keep_same: bool = False,
    before: Callable[[BufferedRandom], None] | None = None,
) -> Iterator[BufferedRandom]:
    """Open a temporary file beside `path`, which takes its place when the block ends well.

    Folders are made. The name is short and its own, so that long names and two writers
    do no harm. Until the new file takes its place, in one step, `path` is as it was: also if
    the block or `before` raises, and then the temporary file is removed.

    Args:
        tidy: remove temporary files that killed writers of `path` have left, too. That takes a
            look at the whole folder. All its writers must do so: they lock theirs.
        keep_same: leave a file alone that is there and has the same content.
        before: called with the file, complete and on the disk, before it takes its place.

    Raises:
        OSError: the file cannot be written, or cannot take its place.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{hidden_name(path)}.{secrets.token_hex(4)}.part"
    try:
        with open(temporary, "x+b") as file:
            if tidy:
                with contextlib.suppress(OSError):  # the disk has no locks
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                now = os.fstat(file.fileno()).st_mtime  # by the clock of the disk
                remove_temporary_files(
                    path.parent, hidden_name(path), abandoned_before=now - FORGOTTEN_SECONDS
                )
            yield file
            file.flush()
            os.fsync(file.fileno())
            if before:
                before(file)
            is_same = keep_same and hash_content(file) == hash_file(path)
        if is_same:
            temporary.unlink()
        else:
            os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, temporary, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise


@contextmanager
def replace_text(
    path: str | os.PathLike,
    *,
    tidy: bool = False,
    keep_same: bool = False,
    errors: str = "strict",
) -> Iterator[TextIO]:
    """Open a file as `replace_file` does, for text in UTF-8; line ends stay as written, for `csv`.

    Args:
        errors: what becomes of names that are not UTF-8, as for `open`.
    """
    with replace_file(path, tidy=tidy, keep_same=keep_same) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="", errors=errors)
        yield text
        text.flush()
        text.detach()


def hash_content(file: BufferedReader | BufferedRandom) -> str:
    """Return the first `HASH_DIGITS` of the SHA-256 of a whole file that is open for reading.

    Raises:
        OSError: it cannot be read.
    """
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]


def hash_file(path: str | os.PathLike) -> str | None:
    """Return the first `HASH_DIGITS` of a file's SHA-256, or None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hash_content(file)
    except OSError:
        return None


def hidden_name(path: Path) -> str:
    """Return the start of the names of files that serve this one, however long its own name is."""
    digest = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:16]
    return f".{digest}"


def remove_temporary_files(
    folder: Path, start: str, *, abandoned_before: float | None = None
) -> None:
    """Remove the temporary files of processes that were killed while they wrote a file.

    Args:
        start: the file's `hidden_name`.
        abandoned_before: only files that no living process has locked; on a disk that has no
            locks, those that were last written before this time, in seconds since the epoch.

    Raises:
        OSError: the folder cannot be read, or a file cannot be removed.
    """
    with os.scandir(folder) as entries:
        temporary = [e for e in entries if e.name.startswith(start) and e.name.endswith(".part")]
    for entry in temporary:
        with contextlib.suppress(FileNotFoundError):
            if abandoned_before is None or _is_abandoned(entry, abandoned_before):
                os.unlink(entry)


def _is_abandoned(entry: os.DirEntry[str], before: float) -> bool:
    try:
        with open(entry, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except FileNotFoundError:
        raise
    except OSError:  # no locks here, or another user's file
        return entry.stat().st_mtime < before


def stat_or_none(path: str) -> os.stat_result | None:
    """Return the stat result of a file, or None if there is none that can be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None


def text_cell(text: str | None) -> str:
    """Return a text for people as a cell of a CSV, which no spreadsheet takes for a formula."""
    text = text or ""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def path_problem(path: str) -> str | None:
    """Return what is wrong with the text of a path that somebody wrote, or None.

    White space at an end is a slip that nobody sees, and makes a folder named " "; `~` is a
    shell's, and makes one named `~`.
    """
    if not path.strip():
        return "is empty"
    if path != path.strip():
        return f"{path!r} begins or ends with white space. Remove it, in a file's own name, too"
    if path[0] == "~":
        return (
            f"{path!r} begins with `~`, which only a shell expands. Write the whole path of the "
            "folder, or ./~ for a name that begins so"
        )
    if "\0" in path:
        return f"{path!r} holds a NUL character, which no path can"
    return None
