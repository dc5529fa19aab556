"""Clips to features: batches of one shape across videos, through the network, and back."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from videofeatures.errors import VideoError
from videofeatures.extraction.decoders import Clip
from videofeatures.extraction.row_state import RowState
from videofeatures.extraction.timing import Timing
from videofeatures.extraction.writer import finish_features
from videofeatures.settings import Settings

if TYPE_CHECKING:
    from videofeatures.networks.network import Network

MAX_BATCHES_WAITING = 4
"""Batches' worth of clips, of all shapes, that may come while a batch waits to be filled. So a
video of a rare shape is written soon after its end, whatever the others do, and what waits
here takes a bounded amount of memory."""

logger = logging.getLogger(__name__)


@dataclass
class _Batch:
    """Clips of one shape that wait for more.

    Attributes:
        number: how many clips had come, of any shape, when the first one of these did.
    """

    number: int
    clips: list[Clip] = field(default_factory=list)


class Batcher:
    """Takes clips as they come, and gives videos as they are complete."""

    def __init__(self, network: Network, batch_size: int, settings: Settings, timing: Timing):
        self.batch_size = batch_size
        self._network = network
        self._settings = settings
        self._timing = timing
        self._num_clips = 0
        self._has_warned = False
        self._waiting: dict[tuple[int, ...], _Batch] = {}
        self._submitted: deque[tuple[list[Clip], Callable[[], np.ndarray]]] = deque()

    def add(self, clip: Clip) -> Iterator[RowState]:
        """Take a clip; yields the videos that are complete by it."""
        shape = clip.pixels.shape
        batch = self._waiting.setdefault(shape, _Batch(self._num_clips))
        batch.clips.append(clip)
        self._num_clips += 1
        if len(batch.clips) >= self.batch_size:
            yield from self._run(shape)
        oldest = next(iter(self._waiting), None)  # a dict keeps the order of insertion
        if oldest and self._is_overdue(self._waiting[oldest]):
            yield from self._run(oldest)

    def _is_overdue(self, batch: _Batch) -> bool:
        return self._num_clips - batch.number >= MAX_BATCHES_WAITING * self.batch_size

    def end(self, video: RowState) -> Iterator[RowState]:
        """Take the end of a video; yields it if it is complete."""
        video.has_ended = True
        yield from _leave([video])

    def flush(self) -> Iterator[RowState]:
        """Compute all that holds the end of a video: call it when no clip is to be had."""
        for shape, batch in list(self._waiting.items()):
            if any(clip.video.has_ended for clip in batch.clips):
                yield from self._run(shape)
        yield from self._compute([], max_submitted=0)

    def _run(self, shape: tuple[int, ...]) -> Iterator[RowState]:
        # A video that has failed needs no more features.
        clips = [clip for clip in self._waiting.pop(shape).clips if clip.video.error is None]
        yield from self._compute(clips, max_submitted=self._network.max_submitted - 1)

    def _compute(self, clips: list[Clip], *, max_submitted: int) -> Iterator[RowState]:
        if not clips and not self._submitted:
            return
        before = self._timing.compute_seconds
        with self._timing.computing():
            videos = self._submit(clips) if clips else []
            videos += self._collect(max_submitted=max_submitted)
        for video in videos:
            video.compute_seconds += (self._timing.compute_seconds - before) / len(videos)
        yield from _leave(videos)

    def _submit(self, clips: list[Clip]) -> list[RowState]:
        """Give clips to the network, in halves if they are too many; gives those that failed."""
        try:
            wait = self._network.submit(np.stack([clip.pixels for clip in clips]))
        except MemoryError as error:
            reason = str(error)
        else:
            self._submitted.append((clips, wait))
            return []
        if len(clips) == 1:
            video = clips[0].video
            video.error = VideoError(f"out of memory, even in a batch of one: {reason}")
            return [video]
        half = len(clips) // 2
        if not self._has_warned:
            logger.warning(
                "out of memory with a batch of %d: it is halved until it fits (%s)",
                len(clips),
                reason,
            )
            self._has_warned = True
        self.batch_size = min(self.batch_size, half)
        return self._submit(clips[:half]) + self._submit(clips[half:])

    def _collect(self, *, max_submitted: int) -> list[RowState]:
        """Take results until no more than `max_submitted` are awaited; gives their videos."""
        videos = []
        while len(self._submitted) > max_submitted:
            clips, wait = self._submitted.popleft()
            computed = wait()
            lengths = np.linalg.norm(computed, axis=1)
            features = finish_features(
                computed,
                lengths,
                l2_normalize=self._settings.l2_normalize,
                half_precision=self._settings.half_precision,
            )
            for clip, feature, length in zip(clips, features, lengths, strict=True):
                clip.video.features.put(clip.index, feature)
                clip.video.norm_sum += float(length)
            self._timing.num_clips += len(clips)
            videos += [clip.video for clip in clips]
        return videos


def _leave(videos: Iterable[RowState]) -> Iterator[RowState]:
    """Those that are complete, each only once in its life."""
    for video in videos:
        if video.is_complete and not video.has_left:
            video.has_left = True
            yield video
