"""Where a job's time went."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


def cpu_seconds(who: int) -> float:
    """User and system time so far of `resource.RUSAGE_SELF` or `RUSAGE_CHILDREN`."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


@dataclass
class Timing:
    """Seconds of one job; starts when it is made.

    Attributes:
        first_batch_time: when the first batch went into the network, in seconds since the
            epoch; None before.
        compute_seconds: in the network, with what prepares its input and takes its output.
        idle_seconds: that the network waited for decoders, after the first batch.
        decode_cpu_seconds: of all ffmpeg processes that have ended.
        compute_cpu_seconds: of this process after the first batch began, all threads.
        num_clips: frames or clips that went through the network.
        video_seconds: length of the videos that are done, as their headers say.
    """

    first_batch_time: float | None = None
    compute_seconds: float = 0.0
    idle_seconds: float = 0.0
    num_clips: int = 0
    video_seconds: float = 0.0
    started_time: float = field(default_factory=time.time)
    startup_cpu_seconds: float = 0.0

    @property
    def startup_seconds(self) -> float:
        """From the start of decoding to the first batch."""
        return (self.first_batch_time or time.time()) - self.started_time

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count what is inside as compute."""
        if self.first_batch_time is None:
            self.first_batch_time = time.time()
            self.startup_cpu_seconds = cpu_seconds(resource.RUSAGE_SELF)
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

    def summary(self) -> dict[str, Any]:
        """All of it, and the process's CPU time and peak memory, for the records."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        compute_cpu = cpu_seconds(resource.RUSAGE_SELF) - self.startup_cpu_seconds
        figures = asdict(self) | {
            "seconds": time.time() - self.started_time,
            "startup_seconds": self.startup_seconds,
            "decode_cpu_seconds": cpu_seconds(resource.RUSAGE_CHILDREN),
            "compute_cpu_seconds": compute_cpu,
            "peak_memory_mb": peak,
        }
        return {name: value and round(value, 3) for name, value in figures.items()}

    def __str__(self) -> str:
        found = self.summary()
        seconds = max(found["seconds"] - found["startup_seconds"], 1e-3)
        limit = "the network" if self.compute_seconds > self.idle_seconds else "decoding"
        return (
            f"{self.video_seconds:.0f} s of video in {found['seconds']:.1f} s: start-up "
            f"{found['startup_seconds']:.1f}, network {self.compute_seconds:.1f}, waiting for "
            f"frames {self.idle_seconds:.1f}; {self.num_clips / seconds:.1f} features/s, limited "
            f"by {limit}"
        )
