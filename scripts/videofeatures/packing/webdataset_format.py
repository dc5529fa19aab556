"""WebDataset, by webdataset: a tar of samples that are read one after another.

    videos/a%2Emp4.features.npy  # as in the feature file
    videos/a%2Emp4.times.npy     # (rows, 3): start, middle, end, in seconds
    videos/a%2Emp4.json          # provenance

Where there are several recipes, `features` and `times` have its name and a point in front, in lower
case, as webdataset reads the names of members so.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from videofeatures.packing.keys import tar_name
from videofeatures.packing.pack_format import DamagedError, PackFormat
from videofeatures.packing.sample import Part, Sample

END_BYTES = 2 * tarfile.BLOCKSIZE
"""Zeros at the end of a tar; with more of them, its length is that of whole records."""


class WebdatasetFormat(PackFormat):
    package = "webdataset"
    suffix = ".tar"

    def write(self, file: BufferedRandom, samples: Iterable[Sample]) -> None:
        # PAX: names of any length, and in UTF-8 whatever the locale of who reads them.
        with self._library.TarWriter(
            file, encoder=False, compress=False, mtime=0, format="PAX_FORMAT"
        ) as writer:
            for sample in samples:
                members = {
                    start + f"{name}.npy": _npy(array)
                    for start, part in zip(_starts(sample), sample.parts, strict=True)
                    for name, array in part.arrays.items()
                }
                writer.write(
                    {"__key__": tar_name(sample.key), "json": sample.provenance.encode(), **members}
                )

    def read(self, path: Path) -> Iterator[Sample]:
        from webdataset import tariterators

        try:
            with open(path, "rb") as file:
                _check_end(file)
                members = tariterators.tar_file_expander([{"url": str(path), "stream": file}])
                for found in tariterators.group_by_keys(members):
                    yield _sample(found)
        except (OSError, LookupError, ValueError, tarfile.TarError) as error:
            raise DamagedError(error) from None

    def read_provenance(self, path: Path) -> Iterator[tuple[str, str]]:
        # Features are leapt over: webdataset reads all, as from a pipe.
        try:
            with open(path, "rb") as content, tarfile.open(fileobj=content, mode="r:") as tar:
                _check_end(content)
                for member in tar:
                    file = tar.extractfile(member) if member.name.endswith(".json") else None
                    if file is not None:
                        provenance = file.read().decode()
                        yield json.loads(provenance)["key"], provenance
        except (OSError, LookupError, ValueError, tarfile.TarError) as error:
            raise DamagedError(error) from None


def _check_end(file: BufferedReader) -> None:
    """Check that a tar is there to its end: where it is cut before a member, tarfile and webdataset
    take what is left for the whole.

    Raises:
        ValueError: it is not.
    """
    position = file.tell()
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(max(num_bytes - END_BYTES, 0))
    is_whole = num_bytes % tarfile.RECORDSIZE == 0 and file.read() == bytes(END_BYTES)
    file.seek(position)
    if not is_whole:
        raise ValueError("its end is missing")


def _starts(sample: Sample) -> list[str]:
    """Return what stands in front of the names of each part's members."""
    return [f"{part.name.lower()}." if len(sample.parts) > 1 else "" for part in sample.parts]


def _sample(members: dict[str, Any]) -> Sample:
    """Return the sample that webdataset has found."""
    provenance = members["json"].decode()
    known = json.loads(provenance)
    names = list(known["features"])
    parts = []
    for name in names:
        start = f"{name.lower()}." if len(names) > 1 else ""
        times = members.get(f"{start}times.npy")
        features = _array(members[f"{start}features.npy"])
        parts.append(Part(name, features, None if times is None else _array(times)))
    if members["__key__"] != tar_name(known["key"]):
        raise ValueError(f"{members['__key__']} is not the sample {known['key']}")
    return Sample(known["key"], tuple(parts), provenance)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _array(content: bytes) -> np.ndarray:
    return np.load(io.BytesIO(content), allow_pickle=False)
