"""The interface of a decoder: all that the rest of the program knows of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from videofeatures.decoding.view import View
from videofeatures.source import Source

if TYPE_CHECKING:
    import numpy as np  # a worker, which does without, starts in half the time


@dataclass(frozen=True)
class VideoMetadata:
    """Metadata of a video's first real video stream (cover art is none).

    Attributes:
        width, height: in coded pixels, after rotation.
        sample_aspect_ratio: width of one pixel by its height, after rotation.
        duration_seconds: of the file, as its header says; None if it does not.
        average_fps: of the stream, as its header says; None if it does not.
        codec: ffmpeg's name of it.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction
    duration_seconds: float | None
    average_fps: float | None
    codec: str


class Decoder(ABC):
    """Turns sources into frames, for several threads at a time.

    Whatever a source does to it, a crash or a hang, costs one row: a decoder neither decodes in
    this process, nor waits without a limit.
    """

    @abstractmethod
    def version(self) -> str:
        """Return the version of the library that makes the frames.

        Raises:
            UserError: there is none that runs.
        """

    @abstractmethod
    def probe(self, source: Source) -> VideoMetadata:
        """Return the metadata of a source.

        Raises:
            VideoError: it is missing, unreadable, or has no picture; or the decoder crashed, did
                not answer, or was stopped.
        """

    @abstractmethod
    def frames(
        self, source: Source, metadata: VideoMetadata, view: View, messages: deque[str]
    ) -> Generator[np.ndarray, None, None]:
        """Yield a source's frames as a view wants them, each (height, width, 3), uint8, RGB.

        Args:
            metadata: what `probe` returned.
            messages: takes the last lines that the decoder says; frames may come all the same.

        Raises:
            VideoError: decoding failed, gave no frame, or took too long; or it was stopped.
        """

    @abstractmethod
    def find_truncation(
        self, source: Source, metadata: VideoMetadata, view: View, num_frames: int
    ) -> str | None:
        """Return what is missing at a source's end, for people, or None if nothing is.

        Args:
            num_frames: that `frames` gave.

        Raises:
            VideoError: the source cannot be read any more; or the decoder crashed, did not answer,
                or was stopped.
        """
