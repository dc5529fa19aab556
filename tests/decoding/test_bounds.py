"""What header, packets and size of a file can justify."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from videofeatures.decoding.bounds import (
    PacketFacts,
    check_length,
    check_shape,
    is_questionable,
    justified_seconds,
    unquestioned_seconds,
)
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.errors import VideoError

METADATA = VideoMetadata(320, 240, Fraction(1), 100.0, 25.0, "h264")
FACTS = PacketFacts(
    num_packets=2500,
    num_bytes=1_000_000,
    steady_seconds=100.0,
    span_seconds=100.0,
    longest_seconds=0.04,
    has_promise=True,
    avi_seconds=None,
    is_encrypted=False,
)
WITHOUT = replace(METADATA, duration_seconds=None)


def test_a_video_is_not_questioned_while_header_and_size_are_good_for_it():
    assert unquestioned_seconds(METADATA, 10**9) == pytest.approx(115)
    assert unquestioned_seconds(METADATA, 50_000) == 55
    assert unquestioned_seconds(WITHOUT, 10**6) == 1005


@pytest.mark.parametrize(
    ("num_packets", "fps", "seconds", "expected"),
    [
        (2500, 25.0, 100, False),
        (2500, 25.0, 204, False),
        (2500, 25.0, 206, True),
        (None, 25.0, 10**6, False),
        (2500, None, 10**6, False),
        (100, 0.05, 2000, True),
    ],
)
def test_one_much_longer_than_its_packets_is_questioned(num_packets, fps, seconds, expected):
    assert is_questionable(replace(METADATA, average_fps=fps), num_packets, seconds) is expected


@pytest.mark.parametrize(
    ("metadata", "facts", "expected"),
    [
        (METADATA, {}, 100),
        # Pictures stand for long, and the header says so.
        (METADATA, {"num_packets": 10, "steady_seconds": 0.4}, 100),
        # Times beyond the header's, with packets, and without.
        (METADATA, {"span_seconds": 500.0, "steady_seconds": 500.0}, 500),
        (METADATA, {"span_seconds": 500.0}, 100),
        # Nothing is promised: times are believed.
        (WITHOUT, {"span_seconds": 500.0}, 500),
        (METADATA, {"span_seconds": 500.0, "has_promise": False}, 500),
        # Read again, by an edit list: what has been read once counts.
        (replace(METADATA, duration_seconds=9000.0), {}, 100),
        # Next to nothing, for hours.
        (WITHOUT, {"span_seconds": 9000.0, "num_bytes": 400}, 4000),
        # An AVI contradicts itself.
        (METADATA, {"avi_seconds": 4.0, "steady_seconds": 4.0}, 4),
    ],
)
def test_what_justifies_the_length_of_a_video(metadata, facts, expected):
    limit = justified_seconds(metadata, replace(FACTS, **facts), 3600)
    assert limit == pytest.approx(expected * 1.1 + 5)


def test_a_length_is_checked():
    assert check_length(114, METADATA, FACTS, 3600) == pytest.approx(115)
    for metadata, header in ((METADATA, "100 s by its header, "), (WITHOUT, "")):
        with pytest.raises(VideoError) as error:
            check_length(1200, metadata, FACTS, 3600)
        assert error.value.reason == (
            f"1,200 s by its times, {header}100 s by its 2,500 packets: damaged times"
        )
    with pytest.raises(VideoError, match=r"^one picture stands for 3,601 s .*\(now 3600\)$"):
        check_length(10, METADATA, replace(FACTS, longest_seconds=3601.0), 3600)


@pytest.mark.parametrize(("size", "is_right"), [((224, 2240), True), ((2241, 224), False)])
def test_a_shape_is_checked(size, is_right):
    if is_right:
        check_shape(size, METADATA, 10)
        return
    with pytest.raises(VideoError, match=r"^320 × 240 would be 2241 × 224 for the network"):
        check_shape(size, METADATA, 10)
    odd = replace(METADATA, sample_aspect_ratio=Fraction(500, 7))
    with pytest.raises(VideoError, match=r"^320 × 240 with pixels of 500:7 would be"):
        check_shape(size, odd, 10)
