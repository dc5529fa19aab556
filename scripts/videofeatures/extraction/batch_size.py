"""The batch size that is the fastest for one shape, found by a job's own batches."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

NUM_ROUNDS = 3
"""Times that each size is tried. The first is slower, by what a device sets up for a new size;
and whatever else runs on the machine makes a batch slower, but never faster: the best counts."""

MARGIN = 0.03
"""A larger batch must be faster by this share, to be worth its memory: ResNet-152 in float32 takes
430 MB more in batches of 16 frames of 224×398 than of 2 (measured)."""

MAX_PIXELS = 1 << 22
"""Of a batch that is tried. A process on a CPU that takes too much memory is killed, and nobody
can halve its batch: so more than 2 frames of full HD, or 16 clips of 16 frames of 112×112, are
tried by no one. A process with ResNet-152 in float32 takes 1.7 GB in all for either (measured)."""


def sizes_for(shape: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return which sizes are to be tried for inputs of a shape (…, height, width, 3).

    Args:
        sizes: all sizes there are; the first one is used for any shape.
    """
    num_pixels = math.prod(shape[:-1])
    return [size for size in sizes if size == sizes[0] or size * num_pixels <= MAX_PIXELS]


class BatchSizeSearch:
    """Tries sizes in turns, and settles on the fastest.

    In turns, not one after the other: other work on the machine for some seconds then slows one
    turn of all sizes, not all turns of one.

    Attributes:
        size: of the next batch.
        is_settled: whether it will stay, but for lack of memory.
    """

    def __init__(self, sizes: Sequence[int]):
        """Take sizes in the order to try them; one alone needs no trial."""
        self._sizes = list(sizes)
        self._best_seconds: dict[int, float] = defaultdict(lambda: float("inf"))
        self._trials = self._sizes * NUM_ROUNDS if len(self._sizes) > 1 else []
        self.size = self._sizes[0]

    @property
    def is_settled(self) -> bool:
        return not self._trials

    def record(self, num_items: int, seconds: float) -> None:
        """Take the time of a batch. One that is not of the size on trial says nothing."""
        if self.is_settled or num_items != self.size:
            return
        self._best_seconds[num_items] = min(self._best_seconds[num_items], seconds / num_items)
        del self._trials[0]
        self.size = self._trials[0] if self._trials else self._fastest()

    def limit(self, most: int) -> None:
        """Go no higher than `most` from now on: more does not fit the memory."""
        self._sizes = [size for size in self._sizes if size <= most] or [most]
        self._trials = [size for size in self._trials if size <= most]
        self.size = self._trials[0] if self._trials else self._fastest()

    def _fastest(self) -> int:
        seconds = [self._best_seconds[size] for size in self._sizes]
        near = (1 + MARGIN) * min(seconds)
        return min(size for size, own in zip(self._sizes, seconds, strict=True) if own <= near)
