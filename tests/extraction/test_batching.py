"""Batches are formed across videos, wait for a bounded time, and come back in order.

The network is a stand-in, so that the device can be slow, full or asynchronous at will.
"""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from videofeatures.extraction.batching import MAX_BATCHES_WAITING, Batcher
from videofeatures.extraction.decoders import Clip
from videofeatures.extraction.row_state import RowState
from videofeatures.extraction.timing import Timing
from videofeatures.planning import plan
from videofeatures.planning.plan import PendingRow
from videofeatures.settings import Settings

RAW = Settings(l2_normalize=False, half_precision=False)


class Sums:
    """Features that are easy to know: (sum of the pixels, number of pixels)."""

    def __init__(self, *, max_submitted: int = 1, capacity: int = 10**9):
        self.max_submitted = max_submitted
        self.capacity = capacity
        self.batches: list[tuple[int, ...]] = []
        self.num_waiting = 0
        self.most_waiting = 0

    def submit(self, batch: np.ndarray):
        if len(batch) > self.capacity:
            raise MemoryError(f"{len(batch)} do not fit")
        self.batches.append(batch.shape)
        self.num_waiting += 1
        self.most_waiting = max(self.most_waiting, self.num_waiting)

        def wait() -> np.ndarray:
            self.num_waiting -= 1
            flat = batch.reshape(len(batch), -1).astype(np.float32)
            return np.stack([flat.sum(1), np.full(len(batch), flat.shape[1])], axis=1)

        return wait


def make_video(name: str) -> RowState:
    return RowState(PendingRow(name, f"{name}.npy", False, plan.MISSING))


def make_clip(video: RowState, value: int = 1, shape: tuple[int, ...] = (2, 2, 3)) -> Clip:
    """The video's next clip."""
    index = video.num_clips
    video.num_clips += 1
    return Clip(video, index, np.full(shape, value, np.uint8))


def make_batcher(network: Sums, batch_size: int) -> Batcher:
    return Batcher(network, batch_size, RAW, Timing())


def test_a_batch_takes_clips_of_one_shape_from_any_video():
    network = Sums()
    batcher = make_batcher(network, 3)
    a, b = make_video("a"), make_video("b")
    tall = (4, 2, 3)
    for clip in (make_clip(a), make_clip(b), make_clip(a, shape=tall), make_clip(b)):
        assert list(batcher.add(clip)) == []
    assert network.batches == [(3, 2, 2, 3)]
    assert list(batcher.end(b)) == [b]
    assert list(batcher.end(a)) == []
    assert list(batcher.flush()) == [a]
    assert network.batches == [(3, 2, 2, 3), (1, 4, 2, 3)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_submitted", [1, 2])
def test_features_are_in_the_order_of_time_however_clips_are_mixed(seed, max_submitted):
    rng = random.Random(seed)
    network = Sums(max_submitted=max_submitted, capacity=rng.choice([2, 100]))
    batcher = make_batcher(network, rng.randint(1, 6))
    videos = {make_video(str(k)): rng.randint(0, 9) for k in range(12)}
    shapes = {video: rng.choice([(2, 2, 3), (4, 2, 3)]) for video in videos}
    left, left_behind = [], set(videos)
    while left_behind:
        video = rng.choice(sorted(left_behind, key=lambda v: v.row.video_path))
        if video.num_clips < videos[video]:
            left += batcher.add(make_clip(video, video.num_clips, shapes[video]))
        else:
            left_behind.remove(video)
            left += batcher.end(video)
        if rng.random() < 0.2:
            left += batcher.flush()
    left += batcher.flush()
    assert sorted(v.row.video_path for v in left) == sorted(v.row.video_path for v in videos)
    for video, num_clips in videos.items():
        if num_clips:
            num_pixels = np.prod(shapes[video])
            expected = [[k * num_pixels, num_pixels] for k in range(num_clips)]
            np.testing.assert_array_equal(video.features.take(num_clips), expected)
    assert network.num_waiting == 0


def test_a_device_that_computes_beside_us_always_has_the_next_batch():
    network = Sums(max_submitted=2)
    batcher = make_batcher(network, 2)
    video = make_video("a")
    for _ in range(20):
        list(batcher.add(make_clip(video)))
    assert (len(network.batches), network.num_waiting, network.most_waiting) == (10, 1, 2)


def test_a_rare_shape_waits_for_a_bounded_number_of_others():
    network = Sums()
    batcher = make_batcher(network, 4)
    rare, common = make_video("rare"), make_video("common")
    list(batcher.add(make_clip(rare, shape=(9, 2, 3))))
    assert list(batcher.end(rare)) == []
    numbers = itertools.count(1)
    while not list(batcher.add(make_clip(common))):
        assert next(numbers) < MAX_BATCHES_WAITING * 4
    assert rare.has_left
    assert not common.has_left


def test_what_waits_is_bounded_however_many_shapes_there_are():
    network = Sums()
    batcher = make_batcher(network, 4)
    video = make_video("a")
    for k in range(500):
        list(batcher.add(make_clip(video, shape=(k + 1, 2, 3))))
    assert sum(shape[0] for shape in network.batches) >= 500 - MAX_BATCHES_WAITING * 4


def test_a_video_that_is_still_being_decoded_holds_up_no_other():
    batcher = make_batcher(Sums(), 4)
    ended, stuck = make_video("ended"), make_video("stuck")
    list(batcher.add(make_clip(ended)))
    list(batcher.add(make_clip(stuck)))
    assert list(batcher.end(ended)) == []
    assert list(batcher.flush()) == [ended]
    # Nobody waits for the next one: it may be joined by others.
    list(batcher.add(make_clip(stuck)))
    assert list(batcher.flush()) == []
    assert stuck.features.num_rows == 1


def test_a_batch_that_does_not_fit_is_halved_with_one_warning(caplog):
    network = Sums(capacity=3)
    batcher = make_batcher(network, 16)
    video = make_video("a")
    for k in range(40):
        list(batcher.add(make_clip(video, k)))
    assert list(batcher.end(video)) == [video]
    np.testing.assert_array_equal(video.features.take(40)[:, 0], 12 * np.arange(40))
    assert batcher.batch_size == 2
    assert network.batches[8:] == [(2, 2, 2, 3)] * 12
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with a batch of 16: it is halved until it fits (16 do not fit)"
    ]


def test_a_frame_that_does_not_fit_alone_costs_its_own_video():
    network = Sums()
    batcher = make_batcher(network, 2)
    big, small = make_video("big"), make_video("small")

    def submit(batch, submit=network.submit):
        if batch.shape[1] > 2:
            raise MemoryError("too large")
        return submit(batch)

    network.submit = submit
    for _ in range(3):
        left = list(batcher.add(make_clip(big, shape=(9, 2, 3))))
        left += batcher.add(make_clip(small))
        assert left == []
    left = [*batcher.end(big), *batcher.end(small), *batcher.flush()]
    assert left == [big, small]
    assert str(big.error) == "out of memory, even in a batch of one: too large"
    assert small.error is None
