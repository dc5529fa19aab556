"""Records: one line of JSON for each thing that happened to a row.

Each process appends to a file of its own under `<results>/records/`, so a kill costs
at most the last line. The last record of a row, by time, tells with what settings the
feature file on the disk was made: `started` is written after a stale file was removed
and before the new one is renamed into place, so a file whose last record is `started`
or `done` was made with that record's settings.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

STATUSES = ("started", "done", "failed")
"""What a row's last record can say of its file. Others are notes: `blocked` means that a
stale file could not be removed, so that the record before it still holds."""


class Record(NamedTuple):
    """What planning needs to know of a row's last record."""

    time: float
    status: str
    digest: str
    weights: str
    video_size: int | None
    video_mtime_ns: int | None
    reason: str


class Recorder:
    """Appends records to a new file. Use as a context manager."""

    def __init__(self, results: str | os.PathLike, name: str, facts: dict[str, Any]):
        """Start a file whose first line holds `facts` about the whole process.

        Args:
            results: the results folder.
            name: start of the file's name.
        """
        folder = Path(results) / "records"
        folder.mkdir(parents=True, exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        path = folder / f"{name}-{stamp}-{secrets.token_hex(4)}.jsonl"
        self._file = open(path, "x", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self.note("process", **facts)

    def record(self, status: str, feature_path: str, **facts: Any) -> None:
        """Append one record and hand it to the operating system at once."""
        self.note(status, feature_path=feature_path, **facts)

    def note(self, status: str, **facts: Any) -> None:
        """Append facts about the process, which say nothing of any row."""
        self._write({"time": time.time(), "status": status, **facts})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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
    for path in (Path(results) / "records").glob("*.jsonl"):
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
        records.last[key] = Record(*(entry.get(field) for field in Record._fields))
