"""The manifest: each row of the CSV with its state, from the disk and the records."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from videofeatures.errors import UserError
from videofeatures.files import replace_text
from videofeatures.networks.weights import Weights, find_weights
from videofeatures.planning.plan import PendingRow, find_pending, has_failed, read_inputs
from videofeatures.planning.rows import Row
from videofeatures.records import Record, Records, read_records
from videofeatures.settings import Settings
from videofeatures.threaded import threaded_map

STATES = ("done", "failed", "missing", "pending")
"""Of a row: its feature file is there and up to date; it failed when it was tried last; its video
is not there; it has yet to be done. Where a row is not done, its feature file may be there all the
same, and stale: the column `stale` says why."""

COLUMNS = (
    "video_path",
    "feature_path",
    "state",
    "reason",
    "stale",
    "num_features",
    "feature_dim",
    "duration_seconds",
    "seconds",
    "ffmpeg_lines",
)


def manifest_path(results: str | os.PathLike) -> Path:
    """Where a run leaves its manifest."""
    return Path(results) / "manifest.csv"


def write_manifest(config: dict[str, Any]) -> Counter:
    """Write the manifest of a checked configuration, and count its states.

    Raises:
        UserError: the configuration or its CSV cannot be used.
    """
    settings, rows = read_inputs(config)
    weights = find_weights(config["backbone"], config["weights"])
    records = read_records(config["results"])
    pending = {r.feature_path: r for r in find_pending(rows, records, settings, weights)}
    counts: Counter = Counter()
    path = manifest_path(config["results"])
    with replace_text(path, tidy=True, errors="surrogateescape") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for line in _lines(rows, pending, records, settings, weights):
            writer.writerow(line)
            counts[line["state"]] += 1
    return counts


def describe_counts(counts: Counter, results: str | os.PathLike) -> str:
    """The counts of states and where to look, in one line."""
    told = ", ".join(f"{counts[state]} {state}" for state in STATES)
    return f"{told}: {manifest_path(results)} lists every row"


def try_write_manifest(config: dict[str, Any]) -> str:
    """Write the manifest of a run; gives what to say of it, whatever happens."""
    try:
        return describe_counts(write_manifest(config), config["results"])
    except (UserError, OSError) as error:  # the CSV has changed meanwhile, or the disk is full
        return f"the manifest cannot be written: {error}"


def _lines(
    rows: list[Row],
    pending: dict[str, PendingRow],
    records: Records,
    settings: Settings,
    weights: Weights,
) -> Iterator[dict[str, Any]]:
    digest = settings.digest()

    def look(row: Row) -> str:
        """The row's state."""
        found = pending.get(row.feature_path)
        if found is None:
            return "done"
        if not os.path.exists(row.video_path):
            return "missing"
        record = records.last.get(row.feature_path)
        return "failed" if has_failed(found, record, digest, weights.identity) else "pending"

    for row, state in zip(rows, threaded_map(look, rows), strict=True):
        found = pending.get(row.feature_path)
        record: Record | None = None
        if found is None:  # a file that was made elsewhere has no record
            record = records.of_file(row.feature_path)
        elif state == "failed":
            record = records.last[row.feature_path]
        facts = record._asdict() if record else {}
        reason = facts.get("reason") or ""
        if state == "missing":
            reason = "no such file"
        elif state == "pending" and found is not None:
            reason = found.why
        line = {
            "state": state,
            "reason": reason,
            "stale": found.why if found is not None and found.stale else "",
            "ffmpeg_lines": " | ".join(facts.get("ffmpeg_lines", ())),
        }
        yield {key: facts.get(key, "") for key in COLUMNS} | row._asdict() | line
