"""What happens beside the rules: a run starts and ends, and Snakemake's messages are filtered.

Defines:
    complete      marks an output that is not removed
    end_run       the end of a run
"""

import atexit
import itertools
import logging

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake.exceptions import WorkflowError
from snakemake.io import flag, is_flagged
from snakemake.jobs import Job
from snakemake.logging import logger
from snakemake.workflow import Workflow
from snakemake_interface_logger_plugins.common import LogEvent

from videofeatures.errors import UserError, describe_os_error
from videofeatures.results import work_folder
from videofeatures.urls import is_url
from videofeatures.workflow.run import MAX_LISTED

LISTED_JOBS = itertools.count()


def complete(path):
    """Mark an output that Snakemake must not remove, as it is complete if it is there."""
    return flag(path, "complete")


async def cleanup(job, skip_outputs, snakemake_cleanup=Job.cleanup):
    """Remove what a failed job has left, except what is complete."""
    kept = [output for output in job.output if is_flagged(output, "complete")]
    await snakemake_cleanup(job, [*skip_outputs, *kept])


def prepare(workflow, *args, snakemake_prepare=Workflow._prepare_dag, **options):
    """Ask for what is on a disk: of feature files in buckets, for the ends of their jobs."""
    settings = workflow.dag_settings
    try:
        settings.targets = frozenset(RUN.find_on_disk(settings.targets))
    except UserError as error:
        raise WorkflowError(str(error))
    return snakemake_prepare(workflow, *args, **options)


def notice(record):
    """Filter Snakemake's messages, as it tells a logger of all that happens."""
    DISPLAY.clear()  # our line is not in their way
    event = getattr(record, "event", None)
    if event == LogEvent.RUN_INFO and not (ARGS.dryrun or ARGS.touch):
        start_run()
    if record.getMessage() == NOTHING_TO_BE_DONE_MSG and not (ARGS.dryrun or ARGS.touch):
        RUN.has_nothing_to_do()
        RUN.end_with_process()
    if event == LogEvent.JOB_INFO and ARGS.dryrun:
        is_ours = record.rule_name in (get_rule_name("extract"), get_rule_name("feature"))
        return not is_ours or next(LISTED_JOBS) < MAX_LISTED
    if record.levelno == logging.WARNING:
        # What is asked for by its path is there before its rule runs, as it should be.
        early = f"Warning: the following output files of rule {get_rule_name('feature')} were not"
        return not record.getMessage().startswith(early)
    return True


def get_rule_name(name):
    """Return what a workflow around this one calls one of its rules, or None if it has it not."""
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
        folder = work_folder(config["results"])
        problem = describe_os_error(error)
        raise WorkflowError(f"{folder}: cannot be written: {problem}. No job was started")
    RUN.end_with_process(latency_seconds=workflow.execution_settings.latency_wait)


def end_run():
    """At the end of the run; where this is a module, at the end of the process."""
    RUN.end(latency_seconds=workflow.execution_settings.latency_wait)


def say_plan():
    """Say what is planned; in a dry-run, below what Snakemake says of each job."""
    if ARGS.touch:
        DISPLAY.say("--touch makes no features, and changes nothing: what is pending stays so")
    if not ARGS.dryrun:
        DISPLAY.say(*RUN.describe())
        return
    DISPLAY.say(*RUN.list_pending())
    atexit.register(DISPLAY.say, *RUN.describe(), *RUN.describe_effort())
    atexit.register(say_what_is_not_listed)


def say_what_is_not_listed():
    if (num_jobs := next(LISTED_JOBS)) > MAX_LISTED:
        DISPLAY.say(f"Of {num_jobs:,} jobs, {MAX_LISTED} are listed above")


if workflow.is_main_process:
    say_plan()
    logger.addFilter(notice)
    Job.cleanup = cleanup
    if any(map(is_url, ARGS.targets or ())):
        Workflow._prepare_dag = prepare
