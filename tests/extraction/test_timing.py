"""What a job says of where its time went."""

from __future__ import annotations

import time

from videofeatures.extraction.timing import Timing
from videofeatures.records import EndFacts


def test_a_summary_is_what_records_have_of_an_end():
    assert set(Timing().summary()) == set(EndFacts.__annotations__)


def test_waiting_counts_after_the_first_batch_only():
    timing = Timing()
    with timing.idle():
        time.sleep(0.001)
    assert timing.idle_seconds == 0
    with timing.computing():
        pass
    with timing.idle():
        time.sleep(0.001)
    assert timing.idle_seconds > 0


def test_the_first_batch_is_the_end_of_the_start():
    timing = Timing()
    before = timing.summary()
    assert before["first_batch_time"] is None
    assert before["startup_seconds"] == before["seconds"]  # it has not ended
    with timing.computing():
        time.sleep(0.001)
    first, seconds = timing.first_batch_time, timing.compute_seconds
    assert first >= timing.started_time
    assert seconds > 0
    with timing.computing():
        time.sleep(0.001)
    assert timing.first_batch_time == first
    assert timing.compute_seconds > seconds
    assert timing.summary()["startup_seconds"] == round(first - timing.started_time, 3)


def test_what_a_job_counts_is_in_its_summary():
    timing = Timing()
    timing.num_clips, timing.video_seconds = 10, 12.34567
    summary = timing.summary()
    assert (summary["num_clips"], summary["video_seconds"]) == (10, 12.346)


def test_the_limit_is_what_took_longer():
    timing = Timing()
    timing.compute_seconds, timing.idle_seconds, timing.video_seconds = 3, 2, 60
    assert str(timing).startswith("60 s of video in ")
    assert "network 3.0 s, waiting for frames 2.0 s; the limit is the network" in str(timing)
    timing.idle_seconds = 4
    assert str(timing).endswith("the limit is decoding")
