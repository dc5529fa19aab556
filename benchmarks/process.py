"""Run a process to its end, and measure what it took with its children."""

from __future__ import annotations

import os
import tempfile
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
    stderr: str


def run(
    command: list,
    folder: Path,
    *,
    environment: dict[str, str] | None = None,
    check: bool = True,
) -> Run:
    """Run a process in a folder to its end; return what it took.

    Args:
        check: whether it must end well.

    Raises:
        SystemExit: with its stderr, if it failed and `check`.
    """
    started_time, started = time.time(), time.monotonic()
    before = os.times()
    # Into files: a pipe would have to be emptied beside.
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = psutil.Popen(
            list(map(str, command)), cwd=folder, env=environment, stdout=stdout, stderr=stderr
        )
        peak = _watch(process)
        wall_seconds = time.monotonic() - started
        after = os.times()
        outputs = []
        for stream in (stdout, stderr):
            stream.seek(0)
            outputs.append(stream.read())
    if process.returncode and check:
        raise SystemExit(
            f"{' '.join(map(str, command))} ended with {process.returncode}:\n{outputs[1]}"
        )
    cpu_seconds = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return Run(wall_seconds, cpu_seconds, peak / 1e6, started_time, *outputs)


def _watch(process: psutil.Popen) -> int:
    """Wait for a process to end; return the most memory that it and its children had, in bytes."""
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
    return peak
