"""Jobs: pending rows that one process does, the file that tells it so, and how it ended."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from videofeatures.disk import look_at
from videofeatures.errors import MAX_SHOWN
from videofeatures.plan import PendingRow
from videofeatures.records import Records
from videofeatures.settings import Settings
from videofeatures.storage import replace_file
from videofeatures.weights import Weights

UNFINISHED = "was not finished"


class Job(NamedTuple):
    """Rows that one process does on one device, and how.

    Attributes:
        num_threads: CPU threads to ask for.
    """

    name: str
    settings: Settings
    weights_path: str
    results: str
    rows: tuple[PendingRow, ...]
    num_threads: int = 1

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
    num_threads: int = 1,
) -> list[Job]:
    """Jobs of at most `videos_per_job` rows, and no fewer jobs than GPUs if rows allow.

    Their names are those of no other run.
    """
    num_jobs = max(math.ceil(len(pending) / videos_per_job), min(num_gpus, len(pending)))
    bounds = [len(pending) * k // num_jobs for k in range(num_jobs + 1)] if num_jobs else [0]
    # A run that was killed may have left files of its jobs, and jobs that go on elsewhere.
    run = secrets.token_hex(4)
    return [
        Job(
            f"extract_{run}_{number:04d}",
            settings,
            str(weights.shared_path),
            results,
            tuple(pending[begin:end]),
            num_threads,
        )
        for number, (begin, end) in enumerate(pairwise(bounds), start=1)
    ]


def run_name(job: Job) -> str:
    """Start of the names of all jobs of a job's run."""
    return job.name.rsplit("_", 1)[0]


def job_path(results: str | os.PathLike, name: str) -> Path:
    """The file that tells a job's process what to do."""
    return Path(results) / "plan" / f"{name}.json"


def end_path(results: str | os.PathLike, name: str) -> Path:
    """A file that is there when all of a job's rows are done."""
    return Path(results) / "plan" / f"{name}.done"


def log_path(results: str | os.PathLike, name: str) -> Path:
    """Where a job says what it does."""
    return Path(results) / "logs" / f"{name}.log"


def remove_files(job: Job) -> None:
    """Remove what told a job what to do, and that it is done."""
    for path in (job_path(job.results, job.name), end_path(job.results, job.name)):
        path.unlink(missing_ok=True)


def write_job(job: Job) -> None:
    """Write a job's file."""
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
    planned = [(job, row) for job in jobs for row in job.rows]
    done = look_at(lambda pair: pair[1].is_done, planned)  # by others, it may be
    for (job, row), is_done in zip(planned, done, strict=True):
        if is_done:
            continue
        record = records.last.get(row.feature_path)
        reason = UNFINISHED
        if record and record.status == "failed" and record.digest == job.settings.digest():
            reason = record.reason
        failed.append((row, reason))
    return failed
