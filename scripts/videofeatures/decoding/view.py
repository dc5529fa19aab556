"""How one backbone wants to see a video."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class View:
    """What becomes of a video's frames before a network is given them.

    Attributes:
        frame_rate: frames a second that are taken.
        resize_size: the frame's short side, in pixels.
        crop_size: side of the centre crop, in pixels; 0 for the whole frame.
        interpolation: of ffmpeg's scaler.
        square_pixels: whether anamorphic video gets its proportions.
        num_frames_per_clip: frames that one feature sees; None for single frames.
    """

    frame_rate: float
    resize_size: int
    crop_size: int
    interpolation: str = "bilinear"
    square_pixels: bool = True
    num_frames_per_clip: int | None = None

    @property
    def clips_per_second(self) -> float:
        """Features of each second of video."""
        return self.frame_rate / (self.num_frames_per_clip or 1)
