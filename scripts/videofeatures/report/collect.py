"""The manifest and the records of a collection, as tables."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import pandas as pd

from videofeatures.records import Line, RecordReader
from videofeatures.report.manifest import manifest_path
from videofeatures.source import Source

ATTEMPT_FACTS = (
    "time",
    "status",
    "feature_path",
    "video_size",
    "digest",
    "weights",
    "num_features",
    "mean_norm",
    "duration_seconds",
    "average_fps",
    "width",
    "height",
    "codec",
    "seconds",
)
"""Keys of a record that the report uses."""

DEVICE_FACTS = ("dtype", "device", "device_uuid", "ffmpeg")
"""Of these, a process that was killed before its network was loaded has none."""

TIMES = ("seconds", "startup_seconds", "compute_seconds", "idle_seconds", "decode_cpu_seconds")


TEXTS = ("video_path", "feature_path", "backbone", "reason", "ffmpeg_lines", "fallback")
"""Columns of the manifest that are no numbers, though they may look like some."""


class Collected(NamedTuple):
    """The tables of a collection.

    Attributes:
        rows: one line for each row of the CSV, as in the manifest; numbers are NaN where they
            are not known.
        attempts: one line for each time that a row was done or failed, in the order of time;
            `process` is its place in `processes`, `run_number` that of its run.
        processes: one line for each job: its recipes (`made_with`: weights by digest), what it
            computed on and with, and, if it came to its end, where its time went.
    """

    rows: pd.DataFrame
    attempts: pd.DataFrame
    processes: pd.DataFrame

    def of(self, name: str) -> Collected:
        """Return what is of the feature files of one recipe of several."""
        rows = self.rows[self.rows["backbone"] == name].reset_index(drop=True)
        attempts = self.attempts[self.attempts["feature_path"].isin(rows["feature_path"])]
        return self._replace(rows=rows, attempts=attempts.reset_index(drop=True))

    def done(self) -> pd.DataFrame:
        """Return the rows that are done, by feature path, each joined with its last record."""
        done = self.rows[self.rows["state"] == "done"].set_index("feature_path")
        last = self.attempts[self.attempts["status"] == "done"]
        # Not by time alone: clocks need not agree.
        last = last.sort_values(["run_number", "time"], kind="stable")
        last = last.drop_duplicates("feature_path", keep="last").set_index("feature_path")
        new = [name for name in last.columns if name not in done.columns]
        return done.join(last[new])


def collect(results: str | os.PathLike) -> Collected:
    """Return the manifest and all records of results.

    Raises:
        OSError: there is no manifest, or a file cannot be read.
        UserError: records in a bucket cannot be read.
    """
    rows = pd.read_csv(
        manifest_path(results),
        dtype=dict.fromkeys(TEXTS, str),
        keep_default_na=False,
        na_values={
            name: [""]
            for name in (
                "start_seconds",
                "end_seconds",
                "num_features",
                "feature_dim",
                "duration_seconds",
                "seconds",
                "damaged_share",
            )
        },
        encoding_errors="surrogateescape",
    )
    attempts: dict[str, list[Any]] = {
        name: [] for name in (*ATTEMPT_FACTS, "process", "run_number")
    }
    processes: list[dict[str, Any]] = []
    for name, lines in RecordReader(results).read():
        for line in lines:
            _add_line(name, line, attempts, processes)
    table = pd.DataFrame(attempts).sort_values("time", kind="stable", ignore_index=True)
    return Collected(rows, table, pd.DataFrame(processes))


def _add_line(
    name: str, line: Line, attempts: dict[str, list[Any]], processes: list[dict[str, Any]]
) -> None:
    """Add a line of the record file of this name to the tables."""
    if line["status"] == "process":
        made_with = {line["digest"]: line.get("weights")}
        if processes and processes[-1]["name"] == name and processes[-1]["begins"]:
            processes[-1]["made_with"] |= made_with  # one more recipe
            return
        # Before version 0.4.0, it told of the device, too.
        facts = {"name": name, "made_with": made_with, **dict.fromkeys(DEVICE_FACTS), **line}
        processes.append(facts | {"begins": True})
        return
    if processes and processes[-1]["name"] == name:
        processes[-1]["begins"] = False
    if line["status"] == "device":
        if processes and processes[-1]["name"] == name:
            processes[-1] |= {key: line.get(key) for key in DEVICE_FACTS}
    elif line["status"] == "end" and processes:
        processes[-1] |= {key: value for key, value in line.items() if key in TIMES}
    elif line["status"] == "done" or line["status"] == "failed":
        for fact in ATTEMPT_FACTS:
            attempts[fact].append(line.get(fact))
        if "mean_norm" not in line:  # the name that version 0.2.0 gave it
            attempts["mean_norm"][-1] = line.get("mean_length")
        attempts["process"].append(len(processes) - 1)
        attempts["run_number"].append((processes[-1] if processes else {}).get("run_number") or 0)


def source_of(row: pd.Series) -> Source:
    """Return what a row of a table is made of: its columns `video_path`, and, where it is a part,
    `start_seconds` and `end_seconds`."""
    ends = (row.get(name) for name in ("start_seconds", "end_seconds"))
    return Source(str(row["video_path"]), *(None if pd.isna(end) else float(end) for end in ends))


def device_labels(processes: pd.DataFrame) -> pd.Series:
    """Return the device of each process, with its host and, if that has several, the GPU's UUID."""
    if processes.empty:
        return pd.Series(dtype=str)
    uuid = processes["device_uuid"].fillna("").str[:4]
    device = processes["device"].fillna("unknown device")
    label = device + " on " + processes["host"]
    several = label.map(uuid.groupby(label).nunique()) > 1
    return label.where(~several, device + " " + uuid + "… on " + processes["host"])
