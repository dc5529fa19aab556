"""What only Snakemake knows: where this workflow is, its command line, its limits; the plan.

The rest is `videofeatures.workflow.run`: the process that the user started plans; one that
Snakemake starts for one job, on another node say, reads that job's file instead.

Defines:
    RUN           what is planned and asked for, how it starts and ends
    STAMP         file that makes Snakemake replace feature files that exist
    PYTHON, SCRIPTS  what runs the scripts, and their folder
    get_resources, get_job_inputs, get_end_marks, get_end_mark
"""

import atexit
import contextlib
import functools
import gc
import io
import os
import re
import sys
from math import ceil
from pathlib import Path

from snakemake.cli import parse_args, parse_config
from snakemake.common.configfile import load_configfile
from snakemake.exceptions import WorkflowError
from snakemake.io import ancient, sourcecache_entry
from snakemake.sourcecache import HostingProviderFile


def find_root():
    """Return the top folder: not the workflow's own, as this one may be a module of another.

    One that is taken from a host of Git repositories (`github(...)`) is in Snakemake's cache,
    where only what is asked for is there, each file in its place.
    """
    folder = workflow.current_basedir
    if folder.is_local:
        root = Path(str(folder)).parent
        if set("{}") & set(str(root)):
            raise WorkflowError(
                f"{root}: Snakemake takes the braces in this name for those of wildcards. Rename "
                "the folder"
            )
        return root
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

from videofeatures.command_line import read_config_file
from videofeatures.errors import UserError, describe_os_error
from videofeatures.monitoring.progress import Display
from videofeatures.networks.weights import SHARED_FOLDER
from videofeatures.planning import jobs
from videofeatures.planning.plan import Request
from videofeatures.settings import defaults, parse_values, text_keys
from videofeatures.workflow.run import Run

# Threads of a job on a cluster, where a run has no number of cores to share out.
CLUSTER_THREADS = 8

# Time that a job asks for beside that of its videos: to start, and to wait for its device.
MINUTES_PER_JOB = 15


def get_limit(resource):
    limit = workflow.global_resources.get(resource)
    return limit.value if limit is not None else None


def get_num_gpus():
    """Return the GPUs that this run may use at a time: as given by --resources gpu=N, else 1."""
    return max(1, get_limit("gpu") or 1)


def get_num_threads():
    """Return the cores of a job: its GPU's share; all where no number of GPUs is given."""
    cores = get_limit("_cores")
    if cores:
        return max(1, cores // get_num_gpus())
    return workflow.resource_settings.max_threads or CLUSTER_THREADS


def get_resources():
    """Return what a job asks for, except what default-resources of a profile or the command line
    set: there, a rule's own resources would win."""

    def get_runtime(wildcards):
        num_videos = len(RUN.find_job(wildcards.job).targets)
        return ceil(MINUTES_PER_JOB + config["minutes_per_video"] * num_videos)

    own = {"gpu": 1, "mem_mb": config["mem_mb"], "runtime": get_runtime}
    defaults = workflow.resource_settings.default_resources or {}
    # Those that Snakemake has anyway were given by nobody: they have no text.
    given = [name for name, value in defaults.items() if value.raw is not None]
    return {name: value for name, value in own.items() if name not in given}


def get_request():
    """Return which feature files the command line asks for, and which of them to make again."""
    return Request.from_arguments(
        targets=ARGS.targets or [],
        # Snakemake takes these for targets, too.
        others=[*(ARGS.forcerun or []), *(ARGS.prioritize or []), *(ARGS.until or [])],
        forced=ARGS.forcerun or [],
        is_forced=ARGS.force,
        is_all_forced=ARGS.forceall,
    )


def get_job_inputs(wildcards):
    """Return the weights, and the stamp where feature files are to be replaced."""
    job = RUN.find_job(wildcards.job)
    is_planned = workflow.is_main_process and job.has_stale_targets
    return [*(recipe.weights_path for recipe in job.recipes), *([STAMP] if is_planned else [])]


def get_end_marks(wildcards):
    """Return the end of each job, which is what the rule all asks for."""
    # Without any input, a rule runs each time.
    return RUN.ask_for_all() or config["videos"]


def get_end_mark(wildcards):
    """Return what a feature file that is asked for by its path needs: the end of its job.

    Snakemake records the inputs of a file, and takes it for out of date when they change: they
    are recorded under one name, whichever job it was, and where there is none to do.
    """
    try:
        needed = RUN.ask_for(wildcards.feature_path)
    except UserError as error:
        # Without such an input, this rule makes no such file, and others may.
        return str(error)
    return sourcecache_entry(needed or ancient(config["videos"]), "its job")


def as_typed(given):
    """Return a configuration in which text stands as it was typed, where Snakemake made something
    else of it: of `001` a number, of `on` true.

    Only what still is what Snakemake made of it: a module's configuration may be another one. A
    process that Snakemake starts for a job is given the same files and the same words.
    """
    typed = {}
    for path in [*workflow.configfiles, *workflow.overwrite_configfiles]:
        with contextlib.suppress(UserError):  # YAML of templates, say, which Snakemake has read
            as_read = load_configfile(path)
            typed |= {key: (text, as_read.get(key)) for key, text in read_config_file(path).items()}
    for entry in ARGS.config or []:
        key, text = entry.split("=", 1)
        typed[key] = text, parse_config([entry])[key]
    return given | {
        key: typed[key][0]
        for key in text_keys() & typed.keys() & given.keys()
        if repr(given[key]) == repr(typed[key][1])
    }


# Snakemake's own view of its command line: `workflow` has it too late.
with contextlib.redirect_stderr(io.StringIO()):
    ARGS = parse_args(sys.argv[1:])[1]
STAMP = Path(".snakemake") / f"stale-{os.getpid()}"
# With --sdm conda, python is the environment's; else it is the one that runs Snakemake.
PYTHON = "python" if workflow.deployment_settings.deployment_method else sys.executable

DISPLAY = Display(functools.partial(print, file=sys.stderr, flush=True), sys.stderr)

# A module's configuration is all that its user gives, and a file may name some keys only: what is
# left out is as it is here.
try:
    config = parse_values(
        defaults() | read_config_file(ROOT / "config" / "config.yaml") | as_typed(config)
    )
except UserError as error:
    raise WorkflowError(str(error))
paths = workflow.modifier.path_modifier
if paths.prefix or paths.modifies_prefixes:
    raise WorkflowError(
        "this workflow cannot be a module with a prefix: its paths are those of the CSV, and of its "
        "configuration. Leave `prefix` and `replace_prefix` out"
    )

# A plan is millions of objects, and all of them stay: to look for garbage among them, again
# and again while Snakemake builds its graph, is a fifth of the time (measured).
gc.disable()
if workflow.is_main_process and sys.getfilesystemencoding() != "utf-8":
    raise WorkflowError(
        f"the locale of this shell has names of files in {sys.getfilesystemencoding()}, the CSV in "
        "UTF-8: those that are not ASCII would not be found. Type `export PYTHONUTF8=1`, and "
        "start again"
    )
RUN = Run(config, DISPLAY)
if workflow.is_main_process:
    try:
        RUN.plan(get_request(), num_gpus=get_num_gpus(), num_threads=get_num_threads())
    except UserError as error:
        raise WorkflowError(str(error))
    except OSError as error:
        raise WorkflowError(describe_os_error(error))
    if RUN.has_stale_targets:
        # Newer than any feature file, for as long as this process lives. The name is its own: a
        # dry-run beside a running job must not make that job's outputs older than their input.
        STAMP.parent.mkdir(exist_ok=True)
        STAMP.touch()
        atexit.register(STAMP.unlink, missing_ok=True)
