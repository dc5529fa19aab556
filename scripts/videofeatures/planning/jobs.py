"""Jobs: pending rows that one process does, the file that tells it so, and how it ended."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from videofeatures.errors import MAX_SHOWN
from videofeatures.files import replace_file
from videofeatures.networks.weights import Weights
from videofeatures.planning.plan import PendingRow
from videofeatures.records import Records
from videofeatures.settings import Settings
from videofeatures.threaded import threaded_map

UNFINISHED = "was not finished"
NOT_SEEN = "is done, and cannot be seen yet"

NAME = r"extract_[0-9a-f]{8}_\d+"
"""Pattern of the names of jobs."""

LOOK_AGAIN_SECONDS = 1


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


def new_run_name() -> str:
    """Start of the names of one run's jobs. A run that was killed may have left files of its own
    jobs, and jobs that go on elsewhere: no other run has this name."""
    return f"extract_{secrets.token_hex(4)}"


def cut_into_jobs(
    pending: Sequence[PendingRow],
    settings: Settings,
    weights: Weights,
    results: str,
    *,
    videos_per_job: int,
    num_gpus: int = 1,
    num_threads: int = 1,
    run_name: str | None = None,
    first_number: int = 1,
) -> list[Job]:
    """Jobs of at most `videos_per_job` rows, and no fewer jobs than GPUs if rows allow.

    Args:
        run_name: of the run that they belong to; one of their own by default.
        first_number: of the first of them in that run.
    """
    run_name = run_name or new_run_name()
    num_jobs = max(math.ceil(len(pending) / videos_per_job), min(num_gpus, len(pending)))
    bounds = [len(pending) * k // num_jobs for k in range(num_jobs + 1)] if num_jobs else [0]
    return [
        Job(
            f"{run_name}_{number:04d}",
            settings,
            str(weights.shared_path),
            results,
            tuple(pending[begin:end]),
            num_threads,
        )
        for number, (begin, end) in enumerate(pairwise(bounds), start=first_number)
    ]


def run_name_of(job: Job) -> str:
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
        file.write(json.dumps(content).encode())


def read_job(path: str | os.PathLike) -> Job:
    """Read what `write_job` wrote."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    content["settings"] = Settings(**content["settings"])
    content["rows"] = tuple(PendingRow(*row) for row in content["rows"])
    return Job(**content)


def describe_job(job: Job) -> str:
    """What a job works on, in a few words."""
    first, last = (Path(job.rows[k].video_path).name for k in (0, -1))
    if len(job.rows) == 1:
        return first
    return f"{len(job.rows)} videos, {first} … {last}"


def describe_end(
    jobs: Sequence[Job], failed: Sequence[tuple[PendingRow, str]], max_shown: int = MAX_SHOWN
) -> list[str]:
    """What a run did: counts, and the rows that are not done, each with its reason."""
    num_rows = sum(len(job.rows) for job in jobs)
    if not num_rows:
        return []
    unfinished = sum(reason == UNFINISHED for _, reason in failed)
    not_seen = sum(reason == NOT_SEEN for _, reason in failed)
    num_failed = len(failed) - unfinished - not_seen
    lines = [
        f"{num_rows - num_failed - unfinished} of {num_rows} pending rows done, {num_failed} "
        f"failed, {unfinished} not finished"
    ]
    shown = [(row, reason) for row, reason in failed if reason not in (UNFINISHED, NOT_SEEN)]
    lines += [f"  {row.video_path}: {reason}" for row, reason in shown[:max_shown]]
    if num_failed > max_shown:
        lines.append(f"  … and {num_failed - max_shown} more")
    if not_seen:
        lines.append(
            f"{not_seen} of the done feature files cannot be seen on this machine yet: its disk is "
            "late to show what other machines have made (latency-wait)"
        )
    if num_failed or unfinished:
        lines.append(
            f"The whole story: {jobs[0].results}/logs and {jobs[0].results}/records. The next "
            "run tries these rows again"
        )
    return lines


def find_failed(
    jobs: Iterable[Job], records: Records, *, latency_seconds: float = 0
) -> list[tuple[PendingRow, str]]:
    """Rows of these jobs that are not done now, each with the reason.

    A row of which this run says that it is done, and whose file the disk does not show, is
    looked for again: on a disk on a network, what was made elsewhere may be seen late.

    Args:
        records: of this run alone.
        latency_seconds: how long to look for files that are not seen yet.
    """
    not_seen, failed = [], []
    planned = [(job, row) for job in jobs for row in job.rows]
    # Of a job that ended well, all rows are done, whatever the disk shows and the records say.
    ended = {job.name for job in jobs if end_path(job.results, job.name).exists()}
    seen = threaded_map(lambda pair: pair[1].is_done, planned)  # done by others, it may be
    for (job, row), is_done in zip(planned, seen, strict=True):
        if is_done:
            continue
        record = records.last.get(row.feature_path)
        if job.name in ended or (record and record.status == "done"):
            not_seen.append(row)
        else:
            is_failure = record and record.status == "failed"
            failed.append((row, record.reason if record and is_failure else UNFINISHED))
    deadline = time.monotonic() + latency_seconds
    while not_seen and time.monotonic() < deadline:
        time.sleep(min(LOOK_AGAIN_SECONDS, latency_seconds))
        not_seen = [row for row in not_seen if not row.is_done]
    return failed + [(row, NOT_SEEN) for row in not_seen]
