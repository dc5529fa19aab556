"""A run of many jobs, on this machine or others, watched through what its jobs record."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from videofeatures.errors import MAX_SHOWN
from videofeatures.monitoring.progress import Display, Progress
from videofeatures.planning.jobs import Job, run_name_of
from videofeatures.records import records_folder

POLL_SECONDS = 1
MAX_SHARE = 0.05
"""Of the time that may go into looking: with thousands of jobs on a slow disk, looks are rarer."""


class Watcher:
    """Reads what the jobs of a run append to their records, and shows how far the run is."""

    def __init__(self, jobs: Sequence[Job], display: Display, say: Callable[[str], None]):
        """Nothing is read before it is started.

        Args:
            jobs: all of one run; none are nothing to watch.
            say: takes a line about a row that failed.
        """
        self.progress = Progress(sum(len(job.rows) for job in jobs))
        self._jobs = jobs
        self._display = display
        self._say = say
        self._read_until: dict[Path, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Watch from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take the line away; what was recorded up to now is counted. It may not have begun."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._display.clear()

    def _watch(self) -> None:
        pause = float(POLL_SECONDS)
        while not self._ended.wait(pause):
            started = time.monotonic()
            self.look()
            self._display.update(self.progress)
            pause = max(POLL_SECONDS, (time.monotonic() - started) / MAX_SHARE)
        self.look()

    def look(self) -> None:
        """Read what is new."""
        folder, start = records_folder(self._jobs[0].results), run_name_of(self._jobs[0])
        try:
            names = [name for name in os.listdir(folder) if name.startswith(start)]
        except OSError:
            return  # no job has recorded anything so far
        for name in names:
            for line in self._new_lines(folder / name):
                self._take(json.loads(line))

    def _new_lines(self, path: Path) -> list[bytes]:
        """Whole lines that were appended to a file since the last look."""
        start = self._read_until.get(path, 0)
        try:
            if path.stat().st_size == start:
                return []
            with open(path, "rb") as file:
                file.seek(start)
                new = file.read()
        except OSError:
            return []  # a disk that does not answer now may do so at the next look
        new = new[: new.rfind(b"\n") + 1]
        self._read_until[path] = start + len(new)
        return new.splitlines()

    def _take(self, entry: dict[str, Any]) -> None:
        status = entry["status"]
        if status == "done":
            self.progress.add(done=1, video_seconds=entry["duration_seconds"] or 0)
        elif status == "failed":
            self.progress.add(failed=1)
            num_failed = self.progress.num_failed
            if num_failed <= MAX_SHOWN:
                self._display.clear()
                self._say(f"FAILED  {entry['video_path']}: {entry['reason']}")
            if num_failed == MAX_SHOWN:
                self._say("… those that follow are in the logs and in the manifest")
        elif status == "elsewhere":
            self.progress.add(elsewhere=entry["num_rows"])
