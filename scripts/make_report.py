"""Write <results>/report.html: what was done, how, and what came out, on one page.

A run does it at its end; this does it at any time, also beside a run:

    python scripts/make_report.py videos=my.csv backbone=resnext101
"""

from __future__ import annotations

import os
from typing import Any

from videofeatures.command_line import read_config, run_and_print


def make(config: dict[str, Any]) -> str:
    """Write the report, and say where it is."""
    from videofeatures.report.page import write_report  # after what can be said at once

    return f"{write_report(config)}: open it in a browser"


if __name__ == "__main__":
    status = run_and_print(make, read_config(__doc__.splitlines()[0]))
    os._exit(status)  # a thread that waits for a disk must not keep the process
