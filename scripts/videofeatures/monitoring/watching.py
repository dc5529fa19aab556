"""A run of many jobs, on this machine or others, watched through what its jobs record."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence

from videofeatures.errors import MAX_SHOWN, UserError
from videofeatures.monitoring.progress import Display, Progress
from videofeatures.planning.jobs import Job, find_video_sizes, run_name_of
from videofeatures.records import COMPLAINTS, Line, RecordReader, RowLine, source_of
from videofeatures.urls import is_url

POLL_SECONDS = 1
BUCKET_POLL_SECONDS = 5
"""In a bucket, where a look is a request for each 1,000 files of a run, and one for each job that
has said something since: 17,280 listings a day."""

MAX_SHARE = 0.05
"""Of the time that may go into looking: with thousands of jobs on a slow disk, looks are rarer."""


class Watcher:
    """Reads what the jobs of a run append to their records, and shows how far the run is."""

    def __init__(self, jobs: Sequence[Job], display: Display):
        """Nothing is read before it is started.

        Args:
            jobs: all of one run, one at least.
            display: takes a line about each row that failed, too.
        """
        num_targets = sum(len(job.targets) for job in jobs)
        self.progress = Progress(num_targets, unit=jobs[0].progress_unit)
        self._jobs = jobs
        self._size_of: dict[str, int] = {}
        # Of the videos in work, what part has been decoded.
        self._share_of: dict[str, float] = {}
        # Features on their way into buckets: done when they are there.
        self._uploaded: dict[str, RowLine] = {}
        results = jobs[0].results
        self._poll_seconds = float(BUCKET_POLL_SECONDS if is_url(results) else POLL_SECONDS)
        self._reader = RecordReader(results, start=run_name_of(jobs[0]))
        self._display = display
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Watch from now on, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; what was recorded up to now is counted. It may not have begun."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._display.clear()

    def _watch(self) -> None:
        self._look_at_videos()
        pause = poll_seconds = self._poll_seconds
        while not self._ended.wait(pause):
            started = time.monotonic()
            self.look()
            self._display.update(self.progress)
            pause = max(poll_seconds, (time.monotonic() - started) / MAX_SHARE)
        self.look()

    def look(self) -> None:
        """Count what is new."""
        # A disk, or a bucket, that does not answer now may do so at the next look.
        with contextlib.suppress(OSError, UserError):
            for _, lines in self._reader.read():
                for line in lines:
                    self._count(line)

    def _look_at_videos(self) -> None:
        """Find out how large they are: how long they are is not known before they are opened."""
        targets = [target for job in self._jobs for target in job.targets]
        self._size_of = find_video_sizes(targets)
        self.progress.total_bytes = sum(self._size_of.values())

    def _count(self, line: Line) -> None:
        if line["status"] == "working":
            self._share_of[line["feature_path"]] = line["share"]
            self._count_working()
        elif line["status"] == "done" and is_url(line["feature_path"]):
            self._uploaded[line["feature_path"]] = line
        elif line["status"] == "done":
            self._count_done(line)
        elif line["status"] == "placed":
            if (done := self._uploaded.pop(line["feature_path"], None)) is not None:
                self._count_done(done)
        elif line["status"] == "failed":
            self._uploaded.pop(line["feature_path"], None)
            self.progress.add(failed=1, num_bytes=self._end(line["feature_path"]))
            num_failed = self.progress.num_failed
            if num_failed <= MAX_SHOWN:
                self._display.say(f"FAILED  {source_of(line)}: {line['reason']}")
            if num_failed == MAX_SHOWN:
                self._display.say("… those that follow are in the logs and in the manifest")
        elif line["status"] == "elsewhere":
            self._uploaded.pop(line.get("feature_path", ""), None)
            self.progress.add(elsewhere=line["num_rows"])

    def _count_done(self, line: RowLine) -> None:
        self.progress.add(
            done=1,
            complained=int(any(line.get(fact) for fact in COMPLAINTS)),
            video_seconds=(line.get("duration_seconds") or 0) / line.get("num_together", 1),
            fell_back=int(bool(line.get("fallback"))),
            num_bytes=self._end(line["feature_path"]),
        )

    def _end(self, feature_path: str) -> int:
        """Return the size of a video, which is not in work any more."""
        if self._share_of.pop(feature_path, None) is not None:
            self._count_working()
        return self._size_of.get(feature_path, 0)

    def _count_working(self) -> None:
        shares = self._share_of.items()
        self.progress.set_working(sum(self._size_of.get(path, 0) * part for path, part in shares))
