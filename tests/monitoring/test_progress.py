"""What is said of a run's progress, and when."""

from __future__ import annotations

import io
import os
import pty
from itertools import pairwise

import pytest

from videofeatures.monitoring import progress as progress_module
from videofeatures.monitoring.progress import Display, Progress


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_says_what_is_done_how_fast_and_how_long_it_will_take(clock):
    progress = Progress(100, clock=clock)
    clock.now += 10
    progress.add(done=19, video_seconds=3600)
    progress.add(failed=1)
    assert str(progress) == (
        "20 of 100 videos (20 %); 60 min of video; 2 videos/s, 360 times as fast as they play; "
        "1 failed; 40 s left"
    )


def test_nothing_is_made_up_before_the_first_row(clock):
    progress = Progress(2000, clock=clock)
    clock.now += 300
    assert str(progress) == "0 of 2,000 videos (0 %); 0 s of video"


def test_rows_that_others_did_count_as_ended_but_not_as_speed(clock):
    progress = Progress(100, clock=clock)
    clock.now += 10
    progress.add(elsewhere=50)
    progress.add(done=10, video_seconds=10)
    assert progress.num_ended == 60
    assert progress.rates() == (1, 1, 0)
    assert "40 s left" in str(progress)


def test_the_time_left_is_that_of_the_bytes_that_are_left(clock):
    progress = Progress(11, clock=clock)
    progress.total_bytes = 2000
    clock.now += 10
    progress.add(done=10, video_seconds=10, num_bytes=100)
    assert progress.seconds_left() == 190  # and not one second, as of eleven rows
    clock.now += 10
    progress.set_working(100)
    assert progress.seconds_left() == 180
    progress.set_working(1900)
    assert progress.seconds_left() == 0
    progress.set_working(0)
    progress.add(failed=1, num_bytes=1900)
    assert progress.seconds_left() is None
    assert progress.rates() == (11 / 20, 10 / 20, 2000 / 20)


def test_rows_that_others_did_are_taken_for_ones_of_the_usual_size(clock):
    progress = Progress(4, clock=clock)
    progress.total_bytes = 400
    clock.now += 1
    progress.add(done=1, num_bytes=70)
    progress.add(elsewhere=2)
    assert progress.num_bytes == 270


def test_without_a_video_that_is_there_rows_tell_the_time_left(clock):
    progress = Progress(20, clock=clock)
    progress.total_bytes = 0
    clock.now += 10
    progress.add(failed=10)
    assert progress.seconds_left() == 10


def test_at_its_end_no_time_is_left(clock):
    progress = Progress(1, clock=clock)
    clock.now += 1
    progress.add(done=1, video_seconds=5)
    assert "left" not in str(progress)
    assert "(100 %)" in str(progress)


def test_rates_are_those_of_the_last_minutes(clock):
    progress = Progress(10**6, clock=clock)
    for _ in range(3000):  # 50 minutes, one a second
        clock.now += 1
        progress.add(done=1, video_seconds=10)
    for _ in range(700):  # then ten a second
        clock.now += 1
        progress.add(done=10, video_seconds=100)
    rows, video_seconds, _ = progress.rates()
    assert rows == pytest.approx(10, rel=0.01)
    assert video_seconds == pytest.approx(100, rel=0.01)
    assert len(progress._samples) <= progress_module.MAX_SAMPLES + 2


@pytest.mark.parametrize(
    ("rows_per_second", "text"),
    [(1.5, "1.5 videos/s"), (0.5, "30 videos/min"), (0.005, "18 videos/h")],
)
def test_slow_rates_are_given_for_minutes_and_hours(clock, rows_per_second, text):
    progress = Progress(10**6, clock=clock)
    clock.now += 1000
    progress.add(done=round(1000 * rows_per_second), video_seconds=1)
    assert f"; {text}, " in str(progress)


def test_a_log_gets_a_line_after_a_minute_and_a_hundred_in_ten_days(clock):
    lines = []
    display = Display(lines.append)
    progress = Progress(10**6, clock=clock)
    when = []
    for second in range(10 * 86400):
        clock.now = 1000.0 + second
        before = len(lines)
        display.update(progress)
        if len(lines) > before:
            when.append(second)
    assert when[0] == 60
    assert min(b - a for a, b in pairwise(when)) >= 60
    assert 50 < len(when) < 150


def test_a_file_is_no_terminal(clock):
    stream, lines = io.StringIO(), []
    display = Display(lines.append, stream)
    progress = Progress(1, clock=clock)
    display.update(progress)
    display.clear()
    assert not display.is_live
    assert (stream.getvalue(), lines) == ("", [])
    clock.now += 61
    display.update(progress)
    assert (stream.getvalue(), len(lines)) == ("", 1)


def test_on_a_terminal_one_line_is_written_again_and_taken_away(clock):
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        lines = []
        display = Display(lines.append, terminal)
        progress = Progress(5, clock=clock)
        display.clear()  # nothing is there yet
        display.update(progress)
        display.update(progress)  # too soon
        display.clear()
        display.clear()
        told = os.read(ours, 1000).decode()
    os.close(ours)
    assert told == f"\r{progress}\x1b[K\r\x1b[K"
    assert lines == []


def test_a_line_never_fills_the_terminal(clock, monkeypatch):
    ours, theirs = pty.openpty()
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((20, 24)))
    with os.fdopen(theirs, "w") as terminal:
        Display(print, terminal).update(Progress(5, clock=clock))
        told = os.read(ours, 1000).decode()
    os.close(ours)
    line = told.removeprefix("\r").removesuffix("\x1b[K")
    assert len(line) < 20
    assert line.endswith("…")


def test_rows_that_are_done_with_complaints_are_counted(clock):
    progress = Progress(10, clock=clock)
    progress.add(done=2, complained=1)
    assert "; 1 with complaints" in str(progress)


def test_rows_that_the_cpu_did_for_a_device_are_counted(clock):
    progress = Progress(10, clock=clock)
    progress.add(done=3)
    assert "device" not in str(progress)
    progress.add(done=2, fell_back=2)
    assert "; 2 decoded on the CPU, not on the device" in str(progress)
