"""Jobs: pending rows that one process does, the file that tells it so, and how it ended."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from videofeatures.errors import MAX_SHOWN
from videofeatures.plan import PendingRow
from videofeatures.records import Records
from videofeatures.settings import Settings
from videofeatures.storage import replace_file
from videofeatures.weights import Weights

UNFINISHED = "was not finished"


class Job(NamedTuple):
    """Rows that one process does on one device, and how."""

    name: str
    settings: Settings
    weights_path: str
    results: str
    rows: tuple[PendingRow, ...]

    @property
    def has_stale_rows(self) -> bool:
        """Whether some of its feature files exist, and are to be replaced."""
        return any(row.stale for row in self.rows)


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
    settings_digest = settings.digest()
    jobs = []
    for number, (begin, end) in enumerate(pairwise(bounds), start=1):
        rows = tuple(pending[begin:end])
        content = json.dumps([settings_digest, weights.identity, rows])
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


def describe_job(job: Job) -> str:
    """What a job does, in a few words."""
    first, last = (Path(job.rows[k].video_path).name for k in (0, -1))
    if len(job.rows) == 1:
        return f"Extract {first}"
    return f"Extract {len(job.rows)} videos, {first} … {last}"


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


def find_failed(jobs: Iterable[Job], records: Records) -> list[tuple[PendingRow, str]]:
    """Rows of these jobs that are not done now, each with the reason in its last record."""
    failed = []
    for job in jobs:
        digest = job.settings.digest()
        for row in job.rows:
            if row.is_done:  # by others, it may be
                continue
            record = records.last.get(row.feature_path)
            if record and record.digest == digest and record.status == "failed":
                failed.append((row, record.reason))
            else:
                failed.append((row, UNFINISHED))
    return failed
