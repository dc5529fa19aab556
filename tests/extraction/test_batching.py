"""Batches are formed across videos, wait for a bounded time, and come back in order.

The network is a stand-in, so that the device can be slow, full or asynchronous at will.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from conftest import make_recipe, make_target
from videofeatures.errors import MachineError
from videofeatures.extraction import batching
from videofeatures.extraction.batching import MAX_BATCHES_WAITING, Batcher
from videofeatures.extraction.events import Decoded
from videofeatures.extraction.target_state import TargetState
from videofeatures.extraction.timing import Timing
from videofeatures.settings import Settings

RAW = make_recipe(Settings(l2_normalize=False, half_precision=False))


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


class Video:
    """A video on its way: what is known of it, and what has been given of it."""

    def __init__(self, name: str):
        self.name = name
        self.state = TargetState(make_target(name, f"{name}.npy"))
        self.num_clips = 0

    def end(self) -> None:
        self.state.decoded = Decoded(num_clips=self.num_clips)


class Stage:
    """A batcher, and who takes what is complete from it, once."""

    def __init__(self, network: Sums, batch_size: int):
        self.batcher = Batcher(network, [batch_size], RAW, Timing())
        self.left: list[str] = []

    def add(self, video: Video, value: int = 1, shape: tuple[int, ...] = (2, 2, 3)) -> list[str]:
        """Give a video's next clip; the names of those that are complete by it."""
        pixels = np.full(shape, value, np.uint8)
        video.num_clips += 1
        return self._take(self.batcher.add(video.state, video.num_clips - 1, pixels))

    def end(self, video: Video) -> list[str]:
        video.end()
        return self._take([video.state])

    def flush(self) -> list[str]:
        return self._take(self.batcher.flush())

    def _take(self, states: Iterable[TargetState]) -> list[str]:
        names = [state.target.source.path for state in states if state.is_complete]
        new = [name for name in names if name not in self.left]
        self.left += new
        return new


def test_a_batch_takes_clips_of_one_shape_from_any_video():
    network = Sums()
    stage = Stage(network, 3)
    a, b = Video("a"), Video("b")
    tall = (4, 2, 3)
    for video, shape in ((a, (2, 2, 3)), (b, (2, 2, 3)), (a, tall), (b, (2, 2, 3))):
        assert stage.add(video, shape=shape) == []
    assert network.batches == [(3, 2, 2, 3)]
    assert stage.end(b) == ["b"]
    assert stage.end(a) == []
    assert stage.flush() == ["a"]
    assert network.batches == [(3, 2, 2, 3), (1, 4, 2, 3)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("max_submitted", [1, 2])
def test_features_are_in_the_order_of_time_however_clips_are_mixed(seed, max_submitted):
    rng = random.Random(seed)
    network = Sums(max_submitted=max_submitted, capacity=rng.choice([2, 100]))
    stage = Stage(network, rng.randint(1, 6))
    videos = {Video(str(k)): rng.randint(0, 9) for k in range(12)}
    shapes = {video: rng.choice([(2, 2, 3), (4, 2, 3)]) for video in videos}
    left, left_behind = [], set(videos)
    while left_behind:
        video = rng.choice(sorted(left_behind, key=lambda v: v.name))
        if video.num_clips < videos[video]:
            left += stage.add(video, video.num_clips, shapes[video])
        else:
            left_behind.remove(video)
            left += stage.end(video)
        if rng.random() < 0.2:
            left += stage.flush()
    left += stage.flush()
    assert sorted(left) == sorted(v.name for v in videos)
    for video, num_clips in videos.items():
        if num_clips:
            num_pixels = np.prod(shapes[video])
            expected = [[k * num_pixels, num_pixels] for k in range(num_clips)]
            np.testing.assert_array_equal(video.state.features.take(num_clips), expected)
    assert network.num_waiting == 0


def test_a_device_that_computes_beside_us_always_has_the_next_batch():
    network = Sums(max_submitted=2)
    stage = Stage(network, 2)
    video = Video("a")
    for _ in range(20):
        stage.add(video)
    assert (len(network.batches), network.num_waiting, network.most_waiting) == (10, 1, 2)


def test_a_rare_shape_waits_for_a_bounded_number_of_others():
    network = Sums()
    stage = Stage(network, 4)
    rare, common = Video("rare"), Video("common")
    stage.add(rare, shape=(9, 2, 3))
    assert stage.end(rare) == []
    numbers = itertools.count(1)
    while not stage.add(common):
        assert next(numbers) < MAX_BATCHES_WAITING * 4
    assert stage.left == ["rare"]


def test_what_waits_is_bounded_however_many_shapes_there_are():
    network = Sums()
    stage = Stage(network, 4)
    video = Video("a")
    for k in range(500):
        stage.add(video, shape=(k + 1, 2, 3))
    assert sum(shape[0] for shape in network.batches) >= 500 - MAX_BATCHES_WAITING * 4


def test_a_video_that_is_still_being_decoded_holds_up_no_other():
    stage = Stage(Sums(), 4)
    ended, stuck = Video("ended"), Video("stuck")
    stage.add(ended)
    stage.add(stuck)
    assert stage.end(ended) == []
    assert stage.flush() == ["ended"]
    # Nobody waits for the next one: it may be joined by others.
    stage.add(stuck)
    assert stage.flush() == []
    assert stuck.state.features.num_rows == 1


def test_a_batch_that_does_not_fit_is_halved_with_one_warning(caplog):
    network = Sums(capacity=3)
    stage = Stage(network, 16)
    video = Video("a")
    for k in range(40):
        stage.add(video, k)
    assert stage.end(video) == ["a"]
    np.testing.assert_array_equal(video.state.features.take(40)[:, 0], 12 * np.arange(40))
    assert stage.batcher.batch_size == 2
    assert network.batches[8:] == [(2, 2, 2, 3)] * 12
    assert [record.getMessage() for record in caplog.records] == [
        "out of memory with a batch of 16: it is halved until it fits (16 do not fit)"
    ]


@pytest.fixture
def clock(monkeypatch) -> Callable[[float], None]:
    """Time stands still, but for what is added to it."""
    now = [0.0]

    def add(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(batching.time, "monotonic", lambda: now[0])
    return add


def test_each_shape_finds_its_own_size_by_its_own_batches(clock):
    network = Sums()
    submit = network.submit

    def timed_submit(batch):
        # Small frames are the faster the more there are; large ones best in batches of 2.
        is_large = batch.shape[1] > 2
        clock({1: 3, 2: 4, 4: 9}[len(batch)] if is_large else 1 + 0.5 * len(batch))
        return submit(batch)

    network.submit = timed_submit
    stage = Stage(network, 2)
    stage.batcher = Batcher(network, [2, 4, 1], RAW, Timing())
    video = Video("a")
    for k in range(29):
        stage.add(video, k)
        stage.add(video, k, shape=(9, 2, 3))
    assert stage.end(video) + stage.flush() == ["a"]
    small = [shape[0] for shape in network.batches if shape[1] == 2]
    large = [shape[0] for shape in network.batches if shape[1] == 9]
    assert small == [2, 4, 1] * 3 + [4, 4]
    assert large == [2, 4, 1] * 3 + [2] * 4
    values = video.state.features.take(58)[::2, 0]
    np.testing.assert_array_equal(values, 12 * np.arange(29))


def test_sizes_that_do_not_fit_are_tried_no_more(clock):
    network = Sums(capacity=2)
    submit, tried = network.submit, []

    def timed_submit(batch):
        tried.append(len(batch))
        clock(1 + 0.1 * len(batch))
        return submit(batch)

    network.submit = timed_submit
    stage = Stage(network, 2)
    stage.batcher = Batcher(network, [2, 4, 8, 16, 1], RAW, Timing())
    video = Video("a")
    for k in range(20):
        stage.add(video, k)
        stage.add(video, k, shape=(9, 2, 3))  # three of these wait when four of those do not fit
    assert stage.end(video) + stage.flush() == ["a"]
    assert [size for size in tried if size > 2] == [4]
    assert stage.batcher.batch_size == 2


def test_a_frame_that_does_not_fit_alone_costs_its_own_video():
    network = Sums()
    stage = Stage(network, 2)
    big, small = Video("big"), Video("small")

    def submit(batch, submit=network.submit):
        if batch.shape[1] > 2:
            raise MemoryError("too large")
        return submit(batch)

    network.submit = submit
    for _ in range(3):
        left = stage.add(big, shape=(9, 2, 3))
        left += stage.add(small)
        assert left == []
    left = [*stage.end(big), *stage.end(small), *stage.flush()]
    assert left == ["big", "small"]
    assert str(big.state.error) == "out of memory, even in a batch of one: too large"
    assert isinstance(big.state.error, MachineError)
    assert small.state.error is None
