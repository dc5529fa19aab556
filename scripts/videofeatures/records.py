"""The book of what happened: one line of JSON for each thing that happened to a row.

Each process writes a file of its own in `<results>/records`. `started` says that a row is being
worked on, `failed` that it has failed; neither changes the feature file. `done` says that a new
file, of which it has the hash, takes its place now: it is written, and kept, just before the
rename. Whoever wrote another line after it was not killed in between, and no other thread writes
one there: so only the last line of a record file, or one before `stopped`, can tell of a feature
file that never came to its place; that file is told by its hash. So what the feature file on the
disk was made with is known whatever was killed when, and nothing depends on its mtime, which
Snakemake changes.

An object takes its place by an upload, which takes a while, and other threads write lines
meanwhile. So of a feature file in a bucket, `placed` says that it is there: without this line,
its hash tells.

A kill costs the last lines of a file: on a disk half a line at most, in a bucket (see
`record_files`) those of some seconds, back to the last `done`, which is kept before anything
depends on it. What is left is as if the process had been killed earlier, behind that `done`, with
its file in place or not: no line that is lost has changed a feature file. A lost `failed` or
`elsewhere` would have taken that `done` back, a lost `placed` would have borne it out: the hash
tells. With a lost `started`, nobody knows that the row was in work, and the next run gives it no
job of its own; with a lost `failed`, that it has failed, and it is tried again whatever
`retry_failed` says; with a lost `stopped` or `end`, rows that were in work count as those of a
killed process.

Nor does anything depend on clocks that agree. A run has a number, greater than that of all runs
whose records it has read when it was planned: of two lines, the later one is that of the greater
number. Where the clocks do not say the same, the hash of the file decides.

What is pending, the manifest, the progress of a run and the report are views of these lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from types import NoneType
from typing import Any, Literal, NamedTuple, Required, TypedDict, cast

from videofeatures.errors import UserError
from videofeatures.files import hash_file
from videofeatures.record_files import (
    STOP_SECONDS,
    create_record_file,
    find_record_files,
    records_place,
    unreadable,
)
from videofeatures.remote import hash_object
from videofeatures.source import Source
from videofeatures.urls import is_url

RowStatus = Literal["started", "done", "failed"]


class RowFacts(TypedDict, total=False):
    """What is said of one attempt at one feature file.

    Attributes:
        video_path: without what is secret in a URL.
        video_etag: what a bucket or a server says changes with the video; left out on disks.
        stale: of `started` and `failed`: whether a feature file was there before.
        duration_seconds: of the video, or of the part, as its header says.
        start_seconds, end_seconds: of the part of the video, where it is one.
        seconds: that the row took; in decoding and in the network, of these.
        mean_norm: of its features, before they were divided by their norms.
        num_together: feature files that were made in one decoding of the video, this one included,
            where they are several; each has its part of `decode_seconds`.
        ffmpeg_lines: what ffmpeg had to say, though it gave frames.
        damaged_share: part of the frames that ffmpeg decoded which are damaged; null if it does
            not say.
        reason: why it failed, or what is wrong with it though it is done.
        is_machine: of `failed`: the machine failed, not the video.
        decoded_on: `cpu`, or the kind of a device; left out where none was asked for.
        fallback: why it was the CPU, though a device was asked for.
    """

    video_path: str
    start_seconds: float
    end_seconds: float
    video_size: int | None
    video_mtime_ns: int | None
    video_etag: str
    digest: str
    weights: str | None
    stale: bool
    reason: str
    is_machine: bool
    ffmpeg_lines: list[str]
    damaged_share: float | None
    file_hash: str
    num_features: int
    feature_dim: int
    mean_norm: float
    num_frames: int
    duration_seconds: float | None
    average_fps: float | None
    width: int
    height: int
    codec: str
    seconds: float
    decode_seconds: float
    compute_seconds: float
    num_together: int
    decoded_on: str
    fallback: str


class RowLine(RowFacts):
    """A line about a row."""

    time: float
    status: RowStatus
    feature_path: str


class ProcessLine(TypedDict, total=False):
    """What a process works with: its first line, and one for each further recipe."""

    time: Required[float]
    status: Required[Literal["process"]]
    run_number: int
    program: str
    settings: Required[dict[str, Any]]
    digest: Required[str]
    weights: str | None
    cuda_visible_devices: str | None
    host: str
    torch: str


class DeviceLine(TypedDict):
    """What it computes on, as soon as its networks are loaded, and decodes with."""

    time: float
    status: Literal["device"]
    dtype: str
    device: str
    device_uuid: str | None
    ffmpeg: str


class WorkingLine(TypedDict):
    """How much of a video has been decoded, of one that takes minutes.

    Attributes:
        share: from 0 to 1.
    """

    time: float
    status: Literal["working"]
    feature_path: str
    share: float


class ElsewhereLine(TypedDict, total=False):
    """Rows that others did, so that this process need not.

    Attributes:
        feature_path: of one that was written elsewhere while this process was about to, too: the
            `done` before it is not true.
    """

    time: Required[float]
    status: Required[Literal["elsewhere"]]
    num_rows: Required[int]
    feature_path: str


class PlacedLine(TypedDict):
    """The feature file of the last `done` of a row has taken its place; of those in buckets."""

    time: float
    status: Literal["placed"]
    feature_path: str


class EndFacts(TypedDict):
    """Where a process's time went: see `extraction.timing`."""

    started_time: float
    first_batch_time: float | None
    num_clips: int
    num_repeated: int
    seconds: float
    startup_seconds: float
    compute_seconds: float
    idle_seconds: float
    decode_cpu_seconds: float
    compute_cpu_seconds: float
    video_seconds: float
    peak_memory_mb: float


class EndLine(EndFacts):
    """The end of a process that came to it."""

    time: float
    status: Literal["end"]
    batch_size: int


class StoppedLine(TypedDict):
    """The end of a process that was asked to stop, or could not go on, and knew it."""

    time: float
    status: Literal["stopped"]


class CutLine(TypedDict):
    """Half a line, of a process that was killed, or is writing it now; or one that is not ours."""

    status: Literal["cut"]


Line = (
    RowLine
    | ProcessLine
    | DeviceLine
    | WorkingLine
    | ElsewhereLine
    | PlacedLine
    | EndLine
    | StoppedLine
    | CutLine
)

# Tuples, since a million lines are checked: unions take longer.
NUMBER = (float, int)
OPTIONAL_NUMBER = (float, int, NoneType)
OPTIONAL_TEXT = (str, NoneType)

REQUIRED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "process": {"settings": dict, "digest": str},
    "device": {},
    "started": {"time": NUMBER, "feature_path": str},
    "done": {"time": NUMBER, "feature_path": str},
    "failed": {"time": NUMBER, "feature_path": str, "reason": OPTIONAL_TEXT},
    "working": {"feature_path": str, "share": NUMBER},
    "elsewhere": {"num_rows": int},
    "placed": {"feature_path": str},
    "end": {},
    "stopped": {},
}
"""What a line of each status must have, for whoever reads it."""

KINDS: dict[str, type | tuple[type, ...]] = {
    "run_number": (int, NoneType),
    **dict.fromkeys(
        (
            "video_path",
            "video_etag",
            "digest",
            "weights",
            "file_hash",
            "codec",
            "decoded_on",
            "fallback",
        ),
        OPTIONAL_TEXT,
    ),
    **dict.fromkeys(
        (
            "start_seconds",
            "end_seconds",
            "video_size",
            "video_mtime_ns",
            "duration_seconds",
            "num_features",
            "feature_dim",
            "num_frames",
            "seconds",
            "damaged_share",
        ),
        OPTIONAL_NUMBER,
    ),
    "ffmpeg_lines": (list, NoneType),
}
"""What the facts of a line must be, where they are there."""


class Recorder:
    """Writes lines to a new file, for several threads. Use as a context manager."""

    def __init__(self, results: str | os.PathLike, name: str):
        """Start a file.

        Args:
            results: the results folder.
            name: start of the file's name.

        Raises:
            UserError: nothing can be written there; so do `write`, and the end.
        """
        self._lock = threading.RLock()
        self._file = create_record_file(results, name)

    def write(self, line: Line) -> None:
        """Write a line. A `done` is kept when this returns; others may be kept a little later."""
        text = (json.dumps(line) + "\n").encode()
        with self._lock:
            self._file.append(text, may_wait=line["status"] != "done")

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other thread write a line meanwhile: between a `done` and what became of it.

        An error that ends this leaves that open, and what is written says so.
        """
        with self._lock:
            try:
                yield
            except BaseException:
                with contextlib.suppress(UserError):  # that may be what it is about
                    self.write({"time": time.time(), "status": "stopped"})
                raise

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._file.close()
            return
        with contextlib.suppress(UserError):  # there is an error that tells of it
            self._file.close(STOP_SECONDS)


class RecordReader:
    """Reads record files, and on from where it was when it is asked again."""

    def __init__(self, results: str | os.PathLike, *, start: str = ""):
        """Nothing is read yet.

        Args:
            results: the results folder.
            start: read only files whose names start so.
        """
        self._files = find_record_files(results, start=start)

    def read(self) -> Iterator[tuple[str, Iterator[Line]]]:
        """Yield each file that has new lines: its name, and those of its lines that are new.

        Take a file's lines before the next file.

        Raises:
            OSError: a file of a disk cannot be read; what has been read stays so.
            UserError: so can a bucket.
        """
        for name, texts in self._files.read():
            yield name, _parse_all(texts)


COMPLAINTS = ("reason", "ffmpeg_lines", "damaged_share")
"""Facts of a row that is done, of which one at least is there if its decoder has complained."""


class Record(NamedTuple):
    """What is kept of a `RowLine` while a million of them are in memory.

    Attributes:
        run_number: of the run that wrote it; 0 before version 0.4.0.
        time: no earlier than that of the lines before it in its file.
        file_hash: a number, which takes less memory than its digits.
    """

    run_number: int
    time: float
    status: RowStatus
    stale: bool | None
    digest: str
    weights: str
    video_size: int | None
    video_mtime_ns: int | None
    reason: str
    num_features: int | None
    feature_dim: int | None
    duration_seconds: float | None
    seconds: float | None
    ffmpeg_lines: tuple[str, ...]
    damaged_share: float | None
    is_machine: bool | None
    file_hash: int | None
    start_seconds: float | None = None
    end_seconds: float | None = None
    fallback: str | None = None
    video_etag: str | None = None

    @property
    def has_complaints(self) -> bool:
        """Whether it is done though the decoder has complained of its video."""
        return self.status == "done" and any(getattr(self, name) for name in COMPLAINTS)

    def is_later(self, other: Record) -> bool:
        """Whether this is later than another, or the same: by its run, and then by the clock."""
        return self[:2] >= other[:2]

    def is_surely_later(self, other: Record) -> bool:
        """Whether it is so by both."""
        return self.run_number >= other.run_number and self.time >= other.time


class Records:
    """What earlier processes have written, by row.

    Attributes:
        last: by feature path, what happened to the row last.
        settings: by digest, the numerics that it stands for.
        run_number: the greatest of all runs.
    """

    def __init__(self) -> None:
        self.last: dict[str, Record] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.run_number = 0
        # The last `done` of a row, if its file surely came to its place.
        self._made: dict[str, Record] = {}
        # Each other `done` of which the file on the disk may be, too.
        self._doubtful: dict[str, list[Record]] = {}
        self._num_interrupted: Counter[str] = Counter()

    def of_file(self, feature_path: str) -> Record | None:
        """Return the record of the feature file that is there, or None if nothing tells of it.

        Reads the file where several may have made it.
        """
        made, last = self._made.get(feature_path), self.last.get(feature_path)
        doubtful = self._doubtful.get(feature_path, [])
        if made is last and not doubtful:
            return made
        candidates = sorted([*doubtful, *([made] if made else [])], key=lambda one: one[:2])
        if not candidates:
            return None
        present = hash_object(feature_path) if is_url(feature_path) else hash_file(feature_path)
        if present is None:  # it cannot be read: the records are all that there is
            return made
        for record in reversed(candidates):
            if record.file_hash == int(present, 16):
                return record
        # Version 0.1.0 wrote no hash, and whatever began after it saw whether there was a file.
        is_known = made is not None and made.file_hash is None
        return made if is_known and (made is last or (last and last.stale)) else None

    def failure_of(self, feature_path: str) -> Record | None:
        """Return the record of a row that failed when it was tried last, or None."""
        last = self.last.get(feature_path)
        return last if last is not None and last.status == "failed" else None

    def num_interrupted(self, feature_path: str) -> int:
        """Return how many processes were killed while they worked on a row that has not ended
        since, or are working on it."""
        last = self.last.get(feature_path)
        is_open = last is not None and last.status == "started"
        return self._num_interrupted[feature_path] if is_open else 0

    def add(self, lines: Iterable[Line]) -> None:
        """Take all lines of one record file."""
        run_number, now = 0, 0.0
        done: Record | None = None  # the line before, if it was one
        done_path = ""
        uploaded: dict[str, Record] = {}  # `done` of what is in a bucket, or on its way
        open_rows: set[str] = set()
        for line in lines:
            if done is not None and line["status"] == "stopped":
                self._leave_open(done_path, done)
            elif done is not None and not _takes_back(line, done_path):
                self._add(done_path, done)
            done = None
            if uploaded:
                self._settle(line, uploaded)
            if line["status"] == "process":
                self.settings[line["digest"]] = line["settings"]
                run_number = line.get("run_number") or 0
                self.run_number = max(self.run_number, run_number)
            elif line["status"] in ("end", "stopped"):
                open_rows.clear()
            elif (
                line["status"] == "started"
                or line["status"] == "done"
                or line["status"] == "failed"
            ):
                now = max(now, line["time"])
                path, record = line["feature_path"], _to_record(line, run_number, now)
                if record.status == "started":
                    open_rows.add(path)
                else:
                    open_rows.discard(path)
                if record.status == "done" and is_url(path):
                    uploaded[path] = record
                elif record.status == "done":
                    done, done_path = record, path
                else:
                    self._add(path, record)
        if done is not None:
            self._leave_open(done_path, done)
        for path, record in uploaded.items():
            self._doubt(path, record)
        self._num_interrupted.update(open_rows)

    def _leave_open(self, path: str, record: Record) -> None:
        """Take a `done` behind which the process was killed, or stopped, it may be at once."""
        if record.file_hash is None:  # version 0.1.0 wrote it when the file was there
            self._add(path, record)
        else:
            self._doubt(path, record)

    def _settle(self, line: Line, uploaded: dict[str, Record]) -> None:
        """Take what a line says of an upload: it came to its place, or not."""
        if line["status"] == "placed":
            path = line["feature_path"]
            if path in uploaded:
                self._add(path, uploaded.pop(path))
            return
        for path in [path for path in uploaded if _takes_back(line, path)]:
            del uploaded[path]

    def _add(self, path: str, record: Record) -> None:
        last = self.last.get(path)
        if last is None or record.is_later(last):
            self.last[path] = record
        if record.status != "done":
            return
        made = self._made.get(path)
        newest = record if made is None or record.is_later(made) else made
        self._made[path] = newest
        for one in (made, record, *self._doubtful.pop(path, ())):
            if one is not None and one is not newest:
                self._doubt(path, one)

    def _doubt(self, path: str, record: Record) -> None:
        made = self._made.get(path)
        if made is None or not made.is_surely_later(record):
            self._doubtful.setdefault(path, []).append(record)


def read_records(results: str | os.PathLike, *, start: str = "") -> Records:
    """Return what all record files say, or those whose names start so.

    Raises:
        UserError: one cannot be read.
    """
    records = Records()
    try:
        for _, lines in RecordReader(results, start=start).read():
            records.add(lines)
    except OSError as error:
        place = error.filename or records_place(results)
        raise unreadable(place, error.strerror or str(error)) from None
    return records


def _parse_all(texts: Generator[bytes]) -> Iterator[Line]:
    with contextlib.closing(texts):  # what was not taken is new the next time
        for text in texts:
            yield _parse(text)


def _parse(text: bytes) -> Line:
    if not text.endswith(b"\n"):
        return {"status": "cut"}  # it may be whole at the next time
    try:
        line: Any = json.loads(text.decode(errors="replace"))
    except (json.JSONDecodeError, RecursionError):
        line = None
    # A damaged line may be JSON, and no line of ours.
    return cast(Line, line) if isinstance(line, dict) and _is_ours(line) else {"status": "cut"}


def _is_ours(line: dict[str, Any]) -> bool:
    status = line.get("status")
    required = REQUIRED.get(status) if isinstance(status, str) else None
    if required is None:
        return False
    for name, kind in required.items():
        if not isinstance(line.get(name), kind):
            return False
    for name, value in line.items():
        if name in KINDS and not isinstance(value, KINDS[name]):
            return False
    return all(isinstance(text, str) for text in line.get("ffmpeg_lines") or ())


def _takes_back(line: Line, done_path: str) -> bool:
    """Whether the line after a `done` says that its file could not come to its place."""
    if line["status"] == "failed":
        return line["feature_path"] == done_path
    return line["status"] == "elsewhere" and line.get("feature_path") == done_path


def _to_record(line: RowLine, run_number: int, now: float) -> Record:
    facts = cast(dict[str, Any], line)  # which was read for this alone
    facts["run_number"], facts["time"] = run_number, now
    for name in ("status", "digest", "weights", "reason", "fallback"):
        if text := facts.get(name):
            facts[name] = sys.intern(text)  # the same for thousands of rows
    facts["ffmpeg_lines"] = tuple(facts.get("ffmpeg_lines") or ())
    if (file_hash := facts.get("file_hash")) is not None:
        facts["file_hash"] = _to_number(file_hash)
    return Record._make(map(facts.get, Record._fields))


def source_of(line: RowLine) -> Source:
    """Return what a line says that its row is made of."""
    return Source(line.get("video_path", ""), line.get("start_seconds"), line.get("end_seconds"))


def _to_number(file_hash: str) -> int | None:
    try:
        return int(file_hash, 16) if file_hash else None
    except ValueError:
        return -1  # one that no file has
