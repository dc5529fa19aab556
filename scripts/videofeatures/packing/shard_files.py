"""Files of samples that are complete or not there, and how many of them an output is."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Container, Iterator
from io import BufferedRandom
from pathlib import Path

from videofeatures.errors import UserError
from videofeatures.files import hidden_name, replace_file
from videofeatures.packing.pack_format import DamagedError, PackFormat
from videofeatures.packing.sample import Sample

NUMBER = re.compile(r"%0?(\d*)d")
"""What stands in a name for the number of a shard, as Python and webdataset have it."""

MAX_SAMPLES = 10_000
"""Of one shard: a kill costs what was written of one."""


class Shards:
    """The files `folder/start%06dend`, in their order.

    Args:
        pattern: their paths, with one `%06d` in the name.
    """

    def __init__(self, pattern: str):
        folder, name = os.path.split(pattern)
        (found,) = NUMBER.finditer(name)
        self._folder = Path(folder)
        self._start, self._end = name[: found.start()], name[found.end() :]
        self._width = int(found[1] or 0)

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._start}{number:0{self._width}d}{self._end}"

    def _numbers(self) -> list[int]:
        named = re.compile(re.escape(self._start) + r"(\d+)" + re.escape(self._end))
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        found = (named.fullmatch(name) for name in names)
        numbers = {int(match[1]) for match in found if match}
        return sorted(number for number in numbers if self._path(number).exists())

    def paths(self) -> list[Path]:
        """Return those that are there."""
        return [self._path(number) for number in self._numbers()]

    def next_path(self) -> Path:
        """Return that of one more."""
        return self._path(max(self._numbers(), default=-1) + 1)


def find_number(output: str) -> bool:
    """Return whether an output is of many files: whether the number of one stands in its name.

    Raises:
        UserError: it stands in the name of a folder, or twice.
    """
    folder, name = os.path.split(output)
    if NUMBER.search(folder) or len(NUMBER.findall(name)) > 1:
        raise UserError(f"output: {output}: let %06d stand once, in the name of the file")
    return bool(NUMBER.search(name))


def write_shard(pack_format: PackFormat, path: Path, samples: Iterator[Sample]) -> int:
    """Write samples to a new file, and read them again before it takes its place.

    Returns:
        How many there are.

    Raises:
        UserError: it cannot be written, or what was written is not what is read.
    """
    num_samples = 0

    def counted() -> Iterator[Sample]:
        nonlocal num_samples
        for sample in samples:
            num_samples += 1
            yield sample

    replace_pack(
        path,
        lambda file: pack_format.write(file, counted()),
        lambda written: verify(pack_format, written, num_samples),
    )
    return num_samples


def rewrite_shard(pack_format: PackFormat, path: Path, without: Container[str], left: int) -> None:
    """Leave the samples with some keys out of a file.

    Args:
        left: samples that are to stay; a file without any is removed.

    Raises:
        UserError: as `write_shard`.
    """
    if left:
        replace_pack(
            path,
            lambda file: pack_format.copy(path, file, without),
            lambda written: verify(pack_format, written, left),
        )
    else:
        path.unlink()


def replace_pack(
    path: Path, write: Callable[[BufferedRandom], None], check: Callable[[Path], None]
) -> None:
    """Write a file that takes its place when it has been read again.

    Args:
        write: takes the new file, open and empty.
        check: takes the path of the complete one; raises where it is not as it should be.

    Raises:
        UserError: it cannot be written.
    """

    def before(file: BufferedRandom) -> None:
        # What is read then comes from the disk, not from memory.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        check(Path(file.name))

    try:
        with replace_file(path, tidy=True, before=before) as file:
            write(file)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be written: {reason}. What is complete is kept") from None


def verify(pack_format: PackFormat, path: Path, num_samples: int) -> None:
    """Read a file to its end, and compare all of it with what its samples were made of.

    Raises:
        UserError: a sample is missing, or is not as it was.
    """
    num_found, fault = 0, ""
    try:
        for sample in pack_format.read(path):
            if sample.fault:
                fault = f"{sample.key}: {sample.fault}"
                break
            num_found += 1
    except DamagedError as error:
        fault = str(error)
    if not fault and num_found != num_samples:
        fault = f"{num_found} samples of {num_samples}"
    if fault:
        raise UserError(
            f"{path.parent}: what was read of a file that was written there is not what was "
            f"written: {fault}. Look at the disk, and try again"
        )


def cut_into_shards(samples: Iterator[Sample], max_bytes: int) -> Iterator[Iterator[Sample]]:
    """Yield the samples of one file after another; take all of one before the next.

    Args:
        max_bytes: of the arrays of one; a sample that is larger has one of its own.
    """
    waiting = next(samples, None)

    def of_one() -> Iterator[Sample]:
        nonlocal waiting
        num_bytes = num_samples = 0
        while waiting is not None:
            num_bytes += waiting.num_bytes
            num_samples += 1
            if num_samples > 1 and (num_bytes > max_bytes or num_samples > MAX_SAMPLES):
                return
            sample, waiting = waiting, None
            yield sample
            waiting = next(samples, None)

    while waiting is not None:
        yield of_one()


@contextlib.contextmanager
def locked(output: Path) -> Iterator[None]:
    """Keep other processes of this machine from writing the same output.

    Raises:
        UserError: another one does.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    path = output.parent / f"{hidden_name(output)}.lock"
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.fstat(file.fileno()).st_nlink > 0  # nobody has ended meanwhile
        except BlockingIOError:
            is_ours = False
        except OSError:
            is_ours = True  # the disk has no locks
        if not is_ours:
            raise UserError(f"{output}: another process is packing it. Wait for its end")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
