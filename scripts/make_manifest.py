"""Write <results>/manifest.csv, the state of every row, from the disk and the records.

A run does it at its end; this does it at any time, also beside a run:

    python scripts/make_manifest.py videos=my.csv backbone=resnext101
"""

from __future__ import annotations

import sys
from typing import Any

from videofeatures.command_line import read_config, run_and_print
from videofeatures.report.manifest import describe_counts, write_manifest


def make(config: dict[str, Any]) -> str:
    """Write the manifest, and say what is in it."""
    return describe_counts(write_manifest(config), config["results"])


if __name__ == "__main__":
    sys.exit(run_and_print(make, read_config(__doc__.splitlines()[0])))
