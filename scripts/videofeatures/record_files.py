"""Files of records: where their lines are kept, on a disk or in a bucket, whatever they mean.

A process writes a file of its own, to which nobody else writes. On a disk, a line is appended, and
handed to the operating system at once.

To an object, nothing can be appended: it is put anew, whole. So a process's file is in several
parts there, `<name>.000001.jsonl` and on. What is new is put with all that the last part holds;
when that is large, the next part begins. Each object grows at its end alone, and holds whole
lines. A put that had to be tried again may come to the storage late, when a longer one is there:
where that can be, the next part begins, too.

Puts cost time and money. So a line may wait: it is put with the next one that may not, or after
`FLUSH_SECONDS`, or at the end, also of a process that is asked to stop. A kill loses the lines that
wait: those after the last one that did not. `records` says what may not, and why that is enough.

A reader goes on from where it was, and takes a process's parts for the one file that they are,
wherever they were copied to.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from io import BytesIO
from itertools import groupby
from typing import NamedTuple, Protocol

from videofeatures.errors import UserError, VideoError
from videofeatures.remote import open_store
from videofeatures.results import place_in
from videofeatures.threaded import map_in_threads
from videofeatures.urls import is_url, scheme_of

PART_BYTES = 256 * 1024
"""Size from which on a part is followed by the next: some 160 rows of 1.6 kB. A put has half of it,
on average, which is sent while a request is answered, and a million rows are 6,250 objects, whose
names are 7 answers of S3."""

FLUSH_SECONDS = 2
"""How long a line waits. A process that a video brings down later than that, by its memory say, has
told of it: the next run gives the row a job of its own. A row has three lines at most that are
put by themselves, so that a million of them are no more than three million requests."""

STOP_SECONDS = 10
"""How long a process that is asked to stop waits for its last lines to be put."""

NUM_AHEAD = 64
"""Objects that are read at a time, in threads: 16 MB of lines."""

PART = re.compile(r"(?P<name>[^/]+?)(?:\.(?P<number>\d{6,}))?\.jsonl")


class RecordFile(Protocol):
    """A new file, which one process writes, by several threads."""

    def append(self, text: bytes, *, may_wait: bool) -> None:
        """Append a line; one that may not wait is kept when this returns.

        Raises:
            UserError: it cannot be written, or one before it could not.
        """

    def close(self, max_seconds: float | None = None) -> None:
        """Keep what waits, and end.

        Args:
            max_seconds: that this may take.

        Raises:
            UserError: a line could not be written.
        """


def records_place(results: str | os.PathLike) -> str:
    """Return the folder of the files of all processes."""
    return place_in(results, "records")


def create_record_file(results: str | os.PathLike, name: str) -> RecordFile:
    """Return a new file.

    Args:
        name: start of its name.

    Raises:
        UserError: nothing can be written there.
    """
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    path = f"{records_place(results)}/{name}-{stamp}-{secrets.token_hex(4)}"
    return _Parts(path) if is_url(path) else _File(f"{path}.jsonl")


def _unwritable(path: str, reason: str | None, advice: str) -> UserError:
    return UserError(
        f"{path}: records cannot be written: {reason}. The job ends here; what is done is "
        f"kept. {advice} or name another folder with `results`, and run again"
    )


class _File:
    """A file of a disk."""

    def __init__(self, path: str):
        self._path = path
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            self._file = open(path, "xb")  # noqa: SIM115 (see `close`)
        except OSError as error:
            raise self._unwritable(error) from None

    def append(self, text: bytes, *, may_wait: bool) -> None:
        """Hand it to the operating system at once: that costs nothing."""
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self, max_seconds: float | None = None) -> None:
        """End: nothing waits."""
        with contextlib.suppress(OSError):  # it has been said when it was written
            self._file.close()

    def _unwritable(self, error: OSError) -> UserError:
        return _unwritable(self._path, error.strerror, "Make room")


class _Parts:
    """A file in a bucket.

    A thread puts what is new. Who writes a line that may not wait waits for it: one who is
    interrupted meanwhile leaves no put that nobody knows the end of.
    """

    def __init__(self, url: str):
        self._url = url
        self._store = open_store(scheme_of(url))
        self._number = 1
        self._part = b""  # what is in the last part, as it is in the bucket
        self._waiting: list[bytes] = []
        self._num_written = self._num_kept = 0  # lines
        self._is_urgent = self._is_closed = False
        self._error: Exception | None = None
        self._changed = threading.Condition()
        # Whether something can be written here is known before there is something to lose.
        self._put(b"")
        self._thread = threading.Thread(target=self._put_what_is_new, daemon=True)
        self._thread.start()

    def append(self, text: bytes, *, may_wait: bool) -> None:
        """Append a line: see `RecordFile`."""
        with self._changed:
            self._raise_error()
            self._waiting.append(text)
            self._num_written += 1
            if may_wait:
                return
            number = self._num_written
            self._is_urgent = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._error or self._num_kept >= number)
            self._raise_error()

    def close(self, max_seconds: float | None = None) -> None:
        """Keep what waits, and end: see `RecordFile`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(max_seconds)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _put_what_is_new(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._is_urgent or self._is_closed, timeout=FLUSH_SECONDS
                )
                self._is_urgent = False
                lines, self._waiting = self._waiting, []
                if not lines and self._is_closed:
                    return
            if not lines:
                continue
            try:
                self._put(self._part + b"".join(lines))
            except Exception as error:  # nobody must wait for a thread that is gone
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._num_kept += len(lines)
                self._changed.notify_all()

    def _put(self, content: bytes) -> None:
        """Put the last part, and begin the next one, if it is time."""
        url = f"{self._url}.{self._number:06d}.jsonl"
        try:
            num_tries = self._store.put(url, content)
        except VideoError as error:
            raise _unwritable(url, error.reason, "Mend that,") from None
        self._part = content
        if len(content) >= PART_BYTES or num_tries > 1:
            self._number, self._part = self._number + 1, b""


class Part(NamedTuple):
    """A file, or one of the parts of one, as it was seen.

    Attributes:
        name: of the process's file, without a suffix.
        number: of the part; 0 of a file that has none.
        path: path or URL.
    """

    name: str
    number: int
    path: str
    size: int


ReadLines = Callable[[int], Iterator[bytes]]
"""Reads the lines of one of the parts that have something new, by its place among these."""


class RecordFiles(ABC):
    """The files of all processes in one place, each read on from where it was."""

    def __init__(self, folder: str, start: str):
        """
        Args:
            start: of the names of those that are read.
        """
        self._folder = folder
        self._start = start
        # Of each process's file, the last part that was read, and how many bytes of it.
        self._read_to: dict[str, tuple[int, int]] = {}

    def read(self) -> Iterator[tuple[str, Generator[bytes]]]:
        """Yield each file that has new lines, in the order of their names: its name, and those of
        its lines that are new. The last one may be in work, and then has no end.

        Take a file's lines before the next file.

        Raises:
            OSError: a file of a disk cannot be read; what has been read stays so.
            UserError: so can a bucket.
        """
        new = [
            one
            for _, parts in groupby(sorted(self._find()), key=lambda part: part.name)
            for one in self._new_of(list(parts))
        ]
        read_lines = self._open(new)
        numbered = enumerate(new)
        for name, group in groupby(numbered, key=lambda one: one[1][0].name):
            yield name, self._read(list(group), read_lines)

    def _new_of(self, parts: Sequence[Part]) -> list[tuple[Part, int]]:
        """Return the parts of a process's file that have something new, each with what is known of
        it, in bytes."""
        number, num_bytes = self._read_to.get(parts[0].name, (-1, 0))
        known = [(part, num_bytes) for part in parts if part.number == number]
        later = [(part, 0) for part in parts if part.number > number]
        # One that is followed by another may have grown since it was listed.
        return known + later if any(part.size > size for part, size in known + later) else []

    def _read(
        self, parts: Sequence[tuple[int, tuple[Part, int]]], read_lines: ReadLines
    ) -> Generator[bytes]:
        for place, (part, num_bytes) in parts:
            try:
                for text in read_lines(place):
                    if text.endswith(b"\n"):
                        num_bytes += len(text)
                    yield text
            finally:
                self._read_to[part.name] = part.number, num_bytes

    @abstractmethod
    def _find(self) -> Iterator[Part]:
        """Yield what is there."""

    @abstractmethod
    def _open(self, new: Sequence[tuple[Part, int]]) -> ReadLines:
        """Return what reads the lines of these, each behind so many bytes."""

    def _names_of(self, name: str) -> tuple[str, int] | None:
        """Return the name and the number of the part that a file is; None of others, and of those
        that are not asked for."""
        match = PART.fullmatch(name) if name.startswith(self._start) else None
        return (match["name"], int(match["number"] or 0)) if match else None


def find_record_files(results: str | os.PathLike, *, start: str = "") -> RecordFiles:
    """Return the files of all processes, of which nothing is read yet.

    Args:
        start: only those whose names start so.
    """
    folder = records_place(results)
    return _InBucket(folder, start) if is_url(folder) else _OnDisk(folder, start)


class _OnDisk(RecordFiles):
    def _find(self) -> Iterator[Part]:
        try:
            with os.scandir(self._folder) as entries:
                files = list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing has been recorded so far
        for entry in files:
            if (names := self._names_of(entry.name)) is not None:
                yield Part(*names, entry.path, entry.stat().st_size)

    def _open(self, new: Sequence[tuple[Part, int]]) -> ReadLines:
        def read_lines(place: int) -> Iterator[bytes]:
            part, num_bytes = new[place]
            with open(part.path, "rb") as file:
                file.seek(num_bytes)
                yield from file

        return read_lines


class _InBucket(RecordFiles):
    def _find(self) -> Iterator[Part]:
        store = open_store(scheme_of(self._folder))
        try:
            pages = store.list_pages(f"{self._folder}/", is_deep=False, start=self._start)
            for page in pages:
                for url, state in page:
                    name = url.rpartition("/")[2]
                    if (names := self._names_of(name)) is not None:
                        yield Part(*names, f"{self._folder}/{name}", state.st_size)
        except VideoError as error:
            raise unreadable(self._folder, error.reason) from None

    def _open(self, new: Sequence[tuple[Part, int]]) -> ReadLines:
        store = open_store(scheme_of(self._folder))
        ready: dict[int, bytes] = {}

        def read(one: tuple[Part, int]) -> bytes:
            part, num_bytes = one
            # From a byte before, which is there: behind the last one, there is nothing to ask for.
            start = max(num_bytes - 1, 0)
            try:
                return store.read(part.path, start)[num_bytes - start :]
            except VideoError as error:
                raise unreadable(part.path, error.reason) from None

        def read_lines(place: int) -> Iterator[bytes]:
            if place not in ready:
                ready.clear()
                some = new[place : place + NUM_AHEAD]
                ready.update(enumerate(map_in_threads(read, some), start=place))
            yield from BytesIO(ready.pop(place))

        return read_lines


def unreadable(path: str, reason: str) -> UserError:
    """Return what to say of records that cannot be read, in a file or a folder of them."""
    return UserError(
        f"{path}: the records cannot be read: {reason}. Without them, nobody knows what the "
        "feature files were made with. Make them readable for you, or name another folder with "
        "`results`"
    )
