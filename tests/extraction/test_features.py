"""Features are normalised, rounded and kept, whatever the order in which they come."""

from __future__ import annotations

import tracemalloc
import warnings

import numpy as np
import pytest

from videofeatures.extraction.features import MAX_ROWS_PER_BLOCK, GrowingArray, as_stored, normalize

FEATURES = np.array([[3, 4], [0, 0], [-5, 12]], np.float32)
NORMS = np.array([5, 0, 13], np.float32)


def test_a_normalised_feature_has_norm_1_and_its_direction():
    expected = [[0.6, 0.8], [0, 0], [-5 / 13, 12 / 13]]
    np.testing.assert_allclose(normalize(FEATURES), expected, rtol=1e-6)


def test_norms_that_are_known_are_taken():
    expected = [[0.3, 0.4], [0, 0], [-5, 12]]
    np.testing.assert_allclose(normalize(FEATURES, np.array([10, 1, 1])), expected, rtol=1e-6)


def test_a_feature_of_zeros_stays_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(normalize(np.zeros((2, 3), np.float32)), np.zeros((2, 3)))


@pytest.mark.parametrize(("half_precision", "dtype"), [(True, np.float16), (False, np.float32)])
@pytest.mark.parametrize("l2_normalize", [True, False])
def test_features_are_stored_as_asked(l2_normalize, half_precision, dtype):
    stored = as_stored(FEATURES, NORMS, l2_normalize=l2_normalize, half_precision=half_precision)
    expected = normalize(FEATURES) if l2_normalize else FEATURES
    np.testing.assert_array_equal(stored, expected.astype(dtype))
    assert stored.dtype == dtype


def test_what_is_too_large_for_float16_becomes_infinite_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stored = as_stored(FEATURES * 1e5, NORMS * 1e5, l2_normalize=False, half_precision=True)
    assert np.isinf(stored).any()


@pytest.mark.parametrize(
    "num_rows", [1, MAX_ROWS_PER_BLOCK, MAX_ROWS_PER_BLOCK + 1, 3 * MAX_ROWS_PER_BLOCK - 1]
)
def test_rows_are_given_in_their_order_whatever_the_order_they_came_in(num_rows):
    expected = np.arange(2 * num_rows, dtype=np.float16).reshape(num_rows, 2)
    array = GrowingArray()
    for k in np.random.default_rng(0).permutation(num_rows):
        array.put(int(k), expected[k])
    assert array.num_rows == num_rows
    found = array.take(num_rows)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float16


def test_a_row_is_kept_as_it_was_when_it_came():
    row, array = np.ones(2, np.float32), GrowingArray()
    array.put(0, row)
    row[:] = 7
    np.testing.assert_array_equal(array.take(1), [[1, 1]])


@pytest.mark.parametrize("num_clips", [2, 4])
def test_a_number_of_rows_that_is_not_that_of_clips_is_a_fault(num_clips):
    array = GrowingArray()
    for k in (0, 1, 3):
        array.put(k, np.ones(2))
    with pytest.raises(AssertionError, match=f"3 features of {num_clips} clips"):
        array.take(num_clips)


def test_what_was_taken_is_not_kept():
    num_rows, row = 8 * MAX_ROWS_PER_BLOCK, np.ones(256, np.float32)
    array = GrowingArray()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for k in range(num_rows):
            array.put(k, row)
        rows = array.take(num_rows)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert rows.nbytes == num_rows * row.nbytes
    assert after - before < 1.1 * rows.nbytes


def test_what_was_taken_is_gone():
    array = GrowingArray()
    array.put(0, np.ones(4))
    array.take(1)
    assert array.num_rows == 0
    with pytest.raises(AssertionError, match="0 features of 1 clips"):
        array.take(1)
