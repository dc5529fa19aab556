"""Configuration and CSV, checked; the pending rows, cut into jobs.

The process that the user started plans. A process that Snakemake starts for one job, on
another node say, reads that job's file instead: by then, some of the features exist.

Defines:
    RUN           what is planned and asked for, how it starts and ends
    WEIGHTS       the weights they need; None in a process started for one job
    STAMP         file that makes Snakemake replace feature files that exist
    PYTHON, SCRIPTS  what runs the scripts, and their folder
    get_resources, get_job_inputs, get_end_marks, get_end_mark, complete, end_run
"""

import atexit
import contextlib
import gc
import io
import itertools
import logging
import os
import sys
from math import ceil
from pathlib import Path

import yaml
from snakemake.cli import parse_args
from snakemake.exceptions import WorkflowError
from snakemake.io import ancient, flag, is_flagged, sourcecache_entry
from snakemake.jobs import Job
from snakemake.logging import logger
from snakemake.sourcecache import HostingProviderFile
from snakemake_interface_logger_plugins.common import LogEvent


def find_root():
    """The top folder: not the workflow's own, as this one may be a module of another.

    One that is taken from a host of Git repositories (`github(...)`) is in Snakemake's cache,
    where only what is asked for is there, each file in its place.
    """
    folder = workflow.current_basedir
    if folder.is_local:
        return Path(str(folder)).parent
    if not isinstance(folder, HostingProviderFile):
        raise WorkflowError(f"{folder}: take this workflow from a clone, or by github(...)")
    for item in folder.hosted_repo.repo.commit(folder.ref).tree.traverse():
        if item.type == "blob" and item.path.startswith(("scripts/", "config/")):
            path = workflow.sourcecache.get_path(folder.join(f"../{item.path}"))
            if item.path == "config/config.yaml":
                root = Path(path).parents[1]
    return root


ROOT = find_root()
SCRIPTS = ROOT / "scripts"
sys.path.insert(0, str(SCRIPTS))

from videofeatures.planning import jobs
from videofeatures.planning import plan
from videofeatures.errors import UserError
from videofeatures.planning.estimate import estimate
from videofeatures.monitoring.progress import Display
from videofeatures.records import read_records
from videofeatures.planning.rows import FEATURE_SUFFIXES
from videofeatures.workflow.run import Run
from videofeatures.settings import parse_values
from videofeatures.networks.weights import find_weights

# Threads of a job on a cluster, where a run has no number of cores to share out.
CLUSTER_THREADS = 8

# Time that a job asks for beside that of its videos: to start, and to wait for its device.
MINUTES_PER_JOB = 15

# Rows, and jobs, that a dry-run lists one by one.
MAX_SHOWN = 20


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


def get_resources():
    """What a job asks for, except what default-resources of a profile or the command line set:
    there, a rule's own resources would win."""

    def get_runtime(wildcards):
        num_rows = len(RUN.find_job(wildcards.job).rows)
        return ceil(MINUTES_PER_JOB + config["minutes_per_video"] * num_rows)

    own = {"gpu": 1, "mem_mb": config["mem_mb"], "runtime": get_runtime}
    defaults = workflow.resource_settings.default_resources or {}
    # Those that Snakemake has anyway were given by nobody: they have no text.
    given = [name for name, value in defaults.items() if value.raw is not None]
    return {name: value for name, value in own.items() if name not in given}


def get_targets(args, rows):
    """Rows that the user asked for by path; None if all are wanted, or what another rule makes."""
    if not args.targets or not all(target.endswith(FEATURE_SUFFIXES) for target in args.targets):
        return None
    # Snakemake takes these for targets, too.
    others = [*(args.forcerun or []), *(args.prioritize or []), *(args.until or [])]
    others = [name for name in others if name.endswith(FEATURE_SUFFIXES)]
    asked = {os.path.abspath(target) for target in [*args.targets, *others]}
    found = [row for row in rows if os.path.abspath(row.feature_path) in asked]
    # Others than these are of other rules, or of none: Snakemake will know.
    return found if len(found) == len(asked) else None


def get_forced(args, rows, targets):
    """Feature files that are made again although they are done (-F, -f or -R)."""
    if args.forceall or (args.force and targets is not None):
        return {row.feature_path for row in rows}
    forced = {os.path.abspath(path) for path in args.forcerun or []}
    if not forced:
        return set()
    return {row.feature_path for row in rows if os.path.abspath(row.feature_path) in forced}


def plan_run():
    """The run, and the weights that its jobs need."""
    settings, rows = plan.read_inputs(config)
    targets = get_targets(ARGS, rows)
    rows = rows if targets is None else targets
    forced = get_forced(ARGS, rows, targets)
    weights = find_weights(config["backbone"], config["weights"])
    records = read_records(config["results"])
    pending = plan.find_pending(rows, records, settings, weights, forced=forced)
    not_tried = []
    if not (config["retry_failed"] or targets is not None or forced):
        pending, not_tried = plan.split_failed(pending, records, settings, weights)
    run_name = jobs.new_run_name()

    def cut(pending, first_number):
        return jobs.cut_into_jobs(
            pending,
            settings,
            weights,
            config["results"],
            videos_per_job=config["videos_per_job"],
            num_gpus=get_num_gpus(),
            num_threads=get_num_threads(),
            run_name=run_name,
            first_number=first_number,
        )

    planned = cut(pending, 1)
    on_demand = cut(not_tried, len(planned) + 1)
    lines = plan.describe(rows, pending, len(planned), weights, num_not_tried=len(not_tried))
    if ARGS.dryrun:
        # Not in the results: a dry-run leaves nothing there.
        name = "-".join(Path(os.path.relpath(config["results"])).parts)
        path = Path(".snakemake") / "pending" / f"{name}.csv"
        say(*plan.list_pending(pending, MAX_SHOWN, path))
        if pending:
            lines.append(f"To do: {estimate(pending, local_files_only=settings.local_files_only)}")
        # Below what Snakemake says of each job.
        atexit.register(say, *lines)
        atexit.register(say_what_is_not_listed)
    else:
        say(*lines)
    return Run(config, planned, on_demand, say, DISPLAY), weights


def say_what_is_not_listed():
    if (num_jobs := next(LISTED_JOBS)) > MAX_SHOWN:
        say(f"Of {num_jobs:,} jobs, {MAX_SHOWN} are listed above")


def touch_stamp():
    """Make the stamp newer than any feature file, for as long as this process lives.

    The name is this process's own: a dry-run beside a running job must not make that job's
    outputs older than their input.
    """
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.touch()
    atexit.register(STAMP.unlink, missing_ok=True)


def get_job_inputs(wildcards):
    """The weights, and the stamp where feature files are to be replaced."""
    job = RUN.find_job(wildcards.job)
    is_planned = workflow.is_main_process and job.has_stale_rows
    return [job.weights_path, *([STAMP] if is_planned else [])]


def get_end_marks(wildcards):
    """The end of each job, which is what the rule all asks for."""
    # Without any input, a rule runs each time.
    return RUN.ask_for_all() or config["videos"]


def get_end_mark(wildcards):
    """What a feature file that is asked for by its path needs: the end of the job that makes it.

    Snakemake records the inputs of a file, and takes it for out of date when they change: they
    are recorded under one name, whichever job it was, and where there is none to do.
    """
    try:
        needed = RUN.ask_for(wildcards.feature_path)
    except UserError as error:
        # Without such an input, this rule makes no such file, and others may.
        return str(error)
    return sourcecache_entry(needed or ancient(config["videos"]), "its job")


def complete(path):
    """Mark an output that Snakemake must not remove, as it is complete if it is there."""
    return flag(path, "complete")


async def cleanup(job, skip_outputs, snakemake_cleanup=Job.cleanup):
    """Remove what a failed job has left, except what is complete."""
    kept = [output for output in job.output if is_flagged(output, "complete")]
    await snakemake_cleanup(job, [*skip_outputs, *kept])


def notice(record):
    """A filter of Snakemake's messages, as it tells a logger of all that happens."""
    DISPLAY.clear()  # our line is not in their way
    event = getattr(record, "event", None)
    if event == LogEvent.RUN_INFO and not (ARGS.dryrun or ARGS.touch):
        start_run()
    if event == LogEvent.JOB_INFO and ARGS.dryrun:
        is_ours = record.rule_name in (get_rule_name("extract"), get_rule_name("feature"))
        return not is_ours or next(LISTED_JOBS) < MAX_SHOWN
    if record.levelno == logging.WARNING:
        # What is asked for by its path is there before its rule runs, as it should be.
        early = f"Warning: the following output files of rule {get_rule_name('feature')} were not"
        return not record.getMessage().startswith(early)
    return True


def get_rule_name(name):
    """The name that a workflow around this one has given to one of its rules, if it has it."""
    return getattr(rules, name).rule.name if rules.has(name) else None


def start_run():
    """All is planned, and nothing has started: neither in a dry-run, nor where nothing is to do.

    Not the workflow's `onstart`, which is left out where this is a module, or with --no-hooks.
    """
    gc.freeze()
    gc.enable()
    try:
        RUN.start(whole=any(rule.is_checkpoint for rule in workflow.rules))
    except OSError as error:
        results = config["results"]
        raise WorkflowError(f"{results}: cannot be written: {error.strerror}. No job was started")
    RUN.end_with_process(latency_seconds=workflow.execution_settings.latency_wait)


def end_run():
    """At the end of the run; where this is a module, at the end of the process."""
    RUN.end(latency_seconds=workflow.execution_settings.latency_wait)


ARGS = parse_command_line()
STAMP = Path(".snakemake") / f"stale-{os.getpid()}"
LISTED_JOBS = itertools.count()
# With --sdm conda, python is the environment's; else it is the one that runs Snakemake.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable

DISPLAY = Display(say, sys.stderr)

# A module's configuration is all that its user gives: what he leaves out is as it is here.
with open(ROOT / "config" / "config.yaml", encoding="utf-8") as file:
    config = parse_values((yaml.safe_load(file) or {}) | config)
paths = workflow.modifier.path_modifier
if paths.prefix or paths.modifies_prefixes:
    raise WorkflowError(
        "this workflow cannot be a module with a prefix: its paths are those of the CSV, and of its "
        "configuration. Leave `prefix` and `replace_prefix` out"
    )

# A plan is millions of objects, and all of them stay: to look for garbage among them, again
# and again while Snakemake builds its graph, is a fifth of the time (measured).
gc.disable()
try:
    if workflow.is_main_process:
        RUN, WEIGHTS = plan_run()
    else:
        RUN, WEIGHTS = Run(config, [], [], say, DISPLAY), None
except UserError as error:
    raise WorkflowError(str(error))

if workflow.is_main_process:
    logger.addFilter(notice)
    Job.cleanup = cleanup
    if RUN.has_stale_rows:
        touch_stamp()
