"""What is known of a row while it is worked on: its facts, and its features as they come."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from videofeatures.decoding.ffmpeg import FFMPEG_LINES
from videofeatures.decoding.probe import VideoMetadata
from videofeatures.planning.plan import PendingRow

ROWS_PER_BLOCK = 256
"""Features in a block of a growing array: 1 MB of 2048 float16."""


class GrowingArray:
    """Rows that come one by one, in any order, kept in a few large blocks.

    One small array for each row would pin the memory between the frames that come and go
    around it: that cost 230 kB a row (measured).
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._num_rows = 0

    def put(self, index: int, row: np.ndarray) -> None:
        """Keep row `index`, once."""
        block, place = divmod(index, ROWS_PER_BLOCK)
        while len(self._blocks) <= block:
            self._blocks.append(np.empty((ROWS_PER_BLOCK, len(row)), row.dtype))
        self._blocks[block][place] = row
        self._num_rows += 1

    @property
    def num_rows(self) -> int:
        """Rows that are kept so far."""
        return self._num_rows

    def take(self, num_rows: int) -> np.ndarray:
        """All rows in order, (num_rows, length), which empties this.

        Raises:
            AssertionError: a row is missing.
        """
        if num_rows != self._num_rows:
            raise AssertionError(f"{self._num_rows} features of {num_rows} clips")
        rows = np.empty((num_rows, self._blocks[0].shape[1]), self._blocks[0].dtype)
        for start in range(0, num_rows, ROWS_PER_BLOCK):
            # Each block is freed when it is copied, so that the rows are there only once.
            rows[start : start + ROWS_PER_BLOCK] = self._blocks.pop(0)[: num_rows - start]
        return rows


@dataclass(eq=False)
class RowState:
    """A row on its way through the pipeline.

    Its decoder fills it in until it has put the video's `End` in the queue; `has_ended`
    and what follows belong to the thread that computes.
    """

    row: PendingRow
    done_by_others: bool = False
    file_size: int | None = None
    file_mtime_ns: int | None = None
    metadata: VideoMetadata | None = None
    num_frames: int = 0
    num_clips: int = 0
    decode_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    ffmpeg_lines: deque[str] = field(default_factory=lambda: deque(maxlen=FFMPEG_LINES))
    warning: str | None = None  # what is wrong with it, though it was accepted
    error: Exception | None = None
    has_begun: bool = False
    has_ended: bool = False
    has_left: bool = False
    compute_seconds: float = 0.0
    features: GrowingArray = field(default_factory=GrowingArray)
    norm_sum: float = 0.0  # of its features, before these were divided by their lengths

    @property
    def duration_seconds(self) -> float:
        """As its header says; 0 if it does not."""
        return (self.metadata.duration_seconds if self.metadata else None) or 0

    @property
    def is_complete(self) -> bool:
        """Nothing more will come of it."""
        has_all = self.features.num_rows == self.num_clips
        return self.has_ended and (has_all or self.error is not None)
