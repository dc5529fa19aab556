"""Which frames clips are made of."""

from __future__ import annotations

import itertools

import pytest

from videofeatures.decoding.windows import Windows


def frames_of(windows: Windows, num_frames: int) -> list[list[int]]:
    """The real frames of each clip."""
    clips = []
    for start in windows.starts(num_frames):
        places = range(start, start + windows.span, windows.interval)
        clips.append([place for place in places if place < num_frames])
    return clips


def test_windows_of_32_and_a_last_one_that_is_moved_back_as_for_ego4d():
    clips = frames_of(Windows(32, 1, 16, "shift"), 39)
    assert [(clip[0], clip[-1], len(clip)) for clip in clips] == [(0, 31, 32), (7, 38, 32)]


@pytest.mark.parametrize("stride", [4, 8, 16])
@pytest.mark.parametrize("num_frames", [16, 17, 19, 20, 31, 32, 33, 100, 1001])
def test_windows_that_drop_what_is_left_as_for_thumos(num_frames, stride):
    expected = list(range(0, num_frames - 15, stride))
    assert Windows(16, 1, stride, "drop").starts(num_frames) == expected


@pytest.mark.parametrize("num_frames", [0, 1, 15, 16, 17, 31, 32, 33, 72, 1000])
def test_without_overlap_every_frame_is_in_one_clip_as_in_the_original(num_frames):
    starts = Windows(16, 1, 16, "zeros").starts(num_frames)
    assert starts == [16 * k for k in range(-(-num_frames // 16))]


LENGTHS = [1, 2, 3, 5]
CASES = list(itertools.product(LENGTHS, [1, 2, 3], [1, 2, 3, 4, 7], range(1, 30)))


@pytest.mark.parametrize("last_clip", ["zeros", "repeat", "drop", "shift"])
def test_the_rule_by_trying_every_start(last_clip):
    for length, interval, stride, num_frames in CASES:
        windows = Windows(length, interval, stride, last_clip)
        span = (length - 1) * interval + 1
        full = [k for k in range(0, num_frames, stride) if k + span <= num_frames]
        following = full[-1] + stride if full else 0
        is_left = following < num_frames and (not full or full[-1] + span < num_frames)
        found = windows.starts(num_frames)
        assert found[: len(full)] == full
        if not is_left or last_clip == "drop":
            assert found == full
        elif last_clip == "shift":
            assert found[len(full) :] == [max(0, num_frames - span)]
        else:
            assert found[len(full) :] == [following]
        clips = frames_of(windows, num_frames)
        if last_clip in ("zeros", "repeat") and stride <= span and interval == 1:
            assert set(range(num_frames)) == {k for clip in clips for k in clip}
        if last_clip == "shift" and num_frames >= span:
            assert all(len(clip) == length for clip in clips)


@pytest.mark.parametrize("last_clip", ["zeros", "repeat", "drop", "shift"])
def test_all_frames_that_a_clip_is_made_of_are_known_to_be_needed(last_clip):
    for length, interval, stride, num_frames in CASES:
        windows = Windows(length, interval, stride, last_clip)
        used = {k for clip in frames_of(windows, num_frames) for k in clip}
        assert all(windows.needs(k) for k in used), (windows, num_frames)


def test_frames_between_clips_are_not_needed():
    needed = [Windows(2, 2, 6, "zeros").needs(k) for k in range(12)]
    assert [k for k, is_needed in enumerate(needed) if is_needed] == [0, 2, 6, 8]


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        (Windows(16, 1, 16, "zeros"), [(0, 15), (16, 31), (32, 38)]),
        (Windows(16, 1, 4, "drop"), [(k, k + 15) for k in (0, 4, 8, 12, 16, 20)]),
        (Windows(16, 2, 4, "drop"), [(0, 30), (4, 34), (8, 38)]),
    ],
)
def test_the_windows_of_39_frames_that_the_documentation_has(windows, expected):
    assert [(clip[0], clip[-1]) for clip in frames_of(windows, 39)] == expected
