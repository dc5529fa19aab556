"""Feature files: `.npy` and `.npz`, complete if they exist."""

from __future__ import annotations

import json
import os
import secrets
import zipfile
from collections.abc import Callable, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any

import numpy as np

from videofeatures.decoding.times import RowTimes
from videofeatures.files import replace_file
from videofeatures.remote import open_file


def write_features(
    path: str | os.PathLike,
    features: np.ndarray,
    times: RowTimes,
    provenance: dict[str, Any],
    *,
    before: Callable[[BufferedRandom], None] | None = None,
) -> None:
    """Write one video's features. A file that is there stays until the new one takes its place.

    Args:
        path: ends in `.npy` (the features alone) or `.npz` (`features`, the fields of `RowTimes`,
            and `provenance`, a JSON string; nothing in it is pickled).
        features: (rows, feature_dim).
        times: when each row is of.
        provenance: what made the features, as JSON can hold it.
        before: see `replace_file`.

    Raises:
        OSError: it cannot be written.
    """
    with replace_file(path, before=before) as file:
        _write(file, str(path), features, times, provenance)


def prepare_object(
    folder: Path,
    url: str,
    features: np.ndarray,
    times: RowTimes,
    provenance: dict[str, Any],
    *,
    before: Callable[[BufferedRandom], None],
) -> Path:
    """Write the content of an object, whose URL ends as `write_features` has it, to a new file, for
    one upload; return its path.

    Args:
        before: takes the file when it is complete.

    Raises:
        OSError: it cannot be written; nothing is left.
    """
    path = folder / f"{secrets.token_hex(8)}.part"
    try:
        with open(path, "x+b") as file:
            _write(file, url, features, times, provenance)
            file.flush()
            before(file)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _write(
    file: BufferedRandom,
    path: str,
    features: np.ndarray,
    times: RowTimes,
    provenance: dict[str, Any],
) -> None:
    if len(features) != len(times.timestamps):
        raise ValueError(f"{len(features)} features and {len(times.timestamps)} timestamps")
    if path.endswith(".npz"):
        np.savez(
            file,
            features=features,
            **times._asdict(),
            provenance=np.array(json.dumps(provenance)),
        )
    else:
        np.save(_OnlyWrites(file), features, allow_pickle=False)


def read_features(path: str | os.PathLike) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what `write_features` wrote: (features, timestamps); an `.npy` has no timestamps.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: it is not one of ours, or is not whole.
        VideoError: it is in a bucket, and cannot be read.
    """
    features, times = _read(path, ("timestamps",))
    return features, times[0] if times else None


def read_row_times(path: str | os.PathLike) -> RowTimes | None:
    """Return when each row of a feature file is of; None of an `.npy`, which does not say it.

    Raises:
        OSError, ValueError: as `read_features`; an `.npz` of version 0.4.0 has its timestamps only.
    """
    _, times = _read(path, RowTimes._fields)
    return RowTimes(*times) if times else None


def _read(
    path: str | os.PathLike, names: Sequence[str]
) -> tuple[np.ndarray, list[np.ndarray] | None]:
    """Return the features, and the arrays of these names; None of an `.npy`."""
    try:
        with open_file(str(path)) as content:
            file = np.load(content, allow_pickle=False)
            if isinstance(file, np.ndarray):
                return file, None
            with file:
                return file["features"], [file[name] for name in names]
    except (EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: is not a feature file: {error}") from None


class _OnlyWrites:
    """A file that NumPy does not know for one: it would write past Python, and then say nothing
    of why it could not."""

    def __init__(self, file: IO[bytes]):
        self.write = file.write
