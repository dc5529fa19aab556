"""What decoder threads say of a target: it begins, a clip of it, and its end, good or bad."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.times import RowTimes
from videofeatures.planning.plan import Target


class Decoded(NamedTuple):
    """What decoding has found out about a video.

    Attributes:
        metadata: None if it could not be read.
        messages: the last lines that the decoder has said.
        warning: what is wrong with the video, though it was accepted.
        damaged_share: part of its frames that are damaged; None if it is not known.
        seconds: that decoding took.
        times: of the rows of its feature file; None if it was not decoded to the end.
        num_together: targets that this decoding was for, and share its time.
        decoded_on, fallback: see `Damage`.
        is_repeated: it was decoded once more, with nothing left out, for its damage.
    """

    metadata: VideoMetadata | None = None
    num_frames: int = 0
    num_clips: int = 0
    messages: tuple[str, ...] = ()
    warning: str | None = None
    damaged_share: float | None = None
    seconds: float = 0.0
    times: RowTimes | None = None
    num_together: int = 1
    decoded_on: str = ""
    fallback: str = ""
    is_repeated: bool = False


class Begun(NamedTuple):
    """A target is ours, and its video is about to be decoded.

    Attributes:
        video_size, video_mtime_ns: of the file; None if it cannot be seen.
        video_etag: of one that is not on a disk.
    """

    target: Target
    video_size: int | None
    video_mtime_ns: int | None
    video_etag: str = ""


class Clip(NamedTuple):
    """What one row of a feature file is computed from.

    Attributes:
        number: of the row, from 0.
        pixels: a frame (height, width, 3) or a clip (frames, height, width, 3), uint8.
        share: what part of the video has been decoded by then, as far as its header tells.
    """

    target: Target
    number: int
    pixels: np.ndarray
    share: float = 0.0


class Repeated(NamedTuple):
    """The clips of a target that were said do not count: all of them come again."""

    target: Target


class Ended(NamedTuple):
    """A target's video gives no more clips."""

    target: Target
    decoded: Decoded


class Failed(NamedTuple):
    """A target's video gives no more clips, since something went wrong."""

    target: Target
    decoded: Decoded
    error: Exception


Event = Begun | Clip | Repeated | Ended | Failed
