"""What a format of a pack is: how samples are written to a file, and read again."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

from videofeatures.errors import UserError
from videofeatures.packing.sample import Sample


class DamagedError(Exception):
    """A file cannot be read as samples of its format. Says why, in a phrase for people."""


class PackFormat(ABC):
    """A format, by its own library.

    Attributes:
        package: the library.
        suffix: of its files.

    Raises:
        UserError: the library is not installed.
    """

    package: str
    suffix: str

    def __init__(self) -> None:
        try:
            self._library: Any = importlib.import_module(self.package)
        except ModuleNotFoundError:
            raise UserError(
                f"{self.package} is not installed. Type make env-pack, or, in another environment, "
                "python -m pip install --constraint envs/constraints.txt --requirement "
                "envs/requirements-pack.txt"
            ) from None

    @abstractmethod
    def write(self, file: BufferedRandom, samples: Iterable[Sample]) -> None:
        """Write samples to a new file, which is open and empty."""

    @abstractmethod
    def read(self, path: Path) -> Iterator[Sample]:
        """Yield all samples of a file.

        Raises:
            DamagedError: it is no such file, or not whole.
        """

    @abstractmethod
    def read_provenance(self, path: Path) -> Iterator[tuple[str, str]]:
        """Yield the key and the provenance of all samples of a file, without their features.

        Raises:
            DamagedError: it is no such file, or not whole.
        """

    def copy(self, path: Path, file: BufferedRandom, without: Container[str]) -> None:
        """Write the samples of a file, but for those with some keys, to a new file."""
        self.write(file, (sample for sample in self.read(path) if sample.key not in without))
