"""So many frames, spread evenly over a video."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest

from videofeatures.decoding import spread
from videofeatures.decoding.spread import iter_spread_frames, spread_expression, spread_indices
from videofeatures.decoding.tally import Tally
from videofeatures.errors import VideoError


@pytest.mark.parametrize(
    ("num_frames", "total", "expected"),
    [
        (8, 250, [0, 35, 71, 106, 142, 177, 213, 249]),
        (4, 4, [0, 1, 2, 3]),
        (1, 9, [0]),
        (6, 3, [0, 0, 0, 1, 1, 2]),
        (3, 1, [0, 0, 0]),
    ],
)
def test_which_frames_are_taken(num_frames, total, expected):
    assert spread_indices(num_frames, total).tolist() == expected


FUNCTIONS = {
    "lt": lambda a, b: a < b,
    "eq": lambda a, b: a == b,
    "choose": lambda a, b, c: b if a else c,
    "floor": np.floor,
}


def is_selected(expression: str | None, n: int, selected_n: int) -> bool:
    """Whether an expression is true of frame n, as ffmpeg's filter evaluates it."""
    if expression is None:
        return True
    names = {"n": float(n), "selected_n": float(selected_n)}
    return bool(eval(expression.replace("if(", "choose("), FUNCTIONS, names))


def by_expression(num_frames: int, total: int) -> list[int]:
    """Frames for which the expression is true."""
    expression = spread_expression(num_frames, total)
    taken: list[int] = []
    for n in range(total):
        if is_selected(expression, n, len(taken)):
            taken.append(n)
    return taken


def test_ffmpeg_comes_to_the_same_frames():
    for num_frames in (1, 2, 3, 7, 8, 30, 64, 99):
        for total in (1, 2, 3, 8, 50, 99, 100, 239, 240, 241, 1000):
            expected = sorted(set(spread_indices(num_frames, total).tolist()))
            assert by_expression(num_frames, total) == expected, (num_frames, total)


class Video:
    """Frames that tell their number, and what ffmpeg would do with them."""

    def __init__(self, *numbers: int, restarts_at: int = 10**9):
        self.tally = Tally()
        self.numbers = deque(numbers)  # of frames, in each run
        self.restarts_at = restarts_at
        self.asked: list[str | None] = []
        self.lines = deque(["of a run before"])

    def read(self, select: str | None) -> Iterator[np.ndarray]:
        self.asked.append(select)
        total = self.numbers.popleft() if len(self.numbers) > 1 else self.numbers[0]
        taken = 0
        for k in range(total):
            n = k if k < self.restarts_at else k - self.restarts_at
            if n == 0:
                self.tally.graph_starts.append(k)
                taken = 0
            self.tally.shown_seconds.append(k / 10)
            if is_selected(select, n, taken):
                taken += 1
                yield np.full((4, 4, 3), k, np.uint8)

    def take(self, num_frames: int, total: int) -> list[int]:
        frames = iter_spread_frames(
            self.read, num_frames, total, self.tally, self.lines, frame_bytes=48
        )
        return [int(frame[0, 0, 0]) for frame in frames]


@pytest.mark.parametrize("num_frames", [1, 3, 8, 50, 80])
def test_a_video_that_has_as_many_frames_as_packets_is_decoded_once(num_frames):
    video = Video(50)
    assert video.take(num_frames, 50) == spread_indices(num_frames, 50).tolist()
    assert len(video.asked) == 1
    assert not video.lines


@pytest.mark.parametrize("packets", [0, 1, 49, 51, 100])
def test_one_that_has_others_is_decoded_again(packets):
    video = Video(50)
    assert video.take(8, packets) == spread_indices(8, 50).tolist()
    assert len(video.asked) == 2
    assert len(video.tally.shown_seconds) == 50  # of the last run alone


def test_more_than_can_be_held_are_counted_first(monkeypatch):
    monkeypatch.setattr(spread, "MAX_HELD_BYTES", 48 * 7)
    video = Video(50)
    assert video.take(8, 99) == spread_indices(8, 50).tolist()
    assert video.asked[0] == "eq(n,0)"
    assert len(video.asked) == 2
    assert Video(50).take(7, 99) == spread_indices(7, 50).tolist()


def test_filters_that_count_anew_in_mid_stream_leave_the_choice_to_us():
    video = Video(50, restarts_at=20)
    assert video.take(8, 50) == spread_indices(8, 50).tolist()
    assert video.asked[1:] == [None]


@pytest.mark.parametrize("held_bytes", [0, 10**6])
def test_one_whose_frames_differ_each_time_is_a_failure(monkeypatch, held_bytes):
    monkeypatch.setattr(spread, "MAX_HELD_BYTES", held_bytes)
    with pytest.raises(VideoError, match=r"cannot take 8 frames of it: ffmpeg decodes .* and then"):
        Video(50, 49, 48, 47).take(8, 51)
