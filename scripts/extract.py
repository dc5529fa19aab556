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
from dataclasses import fields
from typing import Any

from videofeatures import log
from videofeatures.errors import UserError
from videofeatures.extraction.claims import remove_abandoned_claims
from videofeatures.monitoring.progress import Display
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.weights import find_weights, prepare_weights
from videofeatures.planning.jobs import Job, cut_into_jobs, read_job
from videofeatures.planning.plan import describe, find_pending, read_inputs, split_failed
from videofeatures.records import read_records
from videofeatures.report.manifest import try_write_manifest
from videofeatures.settings import Settings

BACKBONE_OF_TYPE = {"2d": "resnet152", "3d": "resnext101"}

logger = logging.getLogger("extract")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line: the original program's options and names, and ours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", help="CSV with the columns video_path,feature_path")
    source.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--log", help="file that the messages go to as well")
    parser.add_argument("--threads", type=_count, default=os.cpu_count(), help="CPU threads to use")
    parser.add_argument("--results", default="results", help="folder for the records")

    numbers = parser.add_argument_group("options that change the numbers")
    which = numbers.add_mutually_exclusive_group()
    which.add_argument(
        "--type", choices=BACKBONE_OF_TYPE, default="2d", help="2d: resnet152, 3d: resnext101"
    )
    which.add_argument("--backbone", choices=BACKBONES, help="instead of --type")
    weights = numbers.add_mutually_exclusive_group()
    weights.add_argument("--weights", default="auto", help="auto, a name, a file, or random")
    weights.add_argument("--resnext101_model_path", help="file with the weights of resnext101")
    numbers.add_argument("--precision", default="auto", help="of the CNN; auto, float32, …")
    numbers.add_argument("--half_precision", type=_switch, default=True, help="store float16 (1)")
    numbers.add_argument("--l2_normalize", type=_switch, default=True, help="length 1 (1)")
    numbers.add_argument("--frame_rate", type=float, help="frames a second")
    numbers.add_argument("--resize_size", type=int, help="short side in pixels")
    numbers.add_argument("--crop_size", type=int, help="centre crop in pixels, 0 for none")
    numbers.add_argument("--interpolation", default="bilinear", help="of ffmpeg's scaler")
    numbers.add_argument("--square_pixels", type=_switch, default=True, help="proportions (1)")
    numbers.add_argument("--hwaccel", default="none", help="device that ffmpeg decodes on")

    speed = parser.add_argument_group("options that change the speed")
    speed.add_argument("--device", default="auto", help="auto, cuda (or else fail), or cpu")
    speed.add_argument("--batch_size", type=int, help="frames or clips in one forward pass")
    speed.add_argument("--decoders", "--num_decoding_thread", type=int, help="videos at a time")
    speed.add_argument("--skip_unused", type=_switch, default=False, help="decode less (0)")

    trouble = parser.add_argument_group("options for what can go wrong")
    trouble.add_argument("--retry_failed", type=_switch, default=True, help="try them again (1)")
    trouble.add_argument("--truncated", default="fail", help="videos that end early: fail or keep")
    trouble.add_argument(
        "--local_files_only", type=_switch, default=True, help="refuse playlists (1)"
    )
    trouble.add_argument(
        "--decode_timeout_seconds", type=float, default=120, help="for a decoder that hangs (120)"
    )
    trouble.add_argument(
        "--claim_timeout_seconds", type=float, default=120, help="for another process's rows (120)"
    )
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or more")
    return int(text)


def _switch(text: str) -> bool:
    try:
        return {"1": True, "0": False, "true": True, "false": False}[text.lower()]
    except KeyError:
        raise argparse.ArgumentTypeError(f"{text!r} must be 1 or 0") from None


def as_config(args: argparse.Namespace) -> dict[str, Any]:
    """The options as the workflow's configuration."""
    backbone = args.backbone or BACKBONE_OF_TYPE[args.type]
    asked = args.weights
    if backbone == "resnext101" and args.resnext101_model_path:
        asked = args.resnext101_model_path
    return {f.name: getattr(args, f.name) for f in fields(Settings)} | {
        "backbone": backbone,
        "weights": asked,
        "videos": args.csv,
        "results": args.results,
        "retry_failed": args.retry_failed,
    }


def plan_by_hand(config: dict[str, Any]) -> Job | None:
    """One job of all pending rows of a CSV, or None if there is nothing to do.

    Raises:
        UserError: what is wrong with the options, the CSV or the weights.
    """
    settings, rows = read_inputs(config)
    weights = find_weights(config["backbone"], config["weights"])
    records = read_records(config["results"])
    pending, num_not_tried = find_pending(rows, records, settings, weights), 0
    if not config["retry_failed"]:
        pending, not_tried = split_failed(pending, records, settings, weights)
        num_not_tried = len(not_tried)
    jobs = cut_into_jobs(
        pending, settings, weights, config["results"], videos_per_job=max(1, len(pending))
    )
    for line in describe(rows, pending, len(jobs), weights, num_not_tried=num_not_tried):
        logger.info("%s", line)
    if not jobs:
        return None
    prepare_weights(weights)
    return jobs[0]


def _levels_on_stderr(args: argparse.Namespace, display: Display) -> dict[str, int]:
    """What stderr is not told of: in a workflow's job of anything but what ends it, as the workflow
    shows the rest; by hand, of rows that are done, unless it is the only log."""
    if args.job:
        return {log.ALL: logging.CRITICAL}
    return {log.ROWS: logging.WARNING} if args.log or display.is_live else {}


class Terminated(KeyboardInterrupt):
    """Asked to end by a signal: a scheduler's, or that of a terminal that was closed."""


def _terminate(number: int, _: object) -> None:
    raise Terminated(number)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 all done, 1 some rows failed, 2 the input cannot be used, 128 and the
    number of a signal (130 for Ctrl-C)."""
    args = parse_arguments(arguments)
    display = Display(logger.info, None if args.job else sys.stderr)
    levels = _levels_on_stderr(args, display)
    log.start_logging(args.log, levels_on_stderr=levels, before=display.clear)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    config = None if args.job else as_config(args)
    job, num_failed, status = None, 0, 0
    try:
        job = read_job(args.job) if config is None else plan_by_hand(config)
        if job is not None:
            # torch is imported only when there is something to compute.
            from videofeatures.extraction.pipeline import extract_rows

            num_failed = extract_rows(job, num_threads=args.threads, display=display)
            status = 1 if num_failed else 0
    except UserError as error:
        logger.error("%s", error)
        status = 2
    except KeyboardInterrupt as error:
        logger.error("interrupted; what is done is kept, and the next run does the rest")
        status = 128 + (error.args[0] if isinstance(error, Terminated) else signal.SIGINT)
    if job and num_failed:
        logging.getLogger(log.ALL).error(
            "%d of %d videos failed; the reasons are above and in the records. The next run tries "
            "them again",
            num_failed,
            len(job.rows),
        )
    if config and job:
        remove_abandoned_claims(row.feature_path for row in job.rows)
    if config and (job or not status):
        logger.info("%s", try_write_manifest(config))
    return status


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # To take torch apart would be a second of work (measured) and free nothing that the end
    # of the process does not.
    os._exit(status)
