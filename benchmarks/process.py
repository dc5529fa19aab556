"""Run a process to its end, and know what it took with its children."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLING_SECONDS = 0.05

YOUNG_SECONDS = 0.1
"""A child younger than this is not counted: until it runs a program of its own, its memory is
its parent's."""


@dataclass
class Run:
    """What one process took, with its children.

    Attributes:
        peak_mb: largest sum of their resident memory, sampled. Pages that they share count
            once for each, so the true peak is lower.
        started_time: in seconds since the epoch.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_mb: float
    started_time: float
    stdout: str


def run(command: list, folder: Path) -> Run:
    """Run a process in a folder.

    Raises:
        SystemExit: with what it said, if it failed.
    """
    started_time, started = time.time(), time.monotonic()
    before = os.times()
    process = psutil.Popen(
        list(map(str, command)),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    peak = 0
    while process.poll() is None:
        try:
            newest = time.time() - YOUNG_SECONDS
            children = process.children(recursive=True)
            family = [process, *(child for child in children if child.create_time() < newest)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(SAMPLING_SECONDS)
    wall_seconds = time.monotonic() - started
    after = os.times()
    stdout, stderr = process.communicate()
    if process.returncode:
        raise SystemExit(
            f"{' '.join(map(str, command))} ended with {process.returncode}:\n{stderr}"
        )
    cpu_seconds = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return Run(wall_seconds, cpu_seconds, peak / 1e6, started_time, stdout)
