"""Frames to clips, and the times of what each row saw."""

from __future__ import annotations

import numpy as np
import pytest

from videofeatures.decoding.clips import iter_clips, row_timestamps


def frames(count: int) -> list[np.ndarray]:
    return [np.full((2, 3, 3), k + 1, np.uint8) for k in range(count)]


def test_frames_pass_through_without_clips():
    given = frames(3)
    assert [(frame is given[k], n) for k, (frame, n) in enumerate(iter_clips(given, None))] == [
        (True, 1)
    ] * 3


@pytest.mark.parametrize(
    ("num_frames", "sizes"),
    [(0, []), (1, [1]), (15, [15]), (16, [16]), (17, [16, 1]), (48, [16, 16, 16])],
)
def test_no_frame_is_lost_and_the_last_clip_is_filled_with_black(num_frames, sizes):
    clips = list(iter_clips(iter(frames(num_frames)), 16))
    assert [n for _, n in clips] == sizes
    assert all(clip.shape == (16, 2, 3, 3) and clip.dtype == np.uint8 for clip, _ in clips)
    values = np.concatenate([clip[:, 0, 0, 0] for clip, _ in clips] or [[]])
    padding = 16 * len(sizes) - num_frames
    assert values.tolist() == [*range(1, num_frames + 1), *[0] * padding]


@pytest.mark.parametrize(
    ("num_frames", "frame_rate", "num_frames_per_clip", "expected"),
    [
        (3, 1, None, [0.5, 1.5, 2.5]),
        (2, 4, None, [0.125, 0.375]),
        (32, 24, 16, [8 / 24, 24 / 24]),
        (20, 24, 16, [8 / 24, 18 / 24]),
        (1, 24, 16, [0.5 / 24]),
    ],
)
def test_timestamps_are_the_middle_of_what_a_row_saw(
    num_frames, frame_rate, num_frames_per_clip, expected
):
    found = row_timestamps(num_frames, frame_rate, num_frames_per_clip)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    clips = list(iter_clips(iter(frames(num_frames)), num_frames_per_clip))
    assert len(clips) == len(found)
