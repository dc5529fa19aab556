"""What a decoder tells of a view's frames, beside them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from videofeatures.decoding.decoder import Damage
from videofeatures.decoding.process import NUM_STDERR_LINES
from videofeatures.decoding.times import FrameTimes
from videofeatures.errors import VideoError


@dataclass
class Told:
    """What is told of the frames of one view.

    Attributes:
        messages: the last lines that it has said; frames may come all the same. Views that are
            decoded together have them, and the damage, in common.
        damage: is filled in when the last frame has come.
        times: are filled in then, too, of a view without a `constant_rate`; how far it has come,
            with each frame.
        error: why its frames are not all there; None if they are.
    """

    messages: deque[str] = field(default_factory=lambda: deque(maxlen=NUM_STDERR_LINES))
    damage: Damage = field(default_factory=Damage)
    times: FrameTimes = field(default_factory=FrameTimes)
    error: VideoError | None = None
