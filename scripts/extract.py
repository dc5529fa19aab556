"""CNN features of the videos of a CSV, one file per row; rows that are done are skipped.

By hand:  python scripts/extract.py --csv videos.csv --type 2d
Snakemake runs it with --job, a file that names the rows of one job.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, get_args

from videofeatures import log
from videofeatures.command_line import make_parser, run_script
from videofeatures.errors import UserError, describe_os_error
from videofeatures.extraction.claims import remove_abandoned_claims
from videofeatures.files import path_problem
from videofeatures.monitoring.progress import Display
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.weights import prepare_weights
from videofeatures.planning.jobs import Job, cut_into_jobs, plan_folder, read_job
from videofeatures.planning.plan import make_plan
from videofeatures.report.manifest import try_write_manifest
from videofeatures.settings import KEYS, Config, Group, Settings

BACKBONE_OF_TYPE = {"2d": "resnet152", "3d": "resnext101"}

OPTIONS = [*Settings.model_fields, "weights", "results", "retry_failed", "trust"]
"""Keys of the configuration that are options here, each under its own name."""

ORIGINAL_NAMES = {"decoders": ["--num_decoding_thread"]}
"""Names of options in the original program."""

SPIN_COUNT = "10000"
"""How often a thread of torch looks for the next thing to do before it sleeps: some 0.1 ms. By its
own default, 30 times as often (GCC's libgomp), it keeps those that decode, or other jobs, from the
core. On two cores, one job took 8.5 to 8.9 instead of 8.5 to 10.8 s over 160 s of 720p with
EfficientNet-Lite0, two at a time 18 instead of 49 s. Not to wait at all (`OMP_WAIT_POLICY=passive`)
makes batches of one image take twice as long (all measured)."""

logger = logging.getLogger("extract")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the command line: the original program's options and names, and ours.

    Raises:
        SystemExit: with a message, if an option is wrong.
    """
    parser = make_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", help="CSV with the columns video_path,feature_path")
    source.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--log", help="file that the messages go to as well")
    parser.add_argument("--threads", type=_count, default=os.cpu_count(), help="CPU threads to use")

    groups = {g: parser.add_argument_group(g.value.partition(":")[0]) for g in Group}
    backbone = groups[Group.NUMBERS].add_mutually_exclusive_group()
    backbone.add_argument(
        "--type", choices=BACKBONE_OF_TYPE, default="2d", help="2d: resnet152, 3d: resnext101"
    )
    backbone.add_argument(
        "--backbone",
        nargs="+",
        metavar="NAME",
        help=f"instead of --type: {', '.join(BACKBONES)}, or FAMILY:NAME; or several, whose names "
        "stand for {backbone} in the feature paths",
    )
    weights = groups[Group.NUMBERS].add_mutually_exclusive_group()
    _add_option(weights, "weights")
    weights.add_argument("--resnext101_model_path", help="file with the weights of resnext101")
    for name in OPTIONS:
        if name not in ("backbone", "weights"):
            _add_option(groups[KEYS[name].group], name)
    return parser.parse_args(arguments)


def _add_option(group: argparse._ActionsContainer, name: str) -> None:
    """Add the option that is a key of the configuration."""
    field = Config.model_fields[name]
    kinds = (field.annotation, *get_args(field.annotation))
    kinds += tuple(kind for union in kinds for kind in get_args(union))
    parsers: dict[Any, Callable[[str], Any]] = {bool: _switch, int: int, float: float}
    if "native" in kinds:
        parsers[float] = _rate
    default = field.default
    shown_default = int(default) if isinstance(default, bool) else KEYS[name].unset or default
    group.add_argument(
        f"--{name}",
        *ORIGINAL_NAMES.get(name, ()),
        type=next((parse for kind, parse in parsers.items() if kind in kinds), str),
        default=default,
        help=f"{KEYS[name].help} (default: {shown_default})".replace("%", "%%"),
    )


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or more")
    return int(text)


def _rate(text: str) -> float | str:
    return text if text == "native" else float(text)


def _switch(text: str) -> bool:
    try:
        return {"1": True, "0": False, "true": True, "false": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or 0") from None


def as_config(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options as the workflow's configuration."""
    config = {name: getattr(args, name) for name in OPTIONS} | {"videos": args.csv}
    names = args.backbone or [BACKBONE_OF_TYPE[args.type]]
    config["backbone"] = names[0] if len(names) == 1 else names
    if config["backbone"] == "resnext101" and args.resnext101_model_path:
        config["weights"] = args.resnext101_model_path
    return config


def plan_by_hand(config: dict[str, Any]) -> list[Job]:
    """Return a job of all pending rows of a CSV, and jobs of those that were in work when a
    process was killed, if there are any.

    Raises:
        UserError: the options, the CSV or the weights cannot be used.
    """
    plan = make_plan(config)
    jobs = cut_into_jobs(
        plan.pending,
        plan.config.settings,
        plan.recipes,
        plan.config.results,
        videos_per_job=max(1, len(plan.pending)),
        run_number=plan.run_number,
    )
    for line in plan.describe(len(jobs)):
        logger.info("%s", line)
    if jobs:
        for weights in plan.weights:
            prepare_weights(weights)
    return jobs


def _levels_on_stderr(args: argparse.Namespace, display: Display) -> dict[str, int]:
    """Return the least level that stderr gets, by logger.

    In a workflow's job, it gets only what ends the job, as the workflow shows the rest. By hand,
    it gets rows that are done only if it is the only log.
    """
    if args.job:
        return {log.ALL: logging.CRITICAL}
    return {log.ROWS: logging.WARNING} if args.log or display.is_live else {}


class Terminated(KeyboardInterrupt):
    """Asked to end by a signal: a scheduler's, or that of a terminal that was closed."""


def _terminate(number: int, _: object) -> None:
    raise Terminated(number)


def main(arguments: list[str] | None = None) -> int:
    """Extract the features of a CSV or of a job.

    Returns:
        Exit status: 0 all done, 1 some rows failed, 2 the input cannot be used, 128 and the
        number of a signal (130 for Ctrl-C).
    """
    args = parse_arguments(arguments)
    display = Display(logger.info, None if args.job else sys.stderr)
    levels = _levels_on_stderr(args, display)
    if args.log and (problem := path_problem(args.log)):
        print(f"--log: {problem}", file=sys.stderr)
        return 2
    try:
        log.start_logging(args.log, levels_on_stderr=levels, before=display.clear)
    except OSError as error:
        print(f"{args.log}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # read once, with torch
    config = None if args.job else as_config(args)
    jobs: list[Job] = []
    num_failed, status = 0, 0
    try:
        jobs = [read_job(args.job)] if config is None else plan_by_hand(config)
        for job in jobs:
            # torch is imported only when there is something to compute.
            from videofeatures.extraction.pipeline import run_job

            num_failed += run_job(job, num_threads=args.threads, display=display)
        status = 1 if num_failed else 0
    except UserError as error:
        logger.error("%s", error)
        status = 2
    except OSError as error:
        logger.error("%s", describe_os_error(error))
        status = 2
    except KeyboardInterrupt as error:
        logger.error("interrupted; what is done is kept, and the next run does the rest")
        status = 128 + (error.args[0] if isinstance(error, Terminated) else signal.SIGINT)
    if num_failed:
        logging.getLogger(log.ALL).error(
            "%d of %d %s failed; the reasons are above and in the records. The next run tries "
            "them again",
            num_failed,
            sum(len(job.targets) for job in jobs),
            jobs[0].progress_unit,
        )
    if config and jobs:
        remove_abandoned_claims(
            (target.feature_path for job in jobs for target in job.targets),
            plan_folder(jobs[0].results),
        )
    if config and (jobs or not status):
        logger.info("%s", try_write_manifest(config))
    return status


if __name__ == "__main__":
    run_script(main)
