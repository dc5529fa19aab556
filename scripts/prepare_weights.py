"""Fetch, verify and copy the weights that a run needs; `rules/weights.smk` calls this."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from videofeatures.errors import UserError
from videofeatures.log import start_logging
from videofeatures.networks.weights import find_weights, prepare_weights

logger = logging.getLogger("prepare_weights")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 0 the file is there, 2 the weights cannot be had or do not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True, help="auto, a name, a file, or random")
    parser.add_argument("--output", required=True, type=Path, help="the file that is expected")
    parser.add_argument("--log", help="file that the messages go to as well")
    args = parser.parse_args(arguments)
    start_logging(args.log)
    try:
        path = prepare_weights(find_weights(args.backbone, args.weights))
        if path != args.output:
            raise UserError(f"{args.weights}: has changed while the run started. Start it again")
    except UserError as error:
        logger.error("%s", error)
        return 2
    logger.info("weights ready: %s", path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
