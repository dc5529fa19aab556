"""Configuration and CSV, checked; the pending rows, cut into jobs.

The process that the user started plans. A process that Snakemake starts for one job, on
another node say, reads that job's file instead: by then, some of the features exist.

Defines:
    JOBS          the jobs of this run
    WEIGHTS       the weights they need; None in a process started for one job
    DONE_TARGETS  feature files that the user asked for and that are done
    WATCHER       that shows how far this run is
    STAMP         file that makes Snakemake run a job whose outputs exist
    PYTHON        that runs the scripts
    get_resources, start_run, end_run
"""

import atexit
import contextlib
import gc
import io
import os
import sys
from math import ceil
from pathlib import Path

from snakemake.cli import parse_args
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from videofeatures import jobs, manifest, plan
from videofeatures.claims import tidy_up
from videofeatures.errors import InputError
from videofeatures.estimate import estimate
from videofeatures.progress import Display
from videofeatures.records import read_records
from videofeatures.report import leave_report
from videofeatures.rows import FEATURE_SUFFIXES
from videofeatures.settings import parse_values
from videofeatures.watching import Watcher
from videofeatures.weights import find_weights, missing_message

# Threads of a job on a cluster, where a run has no number of cores to share out.
CLUSTER_THREADS = 8

# Time that a job asks for beside that of its videos: to start, and to wait for its device.
MINUTES_PER_JOB = 15

MAX_OUTPUTS_SHOWN = 4


def tidy_message(record):
    """A filter of Snakemake's messages: our line is not in their way, and they stay short."""
    DISPLAY.clear()
    outputs = getattr(record, "output", None)
    if isinstance(outputs, list) and len(outputs) > MAX_OUTPUTS_SHOWN:
        # Of a job with one broken video, it would list hundreds.
        record.output = [*outputs[:MAX_OUTPUTS_SHOWN], f"… {len(outputs)} in all"]
    # When a job with a broken video fails, Snakemake says for each of its outputs that is marked
    # update() that it has no backup of it. There was nothing to back up, and nothing was lost.
    return not record.getMessage().startswith("Cannot restore")


def parse_command_line():
    """Snakemake's own view of its command line: `workflow` has it too late."""
    with contextlib.redirect_stderr(io.StringIO()):
        return parse_args(sys.argv[1:])[1]


def say(*lines):
    DISPLAY.clear()
    print(*lines, sep="\n", file=sys.stderr, flush=True)


def get_limit(resource):
    limit = workflow.global_resources.get(resource)
    return limit.value if limit is not None else None


def get_num_gpus():
    """GPUs that this run may use at a time: as given by --resources gpu=N, else 1."""
    return max(1, get_limit("gpu") or 1)


def get_num_threads():
    """Cores of a job: its GPU's share; all of them where no number of GPUs is given."""
    cores = get_limit("_cores")
    if cores:
        return max(1, cores // get_num_gpus())
    return workflow.resource_settings.max_threads or CLUSTER_THREADS


def get_resources(job):
    """What a job asks for, except what default-resources of a profile or the command line set:
    there, a rule's own resources would win."""
    own = {
        "gpu": 1,
        "mem_mb": config["mem_mb"],
        "runtime": ceil(MINUTES_PER_JOB + config["minutes_per_video"] * len(job.rows)),
    }
    defaults = workflow.resource_settings.default_resources or {}
    # Those that Snakemake has anyway were given by nobody: they have no text.
    given = [name for name, value in defaults.items() if value.raw is not None]
    return {name: value for name, value in own.items() if name not in given}


def get_targets(args, rows):
    """Feature files that the user asked for by path; empty if all rows are wanted."""
    asked = {os.path.normpath(target) for target in args.targets or []}
    targets = {target for target in asked if target.endswith(FEATURE_SUFFIXES)}
    unknown = sorted(targets - {row.feature_path for row in rows})
    if unknown:
        raise InputError(
            f"{path}: no row of {config['videos']} has this feature_path. Ask for it as it "
            "is written there"
            for path in unknown
        )
    return targets if targets == asked else set()


def get_forced(args, rows, targets):
    """Feature files that are made again although they are done (-F, -f or -R)."""
    if args.forceall or (args.force and targets):
        return {row.feature_path for row in rows}
    return {os.path.normpath(path) for path in args.forcerun or []}


def plan_run():
    """Jobs for the pending rows, their weights, and targets that are done already."""
    args = parse_command_line()
    settings, rows = plan.read_inputs(config)
    targets = get_targets(args, rows)
    if targets:
        rows = [row for row in rows if row.feature_path in targets]
    weights = find_weights(config["backbone"], config["weights"])
    records = read_records(config["results"])
    forced = get_forced(args, rows, targets)
    pending = plan.find_pending(rows, records, settings, weights, forced=forced)
    not_tried = []
    if not (config["retry_failed"] or targets or forced):
        pending, not_tried = plan.split_failed(pending, records, settings, weights)
    new_jobs = jobs.cut_into_jobs(
        pending,
        settings,
        weights,
        config["results"],
        videos_per_job=config["videos_per_job"],
        num_gpus=get_num_gpus(),
        num_threads=get_num_threads(),
    )
    lines = plan.describe(rows, pending, len(new_jobs), weights, num_not_tried=len(not_tried))
    if args.dryrun:
        say(*pending)
        if pending:
            lines.append(f"To do: {estimate(pending, local_files_only=settings.local_files_only)}")
        # Below what Snakemake says of each job, which may be thousands of lines.
        atexit.register(say, *lines)
    else:
        say(*lines)
    return new_jobs, weights, sorted(targets - {row.feature_path for row in pending})


def read_planned_jobs():
    """The jobs that this process was started for, as the main process wrote them."""
    names = parse_command_line().allowed_rules or []
    paths = [jobs.job_path(config["results"], name) for name in names]
    return [jobs.read_job(path) for path in paths if path.exists()]


def touch_stamp():
    """Make the stamp newer than any feature file, for as long as this process lives.

    The name is this process's own: a dry-run beside a running job must not make that job's
    outputs older than their input.
    """
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.touch()
    atexit.register(STAMP.unlink, missing_ok=True)


def start_run():
    """Before the first job, and never in a dry-run: the weights can be had, jobs have files."""
    if JOBS and WEIGHTS.identity is None:
        raise WorkflowError(missing_message(WEIGHTS))
    gc.freeze()
    gc.enable()
    for job in JOBS:
        jobs.write_job(job)
    if JOBS:
        say(f"The log of each job: {jobs.log_path(JOBS[0].results, JOBS[0].name)} and so on")
        WATCHER.start()
    # Should this process be killed, each row is in the manifest all the same.
    manifest.write_manifest(config)


def end_run():
    """Remove the jobs' files, and say what was done and what was not."""
    WATCHER.stop()
    for job in JOBS:
        jobs.remove_files(job)
    tidy_up(row.feature_path for job in JOBS for row in job.rows)
    records = read_records(config["results"])
    failed = jobs.find_failed(JOBS, records)
    say(*jobs.describe_end(JOBS, failed))
    say(manifest.leave_manifest(config, records))
    # Who stops a run does not want to wait for a report of it.
    if JOBS and config["report"] and all(reason != jobs.UNFINISHED for _, reason in failed):
        say(leave_report(config))


STAMP = Path(".snakemake") / f"stale-{os.getpid()}"
# With --sdm conda, python is the environment's; else it is the one that runs Snakemake.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable

DISPLAY = Display(say, sys.stderr)
logger.addFilter(tidy_message)

config.update(parse_values(config))
# A plan is millions of objects, and all of them stay: to look for garbage among them, again
# and again while Snakemake builds its graph, is a fifth of the time (measured).
gc.disable()
try:
    if workflow.is_main_process:
        JOBS, WEIGHTS, DONE_TARGETS = plan_run()
    else:
        JOBS, WEIGHTS, DONE_TARGETS = read_planned_jobs(), None, []
except InputError as error:
    raise WorkflowError(str(error))

WATCHER = Watcher(JOBS, DISPLAY, say)

if WEIGHTS and any(job.has_stale_rows for job in JOBS):
    touch_stamp()
