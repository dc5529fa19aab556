"""Which rows are pending, why, and how they are cut into jobs.

Looks at the disk and the records once; changes nothing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from videofeatures.errors import MAX_SHOWN, InputError
from videofeatures.records import Record, Records
from videofeatures.rows import Row, read_rows
from videofeatures.settings import Settings, config_problems
from videofeatures.storage import replace_file
from videofeatures.weights import RANDOM, Weights

MISSING = "no feature file"
OLDER = "the video is newer than its features"
CHANGED = "the video has changed since"
OTHER_SETTINGS = "made with other settings"
OTHER_WEIGHTS = "made with other weights"
FORCED = "forced"
UNFINISHED = "was not finished"


class PendingRow(NamedTuple):
    """A row that has to be done.

    Attributes:
        stale: its feature file exists, and is to be replaced.
        reason: one of this module's phrases.
        detail: more about it, or "".
    """

    video_path: str
    feature_path: str
    stale: bool
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.feature_path}  ←  {self.video_path}: {self.reason}{detail}"


class Job(NamedTuple):
    """Rows that one process does on one device, and how."""

    name: str
    settings: Settings
    weights_path: str
    results: str
    rows: tuple[PendingRow, ...]


def read_inputs(config: dict[str, Any]) -> tuple[Settings, list[Row]]:
    """Check the configuration and the CSV it names, and report all problems at once.

    Raises:
        InputError: with every problem of the configuration, the CSV and the folders in it.
    """
    problems = config_problems(config)
    settings = None if problems else Settings.from_config(config)
    rows: list[Row] = []
    if isinstance(config.get("videos"), str):
        try:
            rows = read_rows(config["videos"])
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return settings, rows


def find_pending(
    rows: Iterable[Row],
    records: Records,
    settings: Settings,
    weights: Weights,
    *,
    forced: Container[str] = (),
) -> list[PendingRow]:
    """The rows that are not done, in the order of the CSV.

    A row is done if its feature file exists and is not stale. It is stale if it was made
    with other settings or weights by its last record, or if its video has changed since:
    by the size and mtime in the record, or, without a record, by being newer than the
    feature file. A video that has been deleted since changes nothing.

    Args:
        forced: feature paths that are pending whatever their state.

    Raises:
        InputError: a feature path is a folder.
    """
    numerics, digest = settings.numerics(), settings.digest()
    pending, problems = [], []
    for row in rows:
        feature = _stat(row.feature_path)
        record = records.last.get(row.feature_path)
        if feature is None:
            detail = f"failed before: {record.reason}" if record and record.reason else ""
            pending.append(PendingRow(*row, False, MISSING, detail))
        elif stat.S_ISDIR(feature.st_mode):
            problems.append(f"{row.feature_path}: is a folder; a feature_path must be a file")
        elif row.feature_path in forced:
            pending.append(PendingRow(*row, True, FORCED))
        elif found := _staleness(row, feature, record, digest, weights.identity):
            reason = found
            detail = ""
            if reason == OTHER_SETTINGS:
                detail = _difference(records.settings.get(record.digest), numerics)
            elif reason == OTHER_WEIGHTS:
                detail = f"{record.weights} → {weights.identity}"
            pending.append(PendingRow(*row, True, reason, detail))
    if problems:
        raise InputError(problems)
    return pending


def _staleness(
    row: Row, feature: os.stat_result, record: Record | None, digest: str, weights: str | None
) -> str | None:
    """Why an existing feature file has to be made again, or None."""
    made_here = record is not None and record.status in ("started", "done")
    if made_here and record.digest != digest:
        return OTHER_SETTINGS
    if made_here and weights is not None and record.weights != weights:
        return OTHER_WEIGHTS
    video = _stat(row.video_path)
    if video is None:
        return None
    if made_here:
        same = (record.video_size, record.video_mtime_ns) == (video.st_size, video.st_mtime_ns)
        return None if same else CHANGED
    return OLDER if feature.st_mtime_ns < video.st_mtime_ns else None


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _difference(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    if before is None:
        return ""
    after = json.loads(json.dumps(after))  # as it would come back from a record
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key)} → {after.get(key)}" for key in changed)


def cut_into_jobs(
    pending: Sequence[PendingRow],
    settings: Settings,
    weights: Weights,
    results: str,
    *,
    videos_per_job: int,
    num_gpus: int = 1,
) -> list[Job]:
    """Jobs of at most `videos_per_job` rows, and no fewer jobs than GPUs if rows allow."""
    num_jobs = max(math.ceil(len(pending) / videos_per_job), min(num_gpus, len(pending)))
    bounds = [len(pending) * k // num_jobs for k in range(num_jobs + 1)] if num_jobs else [0]
    jobs = []
    for number, (begin, end) in enumerate(pairwise(bounds), start=1):
        rows = tuple(pending[begin:end])
        content = json.dumps([settings.digest(), weights.identity, rows])
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        name = f"extract_{number:04d}_{digest}"
        jobs.append(Job(name, settings, str(weights.shared_path), results, rows))
    return jobs


def job_path(results: str | os.PathLike, name: str) -> Path:
    """The file that tells a job's process what to do."""
    return Path(results) / "plan" / f"{name}.json"


def write_job(job: Job) -> None:
    """Write a job's file. Its name holds a hash of the rows, so that one left by a killed
    run is never taken for another."""
    content = job._asdict() | {"settings": asdict(job.settings)}
    with replace_file(job_path(job.results, job.name)) as file:
        file.write(json.dumps(content, indent=1).encode())


def read_job(path: str | os.PathLike) -> Job:
    """Read what `write_job` wrote."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    content["settings"] = Settings(**content["settings"])
    content["rows"] = tuple(PendingRow(*row) for row in content["rows"])
    return Job(**content)


def describe(
    rows: Sequence[Row], pending: Sequence[PendingRow], jobs: Sequence[Job], weights: Weights
) -> list[str]:
    """What will be done and why, in a few lines for people."""
    if not rows:
        return ["Nothing to do: the CSV has no rows"]
    num_done = len(rows) - len(pending)
    lines = [f"{len(rows)} rows: {num_done} done, {len(pending)} pending in {len(jobs)} jobs"]
    with_detail = (OTHER_SETTINGS, OTHER_WEIGHTS)
    counts = Counter((r.reason, r.detail if r.reason in with_detail else "") for r in pending)
    for (reason, detail), count in counts.most_common():
        lines.append(f"{count:>8} {reason}" + (f" ({detail})" if detail else ""))
    if pending and weights.identity == RANDOM:
        lines.append("WARNING: random weights: these features mean nothing, and are for trying out")
    if pending and weights.identity is None:
        lines.append(f"WARNING: {weights.origin}: these weights are not there yet")
    return lines


def describe_end(
    jobs: Sequence[Job], failed: Sequence[tuple[PendingRow, str]], max_shown: int = MAX_SHOWN
) -> list[str]:
    """What a run did: counts, and the rows that are not done, each with its reason."""
    num_rows = sum(len(job.rows) for job in jobs)
    if not num_rows:
        return []
    unfinished = sum(reason == UNFINISHED for _, reason in failed)
    num_failed = len(failed) - unfinished
    lines = [
        f"{num_rows - len(failed)} of {num_rows} pending rows done, {num_failed} failed, "
        f"{unfinished} not finished"
    ]
    shown = [(row, reason) for row, reason in failed if reason != UNFINISHED][:max_shown]
    lines += [f"  {row.video_path}: {reason}" for row, reason in shown]
    if num_failed > len(shown):
        lines.append(f"  … and {num_failed - len(shown)} more")
    if failed:
        lines.append(
            f"The whole story: {jobs[0].results}/logs and {jobs[0].results}/records. The next "
            "run tries these rows again"
        )
    return lines


def failures(jobs: Iterable[Job], records: Records) -> list[tuple[PendingRow, str]]:
    """Rows of these jobs that are not done now, each with the reason in its last record."""
    failed = []
    for job in jobs:
        digest = job.settings.digest()
        for row in job.rows:
            record = records.last.get(row.feature_path)
            if record is None or record.digest != digest or record.status == "started":
                failed.append((row, UNFINISHED))
            elif record.status == "failed":
                failed.append((row, record.reason))
    return failed


def select(rows: Sequence[Row], feature_paths: Container[str]) -> list[Row]:
    """The rows with these feature paths."""
    return [row for row in rows if row.feature_path in feature_paths]
