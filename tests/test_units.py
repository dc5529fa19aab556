"""Lengths of time and sizes, as people say them."""

from __future__ import annotations

import pytest

from videofeatures.units import describe_bytes, describe_seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (9.9, "9.9 s"),
        (10, "10 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (120, "2.0 min"),
        (3600, "60 min"),
        (7199, "120 min"),
        (7200, "2.0 h"),
        (3 * 86400 - 1, "72 h"),
        (3 * 86400, "3.0 days"),
        (100 * 3600, "4.2 days"),
        (10**9, "11,574.1 days"),
    ],
)
def test_lengths_of_time(seconds, text):
    assert describe_seconds(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 kB"),
        (999, "0.999 kB"),
        (1000, "1 kB"),
        (48_600, "48.6 kB"),
        (999_000, "999 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (10**6, "1 MB"),
        (999 * 10**6, "999 MB"),
        (10**9, "1 GB"),
        (999 * 10**9, "999 GB"),
        (1.94e12, "1.94 TB"),
        (1.5e15, "1.5 PB"),
    ],
)
def test_sizes(num_bytes, text):
    assert describe_bytes(num_bytes) == text
