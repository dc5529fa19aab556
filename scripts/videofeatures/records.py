"""The book of what happened: one line of JSON for each thing that happened to a row.

Each process appends to a file of its own under `<results>/records/`, so a kill costs at most the
last line. `started` says that a row is being worked on, `failed` that it has failed; neither
changes the feature file. `done` says that a new file, of which it has the hash, takes its place
now: it is written just before the rename. Whoever wrote another line after it was not killed in
between, so only the last line of a record file can tell of a feature file that never came to
its place; that file is told by its hash. So what the feature file on the disk was made with is
known whatever was killed when, and nothing depends on its mtime, which Snakemake changes.

What is pending, the manifest, the progress of a run and the report are views of these lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, Required, TypedDict, cast

from videofeatures.errors import UserError
from videofeatures.files import hash_file

RowStatus = Literal["started", "done", "failed"]


class RowFacts(TypedDict, total=False):
    """What is said of one attempt at one feature file.

    Attributes:
        stale: of `started` and `failed`: whether a feature file was there before.
        duration_seconds: of the video, as its header says.
        seconds: that the row took; in decoding and in the network, of these.
        mean_norm: of its features, before they were divided by their norms.
        ffmpeg_lines: what ffmpeg had to say, though it gave frames.
        reason: why it failed, or what is wrong with it though it is done.
    """

    video_path: str
    video_size: int | None
    video_mtime_ns: int | None
    digest: str
    weights: str | None
    stale: bool
    reason: str
    ffmpeg_lines: list[str]
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


class RowLine(RowFacts):
    """A line about a row."""

    time: float
    status: RowStatus
    feature_path: str


class ProcessLine(TypedDict, total=False):
    """What a process computes with: its first line, and one for each further network."""

    time: Required[float]
    status: Required[Literal["process"]]
    program: str
    settings: Required[dict[str, Any]]
    digest: Required[str]
    weights: str | None
    dtype: str
    device: str
    device_uuid: str | None
    cuda_visible_devices: str | None
    host: str
    ffmpeg: str
    torch: str


class ElsewhereLine(TypedDict):
    """Rows that others did, so that this process need not."""

    time: float
    status: Literal["elsewhere"]
    num_rows: int


class EndFacts(TypedDict):
    """Where a process's time went: see `extraction.timing`."""

    started_time: float
    first_batch_time: float | None
    num_clips: int
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


class CutLine(TypedDict):
    """Half a line: of a process that was killed, or is writing it now."""

    status: Literal["cut"]


Line = RowLine | ProcessLine | ElsewhereLine | EndLine | CutLine


def records_folder(results: str | os.PathLike) -> Path:
    """Return where the record files of all processes are."""
    return Path(results) / "records"


class Recorder:
    """Appends lines to a new file. Use as a context manager."""

    def __init__(self, results: str | os.PathLike, name: str):
        """Start a file.

        Args:
            results: the results folder.
            name: start of the file's name.

        Raises:
            UserError: nothing can be written there; so does `write`.
        """
        folder = records_folder(results)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = folder / f"{name}-{stamp}-{secrets.token_hex(4)}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise _unwritable(path, error) from None

    def write(self, line: Line) -> None:
        """Append a line and hand it to the operating system at once."""
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._file.name, error) from None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # it has been said when it was written
            self._file.close()


def _unwritable(path: str | os.PathLike, error: OSError) -> UserError:
    return UserError(
        f"{path}: records cannot be written: {error.strerror}. The job ends here; what is done is "
        "kept. Make room or name another folder with `results`, and run again"
    )


class RecordReader:
    """Reads record files, and on from where it was when it is asked again."""

    def __init__(self, results: str | os.PathLike, *, start: str = ""):
        """Nothing is read yet.

        Args:
            results: the results folder.
            start: read only files whose names start so.
        """
        self._folder = records_folder(results)
        self._start = start
        self._num_bytes_read: dict[str, int] = {}

    def read(self) -> Iterator[tuple[str, Iterator[Line]]]:
        """Yield each file that has new lines: its name, and those of its lines that are new.

        Take a file's lines before the next file.

        Raises:
            OSError: a file cannot be read; what has been read stays so.
        """
        try:
            with os.scandir(self._folder) as entries:
                files = [e for e in entries if e.name.endswith(".jsonl")]
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing has been recorded so far
        for entry in sorted(files, key=lambda entry: entry.name):
            if not entry.name.startswith(self._start):
                continue
            if entry.stat().st_size > self._num_bytes_read.get(entry.name, 0):
                yield entry.name.removesuffix(".jsonl"), self._new_lines(entry)

    def _new_lines(self, entry: os.DirEntry[str]) -> Iterator[Line]:
        offset = self._num_bytes_read.get(entry.name, 0)
        try:
            with open(entry.path, "rb") as file:
                file.seek(offset)
                for text in file:
                    if not text.endswith(b"\n"):
                        yield {"status": "cut"}
                        return  # it may be whole at the next time
                    offset += len(text)
                    yield _parse(text)
        finally:
            self._num_bytes_read[entry.name] = offset


class Record(NamedTuple):
    """What is kept of a `RowLine` while a million of them are in memory."""

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


class Records:
    """What earlier processes have written, by row.

    Attributes:
        last: by feature path, what happened to the row last.
        settings: by digest, the numerics that it stands for.
    """

    def __init__(self) -> None:
        self.last: dict[str, Record] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        # The last `done` of a row to which something else has happened since, beside its file.
        self._done_before: dict[str, Record] = {}
        # Each `done` of which nobody knows whether its file came to its place, and its hash.
        self._unsure: dict[str, list[tuple[Record, str]]] = {}

    def of_file(self, feature_path: str) -> Record | None:
        """Return the record of the feature file that is there, or None if nothing tells of it.

        Reads the file if the process that made it may have been killed just before it came to
        its place.
        """
        last = self.last.get(feature_path)
        is_done = last is not None and last.status == "done"
        made = last if is_done else self._done_before.get(feature_path)
        if unsure := self._unsure.get(feature_path):
            present = hash_file(feature_path)
            later = [pair for pair in unsure if made is None or pair[0].time > made.time]
            for record, file_hash in sorted(later, key=lambda pair: pair[0].time, reverse=True):
                if file_hash == present:
                    return record
        return made

    def failure_of(self, feature_path: str) -> Record | None:
        """Return the record of a row that failed when it was tried last, or None."""
        last = self.last.get(feature_path)
        return last if last is not None and last.status == "failed" else None

    def add(self, lines: Iterable[Line]) -> None:
        """Take all lines of one record file."""
        done: RowLine | None = None  # the line before, if it was one
        for line in lines:
            if done is not None and not _takes_back(line, done):
                self._add(done)
            done = None
            if line["status"] == "process":
                self.settings[line["digest"]] = line["settings"]
            elif line["status"] == "done":
                done = line
            elif line["status"] == "started" or line["status"] == "failed":
                self._add(line)
        if done is not None and (file_hash := done.get("file_hash")):
            pair = (_to_record(done), file_hash)
            self._unsure.setdefault(done["feature_path"], []).append(pair)
        elif done is not None:  # version 0.1.0 wrote it afterwards, and no hash
            self._add(done)

    def _add(self, line: RowLine) -> None:
        key, record = line["feature_path"], _to_record(line)
        last = self.last.get(key)
        # Not `<`: of two lines with one time, the later one in the file is the later one.
        if last is None or last.time <= record.time:
            self.last[key] = record
            if record.status == "done" or record.stale is False:
                self._done_before.pop(key, None)
            elif last is not None and last.status == "done":
                self._done_before[key] = last
        elif record.status == "done" and last.status != "done" and last.stale is not False:
            before = self._done_before.get(key)
            if before is None or before.time <= record.time:
                self._done_before[key] = record


def read_records(results: str | os.PathLike, *, start: str = "") -> Records:
    """Return what all record files say, or those whose names start so."""
    records = Records()
    for _, lines in RecordReader(results, start=start).read():
        records.add(lines)
    return records


def _parse(text: bytes) -> Line:
    try:
        line: Any = json.loads(text.decode(errors="replace"))
        if isinstance(line, dict) and "status" in line:
            return cast(Line, line)
    except json.JSONDecodeError:
        pass
    return {"status": "cut"}  # a damaged line may be JSON, and no line of ours


def _takes_back(line: Line, done: RowLine) -> bool:
    """Whether the line after a `done` says that its file could not come to its place."""
    return line["status"] == "failed" and line["feature_path"] == done["feature_path"]


def _to_record(line: RowLine) -> Record:
    facts: dict[str, Any] = dict(line)
    for name in ("status", "digest", "weights", "reason"):
        if text := facts.get(name):
            facts[name] = sys.intern(text)  # the same for thousands of rows
    facts["ffmpeg_lines"] = tuple(facts.get("ffmpeg_lines") or ())
    return Record._make(map(facts.get, Record._fields))
