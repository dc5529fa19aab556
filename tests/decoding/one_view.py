"""Frames of a video for one view, which most tests are about."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from videofeatures.decoding import frames
from videofeatures.decoding.decoder import Decoder, VideoMetadata
from videofeatures.decoding.frames import Sampling
from videofeatures.decoding.resizing import Resizing
from videofeatures.decoding.told import Told
from videofeatures.decoding.view import View
from videofeatures.source import Source


def iter_frames(
    path: str,
    resizing: Resizing,
    *,
    frame_rate: float | str,
    frame_step: int = 1,
    select: str | None = None,
    keyframes_only: bool = False,
    **options: object,
) -> Iterator[np.ndarray]:
    """Yield what `frames.iter_frames` does for one sampling."""
    sampling = Sampling(
        resizing=resizing,
        frame_rate=frame_rate,
        frame_step=frame_step,
        select=select,
        keyframes_only=keyframes_only,
    )
    for number, frame in frames.iter_frames(path, [sampling], **options):
        assert number == 0
        yield frame


def decode(
    decoder: Decoder,
    source: Source,
    metadata: VideoMetadata,
    view: View,
    told: Told | None = None,
    **options: object,
) -> Iterator[np.ndarray]:
    """Yield what a decoder gives for one view."""
    told = told or Told()
    for _, frame in decoder.frames(source, metadata, [view], [told], **options):
        yield frame
    assert told.error is None
