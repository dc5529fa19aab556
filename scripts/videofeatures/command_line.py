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


def read_config(description: str, arguments: list[str] | None = None) -> dict[str, Any]:
    """The configuration of a command line; its values are not yet checked.

    Ends the program with a message if the file cannot be read.

    Args:
        description: of the program, for `--help`.
        arguments: those of the process by default.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    args = parser.parse_args(arguments)
    if wrong := [value for value in args.values if "=" not in value]:
        parser.error(f"{wrong[0]!r} is not KEY=VALUE")
    try:
        config = yaml.safe_load(args.configfile.read_text(encoding="utf-8")) or {}
    except OSError as error:
        parser.exit(2, f"{args.configfile}: {error.strerror}\n")
    except yaml.YAMLError as error:
        parser.exit(2, f"{args.configfile}: is not YAML: {error}\n")
    return parse_values(config | dict(value.split("=", 1) for value in args.values))


def run_and_print(make: Callable[[dict[str, Any]], str], config: dict[str, Any]) -> int:
    """Print what `make` says of what it has made of a configuration.

    Returns:
        Exit status: 0 made, 2 the input cannot be used.
    """
    try:
        print(make(config), flush=True)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0
