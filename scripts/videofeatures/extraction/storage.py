"""Feature files: `.npy` and `.npz`, complete if they exist."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Sequence
from io import BufferedRandom
from typing import IO, Any

import numpy as np

from videofeatures.decoding.times import RowTimes
from videofeatures.files import replace_file


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
    """
    if len(features) != len(times.timestamps):
        raise ValueError(f"{len(features)} features and {len(times.timestamps)} timestamps")
    with replace_file(path, before=before) as file:
        if str(path).endswith(".npz"):
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
        file = np.load(path, allow_pickle=False)
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
