"""What the manifest and the records tell of a collection, as tables."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from videofeatures.records import records_folder
from videofeatures.report.manifest import manifest_path

ATTEMPT_FACTS = (
    "time",
    "status",
    "feature_path",
    "video_size",
    "digest",
    "weights",
    "num_features",
    "mean_length",
    "duration_seconds",
    "average_fps",
    "width",
    "height",
    "codec",
    "seconds",
)
"""Of a record, what the report uses."""

TIMES = ("seconds", "startup_seconds", "compute_seconds", "idle_seconds", "decode_cpu_seconds")


class Collected(NamedTuple):
    """All tables.

    Attributes:
        rows: one line for each row of the CSV, as in the manifest; numbers are NaN where they
            are not known.
        attempts: one line for each time that a row was done or failed, in the order of time;
            `process` is its place in `processes`.
        processes: one line for each job: what it computed on and with, and, if it came to its
            end, where its time went.
    """

    rows: pd.DataFrame
    attempts: pd.DataFrame
    processes: pd.DataFrame

    def done(self) -> pd.DataFrame:
        """Rows that are done, by feature path, with what their last record says of them."""
        done = self.rows[self.rows["state"] == "done"].set_index("feature_path")
        last = self.attempts[self.attempts["status"] == "done"]
        last = last.drop_duplicates("feature_path", keep="last").set_index("feature_path")
        new = [name for name in last.columns if name not in done.columns]
        return done.join(last[new])


def collect(results: str | os.PathLike) -> Collected:
    """Read the manifest, which must be there, and all records."""
    rows = pd.read_csv(
        manifest_path(results),
        dtype={"video_path": str, "feature_path": str, "reason": str, "ffmpeg_lines": str},
        keep_default_na=False,
        na_values={
            name: [""] for name in ("num_features", "feature_dim", "duration_seconds", "seconds")
        },
        encoding_errors="surrogateescape",
    )
    attempts: dict[str, list[Any]] = {name: [] for name in (*ATTEMPT_FACTS, "process")}
    processes: list[dict[str, Any]] = []
    for path in sorted(records_folder(results).glob("*.jsonl")):
        _read(path, attempts, processes)
    table = pd.DataFrame(attempts).sort_values("time", kind="stable", ignore_index=True)
    return Collected(rows, table, pd.DataFrame(processes))


def _read(path: Path, attempts: dict[str, list[Any]], processes: list[dict[str, Any]]) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by a kill
            if entry["status"] == "process":
                processes.append({"name": path.stem, **entry})
            elif entry["status"] == "end" and processes:
                processes[-1] |= {key: entry[key] for key in TIMES}
            elif entry["status"] in ("done", "failed"):
                for name in ATTEMPT_FACTS:
                    attempts[name].append(entry.get(name))
                attempts["process"].append(len(processes) - 1)


def device_labels(processes: pd.DataFrame) -> pd.Series:
    """What each process computed on, told apart by host and, where a host has several, by GPU."""
    if processes.empty:
        return pd.Series(dtype=str)
    uuid = processes["device_uuid"].fillna("").str[:4]
    label = processes["device"] + " on " + processes["host"]
    several = label.map(uuid.groupby(label).nunique()) > 1
    return label.where(~several, processes["device"] + " " + uuid + "… on " + processes["host"])
