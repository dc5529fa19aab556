"""The configuration as scripts take it: a file, and KEY=VALUE as Snakemake's `--config` has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from videofeatures.errors import UserError
from videofeatures.settings import parse_values


def read_config(
    parser: argparse.ArgumentParser, arguments: list[str] | None = None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return a command line's options, and its configuration, whose values are not yet checked.

    Args:
        parser: of the program, with the options that it has beside these.
        arguments: those of the process by default.

    Raises:
        SystemExit: with a message, if the options are wrong or the file cannot be read.
    """
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    args = parser.parse_args(arguments)
    if wrong := [value for value in args.values if "=" not in value]:
        parser.error(f"{wrong[0]!r} is not KEY=VALUE")
    try:
        config = yaml.safe_load(args.configfile.read_text(encoding="utf-8")) or {}
    except OSError as error:
        parser.exit(2, f"{args.configfile}: {error.strerror}\n")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.exit(2, f"{args.configfile}: is not YAML in UTF-8: {error}\n")
    if not isinstance(config, dict):
        parser.exit(2, f"{args.configfile}: has no keys and values\n")
    return args, parse_values(config | dict(value.split("=", 1) for value in args.values))


def run_and_print(make: Callable[[], str]) -> int:
    """Print what `make` returns, or the problem that it raises.

    Args:
        make: returns a line on what it has made; raises OSError or UserError.

    Returns:
        Exit status: 0 made, 2 the input cannot be used.
    """
    try:
        print(make(), flush=True)
    except OSError as error:
        # Not every write knows the name of its file.
        place = "" if error.filename is None else f"{error.filename}: "
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
