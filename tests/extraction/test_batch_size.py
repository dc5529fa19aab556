"""The fastest size is found from times that are made up here: no clock is looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from videofeatures.extraction.batch_size import (
    MARGIN,
    MAX_PIXELS,
    NUM_ROUNDS,
    BatchSizeSearch,
    sizes_for,
)

SIZES = (4, 8, 16, 2, 1)


def search_with(seconds: Callable[[int, int], float]) -> tuple[BatchSizeSearch, list[int]]:
    """Search with the times of each batch, `seconds(number, size)`; with the sizes tried."""
    search, tried = BatchSizeSearch(SIZES), []
    while not search.is_settled:
        tried.append(search.size)
        search.record(search.size, seconds(len(tried) - 1, search.size))
    return search, tried


RATES = {  # frames a second in batches of 1, 2, 4, 8 and 16
    "the larger the better": ((26, 37, 43, 50, 55), 16),
    "the smaller the better": ((14, 12, 11, 10, 9), 1),
    "a peak": ((3.1, 8.9, 9.2, 8.2, 7.9), 4),
    "a plateau before the peak": ((10, 10, 10, 20, 20), 8),
    "all the same": ((10, 10, 10, 10, 10), 1),
    "hardly better": ((10, 10.1, 10.1, 10.2, 10.2), 1),
    "better": ((10, 10.1, 10.1, 10.2, 10.6), 16),
}


@pytest.mark.parametrize("name", RATES)
def test_the_smallest_of_the_fastest_is_found(name):
    rates, expected = RATES[name]
    rate_of = dict(zip((1, 2, 4, 8, 16), rates, strict=True))
    search, tried = search_with(lambda number, size: size / rate_of[size])
    assert search.size == expected
    assert tried == list(SIZES) * NUM_ROUNDS


def test_setting_up_and_other_work_on_the_machine_do_not_decide():
    def seconds(number: int, size: int) -> float:
        own = size / {1: 20, 2: 30, 4: 40, 8: 55, 16: 50}[size]
        first_of_a_size = 2.0 if number < len(SIZES) else 0
        busy = 9 if 3 <= number < 9 else 1  # for a while, in the middle of two rounds
        return own * busy + first_of_a_size

    assert search_with(seconds)[0].size == 8


def test_a_margin_is_needed_for_a_larger_size():
    def size_with(gain: float) -> int:
        return search_with(lambda _, size: size / (gain if size == 16 else 1))[0].size

    assert (size_with(1 + 0.9 * MARGIN), size_with(1 + 1.1 * MARGIN)) == (1, 16)


def test_one_size_is_used_as_it_is():
    search = BatchSizeSearch([7])
    assert search.is_settled
    search.record(7, 1.0)
    assert search.size == 7


def test_a_batch_that_was_not_full_says_nothing():
    search = BatchSizeSearch(SIZES)
    search.record(3, 0.0)
    assert search.size == 4
    search.record(4, 1.0)
    search.record(1, 0.0)
    assert search.size == 8


@pytest.mark.parametrize(("most", "expected"), [(8, 8), (5, 4), (2, 2), (1, 1)])
@pytest.mark.parametrize("num_recorded", [0, 1, 3, 7, 14, 15])
def test_what_does_not_fit_is_not_used_again(most, expected, num_recorded):
    search = BatchSizeSearch(SIZES)
    for _ in range(num_recorded):
        search.record(search.size, 1.0)  # as long for any size
    search.limit(most)
    while not search.is_settled:
        assert search.size <= most
        search.record(search.size, 1.0)
    assert search.size == expected
    search.limit(most)
    assert search.size == expected


def test_a_given_size_that_does_not_fit_becomes_what_does():
    search = BatchSizeSearch([7])
    search.limit(3)
    assert search.size == 3


def test_large_inputs_are_tried_in_small_batches_only():
    assert sizes_for((224, 398, 3), SIZES) == list(SIZES)
    assert sizes_for((16, 112, 112, 3), SIZES) == list(SIZES)
    assert sizes_for((1080, 1920, 3), SIZES) == [4, 2, 1]
    assert sizes_for((1080, 1920, 3), [64]) == [64]
    assert sizes_for((1, MAX_PIXELS // 8, 3), SIZES) == [4, 8, 2, 1]
    assert sizes_for((1, MAX_PIXELS // 8 + 1, 3), SIZES) == [4, 2, 1]
