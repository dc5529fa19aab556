"""A run of the workflow: what is planned, which jobs are asked for, and how it starts and ends."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from videofeatures.errors import UserError, describe_os_error
from videofeatures.extraction.claims import remove_abandoned_claims
from videofeatures.extraction.scratch import remove_scratch_of_killed, scratch_root
from videofeatures.files import stat_or_none
from videofeatures.monitoring.progress import Display
from videofeatures.monitoring.watching import Watcher
from videofeatures.networks.named_recipes import split_config
from videofeatures.networks.weights import Weights
from videofeatures.planning import jobs
from videofeatures.planning.estimate import estimate
from videofeatures.planning.jobs import Job
from videofeatures.planning.plan import Plan, Request, Target, list_pending, make_plan
from videofeatures.planning.rows import read_rows
from videofeatures.records import Records, read_records
from videofeatures.report import report_path, try_write_report
from videofeatures.report.manifest import manifest_path, try_write_manifest
from videofeatures.results import work_folder
from videofeatures.urls import absolute, is_url, parse_schemes
from videofeatures.workflow.leftovers import hold_run, remove_files_of_killed_runs

MAX_LISTED = 20
"""Rows, and jobs, that a dry-run lists one by one."""


class Run:
    """The jobs of one run, from what is planned to what has become of it.

    In a process that Snakemake starts for one job, on another node say, nothing is planned: by
    then, some of the features exist. It knows jobs by the files that the planning process wrote.

    Attributes:
        jobs: those that are planned; from `start` on, those that run.
        weights: that they need; none where nothing is planned.
    """

    def __init__(self, config: Mapping[str, Any], display: Display):
        """Nothing is planned.

        Args:
            config: a configuration, whose values have their types.
            display: of how far the run is; takes what the run has to say, too.
        """
        self.jobs: list[Job] = []
        self.weights: tuple[Weights, ...] = ()
        self._config = config
        self._display = display
        self._on_demand: list[Job] = []
        self._plan: Plan | None = None
        self._watcher: Watcher | None = None
        self._held = contextlib.ExitStack()
        self._is_all_asked_for = False
        self._asked_for: set[str] = set()
        self._has_started = False
        self._has_ended = False
        self._lock = threading.Lock()

    def plan(self, request: Request, *, num_gpus: int = 1, num_threads: int = 1) -> None:
        """Decide what is to be done.

        Args:
            num_gpus: that jobs may use at a time.
            num_threads: CPU threads of each job.

        Raises:
            UserError: the configuration or its CSV cannot be used.
        """
        plan = self._plan = make_plan(self._config, request)
        self.weights = plan.weights
        run_name = jobs.new_run_name()

        def cut(targets: Sequence[Target], first_number: int) -> list[Job]:
            return jobs.cut_into_jobs(
                targets,
                plan.config.settings,
                plan.recipes,
                plan.config.results,
                videos_per_job=plan.config.videos_per_job,
                num_gpus=num_gpus,
                num_threads=num_threads,
                run_name=run_name,
                first_number=first_number,
                run_number=plan.run_number,
            )

        self.jobs = cut(plan.pending, 1)
        self._on_demand = cut(plan.not_tried, len(self.jobs) + 1)

    @property
    def missing_weights(self) -> dict[str, Weights]:
        """Weights that have yet to be fetched and verified, by the name of their file."""
        files = {weights.shared_path: weights for weights in self.weights}
        return {path.name: weights for path, weights in files.items() if not path.exists()}

    def describe(self) -> list[str]:
        """Return what will be done and why, in a few lines for people."""
        return self._plan.describe(len(self.jobs)) if self._plan else []

    def list_pending(self) -> list[str]:
        """Return what a dry-run lists: the pending rows, or the first of them."""
        if self._plan is None:
            return []
        # Not in the results: a dry-run leaves nothing there.
        name = "-".join(Path(os.path.relpath(work_folder(self._plan.config.results))).parts)
        path = Path(".snakemake") / "pending" / f"{name}.csv"
        return list(list_pending(self._plan.pending, MAX_LISTED, path))

    def describe_effort(self) -> list[str]:
        """Return what lies ahead, from a look at some of the pending videos."""
        if self._plan is None or not self._plan.pending:
            return []
        return [f"To do: {estimate(self._plan.pending, self._plan.config, self._plan.look)}"]

    def find_job(self, name: str) -> Job:
        """Return the job of this name; one that was planned elsewhere is read from its file."""
        job = self._job_by_name.get(name)
        if job is None:
            path = jobs.job_path(self._config["results"], name)
            job = self._job_by_name.setdefault(name, jobs.read_job(path))
        return job

    def describe_job(self, name: str) -> str:
        """Return what the job of this name works on, as far as it is asked for by now."""
        job = self.find_job(name)
        asked_for = None if self._is_all_asked_for else self._leave_out(job)
        return jobs.describe_job(asked_for or job)

    @cached_property
    def _job_by_name(self) -> dict[str, Job]:
        return {job.name: job for job in (*self.jobs, *self._on_demand)}

    @cached_property
    def has_stale_targets(self) -> bool:
        """Whether some feature files exist, and may be replaced."""
        return any(job.has_stale_targets for job in (*self.jobs, *self._on_demand))

    def ask_for_all(self) -> list[str]:
        """Ask for all planned jobs; return the files that are there when they are done."""
        self._is_all_asked_for = True
        return [str(jobs.end_path(job.results, job.name)) for job in self.jobs]

    def ask_for(self, path: str) -> str | None:
        """Ask for a feature file; return the file that is there when its job is done, or None if
        the feature file needs none.

        Raises:
            UserError: no row has this feature_path.
        """
        key = absolute(path)
        job = self._job_by_path.get(key)
        if job is None and key not in self._known:
            raise UserError(
                f"{path}: no row of {self._config['videos']} has this feature_path. Ask for it as "
                "it is written there"
            )
        if job is None:
            return None
        self._asked_for.add(key)
        return str(jobs.end_path(job.results, job.name))

    def find_on_disk(self, targets: Iterable[str]) -> list[str]:
        """Return what Snakemake is to be asked for, which knows files on disks: of each feature
        file in a bucket, the end of its job, if it has one.

        Args:
            targets: what the user asks for.

        Raises:
            UserError: no row has such a feature_path.
        """
        ends = (self.ask_for(path) if is_url(path) else path for path in targets)
        return [path for path in ends if path is not None]

    @cached_property
    def _job_by_path(self) -> dict[str, Job]:
        """By the absolute path of each feature file that is not done."""
        every = (*self.jobs, *self._on_demand)
        return {absolute(target.feature_path): job for job in every for target in job.targets}

    @cached_property
    def _known(self) -> set[str]:
        """The absolute paths of all feature files."""
        # Read again rather than kept: who asks for what is done is rare, and rows are many.
        rows = read_rows(
            self._config["videos"],
            tuple(split_config(self._config)),
            allowed_schemes=parse_schemes(self._config.get("allowed_schemes")),
        )
        return {absolute(path) for row in rows for path in row.feature_paths}

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
        if not self._is_all_asked_for:
            self.jobs = self._find_asked_for(self.jobs, whole)
        self.jobs += self._find_asked_for(self._on_demand, whole)
        if not self.jobs:
            return
        plan, self._plan = self._plan, None  # not needed any more, and large
        first = self.jobs[0]
        remove_files_of_killed_runs(first.results)
        remove_scratch_of_killed(scratch_root(first.settings.scratch))
        run_name, timeout = jobs.run_name_of(first), first.settings.claim_timeout_seconds
        self._held.enter_context(hold_run(first.results, run_name, timeout))
        try:
            for job in self.jobs:
                jobs.write_job(job)
        except OSError:
            self._remove_files()
            raise
        log_path = jobs.log_path(first.results, first.name)
        self._display.say(f"The log of each job: {log_path} and so on")
        self._watcher = Watcher(self.jobs, self._display)
        self._watcher.start()
        # Should this process be killed, each row is in the manifest all the same.
        try_write_manifest(self._config, plan)

    def has_nothing_to_do(self) -> None:
        """Start without a job: what is asked for is there."""
        self._has_started = True
        self.jobs = []

    def _find_asked_for(self, planned: Sequence[Job], whole: bool) -> list[Job]:
        pairs = [(job, self._leave_out(job)) for job in planned]
        return [job if whole else some for job, some in pairs if some is not None]

    def _leave_out(self, job: Job) -> Job | None:
        """Return a job without what nobody has asked for, or None if that leaves nothing."""
        targets = [t for t in job.targets if absolute(t.feature_path) in self._asked_for]
        return job._replace(targets=tuple(targets)) if targets else None

    def end(self, *, latency_seconds: float = 0) -> None:
        """Remove what the jobs needed, and say what was done and what was not; leave a manifest,
        and a report. Counts once, and only after a start.

        Args:
            latency_seconds: how long to look for feature files that are done and not seen yet.
        """
        with self._lock:
            if self._has_ended or not self._has_started:
                return
            self._has_ended = True
        try:
            self._end(latency_seconds)
        except OSError as error:
            self._display.say(f"the end of the run is not whole: {describe_os_error(error)}")

    def _end(self, latency_seconds: float) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        if not self.jobs:
            self._refresh()
            return
        try:
            records = read_records(self._config["results"], start=jobs.run_name_of(self.jobs[0]))
        except UserError as error:
            self._display.say(str(error))
            records = Records()
        not_done = jobs.find_not_done(self.jobs, records, latency_seconds=latency_seconds)
        self._remove_files()
        remove_abandoned_claims(
            (target.feature_path for job in self.jobs for target in job.targets),
            jobs.plan_folder(self._config["results"]),
        )
        num_complained = jobs.count_complained(records)
        self._display.say(*jobs.describe_end(self.jobs, not_done, num_complained=num_complained))
        self._display.say(*jobs.describe_fallbacks(records))
        self._display.say(try_write_manifest(self._config))
        # Who stops a run does not want to wait for a report of it.
        is_whole = all(reason not in (jobs.UNFINISHED, jobs.IN_WORK) for _, reason in not_done)
        if self._config["report"] and is_whole:
            self._display.say(try_write_report(self._config))

    def _remove_files(self) -> None:
        """Remove what the jobs needed, as far as it can be removed."""
        for job in self.jobs:
            with contextlib.suppress(OSError):
                jobs.remove_files(job)
        self._held.close()

    def _refresh(self) -> None:
        """Leave a manifest and a report that are true, where there was nothing to do.

        They may be those of a run that was killed, or of another CSV.
        """
        results = self._config["results"]
        path = str(manifest_path(results))
        before = stat_or_none(path)
        line = try_write_manifest(self._config, self._plan)
        after = stat_or_none(path)  # one that is true already is left alone
        is_new = after is not None and (before is None or after.st_ino != before.st_ino)
        if is_new:
            self._display.say(line)
        if self._config["report"] and (is_new or not report_path(results).exists()):
            self._display.say(try_write_report(self._config))

    def end_with_process(self, *, latency_seconds: float = 0) -> None:
        """End the run when the main thread has ended, if nobody has ended it by then."""

        def wait() -> None:
            threading.main_thread().join()
            self.end(latency_seconds=latency_seconds)

        threading.Thread(target=wait, name="end of the run").start()
