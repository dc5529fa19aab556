"""A source is a video, or a part of one."""

from __future__ import annotations

import pytest

from videofeatures.source import Source, part_cells


@pytest.mark.parametrize(
    ("part", "video_seconds", "seconds"),
    [
        ((None, None), 9.0, 9.0),
        ((None, None), None, None),
        ((2.0, None), 9.0, 7.0),
        ((2.0, None), None, None),
        ((2.0, 5.0), 9.0, 3.0),
        ((2.0, 5.0), None, 3.0),
        ((2.0, 15.0), 9.0, 7.0),
        ((None, 5.0), 9.0, 5.0),
        ((12.0, 15.0), 9.0, 0.0),
    ],
)
def test_a_part_lasts_until_its_end_or_that_of_its_video(part, video_seconds, seconds):
    assert Source("a.mp4", *part).seconds_of(video_seconds) == seconds


@pytest.mark.parametrize(
    ("part", "text", "cells"),
    [
        ((None, None), "a.mp4", ["", ""]),
        ((12.5, 20.0), "a.mp4 [12.5–20 s]", ["12.5", "20"]),
        ((None, 0.033367), "a.mp4 [0–0.033367 s]", ["", "0.033367"]),
        ((3723.456789, None), "a.mp4 [from 3723.456789 s]", ["3723.456789", ""]),
    ],
)
def test_a_part_is_told_with_all_of_its_digits(part, text, cells):
    source = Source("a.mp4", *part)
    assert str(source) == text
    assert source.is_part == (source != Source("a.mp4"))
    assert part_cells(source) == cells
