"""A target is complete when nothing more can come of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from conftest import make_target
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.errors import VideoError
from videofeatures.extraction.events import Decoded
from videofeatures.extraction.target_state import TargetState

FEATURE = np.ones(4, np.float32)


@pytest.fixture
def state() -> TargetState:
    return TargetState(make_target("a.mp4", "a.npy"))


def metadata(duration_seconds: float | None) -> VideoMetadata:
    return VideoMetadata(320, 240, Fraction(1), duration_seconds, 25.0, "h264")


def test_it_is_complete_with_the_last_feature_of_a_video_that_has_ended(state):
    state.add_feature(1, FEATURE, 1.0)
    state.decoded = Decoded(num_clips=2)
    assert not state.is_complete
    state.add_feature(0, FEATURE, 1.0)
    assert state.is_complete


def test_it_is_complete_with_the_end_of_a_video_whose_features_are_there(state):
    for k in range(2):
        state.add_feature(k, FEATURE, 1.0)
    assert not state.is_complete  # there may be more of it
    state.decoded = Decoded(num_clips=2)
    assert state.is_complete


def test_after_an_error_it_waits_for_its_decoder_and_for_nothing_else(state):
    state.add_feature(0, FEATURE, 1.0)
    state.error = VideoError("broken")
    assert not state.is_complete
    state.decoded = Decoded(num_clips=3)
    assert state.is_complete


def test_norms_are_summed_and_features_kept(state):
    state.add_feature(1, 2 * FEATURE, 3.0)
    state.add_feature(0, FEATURE, 1.5)
    assert state.norm_sum == 4.5
    np.testing.assert_array_equal(state.features.take(2), [FEATURE, 2 * FEATURE])


@pytest.mark.parametrize(
    ("decoded", "seconds"),
    [
        (None, 0),
        (Decoded(), 0),
        (Decoded(metadata(None)), 0),
        (Decoded(metadata(2.5)), 2.5),
    ],
)
def test_a_length_that_nobody_knows_counts_as_none(state, decoded, seconds):
    state.decoded = decoded
    assert state.video_seconds == seconds


def test_one_that_begins_anew_keeps_nothing_of_what_was_computed(state):
    state.add_feature(0, FEATURE, 1.0)
    state.compute_seconds = 2.0
    again = state.anew()
    assert (again.target, again.started) == (state.target, state.started)
    assert (again.norm_sum, again.features.num_rows, again.compute_seconds) == (0, 0, 2.0)
    state.add_feature(1, FEATURE, 1.0)  # what was under way
    assert (again.norm_sum, again.features.num_rows) == (0, 0)
