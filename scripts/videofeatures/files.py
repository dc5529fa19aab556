"""Feature files: `.npy` and `.npz`, complete if they exist."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedRandom, BufferedReader, TextIOWrapper
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np

FORGOTTEN_SECONDS = 3600
"""Age of a temporary file at which whoever wrote it is taken to be gone."""

HASH_DIGITS = 16
"""Of a file's SHA-256 that are kept, to tell it from another file of the same row."""


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
    """`replace_file` for text in UTF-8, whose line ends stay as they are written, as `csv` wants.

    Args:
        errors: what becomes of names that are not UTF-8, as for `open`.
    """
    with replace_file(path, tidy=tidy) as file:
        text = TextIOWrapper(file, encoding="utf-8", newline="", errors=errors)
        yield text
        text.flush()
        text.detach()


def hash_content(file: BufferedReader | BufferedRandom) -> str:
    """Start of the SHA-256 of a whole file that is open for reading."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]


def hash_file(path: str | os.PathLike) -> str | None:
    """Start of a file's SHA-256, or None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hash_content(file)
    except OSError:
        return None


def hidden_name(path: Path) -> str:
    """Start of the names of files that serve this one, however long its own name is."""
    digest = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:16]
    return f".{digest}"


def remove_temporary_files(folder: Path, start: str, *, before: float | None = None) -> None:
    """Remove what processes have left that were killed while they wrote a file.

    Args:
        start: the file's `hidden_name`.
        before: only files that were last written before this time, in seconds since the epoch.
    """
    with os.scandir(folder) as entries:
        found = [e for e in entries if e.name.startswith(start) and e.name.endswith(".part")]
    for entry in found:
        with contextlib.suppress(FileNotFoundError):
            if before is None or entry.stat().st_mtime < before:
                os.unlink(entry)


def write_features(
    path: str | os.PathLike,
    features: np.ndarray,
    timestamps: np.ndarray,
    provenance: dict[str, Any],
    *,
    before: Callable[[BufferedRandom], None] | None = None,
) -> None:
    """Write one video's features. A file that is there stays until the new one takes its place.

    Args:
        path: ends in `.npy` (the features alone) or `.npz` (`features`, `timestamps` and
            `provenance`, a JSON string; nothing in it is pickled).
        features: (rows, feature_dim).
        timestamps: (rows,), float64, seconds from the container's zero to the middle of
            what each row saw.
        provenance: what made the features, as JSON can hold it.
        before: see `replace_file`.
    """
    if len(features) != len(timestamps):
        raise ValueError(f"{len(features)} features and {len(timestamps)} timestamps")
    with replace_file(path, before=before) as file:
        if str(path).endswith(".npz"):
            np.savez(
                file,
                features=features,
                timestamps=timestamps,
                provenance=np.array(json.dumps(provenance)),
            )
        else:
            np.save(_OnlyWrites(file), features, allow_pickle=False)


def read_features(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    """Read what `write_features` wrote: (features, timestamps); an `.npy` has no timestamps.

    Raises:
        OSError, ValueError: there is no such file, or it is not one of ours.
    """
    file = np.load(path, allow_pickle=False)
    if isinstance(file, np.ndarray):
        return file, None
    with file:
        return file["features"], file["timestamps"]


class _OnlyWrites:
    """A file that NumPy does not know for one: it would write past Python, and then say nothing
    of why it could not."""

    def __init__(self, file: IO[bytes]):
        self.write = file.write
