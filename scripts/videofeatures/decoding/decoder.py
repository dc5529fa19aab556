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

    from videofeatures.decoding.times import FrameTimes


@dataclass(frozen=True)
class VideoMetadata:
    """Metadata of a video's first real video stream (cover art is none).

    Attributes:
        width, height: in coded pixels, after rotation.
        sample_aspect_ratio: width of one pixel by its height, after rotation.
        duration_seconds: from where the file starts to where its pictures end, as its header says;
            of the whole file where it does not tell them apart; None if it says nothing.
        average_fps: of the stream, as its header says; None if it does not.
        codec: ffmpeg's name of it.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction
    duration_seconds: float | None
    average_fps: float | None
    codec: str


@dataclass
class Damage:
    """How much of a video is damaged, as its decoder counts it.

    Attributes:
        num_damaged_frames: that were decoded with errors, or could not be.
        num_frames: all of them, whether they were taken or not; None if it is not known.
    """

    num_damaged_frames: int = 0
    num_frames: int | None = None

    @property
    def share(self) -> float | None:
        """Part of the frames that are damaged; None if it is not known."""
        if self.num_frames is None:
            return None
        return round(min(1.0, self.num_damaged_frames / max(1, self.num_frames)), 4)


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
        self,
        source: Source,
        metadata: VideoMetadata,
        view: View,
        messages: deque[str],
        damage: Damage,
        times: FrameTimes,
        *,
        num_threads: int = 1,
    ) -> Generator[np.ndarray, None, None]:
        """Yield a source's frames as a view wants them, each (height, width, 3), uint8, RGB.

        Args:
            metadata: what `probe` returned.
            messages: takes the last lines that the decoder says; frames may come all the same.
            num_threads: to decode with.
            damage: is filled in when the last frame has come.
            times: is filled in then, too, of a view without a `constant_rate`; how far it has come,
                with each frame.

        Raises:
            VideoError: decoding failed, gave no frame, took too long, or needs too much memory; the
                source is encrypted, or asks for what cannot be right: see `bounds`.
            MachineError: the machine failed, or it was stopped.
        """

    @abstractmethod
    def find_truncation(
        self, source: Source, metadata: VideoMetadata, view: View, decoded_seconds: float
    ) -> str | None:
        """Return what is missing at a source's end, for people, or None if nothing is.

        Args:
            decoded_seconds: how far `frames` has come, by the frames that it gave.

        Raises:
            VideoError: the source cannot be read any more; or the decoder crashed, did not answer,
                or was stopped.
        """
