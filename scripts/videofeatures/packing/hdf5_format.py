"""HDF5, by h5py: a group for each sample.

    f["videos/a.mp4"].attrs["provenance"]  # JSON
    f["videos/a.mp4/features"]             # as in the feature file
    f["videos/a.mp4/times"]                # (rows, 3): start, middle, end, in seconds

Where there are several recipes, `features` and `times` are in a group of its name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from typing import Any

from videofeatures.packing.pack_format import DamagedError, PackFormat
from videofeatures.packing.sample import Part, Sample

PROVENANCE = "provenance"
VERSIONS = ("v108", "latest")
"""Files are those of HDF5 1.8, of 2008, whose groups hold a million members well: no later version
has what is needed here."""

COPY_BYTES = 1 << 24
"""Read and written at a time."""


class Hdf5Format(PackFormat):
    package = "h5py"
    suffix = ".h5"

    def write(self, file: BufferedRandom, samples: Iterable[Sample]) -> None:
        with self._open_new(file, "w") as (pack, output):
            for sample in samples:
                if output.error is not None:
                    break
                group = pack.create_group(sample.key)
                group.attrs[PROVENANCE] = sample.provenance
                for part in sample.parts:
                    inner = group if len(sample.parts) == 1 else group.create_group(part.name)
                    for name, array in part.arrays.items():
                        inner.create_dataset(name, data=array)

    @contextmanager
    def _open_new(self, file: BufferedRandom, mode: str) -> Iterator[tuple[Any, _Output]]:
        output = _Output(file)
        try:
            with self._library.File(output, mode, libver=VERSIONS) as pack:
                yield pack, output
        finally:
            if output.error is not None:
                raise output.error  # whatever HDF5 makes of it

    def read(self, path: Path) -> Iterator[Sample]:
        for key, group in self._groups(path):
            yield self._sample(key, group)

    def _sample(self, key: str, group: Any) -> Sample:
        provenance = group.attrs[PROVENANCE]
        names = json.loads(provenance)["features"]
        parts = []
        for name in names:
            inner = group if len(names) == 1 else group[name]
            times = inner["times"][()] if "times" in inner else None
            parts.append(Part(name, inner["features"][()], times))
        return Sample(key, tuple(parts), provenance)

    def merge(self, path: Path, parts: Sequence[Path], file: BufferedRandom) -> None:
        """Write the samples of some files to a new one.

        Args:
            path: of the first one, if there is one; those that others have, too, are left out.
            parts: of the others.
        """
        if path.exists():
            with open(path, "rb") as base:
                shutil.copyfileobj(base, file, COPY_BYTES)
            file.flush()
        with self._open_new(file, "r+" if path.exists() else "w") as (pack, output):
            for part in parts:
                for key, group in self._groups(part):
                    if output.error is not None:
                        break
                    if key in pack:
                        del pack[key]
                    pack.copy(group, pack, name=key)

    def read_provenance(self, path: Path) -> Iterator[tuple[str, str]]:
        for key, group in self._groups(path):
            yield key, group.attrs[PROVENANCE]

    def _groups(self, path: Path) -> Iterator[tuple[str, Any]]:
        try:
            with self._library.File(path, "r", locking=False) as pack:
                yield from self._walk(pack, "")
        except (OSError, RuntimeError, LookupError, ValueError) as error:
            raise DamagedError(error) from None

    def _walk(self, group: Any, start: str) -> Iterator[tuple[str, Any]]:
        for name, inner in group.items():
            if not isinstance(inner, self._library.Group):
                raise KeyError(f"{start}{name} is no group of a sample")
            if PROVENANCE in inner.attrs:
                yield start + name, inner
            else:
                yield from self._walk(inner, f"{start}{name}/")


class _Output:
    """A file that is given up when it could not be written once. HDF5 knows nothing of it, as it
    would go on trying, and complain on stderr where nobody can help it."""

    def __init__(self, file: BufferedRandom):
        self._file = file
        self.error: OSError | None = None
        self.read, self.readinto = file.read, file.readinto

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(lambda: self._file.seek(offset, whence))  # may write what waits

    def tell(self) -> int:
        return self._try(self._file.tell)

    def write(self, content: bytes) -> int:
        return self._try(lambda: self._file.write(content))

    def truncate(self, size: int) -> int:
        return self._try(lambda: self._file.truncate(size))

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, do: Callable[[], Any]) -> Any:
        """Return what `do` does, until it cannot; then 0."""
        if self.error is None:
            try:
                return do()
            except OSError as error:
                self.error = error
        return 0
