"""What is measured of the demo's clips, printed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path


def print_tables(doc: str | None, measure: Callable[[Path], str]) -> None:
    """Print what `measure` returns for the folder of clips that the command line names.

    Args:
        doc: of the benchmark, whose first line `--help` shows.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--clips", type=Path, default=Path("demo/clips"))
    print(measure(parser.parse_args().clips))
