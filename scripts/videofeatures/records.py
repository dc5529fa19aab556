"""Records: one line of JSON for each thing that happened to a row.

Each process appends to a file of its own under `<results>/records/`, so a kill costs at most the
last line. `started` says that a row is being worked on, `failed` that it has failed; neither
changes the feature file. `done` says that a new file, of which it has the hash, takes its place
now: it is written just before the rename. Whoever wrote another line after it was not killed in
between, so only the last line of a record file can tell of a feature file that never came to
its place; that file is told by its hash. So what the feature file on the disk was made with is
known whatever was killed when, and nothing depends on its mtime, which Snakemake changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import hash_file

STATUSES = ("started", "done", "failed")
"""Of a line about a row. Others are notes about the process."""


def records_folder(results: str | os.PathLike) -> Path:
    """Where the record files of all processes are."""
    return Path(results) / "records"


class Record(NamedTuple):
    """A line about a row: what planning and the manifest need to know of it.

    Attributes:
        stale: of `started` and `failed`: whether a feature file was there before.
        duration_seconds: of the video.
        seconds: that its row took.
    """

    time: float
    status: str
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


class Recorder:
    """Appends records to a new file. Use as a context manager."""

    def __init__(self, results: str | os.PathLike, name: str, facts: dict[str, Any]):
        """Start a file whose first line holds `facts` about the whole process.

        Args:
            results: the results folder.
            name: start of the file's name.

        Raises:
            UserError: nothing can be written there; so do `record` and `note`.
        """
        folder = records_folder(results)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = folder / f"{name}-{stamp}-{secrets.token_hex(4)}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        except OSError as error:
            raise _unwritable(path, error) from None
        self.note("process", **facts)

    def record(self, status: str, feature_path: str, **facts: Any) -> None:
        """Append one record and hand it to the operating system at once."""
        self.note(status, feature_path=feature_path, **facts)

    def note(self, status: str, **facts: Any) -> None:
        """Append facts about the process, which say nothing of any row."""
        self._write({"time": time.time(), "status": status, **facts})

    def _write(self, entry: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(entry) + "\n")
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


class Records:
    """All that earlier processes wrote.

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
            found = hash_file(feature_path)
            later = [pair for pair in unsure if made is None or pair[0].time > made.time]
            for record, file_hash in sorted(later, key=lambda pair: pair[0].time, reverse=True):
                if file_hash == found:
                    return record
        return made

    def add_lines(self, lines: Iterable[str]) -> None:
        """Take all lines of one record file. One that was cut off by a kill says nothing."""
        done: dict[str, Any] | None = None  # the line before, if it was one
        for line in lines:
            entry = _parse(line)
            if done is not None and not _takes_back(entry, done):
                self._add(done)
            done = None
            if entry is None:
                continue
            if entry["status"] == "process":
                self.settings[entry["digest"]] = entry["settings"]
            elif entry["status"] == "done":
                done = entry
            elif entry["status"] in STATUSES:
                self._add(entry)
        if done is not None and (file_hash := done.get("file_hash")):
            pair = (_to_record(done), file_hash)
            self._unsure.setdefault(done["feature_path"], []).append(pair)
        elif done is not None:  # version 0.1.0 wrote it afterwards, and no hash
            self._add(done)

    def _add(self, entry: dict[str, Any]) -> None:
        key, record = entry["feature_path"], _to_record(entry)
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
    """Read all record files, or those whose names start so."""
    records = Records()
    for path in records_folder(results).glob("*.jsonl"):
        if path.name.startswith(start):
            with open(path, encoding="utf-8", errors="replace") as file:
                records.add_lines(file)
    return records


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def _takes_back(entry: dict[str, Any] | None, done: dict[str, Any]) -> bool:
    """Whether the line after a `done` says that its file could not come to its place."""
    return (
        entry is not None
        and entry["status"] == "failed"
        and entry["feature_path"] == done["feature_path"]
    )


def _to_record(entry: dict[str, Any]) -> Record:
    get: Callable[[str], Any] = entry.get
    for name in ("status", "digest", "weights", "reason"):
        if text := entry.get(name):
            entry[name] = sys.intern(text)  # the same for thousands of rows
    entry["ffmpeg_lines"] = tuple(entry.get("ffmpeg_lines") or ())
    return Record(*map(get, Record._fields))
