"""What ffmpeg says is told apart and counted."""

from __future__ import annotations

import math

import pytest

from videofeatures.decoding.tally import Tally


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("[h264 @ 0x5a] [error] top block unavailable", "[h264 @ 0x5a] top block unavailable"),
        ("[vist#0:0/h264 @ 0x1] [dec @ 0x2] [fatal] x", "[vist#0:0/h264 @ 0x1] [dec @ 0x2] x"),
        ("[error] Error opening input", "Error opening input"),
        ("[h264 @ 0x5a] [info] concealing 84 DC", None),
        ("[info]     title : [error] Cannot allocate memory", None),
        ("[verbose] Exiting with exit code 0", None),
        (
            "[rawvideo @ 0x5a] [error] Application provided invalid, non monotonically increasing "
            "dts to muxer in stream 0: 85 >= 85",
            None,
        ),
        ("of a version that knows no levels", "of a version that knows no levels"),
    ],
)
def test_complaints_are_kept_without_their_level(line, kept):
    tally = Tally()
    assert tally.take(line) == kept
    assert not tally.is_hopeless


def test_the_next_lines_of_what_it_says_belong_to_it():
    tally = Tally()
    lines = ["[warning] this", "is of no use", "[error] but this", "is"]
    assert [tally.take(line) for line in lines] == [None, None, "but this", "is"]


def test_damaged_frames_are_counted():
    tally = Tally()
    for _ in range(3):
        tally.take("[vist#0:0/h264 @ 0x1] [dec:h264 @ 0x2] [warning] corrupt decoded frame")
    assert (tally.num_corrupt, tally.num_frames) == (3, None)
    tally.take(
        "[in#0/mov @ 0x5] [verbose]   Input stream #0:0 (video): 200 packets read (276196 bytes); "
        "199 frames decoded; 1 decode errors; "
    )
    tally.take("[in#0/mov @ 0x5] [verbose]   Input stream #0:1 (audio): 9 packets read (1 bytes); ")
    assert (tally.num_packets, tally.num_frames, tally.num_errors) == (200, 199, 1)


def test_damaged_frames_are_counted_as_version_5_tells_of_them():
    tally = Tally()
    tally.take("[warning] /a/b.mp4: corrupt decoded frame in stream 0")
    tally.take(
        "[verbose]   Input stream #0:0 (video): 864 packets read (9 bytes); 863 frames decoded; "
    )
    assert (tally.num_corrupt, tally.num_frames, tally.num_errors) == (1, 863, 0)


@pytest.mark.parametrize(
    "line",
    [
        "[fc#0 @ 0x1] [error] Error while filtering: Cannot allocate memory",
        "[h264 @ 0x1] [error] x() failedError submitting packet: Cannot allocate memory",
        "[h264 @ 0x1] [error] Could not allocate memory",
    ],
)
def test_one_that_lacks_memory_is_hopeless(line):
    tally = Tally()
    assert tally.take(line) is not None
    assert tally.is_hopeless


SHOWINFO = "[Parsed_showinfo_0 @ 0x5a] [info] "
SHOWN = (
    f"{SHOWINFO}n:{{n:4d}} pts:{{pts:>7}} pts_time:0.04    duration: 512 fmt:yuv420p i:P iskey:1 "
)


def shown(*times: object, n: int = 0) -> list[str]:
    return [SHOWN.format(n=n + k, pts=pts) for k, pts in enumerate(times)]


def test_the_times_of_frames_are_taken_exactly_and_are_not_for_people():
    tally = Tally()
    lines = [
        f"{SHOWINFO}config in time_base: 1001/30000, frame_rate: 30000/1001",
        f"{SHOWINFO}config out time_base: 0/0, frame_rate: 0/0",
        *shown(0, 1, -2, 3_000_001),
        f"{SHOWINFO}color_range:tv color_space:unknown",
        f"{SHOWINFO}  side data - User Data Unregistered:",
        "of which there may be a second line",
        *shown("NOPTS", n=4),
    ]
    assert [tally.take(line) for line in lines] == [None] * len(lines)
    *known, unknown = tally.shown_seconds
    assert known == [0, 1001 / 30000, -2 * 1001 / 30000, 3_000_001 * 1001 / 30000]
    assert math.isnan(unknown)
    assert tally.graph_starts == [0]
    assert (tally.num_signs, tally.reached_seconds) == (5, known[-1])


def test_filters_that_are_made_anew_count_from_zero_with_units_of_their_own():
    tally = Tally()
    for time_base in ("1/25", "1/50"):
        tally.take(f"{SHOWINFO}config in time_base: {time_base}, frame_rate: 25/1")
        for line in shown(10, 11):
            tally.take(line)
    assert list(tally.shown_seconds) == [0.4, 0.44, 0.2, 0.22]
    assert tally.graph_starts == [0, 2]


def test_another_run_is_counted_anew():
    tally = Tally()
    tally.take("[error] Cannot allocate memory")
    for line in shown(1, 2):
        tally.take(line)
    tally.reset()
    assert tally == Tally()


def test_a_time_is_taken_where_another_thread_has_begun_the_line():
    tally = Tally()
    for line in (
        "[Parsed_showinfo_0 @ 0x1] [info] config in time_base: 1/10, frame_rate: 10/1",
        "[Parsed_showinfo_0 @ 0x1] [info] n:   0 pts:      0 pts_time:0 duration: 1",
        "Stream #0:0: Video: rawvideo, rgb24n:   1 pts:      1 pts_time:0.1 duration: 1",
        "[out#1/rawvideo @ 0x2] [verbose] n:   2 pts:   NOPTS pts_time:NOPTS duration: 1",
    ):
        assert tally.take(line) is None
    assert list(tally.shown_seconds)[:2] == [0, 0.1]
    assert len(tally.shown_seconds) == 3
    assert tally.graph_starts == [0]
