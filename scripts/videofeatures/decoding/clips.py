"""Frames to what one feature sees: single frames, or clips of several."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Generator, Iterable, Iterator

import numpy as np

from videofeatures.decoding.decoder import Damage, Decoder, VideoMetadata
from videofeatures.decoding.process import NUM_STDERR_LINES
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.source import Source

MAX_DAMAGED_SHARE = 0.5
"""More, and most of what the network would see is what the decoder made up. Clips of seconds that
were cut out of a broadcast in the middle of a group of pictures have less, and so have videos
with some damaged sectors, which are done; their share is told."""


class Decoding:
    """One source, decoded for one view; used by one thread.

    Attributes:
        metadata: of the source; None before it is known.
        num_frames, num_clips: that were yielded so far; frames without those that fill a clip up.
        messages: the last lines that the decoder has said.
        damage: of the frames, as far as it is known.
        warning: what is wrong with the source, though it was accepted; None if nothing is.
    """

    def __init__(
        self,
        decoder: Decoder,
        source: Source,
        view: View,
        *,
        truncated: str = "fail",
        damaged: str = "fail",
        num_threads: int = 1,
    ):
        """Read nothing yet.

        Args:
            truncated: what to do with a source that ends before its time: `fail`, after its clips,
                or `keep` them, with a warning.
            num_threads: to decode with.
            damaged: the same of one with more than `MAX_DAMAGED_SHARE`.
        """
        self.metadata: VideoMetadata | None = None
        self.num_frames = 0
        self.num_clips = 0
        self.messages: deque[str] = deque(maxlen=NUM_STDERR_LINES)
        self.damage = Damage()
        self.warning: str | None = None
        self._decoder = decoder
        self._source = source
        self._view = view
        self._truncated = truncated
        self._damaged = damaged
        self._num_threads = num_threads

    def clips(self) -> Generator[np.ndarray, None, None]:
        """Yield what each feature sees: see `iter_clips`.

        Raises:
            VideoError: see `Decoder`; or the source is truncated, or damaged.
        """
        self.metadata = self._decoder.probe(self._source)
        frames = self._decoder.frames(
            self._source,
            self.metadata,
            self._view,
            self.messages,
            self.damage,
            num_threads=self._num_threads,
        )
        with contextlib.closing(frames):  # ends ffmpeg, also where nobody wants more of it
            for pixels, num_frames in iter_clips(frames, self._view.num_frames_per_clip):
                self.num_frames += num_frames
                self.num_clips += 1
                yield pixels
        truncation = self._decoder.find_truncation(
            self._source, self.metadata, self._view, self.num_frames
        )
        share = self.damage.share or 0.0
        damage = f"{100 * share:.0f} % of its frames are damaged"
        found = [(truncation, self._truncated)] if truncation else []
        if share > MAX_DAMAGED_SHARE:
            found.append((damage, self._damaged))
        self.warning = "; ".join(warning for warning, _ in found) or None
        if self.warning and "fail" in [choice for _, choice in found]:
            raise VideoError(self.warning, self.messages)


def iter_clips(
    frames: Iterable[np.ndarray], num_frames_per_clip: int | None
) -> Iterator[tuple[np.ndarray, int]]:
    """Cut frames into clips without overlap; nothing is dropped.

    Args:
        frames: each (height, width, 3), uint8.
        num_frames_per_clip: None yields the frames themselves.

    Yields:
        (clip, num_frames): a clip (frames, height, width, 3), uint8, and how many frames
        of it are real. The last clip is filled up with zeros (black), as in the original
        program, which pads before it subtracts the mean. Without clips, (frame, 1).
    """
    if num_frames_per_clip is None:
        for frame in frames:
            yield frame, 1
        return
    clip, num_frames = None, 0
    for frame in frames:
        if clip is None:
            clip = np.zeros((num_frames_per_clip, *frame.shape), np.uint8)
        clip[num_frames] = frame
        num_frames += 1
        if num_frames == num_frames_per_clip:
            yield clip, num_frames
            clip, num_frames = None, 0
    if clip is not None:
        yield clip, num_frames


def row_timestamps(num_frames: int, view: View) -> np.ndarray:
    """Return the middle of what each row saw, in seconds from the container's zero, float64.

    Frame k stands for the seconds k / frame_rate to (k + 1) / frame_rate; frames that
    were added to fill the last clip do not count.

    Args:
        num_frames: real frames of the whole video.
    """
    length = view.num_frames_per_clip or 1
    starts = np.arange(0, num_frames, length)
    ends = np.minimum(starts + length, num_frames)
    return (starts + ends) / 2 / view.frame_rate
