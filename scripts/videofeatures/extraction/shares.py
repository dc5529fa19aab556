"""What part of a job's work each video is, by the size of its file: nothing else is known of it
before it is opened."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from videofeatures.planning.jobs import find_video_sizes
from videofeatures.planning.plan import Target

MAX_TARGETS = 4096
"""Of larger jobs, made by hand, no video is most of what is left, and no file is looked at."""


class Shares:
    """Sizes of the videos that are left, for several threads."""

    def __init__(self, targets: Sequence[Target]):
        """Nothing is looked at yet."""
        self._targets = targets if len(targets) <= MAX_TARGETS else ()
        self._size_of: dict[str, int] | None = None  # of all of them
        self._left: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, target: Target) -> float:
        """Return a video's part of all that has not ended, from 0 to 1; 0 if it is not known."""
        with self._lock:
            self._look()
            return self._left.get(target.feature_path, 0) / max(sum(self._left.values()), 1)

    def num_bytes_of(self, target: Target) -> int:
        """Return a video's size, whether it has ended or not; 0 if it is not known."""
        with self._lock:
            return self._look().get(target.feature_path, 0)

    @property
    def num_bytes(self) -> int:
        """Size of all videos that have not ended; 0 if it is not known."""
        with self._lock:
            self._look()
            return sum(self._left.values())

    def end(self, target: Target) -> None:
        """Take a video out: it has ended, or others have done it."""
        with self._lock:
            self._look()
            self._left.pop(target.feature_path, None)

    def _look(self) -> dict[str, int]:
        if self._size_of is None:
            self._size_of = find_video_sizes(self._targets)
            self._left = dict(self._size_of)
        return self._size_of
