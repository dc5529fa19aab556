"""Which rows are pending, and why.

Looks at the disk and the records once; changes nothing.
"""

from __future__ import annotations

import csv
import json
import os
import stat
from collections import Counter
from collections.abc import Container, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import replace_text
from videofeatures.networks.weights import RANDOM, Weights
from videofeatures.planning.rows import Row, read_rows
from videofeatures.records import Record, Records
from videofeatures.settings import Settings, config_problems
from videofeatures.threaded import stat_or_none, threaded_map

MISSING = "no feature file"
OLDER = "the video is newer than its features"
CHANGED = "the video has changed since"
OTHER_SETTINGS = "made with other settings"
OTHER_WEIGHTS = "made with other weights"
FORCED = "forced"

PENDING_COLUMNS = ("video_path", "feature_path", "reason", "failed_before")
"""Of the list of all pending rows."""


class PendingRow(NamedTuple):
    """A row that has to be done.

    Attributes:
        stale: its feature file exists, and is to be replaced.
        reason: one of this module's phrases.
        detail: more about it, the same for many rows, or "".
        failure: why it failed when it was tried last; "" if it did not, or was not tried.
        feature_mtime_ns: of a stale feature file; if it is another by the time the row's turn
            comes, somebody else has replaced it.
    """

    video_path: str
    feature_path: str
    stale: bool
    reason: str
    detail: str = ""
    failure: str = ""
    feature_mtime_ns: int | None = None

    @property
    def is_done(self) -> bool:
        """Somebody has made its feature file since this was planned."""
        try:
            found = os.stat(self.feature_path).st_mtime_ns
        except OSError:
            return False
        return not self.stale or self.feature_mtime_ns not in (None, found)

    @property
    def why(self) -> str:
        """Why its feature file has to be made."""
        return self.reason + (f" ({self.detail})" if self.detail else "")

    def __str__(self) -> str:
        failure = f" (failed before: {self.failure})" if self.failure else ""
        return f"{self.feature_path}  ←  {self.video_path}: {self.why}{failure}"


def read_inputs(config: dict[str, Any]) -> tuple[Settings, list[Row]]:
    """Check the configuration and the CSV it names, and report all problems at once.

    Raises:
        UserError: with every problem of the configuration, the CSV and the folders in it.
    """
    problems = config_problems(config)
    settings = None if problems else Settings.from_config(config)
    rows: list[Row] = []
    if isinstance(config.get("videos"), str):
        try:
            rows = read_rows(config["videos"])
        except UserError as error:
            problems += error.problems
    if problems or settings is None:
        raise UserError(problems)
    return settings, rows


def find_pending(
    rows: Sequence[Row],
    records: Records,
    settings: Settings,
    weights: Weights,
    *,
    forced: Container[str] = (),
) -> list[PendingRow]:
    """The rows that are not done, in the order of the CSV.

    A row is done if its feature file exists and is not stale. It is stale if it was made with
    other settings or weights by the record of it, or if its video has changed since: by the size
    and mtime in the record, or, without a record, by being newer than the feature file. A video
    that has been deleted since changes nothing.

    Args:
        forced: feature paths that are pending whatever their state.

    Raises:
        UserError: a feature path is a folder.
    """
    digest = settings.digest()
    numerics = json.loads(json.dumps(settings.numerics()))  # as it would come back from a record

    @cache  # a changed setting is the same for thousands of rows
    def difference(old_digest: str) -> str:
        return _difference(records.settings.get(old_digest), numerics)

    def look(row: Row) -> tuple[os.stat_result | None, str | None, str]:
        """The feature file, why it has to be made, or None, and more about it."""
        feature = stat_or_none(row.feature_path)
        if feature is None:
            return None, MISSING, ""
        if row.feature_path in forced:
            return feature, FORCED, ""
        if stat.S_ISDIR(feature.st_mode):
            return feature, None, ""
        record = records.of_file(row.feature_path)
        reason = _staleness(row, feature, record, digest, weights.identity)
        if record is not None and reason == OTHER_SETTINGS:
            return feature, reason, difference(record.digest)
        if record is not None and reason == OTHER_WEIGHTS:
            return feature, reason, f"{record.weights} → {weights.identity}"
        return feature, reason, ""

    def failure(row: Row) -> str:
        last = records.last.get(row.feature_path)
        return last.reason if last is not None and last.status == "failed" else ""

    pending, problems = [], []
    for row, (feature, reason, detail) in zip(rows, threaded_map(look, rows), strict=True):
        if feature is not None and stat.S_ISDIR(feature.st_mode):
            problems.append(f"{row.feature_path}: is a folder; a feature_path must be a file")
        elif reason is not None:
            is_stale = feature is not None
            mtime_ns = feature.st_mtime_ns if feature is not None else None
            pending.append(PendingRow(*row, is_stale, reason, detail, failure(row), mtime_ns))
    if problems:
        raise UserError(problems)
    return pending


def split_failed(
    pending: Sequence[PendingRow], records: Records, settings: Settings, weights: Weights
) -> tuple[list[PendingRow], list[PendingRow]]:
    """Pending rows that are to be tried, and those that would fail as they did before."""
    digest = settings.digest()

    def look(row: PendingRow) -> bool:
        return has_failed(row, records.last.get(row.feature_path), digest, weights.identity)

    parts: tuple[list[PendingRow], list[PendingRow]] = ([], [])
    for row, failed in zip(pending, threaded_map(look, pending), strict=True):
        parts[failed].append(row)
    return parts


def has_failed(row: PendingRow, record: Record | None, digest: str, weights: str | None) -> bool:
    """Whether a pending row's last record is that of a failure, of this video as it is now, with
    these settings and weights."""
    if record is None or record.status != "failed" or record.digest != digest:
        return False
    if weights is not None and record.weights != weights:
        return False
    video = stat_or_none(row.video_path)
    now = (video.st_size, video.st_mtime_ns) if video else (None, None)
    return (record.video_size, record.video_mtime_ns) == now


def _staleness(
    row: Row, feature: os.stat_result, made: Record | None, digest: str, weights: str | None
) -> str | None:
    """Why an existing feature file has to be made again, or None.

    Args:
        made: the record of it, if there is one.
    """
    if made and made.digest != digest:
        return OTHER_SETTINGS
    if made and weights is not None and made.weights != weights:
        return OTHER_WEIGHTS
    video = stat_or_none(row.video_path)
    if video is None:
        return None
    if made:
        same = (made.video_size, made.video_mtime_ns) == (video.st_size, video.st_mtime_ns)
        return None if same else CHANGED
    return OLDER if feature.st_mtime_ns < video.st_mtime_ns else None


def _difference(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    if before is None:
        return ""
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key)} → {after.get(key)}" for key in changed)


def list_pending(pending: Sequence[PendingRow], max_shown: int, path: Path) -> list[str]:
    """A line for each pending row; for no more than the first ones, if they are many, and where
    all of them stand: a CSV that this writes to `path`."""
    if len(pending) <= max_shown:
        return [str(row) for row in pending]
    lines = [str(row) for row in pending[:max_shown]]
    num_more = f"… and {len(pending) - max_shown:,} more"
    try:
        with replace_text(path, errors="surrogateescape") as file:
            writer = csv.writer(file)
            writer.writerow(PENDING_COLUMNS)
            for row in pending:
                writer.writerow([row.video_path, row.feature_path, row.why, row.failure])
    except OSError as error:
        return [*lines, f"{num_more} ({path}: {error.strerror})"]
    return [*lines, f"{num_more}: all of them are in {path}"]


def describe(
    rows: Sequence[Row],
    pending: Sequence[PendingRow],
    num_jobs: int,
    weights: Weights,
    *,
    num_not_tried: int = 0,
) -> list[str]:
    """What will be done and why, in a few lines for people.

    Args:
        num_not_tried: rows that failed before and are left alone.
    """
    if not rows:
        return ["Nothing to do: the CSV has no rows"]
    num_done = len(rows) - len(pending) - num_not_tried
    lines = [f"{len(rows)} rows: {num_done} done, {len(pending)} pending in {num_jobs} jobs"]
    if num_not_tried:
        lines.append(f"{num_not_tried:>8} failed before and are not tried (retry_failed: false)")
    for why, count in Counter(row.why for row in pending).most_common():
        lines.append(f"{count:>8} {why}")
    if pending and weights.identity == RANDOM:
        lines.append("WARNING: random weights: these features mean nothing, and are for trying out")
    if pending and weights.identity is None:
        lines.append(f"WARNING: {weights.origin}: these weights are not there yet")
    return lines
