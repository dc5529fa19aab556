"""Write <results>/manifest.csv, the state of every row, from the disk and the records.

A run does it at its end; this does it at any time, also beside a run:

    python scripts/make_manifest.py videos=my.csv backbone=resnext101
"""

from __future__ import annotations

from videofeatures.command_line import make_parser, read_config, run_and_print, run_script
from videofeatures.planning.plan import make_plan
from videofeatures.report.manifest import make_manifest


def main() -> int:
    """Return the exit status: 0 written, 2 the input cannot be used."""
    _, config = read_config(make_parser(__doc__))
    return run_and_print(lambda: make_manifest(make_plan(config)))


if __name__ == "__main__":
    run_script(main)
