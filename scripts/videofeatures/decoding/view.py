"""How one backbone wants to see a video."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from videofeatures.decoding.windows import LastClip, Windows

Native = Literal["native"]

LATER_FIELDS = (
    "resizer",
    "resize_mode",
    "resize_width",
    "antialias",
    "crop_rounding",
    "clip_stride",
    "frame_interval",
    "last_clip",
    "num_frames",
    "keyframes_only",
)
"""What version 0.4.0 did not know. Where they have their defaults, which is how it did things, they
are left out of digests, which stay as they were."""

USUAL_FPS = 30.0
"""Of a video whose own rate is not known."""

USUAL_KEYFRAME_SECONDS = 2.0
"""From one key frame to the next: 2 to 10 s are usual, and an estimate must not be too low."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What becomes of a video's frames before a network is given them.

    Attributes:
        frame_rate: frames a second that are taken; `native` for those of the video itself.
        resize_size: the frame's short side, in pixels.
        crop_size: side of the centre crop, in pixels; 0 for the whole frame.
        interpolation: of the resizer.
        square_pixels: whether anamorphic video gets its proportions.
        num_frames_per_clip: frames that one feature sees; None for single frames.
        resizer: what resizes: `ffmpeg`, its scaler, which works in the video's own colours, or
            `pillow`, which networks' own libraries use, in RGB.
        resize_mode: what `resize_size` is of: of the `shortest` side, or of both, which squashes
            the frame (`squash`).
        resize_width: of squashed frames, whose height is `resize_size`; None for the same.
        antialias: whether a smaller frame is made of all pixels of the larger one. Without, which
            `pillow` does for `bilinear` alone, it is made of those next to each of its pixels.
        crop_rounding: where half a pixel is left on each side of the crop, it moves `down`, left
            and up, or to the `nearest` even number, as torchvision has it.
        clip_stride: frames from the start of one clip to that of the next; None for no overlap.
        frame_interval: of the frames at `frame_rate`, every so many-th is taken: in a clip, from
            its start on.
        last_clip: what becomes of frames at the end that fill no clip: one that is filled up with
            black (`zeros`) or with the last frame (`repeat`), none (`drop`), or one that begins
            earlier (`shift`).
        num_frames: so many frames, spread evenly over the video, whatever its rate; None for all.
        keyframes_only: of the video's own frames, those that can be decoded by themselves.
    """

    frame_rate: float | Native
    resize_size: int
    crop_size: int
    interpolation: str = "bilinear"
    square_pixels: bool = True
    num_frames_per_clip: int | None = None
    resizer: Literal["ffmpeg", "pillow"] = "ffmpeg"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    resize_width: int | None = None
    antialias: bool = True
    crop_rounding: Literal["down", "nearest"] = "down"
    clip_stride: int | None = None
    frame_interval: int = 1
    last_clip: LastClip = "zeros"
    num_frames: int | None = None
    keyframes_only: bool = False

    @property
    def constant_rate(self) -> float | None:
        """Frames a second where they are as far from each other as these; None where each frame has
        a time of its own: `native`, `num_frames`, `keyframes_only`."""
        if self.frame_rate == "native" or self.num_frames is not None or self.keyframes_only:
            return None
        return self.frame_rate

    @property
    def frame_step(self) -> int:
        """Of the frames that the sampling gives, every so many-th becomes pixels at all.

        It is `frame_interval` where all that is needed lies on one grid, and 1 elsewhere.
        """
        if self.num_frames is not None:
            return 1
        if self.num_frames_per_clip is None:
            return self.frame_interval
        whole = self._windows
        is_grid = whole.stride >= whole.span and whole.stride % whole.interval == 0
        return whole.interval if is_grid and whole.last_clip != "shift" else 1

    def reached_seconds(self, num_frames: int) -> float:
        """Return how far so many frames reach that became pixels, at a constant rate."""
        assert self.constant_rate is not None
        return ((num_frames - 1) * self.frame_step + 1) / self.constant_rate if num_frames else 0.0

    @property
    def windows(self) -> Windows:
        """Where clips lie among the frames that become pixels; of single frames, one is a clip."""
        step, whole = self.frame_step, self._windows
        return whole._replace(interval=max(1, whole.interval // step), stride=whole.stride // step)

    @property
    def _windows(self) -> Windows:
        if self.num_frames_per_clip is None:
            return Windows(1, 1, self.frame_interval, "drop")
        stride = self.clip_stride or self.num_frames_per_clip * self.frame_interval
        return Windows(self.num_frames_per_clip, self.frame_interval, stride, self.last_clip)

    def num_rows(self, duration_seconds: float, fps: float | None = None) -> int:
        """Return about how many features a video gives.

        Args:
            duration_seconds: of the video.
            fps: the video's own; None if it is not known.
        """
        if self.num_frames is not None:
            num_frames = self.num_frames
        else:
            rate = self.constant_rate or fps or USUAL_FPS
            if self.keyframes_only:
                rate = 1 / USUAL_KEYFRAME_SECONDS
            num_frames = max(1, int(duration_seconds * rate + 0.5))
        return len(self.windows.starts(-(-num_frames // self.frame_step)))

    @property
    def numerics(self) -> dict[str, Any]:
        """What decides the numbers, as digests have it."""
        defaults = {field.name: field.default for field in fields(self)}
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in LATER_FIELDS or value != defaults[name]
        }
