"""What is known of a target while it is worked on: its facts, and its features as they come."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import numpy as np

from videofeatures.extraction.events import Begun, Decoded
from videofeatures.extraction.features import GrowingArray
from videofeatures.planning.plan import Target


@dataclass(eq=False)
class TargetState:
    """A target on its way through the pipeline; only the thread that computes knows of it.

    Attributes:
        begun: None if it could not begin.
        decoded: None while its video is being decoded.
        error: why there will be no file of it.
        norm_sum: of its features, before these were divided by their norms.
        share: what part of its video has been decoded, as far as its header tells.
        told_seconds: how long it had been in work when that was told last.
    """

    target: Target
    begun: Begun | None = None
    decoded: Decoded | None = None
    error: Exception | None = None
    started: float = field(default_factory=time.monotonic)
    compute_seconds: float = 0.0
    norm_sum: float = 0.0
    share: float = 0.0
    told_seconds: float = 0.0
    features: GrowingArray = field(default_factory=GrowingArray)

    def add_feature(self, index: int, feature: np.ndarray, norm: float) -> None:
        """Take the feature of clip `index`, and the norm that it had."""
        self.features.put(index, feature)
        self.norm_sum += norm

    def anew(self) -> TargetState:
        """Return the state of a target of which all clips come again.

        What this one has been promised may still come, and is nobody's.
        """
        return replace(self, norm_sum=0.0, features=GrowingArray())

    @property
    def is_complete(self) -> bool:
        """Nothing more will come of it."""
        if self.decoded is None:
            return False
        return self.error is not None or self.features.num_rows == self.decoded.num_clips

    @property
    def has_complaints(self) -> bool:
        """Whether its decoder has complained of its video, or found it wanting."""
        return self.decoded is not None and bool(
            self.decoded.messages or self.decoded.warning or self.decoded.damaged_share
        )

    @property
    def fell_back(self) -> bool:
        """Whether it was decoded on the CPU, though a device was asked for."""
        return self.decoded is not None and bool(self.decoded.fallback)

    @property
    def video_seconds(self) -> float:
        """Its part of the length of its source, which other targets may have, too, as the video's
        header says; 0 if it does not."""
        if self.decoded is None or self.decoded.metadata is None:
            return 0
        seconds = self.target.source.seconds_of(self.decoded.metadata.duration_seconds)
        return (seconds or 0) / self.decoded.num_together
