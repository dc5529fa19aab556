"""The interface of a decoder: all that the rest of the program knows of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.source import Source

if TYPE_CHECKING:
    import numpy as np  # a worker, which does without, starts in half the time

    from videofeatures.decoding.told import Told


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
        pixel_format: ffmpeg's name of how its pictures are stored; None if it is not known.
        display_matrix: nine numbers that say how they are turned, in fixed point; None if nothing
            does.
        container: ffmpeg's name of the file's format, the first of them.
    """

    width: int
    height: int
    sample_aspect_ratio: Fraction
    duration_seconds: float | None
    average_fps: float | None
    codec: str
    pixel_format: str | None = None
    display_matrix: tuple[int, ...] | None = None
    container: str = ""


class StartAnew(VideoError):
    """What a decoder has given of a source does not count: it is to be decoded once more."""


@dataclass
class Damage:
    """What a decoder finds out about a video beside its frames: how much of it is damaged, and by
    what it was decoded.

    Attributes:
        num_damaged_frames: that were decoded with errors, or could not be.
        num_frames: all of them, whether they were taken or not; None if it is not known.
        decoded_on: `cpu`, or the kind of a device; "" where none was asked for.
        fallback: why it was the CPU, though a device was asked for; "" if it was not.
    """

    num_damaged_frames: int = 0
    num_frames: int | None = None
    decoded_on: str = ""
    fallback: str = ""

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

    def close(self) -> None:  # noqa: B027 (most have none)
        """End the processes that it keeps; nothing is decoded any more."""

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

    def check_view(self, metadata: VideoMetadata, view: View) -> None:
        """Do nothing where a view asks for what can be of this video.

        Raises:
            VideoError: it asks for what cannot be right: see `bounds`.
        """
        del metadata, view

    @abstractmethod
    def frames(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        told: Sequence[Told],
        *,
        num_threads: int = 1,
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield a source's frames as some views want them, each with the number of its view:
        (height, width, 3), uint8, RGB. Those of one view come in their order.

        Args:
            metadata: what `probe` returned.
            views: in which `check_view` finds nothing.
            told: takes what is known of the frames of each view.
            num_threads: to decode with.

        Raises:
            VideoError: decoding failed, gave no frame, took too long, or needs too much memory; the
                source is encrypted, or asks for what cannot be right: see `bounds`. Where this is
                not so for all views, `told` has it, and nothing is raised.
            StartAnew: none of the frames counts; they come if it is called once more.
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
