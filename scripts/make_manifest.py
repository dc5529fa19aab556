"""Write <results>/manifest.csv, the state of every row, from the disk and the records.

A run does it at its end; this does it at any time, also beside a run:

    python scripts/make_manifest.py videos=my.csv backbone=resnext101
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import yaml

from videofeatures.errors import InputError
from videofeatures.manifest import describe_counts, write_manifest
from videofeatures.settings import parse_values


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 written, 2 the input cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE", help="of the configuration")
    parser.add_argument("--configfile", type=Path, default=Path("config/config.yaml"))
    args = parser.parse_args(arguments)
    if wrong := [value for value in args.values if "=" not in value]:
        parser.error(f"{wrong[0]!r} is not KEY=VALUE")
    try:
        config = yaml.safe_load(args.configfile.read_text(encoding="utf-8")) or {}
        config |= dict(value.split("=", 1) for value in args.values)
        config = parse_values(config)
        print(describe_counts(write_manifest(config), config["results"]))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
