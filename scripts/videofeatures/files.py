"""Files that take their place in one step, or not at all; their hashes, and what the disk knows."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TextIO

FORGOTTEN_SECONDS = 3600
"""Age of a temporary file at which the process that wrote it is taken to be gone."""

HASH_DIGITS = 16
"""Digits of a file's SHA-256 that are kept, to tell it from another file of the same row."""


@contextmanager
def replace_file(
    path: str | os.PathLike,
    *,
    tidy: bool = False,
    before: Callable[[BufferedRandom], None] | None = None,
) -> Iterator[BufferedRandom]:
    """Open a temporary file beside `path`, which takes its place when the block ends well.

    Folders are made. The name is short and its own, so that long names and two writers
    do no harm. Until the new file takes its place, in one step, `path` is as it was: also if
    the block or `before` raises, and then the temporary file is removed.

    Args:
        tidy: remove forgotten temporary files of earlier writers of `path`, too. That takes a
            look at the whole folder.
        before: called with the file, complete and on the disk, before it takes its place.

    Raises:
        OSError: the file cannot be written, or cannot take its place.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{hidden_name(path)}.{secrets.token_hex(4)}.part"
    try:
        with open(temporary, "x+b") as file:
            if tidy:  # by the clock of the disk
                now = os.fstat(file.fileno()).st_mtime
                remove_temporary_files(
                    path.parent, hidden_name(path), before=now - FORGOTTEN_SECONDS
                )
            yield file
            file.flush()
            os.fsync(file.fileno())
            if before:
                before(file)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def replace_text(
    path: str | os.PathLike, *, tidy: bool = False, errors: str = "strict"
) -> Iterator[TextIO]:
    """Open a file as `replace_file` does, for text in UTF-8; line ends stay as written, for `csv`.

    Args:
        errors: what becomes of names that are not UTF-8, as for `open`.
    """
    with replace_file(path, tidy=tidy) as file:
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


def remove_temporary_files(folder: Path, start: str, *, before: float | None = None) -> None:
    """Remove the temporary files of processes that were killed while they wrote a file.

    Args:
        start: the file's `hidden_name`.
        before: only files that were last written before this time, in seconds since the epoch.

    Raises:
        OSError: the folder cannot be read, or a file cannot be removed.
    """
    with os.scandir(folder) as entries:
        temporary = [e for e in entries if e.name.startswith(start) and e.name.endswith(".part")]
    for entry in temporary:
        with contextlib.suppress(FileNotFoundError):
            if before is None or entry.stat().st_mtime < before:
                os.unlink(entry)


def stat_or_none(path: str) -> os.stat_result | None:
    """Return the stat result of a file, or None if there is none that can be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None
