"""A run of the workflow: which jobs are asked for, what they need to start, and how it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from videofeatures.errors import UserError
from videofeatures.extraction.claims import remove_abandoned_claims
from videofeatures.monitoring.progress import Display
from videofeatures.monitoring.watching import Watcher
from videofeatures.planning import jobs
from videofeatures.planning.jobs import Job
from videofeatures.planning.rows import read_rows
from videofeatures.records import read_records
from videofeatures.report import try_write_report
from videofeatures.report.manifest import try_write_manifest


class Run:
    """The jobs of one run, from what is planned to what has become of it.

    Attributes:
        jobs: those that are planned; from `start` on, those that run.
    """

    def __init__(
        self,
        config: dict[str, Any],
        planned: Sequence[Job],
        on_demand: Sequence[Job],
        say: Callable[..., None],
        display: Display,
    ):
        """
        Args:
            config: a checked configuration.
            planned: jobs that do all that is to be done.
            on_demand: jobs of rows that are done only if somebody asks for their files.
            say: takes lines.
        """
        self.jobs = list(planned)
        self._on_demand = list(on_demand)
        self._config = config
        self._say = say
        self._display = display
        self._watcher: Watcher | None = None
        self._is_all_asked = False
        self._asked: set[str] = set()
        self._has_started = False
        self._has_ended = False
        self._lock = threading.Lock()

    def find_job(self, name: str) -> Job:
        """The job of this name. In a process that was started for one job: what the process that
        has planned it wrote."""
        job = self._job_named.get(name)
        if job is None:
            path = jobs.job_path(self._config["results"], name)
            job = self._job_named.setdefault(name, jobs.read_job(path))
        return job

    def describe_job(self, name: str) -> str:
        """What the job of this name works on, as far as it is asked for by now."""
        job = self.find_job(name)
        asked = None if self._is_all_asked else self._leave_out(job)
        return jobs.describe_job(asked or job)

    @cached_property
    def _job_named(self) -> dict[str, Job]:
        return {job.name: job for job in (*self.jobs, *self._on_demand)}

    @cached_property
    def has_stale_rows(self) -> bool:
        """Whether some feature files exist, and may be replaced."""
        return any(job.has_stale_rows for job in (*self.jobs, *self._on_demand))

    def ask_for_all(self) -> list[str]:
        """Ask for all planned jobs; gives the files that are there when they are done."""
        self._is_all_asked = True
        return [str(jobs.end_path(job.results, job.name)) for job in self.jobs]

    def ask_for(self, path: str) -> str | None:
        """Ask for a feature file; gives the file that is there when its job is done, or None if
        the feature file needs none.

        Raises:
            UserError: no row has this feature_path.
        """
        key = os.path.abspath(path)
        job = self._job_of.get(key)
        if job is None and key not in self._known:
            raise UserError(
                f"{path}: no row of {self._config['videos']} has this feature_path. Ask for it as "
                "it is written there"
            )
        if job is None:
            return None
        self._asked.add(key)
        return str(jobs.end_path(job.results, job.name))

    @cached_property
    def _job_of(self) -> dict[str, Job]:
        """By the absolute path of each feature file that is not done."""
        every = (*self.jobs, *self._on_demand)
        return {os.path.abspath(row.feature_path): job for job in every for row in job.rows}

    @cached_property
    def _known(self) -> set[str]:
        """The absolute paths of all feature files."""
        # Read again rather than kept: who asks for what is done is rare, and rows are many.
        return {os.path.abspath(row.feature_path) for row in read_rows(self._config["videos"])}

    def start(self, *, whole: bool = False) -> None:
        """Write what the jobs need to start, before the first one does. Counts once.

        A row that nobody has asked for is left out of its job: its video might be broken.

        Args:
            whole: leave none out, as they may be asked for later.

        Raises:
            OSError: the results cannot be written.
        """
        if self._has_started:
            return
        self._has_started = True
        if not self._is_all_asked:
            self.jobs = self._asked_jobs(self.jobs, whole)
        self.jobs += self._asked_jobs(self._on_demand, whole)
        if not self.jobs:
            return
        for job in self.jobs:
            jobs.write_job(job)
        first = self.jobs[0]
        self._say(f"The log of each job: {jobs.log_path(first.results, first.name)} and so on")
        self._watcher = Watcher(self.jobs, self._display, self._say)
        self._watcher.start()
        # Should this process be killed, each row is in the manifest all the same.
        try_write_manifest(self._config)

    def _asked_jobs(self, planned: Sequence[Job], whole: bool) -> list[Job]:
        asked = [(job, self._leave_out(job)) for job in planned]
        return [job if whole else some for job, some in asked if some is not None]

    def _leave_out(self, job: Job) -> Job | None:
        """A job without the rows that nobody has asked for, or None if that leaves none."""
        rows = [row for row in job.rows if os.path.abspath(row.feature_path) in self._asked]
        return job._replace(rows=tuple(rows)) if rows else None

    def end(self, *, latency_seconds: float = 0) -> None:
        """Remove what the jobs needed, and say what was done and what was not. Counts once, and
        only after a start.

        Args:
            latency_seconds: how long to look for feature files that are done and not seen yet.
        """
        with self._lock:
            if self._has_ended or not self._has_started:
                return
            self._has_ended = True
        if self._watcher is not None:
            self._watcher.stop()
        if self.jobs:
            start = jobs.run_name_of(self.jobs[0])
            records = read_records(self._config["results"], start=start)
            failed = jobs.find_failed(self.jobs, records, latency_seconds=latency_seconds)
            for job in self.jobs:
                jobs.remove_files(job)
            remove_abandoned_claims(row.feature_path for job in self.jobs for row in job.rows)
            self._say(*jobs.describe_end(self.jobs, failed))
            self._say(try_write_manifest(self._config))
            # Who stops a run does not want to wait for a report of it.
            is_whole = all(reason != jobs.UNFINISHED for _, reason in failed)
            if self._config["report"] and is_whole:
                self._say(try_write_report(self._config))

    def end_with_process(self, *, latency_seconds: float = 0) -> None:
        """End the run when the main thread has ended, if nobody has ended it by then."""

        def wait() -> None:
            threading.main_thread().join()
            self.end(latency_seconds=latency_seconds)

        threading.Thread(target=wait, name="end of the run").start()
