"""What lies ahead, from a look at some of the pending videos."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import NamedTuple

from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import ReadTimeout
from videofeatures.errors import VideoError
from videofeatures.listing import Look, look_at
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.jobs import group_by_video
from videofeatures.planning.plan import Target
from videofeatures.settings import Settings
from videofeatures.source import Source
from videofeatures.threaded import threaded_map_until
from videofeatures.units import describe_bytes, describe_seconds
from videofeatures.urls import is_url

NUM_SAMPLED = 200
NUM_THREADS = 2
"""Each has a process that libav runs in, which takes 0.1 s to start."""

MAX_SECONDS = 2
"""Whatever has not been read by then is not waited for: a dry-run must stay quick."""


class Estimate(NamedTuple):
    """What was seen of a sample of the pending rows.

    Attributes:
        num_pending: all of them.
        num_seen: of the sample, in time.
        num_missing: of these, without a file.
        num_broken: of these, with a file that has no picture, as far as its header tells; of a
            part with an end, it is not read.
        durations: in seconds, of the others that say it.
        num_elsewhere: rows beside these, whose videos are there and not on a disk.
        bytes_elsewhere: of all these videos.
        num_missing_elsewhere: rows beside these, whose videos are not where they should be.
    """

    num_pending: int
    num_seen: int
    num_missing: int
    num_broken: int
    durations: tuple[float, ...]
    num_elsewhere: int = 0
    bytes_elsewhere: int = 0
    num_missing_elsewhere: int = 0

    @property
    def is_whole(self) -> bool:
        """Every pending row was seen, so that this is a count."""
        return self.num_seen == self.num_pending

    @property
    def video_seconds(self) -> float:
        """Length of all pending videos."""
        return sum(self.durations) * self._scale

    @property
    def _scale(self) -> float:
        return self.num_pending / self.num_seen if self.num_seen else 0.0

    def feature_bytes(self, recipe: Recipe) -> float:
        """Return the size of all files that are to be made by a recipe."""
        bytes_per_row = recipe.num_tokens * recipe.feature_dim * recipe.bytes_per_number
        num_rows = sum(recipe.view.num_rows(duration) for duration in self.durations)
        return num_rows * bytes_per_row * self._scale

    def __str__(self) -> str:
        if not self.num_seen and not self.num_elsewhere + self.num_missing_elsewhere:
            return "the pending videos could not be looked at in time"
        about = "" if self.is_whole else "about "
        parts = []
        if self.durations:
            parts.append(f"{about}{describe_seconds(self.video_seconds)} of video")
        if self.num_elsewhere:
            size = describe_bytes(self.bytes_elsewhere)
            parts.append(f"{self.num_elsewhere:,} videos to be brought, {size}")
        if self.num_missing_elsewhere:
            parts.append(f"{self.num_missing_elsewhere:,} missing in buckets")
        for count, what in ((self.num_missing, "missing"), (self.num_broken, "unreadable")):
            if count:
                share = "" if self.is_whole else f" ({100 * count / self.num_seen:.0f} %)"
                parts.append(f"{about}{round(count * self._scale):,} {what}{share}")
        sampled = f", from a sample of {self.num_seen}" if not self.is_whole else ""
        return "; ".join(parts) + sampled


def estimate(
    pending: Sequence[Target],
    settings: Settings,
    look: Look = look_at,
    *,
    num_sampled: int = NUM_SAMPLED,
    max_seconds: float = MAX_SECONDS,
) -> Estimate:
    """Look at the headers of some of the pending videos, for no more than `max_seconds`.

    The sample is the same each time, so that two dry-runs say the same.

    Args:
        look: at the videos that are not on a disk, of which only the size is known.
    """
    # A video is looked at once, whatever is to be made of it.
    videos = [video[0] for video in group_by_video(pending)]
    pending = [target for target in videos if not is_url(target.source.path)]
    urls = [target.source.path for target in videos if is_url(target.source.path)]
    files = {url: look(url) for url in dict.fromkeys(urls)}
    elsewhere = [url for url in urls if files[url] is not None]
    sample = random.Random(0).sample(pending, min(num_sampled, len(pending)))
    # Left, it does not wait for a header that hangs libav.
    with Libav(ReadTimeout(max_seconds), local_files_only=settings.local_files_only) as libav:
        pairs = threaded_map_until(
            lambda target: _look_at_video(target.source, libav),
            sample,
            max_seconds=max_seconds,
            num_threads=NUM_THREADS,
        )
        outcomes = [outcome for _, outcome in pairs]
    durations = tuple(value for value in outcomes if isinstance(value, float))
    return Estimate(
        len(pending),
        len(outcomes),
        outcomes.count("missing"),
        outcomes.count("broken"),
        durations,
        len(elsewhere),
        sum(file.st_size for file in files.values() if file is not None),
        len(urls) - len(elsewhere),
    )


def _look_at_video(source: Source, libav: Libav) -> float | str | None:
    """Return how long a source lasts in seconds, None if nothing says it; or `missing`, or
    `broken`."""
    if not os.path.exists(source.path):
        return "missing"
    if source.end_seconds is not None:
        return source.seconds_of(None)  # the CSV says it
    try:
        return source.seconds_of(libav.read_duration(source.path))
    except (VideoError, OSError):
        return "broken"
