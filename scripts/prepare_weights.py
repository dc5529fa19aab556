"""Fetch, verify and copy the weights that a run needs; `rules/weights.smk` calls this."""

from __future__ import annotations

import logging
from pathlib import Path

from videofeatures.command_line import make_parser, run_script
from videofeatures.errors import UserError, describe_os_error
from videofeatures.log import start_logging
from videofeatures.networks.weights import find_weights, prepare_weights

logger = logging.getLogger("prepare_weights")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 the file is there, 2 the weights cannot be had or do not fit."""
    parser = make_parser(__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True, help="auto, a name, a file, or random")
    parser.add_argument("--output", required=True, type=Path, help="the file that is expected")
    parser.add_argument("--log", help="file that the messages go to as well")
    args = parser.parse_args(arguments)
    try:
        start_logging(args.log)
        path = prepare_weights(find_weights(args.backbone, args.weights))
        if path != args.output:
            raise UserError(f"{args.weights}: has changed while the run started. Start it again")
    except UserError as error:
        logger.error("%s", error)
        return 2
    except OSError as error:
        logger.error("%s", describe_os_error(error))
        return 2
    logger.info("weights ready: %s", path)
    return 0


if __name__ == "__main__":
    run_script(main)
