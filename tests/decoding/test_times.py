"""When frames are shown, and when what each row saw begins and ends."""

from __future__ import annotations

import numpy as np
import pytest

from videofeatures.decoding.times import FrameTimes, RowTimes, complete_times, row_times
from videofeatures.decoding.view import View


def view(**options: object) -> View:
    return View(**{"frame_rate": 1, "resize_size": 2, "crop_size": 0} | options)


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
    seen = view(frame_rate=frame_rate, num_frames_per_clip=num_frames_per_clip)
    found = row_times(FrameTimes.at_rate(num_frames, seen), seen).timestamps
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("length", [1, 16])
@pytest.mark.parametrize("frame_rate", [1, 2.5, 24, 29.97, 7])
def test_timestamps_are_to_the_bit_those_of_version_0_4_0(frame_rate, length):
    seen = view(frame_rate=frame_rate, num_frames_per_clip=length if length > 1 else None)
    for num_frames in (1, 15, 16, 17, 1000):
        starts = np.arange(0, num_frames, length)
        ends = np.minimum(starts + length, num_frames)
        expected = (starts + ends) / 2 / frame_rate
        found = row_times(FrameTimes.at_rate(num_frames, seen), seen)
        np.testing.assert_array_equal(found.timestamps, expected)
        np.testing.assert_array_equal(found.start_seconds, starts / frame_rate)
        np.testing.assert_array_equal(found.end_seconds, ends / frame_rate)


def test_a_row_ends_with_its_last_real_frame():
    seen = view(frame_rate=2, num_frames_per_clip=3, frame_interval=2, clip_stride=4)
    found = row_times(FrameTimes.at_rate(10, seen), seen)
    # Frames 0, 2, 4; 4, 6, 8; and 8.
    np.testing.assert_array_equal(found.start_seconds, [0, 2, 4])
    np.testing.assert_array_equal(found.end_seconds, [2.5, 4.5, 4.5])
    np.testing.assert_array_equal(found.timestamps, [1.25, 3.25, 4.25])


def test_frames_that_became_no_pixels_have_their_time_all_the_same():
    sparse = view(frame_rate=10, frame_interval=4)
    found = row_times(FrameTimes.at_rate(3, sparse), sparse)
    np.testing.assert_allclose(found.start_seconds, [0, 0.4, 0.8])
    np.testing.assert_allclose(found.end_seconds, [0.1, 0.5, 0.9])
    clips = view(frame_rate=10, frame_interval=4, num_frames_per_clip=2)
    found = row_times(FrameTimes.at_rate(3, clips), clips)
    np.testing.assert_allclose(found.start_seconds, [0, 0.8])
    np.testing.assert_allclose(found.end_seconds, [0.5, 0.9])


def test_rows_of_frames_with_times_of_their_own():
    own = view(frame_rate="native", num_frames_per_clip=2, clip_stride=1, last_clip="drop")
    times = FrameTimes(np.array([0.0, 1.0, 5.0]), np.array([1.0, 5.0, 6.0]))
    found = row_times(times, own)
    np.testing.assert_array_equal(found.start_seconds, [0, 1])
    np.testing.assert_array_equal(found.end_seconds, [5, 6])
    np.testing.assert_array_equal(found.timestamps, [2.5, 3.5])


def test_the_whole_is_from_the_first_to_the_last():
    times = RowTimes(np.array([1.0, 2.0]), np.array([2.0, 2.25]), np.array([3.0, 2.5]))
    assert [each.tolist() for each in times.whole()] == [[1], [2], [3]]


def test_times_can_be_those_of_a_later_part():
    times = RowTimes(np.array([1.0, 2.0]), np.array([1.5, 2.5]), np.array([2.0, 3.0]))
    assert [each.tolist() for each in times.shifted(10)] == [[11, 12], [11.5, 12.5], [12, 13]]


def test_frames_that_are_evenly_spread_are_a_guess():
    found = FrameTimes.spaced(4, 10)
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 2.5, 5, 7.5], [2.5, 5, 7.5, 10])


NAN = float("nan")


@pytest.mark.parametrize(
    ("seconds", "options", "starts", "ends"),
    [
        ([0, 1, 3, 4], {}, [0, 1, 3, 4], [1, 3, 4, 5]),
        ([2], {"fps": 4}, [2], [2.25]),
        ([2], {}, [2], [2]),
        ([2], {"until_seconds": 9}, [2], [9]),
        ([0, 4, 8], {"until_seconds": 9}, [0, 4, 8], [4, 8, 9]),
        ([0, 4, 8], {"until_seconds": 90}, [0, 4, 8], [4, 8, 12]),
        ([0, 4, 8], {"until_seconds": 5}, [0, 4, 8], [4, 8, 12]),  # a header that is wrong
        ([0, 1, NAN, 3, NAN], {}, [0, 1, 2, 3, 4], [1, 2, 3, 4, 5]),
        ([NAN, NAN], {"fps": 2}, [0, 0.5], [0.5, 1]),
        ([0, 1, 1, 2], {}, [0, 1, 1, 2], [1, 1, 2, 3]),
        ([0, 2, 1], {}, [0, 2, 1], [2, 2, 3]),  # none ends before it begins
        ([], {}, [], []),
    ],
)
def test_a_frame_lasts_until_the_next_one(seconds, options, starts, ends):
    found = complete_times(seconds, **{"fps": None} | options)
    assert [each.tolist() for each in found] == [starts, ends]
