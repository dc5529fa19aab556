"""Records: one line of JSON for each thing that happened to a row.

Each process appends to a file of its own under `<results>/records/`, so a kill costs
at most the last line. The last record of a row, by time, tells with what settings the
feature file on the disk was made: `started` is written after a stale file was removed
and before the new one is renamed into place, so a file whose last record is `started`
or `done` was made with that record's settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import InputError

STATUSES = ("started", "done", "failed")
"""What a row's last record can say of its file. Others are notes: `blocked` means that a
stale file could not be removed, so that the record before it still holds."""


def records_folder(results: str | os.PathLike) -> Path:
    """Where the record files of all processes are."""
    return Path(results) / "records"


class Record(NamedTuple):
    """A row's last record: what planning and the manifest need to know of it.

    `duration_seconds` is the video's, `seconds` is how long its row took.
    """

    time: float
    status: str
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
            InputError: nothing can be written there; so do `record` and `note`.
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


def _unwritable(path: str | os.PathLike, error: OSError) -> InputError:
    return InputError(
        f"{path}: records cannot be written: {error.strerror}. The job ends here; what is done is "
        "kept. Make room or name another folder with `results`, and run again"
    )


class Records(NamedTuple):
    """All that earlier processes wrote.

    Attributes:
        last: by feature path, the row's last record.
        settings: by digest, the numerics that it stands for.
    """

    last: dict[str, Record]
    settings: dict[str, dict[str, Any]]


def read_records(results: str | os.PathLike) -> Records:
    """Read every record file; a line that was cut off by a kill is passed over."""
    records = Records({}, {})
    for path in records_folder(results).glob("*.jsonl"):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                _take(records, line)
    return records


def _take(records: Records, line: str) -> None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return
    if entry["status"] == "process":
        records.settings[entry["digest"]] = entry["settings"]
        return
    if entry["status"] not in STATUSES:
        return
    key = entry["feature_path"]
    last = records.last.get(key)
    # Not `<`: of two lines with one time, the later one in the file is the later one.
    if last is None or last.time <= entry["time"]:
        for name in ("status", "digest", "weights", "reason"):
            if text := entry.get(name):
                entry[name] = sys.intern(text)  # the same for thousands of rows
        entry["ffmpeg_lines"] = tuple(entry.get("ffmpeg_lines") or ())
        records.last[key] = Record(*map(entry.get, Record._fields))
