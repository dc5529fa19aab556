"""Whole frames to the size that a network wants, by ffmpeg or by Pillow."""

from __future__ import annotations

from dataclasses import dataclass

import ffmpeg
import numpy as np
from PIL import Image

PILLOW_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}
"""What Pillow has for the names of ffmpeg's scalers."""


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """How frames are resized and cropped, and by whom.

    Attributes:
        size: (width, height) to resize to.
        crop_size: side of the centre crop, in pixels; 0 for none.
        crop_rounding: where half a pixel is left beside the crop: see `View`.
        interpolation: of the resizer. Always given to ffmpeg's: its default changed from bilinear
            to bicubic with version 5.
        antialias: see `View`.
        whole_size: (width, height) of the frames that Pillow is given; None for ffmpeg's scaler.
    """

    size: tuple[int, int]
    crop_size: int = 0
    crop_rounding: str = "down"
    interpolation: str = "bilinear"
    antialias: bool = True
    whole_size: tuple[int, int] | None = None

    @property
    def sent_size(self) -> tuple[int, int]:
        """(width, height) of the frames that ffmpeg sends."""
        return self.network_size if self.whole_size is None else self.whole_size

    @property
    def network_size(self) -> tuple[int, int]:
        """(width, height) of the frames that come out."""
        return (self.crop_size, self.crop_size) if self.crop_size else self.size

    @property
    def sent(self) -> Resizing:
        """What of it ffmpeg does: the same for all whose frames it sends as they are."""
        if self.whole_size is None:
            return self
        return Resizing(size=self.whole_size, whole_size=self.whole_size)

    def filtered(self, stream: ffmpeg.Stream) -> ffmpeg.Stream:
        """Return a graph's stream with ffmpeg's part of the work."""
        if self.whole_size is not None:
            # To RGB, at the size that it has; what resizes the colours of YUV is always given.
            return stream.filter("scale", *self.whole_size, flags="bilinear")
        width, height = self.size
        stream = stream.filter("scale", width, height, flags=self.interpolation)
        if self.crop_size:
            stream = stream.filter("crop", self.crop_size, self.crop_size, *self._corner)
        return stream

    def finish(self, frame: np.ndarray) -> np.ndarray:
        """Return what becomes of a frame that ffmpeg has sent, (height, width, 3), uint8."""
        if self.whole_size is None:
            return frame
        (x, y), (width, height) = self._corner, self.network_size
        if not self.antialias:
            return interpolate(frame, self.size)[y : y + height, x : x + width]
        picture = Image.fromarray(frame)
        resized = np.asarray(picture.resize(self.size, PILLOW_FILTERS[self.interpolation]))
        return np.array(resized[y : y + height, x : x + width])  # Pillow's own is read-only

    @property
    def _corner(self) -> tuple[int, int]:
        width, height = (
            side - cropped for side, cropped in zip(self.size, self.network_size, strict=True)
        )
        if self.crop_rounding == "nearest":  # halves to even, as Python and torchvision do
            return round(width / 2), round(height / 2)
        return int(width / 2), int(height / 2)


def interpolate(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a frame resized by bilinear interpolation of the pixels next to each of its own.

    As torch's `interpolate(mode="bilinear", antialias=False, align_corners=False)` does, which
    torchvision feeds its networks on videos with. Pillow takes all pixels into account.

    Args:
        frame: (height, width, 3), uint8.
        size: (width, height) of the result.
    """
    width, height = size
    (top, bottom, down), (left, right, over) = (
        _neighbours(before, after)
        for before, after in zip(frame.shape[:2], (height, width), strict=True)
    )
    down, over = down[:, None, None], over[:, None]
    rows = [
        frame[rows][:, left] * (1 - over) + frame[rows][:, right] * over for rows in (top, bottom)
    ]
    return np.rint(rows[0] * (1 - down) + rows[1] * down).astype(np.uint8)


def _neighbours(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the two pixels of a line that each of another length lies between, and how far it is
    from the first."""
    scale = np.float32(before / after)
    places = np.maximum(scale * (np.arange(after, dtype=np.float32) + np.float32(0.5)) - 0.5, 0)
    first = np.minimum(places.astype(np.int64), before - 1)
    return first, np.minimum(first + 1, before - 1), (places - first).astype(np.float32)
