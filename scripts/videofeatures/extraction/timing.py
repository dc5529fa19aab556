"""Where a job's time went."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

from videofeatures.records import EndFacts


def cpu_seconds(who: int) -> float:
    """User and system time so far of `resource.RUSAGE_SELF` or `RUSAGE_CHILDREN`."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


class Timing:
    """Seconds of one job; counts from when it is made.

    Attributes:
        first_batch_time: when the first batch went into the network, in seconds since the
            epoch; None before.
        compute_seconds: in the network, with what prepares its input and takes its output.
        idle_seconds: that the network waited for decoders, after the first batch.
        num_clips: frames or clips that went through the network.
        video_seconds: length of the videos that are done, as their headers say.
        num_repeated: videos that were decoded once more, with nothing left out, for their damage.
    """

    def __init__(self) -> None:
        self.started_time = time.time()
        self.first_batch_time: float | None = None
        self.compute_seconds = 0.0
        self.idle_seconds = 0.0
        self.num_clips = 0
        self.video_seconds = 0.0
        self.num_repeated = 0
        self._startup_cpu_seconds = 0.0

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count what is inside as compute."""
        if self.first_batch_time is None:
            self.first_batch_time = time.time()
            self._startup_cpu_seconds = cpu_seconds(resource.RUSAGE_SELF)
        started = time.monotonic()
        yield
        self.compute_seconds += time.monotonic() - started

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Count what is inside as waiting for decoders."""
        started = time.monotonic()
        yield
        if self.first_batch_time is not None:
            self.idle_seconds += time.monotonic() - started

    def summary(self) -> EndFacts:
        """Return all figures, for the records.

        Beside the attributes: `seconds` in all; `startup_seconds`, until the first batch;
        `decode_cpu_seconds` of all processes that decode; `compute_cpu_seconds` of this process
        from the first batch on, all threads; `peak_memory_mb` of this process.
        """
        now = time.time()
        startup_seconds = (self.first_batch_time or now) - self.started_time
        compute_cpu_seconds = cpu_seconds(resource.RUSAGE_SELF) - self._startup_cpu_seconds
        peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "started_time": self.started_time,
            "first_batch_time": self.first_batch_time,
            "num_clips": self.num_clips,
            "num_repeated": self.num_repeated,
            "seconds": round(now - self.started_time, 3),
            "startup_seconds": round(startup_seconds, 3),
            "compute_seconds": round(self.compute_seconds, 3),
            "idle_seconds": round(self.idle_seconds, 3),
            "decode_cpu_seconds": round(cpu_seconds(resource.RUSAGE_CHILDREN), 3),
            "compute_cpu_seconds": round(compute_cpu_seconds, 3),
            "video_seconds": round(self.video_seconds, 3),
            "peak_memory_mb": round(peak_memory_mb, 3),
        }

    def __str__(self) -> str:
        figures = self.summary()
        rate = self.video_seconds / max(figures["seconds"], 1e-3)
        limit = "the network" if self.compute_seconds > self.idle_seconds else "decoding"
        repeated = f"; {self.num_repeated} damaged ones decoded twice" if self.num_repeated else ""
        return (
            f"{self.video_seconds:.0f} s of video in {figures['seconds']:.1f} s, {rate:.1f} times "
            f"as fast as it plays: start-up {figures['startup_seconds']:.1f} s, network "
            f"{self.compute_seconds:.1f} s, waiting for frames {self.idle_seconds:.1f} s; the "
            f"limit is {limit}{repeated}"
        )
