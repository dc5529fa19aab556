"""Jobs: pending targets that one process makes, the file that lists them, and how it ended."""

from __future__ import annotations

import json
import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path
from typing import NamedTuple

from videofeatures.errors import MAX_SHOWN, UserError
from videofeatures.files import replace_file, stat_or_none
from videofeatures.listing import Look, look_at_all
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.plan import Target
from videofeatures.record_files import records_place
from videofeatures.records import Records
from videofeatures.results import work_folder
from videofeatures.settings import Settings
from videofeatures.source import Source
from videofeatures.threaded import threaded_map
from videofeatures.urls import is_url

UNFINISHED = "was not finished"
IN_WORK = "was in work when its process was killed; the next run gives it a job of its own"
NOT_SEEN = "is done, and cannot be seen yet"

NAME = r"extract_[0-9a-f]{8}_\d+"
"""Pattern of the names of jobs."""

LOOK_AGAIN_SECONDS = 1

Video = tuple[Target, ...]
"""What is made of one source in one decoding."""


class Job(NamedTuple):
    """Feature files that one process makes on one device, and how.

    Attributes:
        recipes: those of the plan, which its targets name by their places.
        num_threads: CPU threads to request.
        run_number: of its run: see `records`.
    """

    name: str
    settings: Settings
    recipes: tuple[Recipe, ...]
    results: str
    targets: tuple[Target, ...]
    num_threads: int = 1
    run_number: int = 0

    @property
    def num_videos(self) -> int:
        """How many sources it decodes."""
        return sum(1 for _ in group_by_video(self.targets))

    @property
    def unit(self) -> str:
        """What its targets are to people: one of each video, or several."""
        return "rows" if len(self.recipes) == 1 else "feature files"

    @property
    def progress_unit(self) -> str:
        """What people count while they wait."""
        return "videos" if len(self.recipes) == 1 else "feature files"

    @property
    def has_stale_targets(self) -> bool:
        """Whether some of its feature files exist, and are to be replaced."""
        return any(target.stale for target in self.targets)


def new_run_name() -> str:
    """Return a new start of the names of one run's jobs.

    A run that was killed may have left files of its own jobs, and jobs that go on elsewhere: no
    other run has this name.
    """
    return f"extract_{secrets.token_hex(4)}"


def cut_into_jobs(
    targets: Sequence[Target],
    settings: Settings,
    recipes: tuple[Recipe, ...],
    results: str,
    *,
    videos_per_job: int,
    num_gpus: int = 1,
    num_threads: int = 1,
    run_name: str | None = None,
    first_number: int = 1,
    run_number: int = 0,
) -> list[Job]:
    """Return jobs of at most `videos_per_job` videos.

    There are no fewer jobs than GPUs if there are videos enough. What is made of one video is in
    one job, to decode it once. Videos that were in work when a process was killed come last, in
    jobs of their own, and those that were so more than once each in its own: whatever one of them
    does to its process, all others are done.

    Args:
        run_name: of the run that they belong to; one of their own by default.
        first_number: of the first of them in that run.
        run_number: of that run, greater than that of any whose records it knows.
    """
    run_name = run_name or new_run_name()
    videos: list[list[Video]] = [[], [], []]  # that were interrupted never, once, and more often
    for video in group_by_video(targets):
        videos[min(2, max(target.num_interrupted for target in video))].append(video)
    groups = _cut_evenly(videos[0], videos_per_job, num_gpus)
    groups += _cut_evenly(videos[1], videos_per_job, 1)
    groups += [[video] for video in videos[2]]
    return [
        Job(
            f"{run_name}_{number:04d}",
            settings,
            recipes,
            results,
            tuple(chain.from_iterable(group)),
            num_threads,
            run_number,
        )
        for number, group in enumerate(groups, start=first_number)
    ]


def group_by_video(targets: Iterable[Target]) -> Iterator[Video]:
    """Yield what is made of each row's source, in order: targets that follow each other, of one
    source and of different recipes."""
    group: list[Target] = []
    for target in targets:
        if group and (target.source != group[0].source or target.recipe <= group[-1].recipe):
            yield tuple(group)
            group = []
        group.append(target)
    if group:
        yield tuple(group)


def _cut_evenly(videos: Sequence[Video], max_size: int, min_groups: int) -> list[Sequence[Video]]:
    num_groups = max(math.ceil(len(videos) / max_size), min(min_groups, len(videos)))
    bounds = [len(videos) * k // num_groups for k in range(num_groups + 1)] if num_groups else [0]
    return [videos[begin:end] for begin, end in pairwise(bounds)]


def run_name_of(job: Job) -> str:
    """Return the start of the names of all jobs of a job's run."""
    return job.name.rsplit("_", 1)[0]


def plan_folder(results: str | os.PathLike) -> Path:
    """Return the folder of what the jobs of runs need."""
    return work_folder(results) / "plan"


def job_path(results: str | os.PathLike, name: str) -> Path:
    """Return the path of the file that tells a job's process what to do."""
    return plan_folder(results) / f"{name}.json"


def end_path(results: str | os.PathLike, name: str) -> Path:
    """Return the path of the file that exists when all of a job's rows are done."""
    return plan_folder(results) / f"{name}.done"


def log_path(results: str | os.PathLike, name: str) -> Path:
    """Return the path of a job's log."""
    return work_folder(results) / "logs" / f"{name}.log"


def remove_files(job: Job) -> None:
    """Remove the files at `job_path` and `end_path`, if they exist.

    Raises:
        OSError: one cannot be removed.
    """
    for path in (job_path(job.results, job.name), end_path(job.results, job.name)):
        path.unlink(missing_ok=True)


def write_job(job: Job) -> None:
    """Write the file at `job_path`.

    Raises:
        OSError: it cannot be written.
    """
    content = job._asdict() | {
        "settings": job.settings.model_dump(),
        "recipes": [asdict(recipe) for recipe in job.recipes],
    }
    with replace_file(job_path(job.results, job.name)) as file:
        file.write(json.dumps(content).encode())


def read_job(path: str | os.PathLike) -> Job:
    """Return the job that `write_job` wrote.

    Raises:
        UserError: its run has ended.
        OSError: the file cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except FileNotFoundError:
        raise UserError(
            f"{path}: is not there: the run that planned this job has ended, or was killed, and "
            "another one has begun. Start a run: it does what is pending"
        ) from None
    return Job(
        **content
        | {
            # Checked when it was planned: what checks them takes time to build (measured).
            "settings": Settings.model_construct(**content["settings"]),
            "recipes": tuple(Recipe.from_json(recipe) for recipe in content["recipes"]),
            "targets": tuple(
                Target(Source(*source), *facts) for source, *facts in content["targets"]
            ),
        }
    )


def find_video_sizes(targets: Sequence[Target], look: Look | None = None) -> dict[str, int]:
    """Return the bytes of each target's video, by its feature path; 0 where there is none.

    Of a part with an end, it is its share of them, as if the video ended with the last of these
    parts: how long it is is not known before it is opened.

    Args:
        look: at the videos.
    """
    look = look or _look_at_all_that_can_be([target.source.path for target in targets])
    files = threaded_map(lambda target: look(target.source.path), targets)
    last_end: dict[str, float] = {}
    for source, *_ in targets:
        if source.end_seconds is not None:
            last_end[source.path] = max(last_end.get(source.path, 0.0), source.end_seconds)

    def share_of(source: Source) -> float:
        if source.end_seconds is None:
            return 1.0
        return (source.end_seconds - source.offset_seconds) / last_end[source.path]

    return {
        target.feature_path: int(file.st_size * share_of(target.source)) if file else 0
        for target, file in zip(targets, files, strict=True)
    }


def _look_at_all_that_can_be(paths: Sequence[str]) -> Look:
    """Return a look at these paths, which sees nothing in storages that cannot be asked."""
    try:
        return look_at_all(paths)
    except UserError:
        return lambda path: None if is_url(path) else stat_or_none(path)


def describe_job(job: Job) -> str:
    """Return what a job works on, in a few words, for people."""
    sources = [job.targets[k].source for k in (0, -1)]
    first, last = (str(source._replace(path=Path(source.shown_path).name)) for source in sources)
    num_videos = job.num_videos
    if num_videos == 1:
        return first
    return f"{num_videos} videos, {first} … {last}"


def describe_end(
    jobs: Sequence[Job],
    not_done: Sequence[tuple[Target, str]],
    max_shown: int = MAX_SHOWN,
    *,
    num_complained: int = 0,
) -> list[str]:
    """Return lines on what a run did: counts, and the rows that are not done, with reasons.

    Args:
        num_complained: rows that are done though the decoder has complained: `count_complained`.
    """
    num_targets = sum(len(job.targets) for job in jobs)
    if not num_targets:
        return []
    unit = jobs[0].unit
    num_unfinished = sum(reason in (UNFINISHED, IN_WORK) for _, reason in not_done)
    num_unseen = sum(reason == NOT_SEEN for _, reason in not_done)
    in_work = [pair for pair in not_done if pair[1] == IN_WORK]
    failed = [pair for pair in not_done if pair[1] not in (UNFINISHED, IN_WORK, NOT_SEEN)]
    lines = [
        f"{num_targets - len(failed) - num_unfinished} of {num_targets} pending {unit} done, "
        f"{len(failed)} failed, {num_unfinished} not finished"
    ]
    for pairs in (failed, in_work):
        lines += [f"  {target.source}: {reason}" for target, reason in pairs[:max_shown]]
        if len(pairs) > max_shown:
            lines.append(f"  … and {len(pairs) - max_shown} more")
    if num_complained:
        lines.append(
            f"{num_complained} of the done ones have complaints of the decoder: see the columns "
            "`reason`, `damaged_share` and `ffmpeg_lines` of the manifest"
        )
    if num_unseen:
        lines.append(
            f"{num_unseen} of the done feature files cannot be seen on this machine yet: its disk "
            "is late to show what other machines have made (latency-wait)"
        )
    if failed or num_unfinished:
        results = jobs[0].results
        logs = log_path(results, jobs[0].name).parent
        lines.append(
            f"The whole story: {logs} and {records_place(results)}. The next "
            f"run tries these {unit} again"
        )
    return lines


def count_complained(records: Records) -> int:
    """Return how many rows were done though the decoder has complained of their videos.

    Args:
        records: of one run.
    """
    return sum(record.has_complaints for record in records.last.values())


def describe_fallbacks(records: Records) -> list[str]:
    """Return a line on the rows that the CPU decoded, though a device was asked for, if any.

    Args:
        records: of one run.
    """
    fell_back = [r for r in records.last.values() if r.status == "done" and r.fallback]
    if not fell_back:
        return []
    return [
        f"{len(fell_back)} of the done ones were decoded on the CPU, not on the device: see the "
        "column `fallback` of the manifest"
    ]


def find_not_done(
    jobs: Iterable[Job], records: Records, *, latency_seconds: float = 0
) -> list[tuple[Target, str]]:
    """Return the targets that these jobs have not made by now, each with the reason.

    A feature file that this run has made, by its records, and that the disk does not show is
    looked for again: on a disk on a network, what was made elsewhere may be seen late.

    Args:
        records: of this run alone.
        latency_seconds: how long to look for files that are not seen yet.
    """
    unseen, not_done = [], []
    planned = [(job, target) for job in jobs for target in job.targets]
    # Of a job that ended well, all rows are done, whatever the disk shows and the records say.
    ended = {job.name for job in jobs if end_path(job.results, job.name).exists()}
    look = _look_at_all_that_can_be([target.feature_path for _, target in planned])
    # Done by others, it may be.
    are_done = threaded_map(lambda pair: pair[1].is_done_by(look), planned)
    for (job, target), is_done in zip(planned, are_done, strict=True):
        if is_done:
            continue
        last = records.last.get(target.feature_path)
        if job.name in ended or (last and last.status == "done"):
            unseen.append(target)
        else:
            failure = records.failure_of(target.feature_path)
            is_open = records.num_interrupted(target.feature_path)
            reason = failure.reason if failure else IN_WORK if is_open else UNFINISHED
            not_done.append((target, reason))
    deadline = time.monotonic() + latency_seconds
    while unseen and time.monotonic() < deadline:
        time.sleep(min(LOOK_AGAIN_SECONDS, latency_seconds))
        look = _look_at_all_that_can_be([target.feature_path for target in unseen])
        unseen = [target for target in unseen if not target.is_done_by(look)]
    return not_done + [(target, NOT_SEEN) for target in unseen]
