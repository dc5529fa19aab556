"""The report: one page that shows a collection, how it was done, and what came out.

manifest, records ─► collect ─► charts ─┐
features, videos  ─► samples ─► charts ─┴► page ─► report.html
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videofeatures.results import work_folder

SCRIPT = Path(__file__).parents[2] / "make_report.py"

MAX_SECONDS = 600
"""The report of a million rows took 94 s (measured); a disk may be slower."""


def report_path(results: str | os.PathLike, name: str = "") -> Path:
    """Return the path of a collection's report: of one recipe of several, by its name, but for the
    first, whose page stands for all. Of results in a bucket, that of which it has a copy."""
    return work_folder(results) / (f"report-{name}.html" if name else "report.html")


def try_write_report(config: Mapping[str, Any]) -> str:
    """Write the report of the manifest just written; return a line about it, also if that fails.

    In a process of its own: neither what is in a video nor a library can end the run badly.
    """
    values = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in config.items()]
    command = [sys.executable, str(SCRIPT), "--configfile", os.devnull, "--keep_manifest", *values]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=MAX_SECONDS)
    except subprocess.TimeoutExpired:
        return f"The report was not made in {MAX_SECONDS} s. Try scripts/make_report.py"
    if result.returncode:
        last_lines = result.stderr.splitlines()[-1:] or ["no reason"]
        return f"The report cannot be made ({last_lines[0]}). Try scripts/make_report.py"
    return result.stdout.strip()
