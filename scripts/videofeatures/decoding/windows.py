"""Where clips lie among the frames of a video."""

from __future__ import annotations

from typing import Literal, NamedTuple

LastClip = Literal["zeros", "repeat", "drop", "shift"]


class Windows(NamedTuple):
    """A rule of which frames each clip is made of.

    Attributes:
        length: frames of a clip.
        interval: from one of its frames to the next.
        stride: frames from the start of one clip to that of the next.
        last_clip: what becomes of frames at the end that no full clip reaches.
    """

    length: int
    interval: int
    stride: int
    last_clip: LastClip

    @property
    def span(self) -> int:
        """Frames from a clip's first to its last, both included."""
        return (self.length - 1) * self.interval + 1

    def starts(self, num_frames: int) -> list[int]:
        """Return the number of the first frame of each clip, in order.

        Only the last clip may lack frames, those that come after the video's end.

        Args:
            num_frames: of the whole video.
        """
        starts = list(range(0, num_frames - self.span + 1, self.stride))
        reached = starts[-1] + self.span if starts else 0
        next_start = len(starts) * self.stride
        if reached < num_frames and next_start < num_frames:
            if self.last_clip in ("zeros", "repeat"):
                starts.append(next_start)
            elif self.last_clip == "shift":
                starts.append(max(num_frames - self.span, 0))
        return starts

    def needs(self, frame: int) -> bool:
        """Whether any clip may be made of the frame of this number, however long the video is."""
        if self.last_clip == "shift":  # a clip may start anywhere
            return True
        newest = frame - frame % self.stride
        oldest = max(frame - self.span + 1, 0)
        starts = range(newest, oldest - 1, -self.stride)
        return any((frame - start) % self.interval == 0 for start in starts)
