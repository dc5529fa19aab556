"""A feature file that exists is complete, and can be read as it was written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import resource

import numpy as np
import pytest

from videofeatures.decoding.times import RowTimes
from videofeatures.errors import VideoError
from videofeatures.extraction.storage import (
    prepare_object,
    read_features,
    read_row_times,
    write_features,
)
from videofeatures.files import HASH_DIGITS, hash_content
from videofeatures.remote import open_store

FEATURES = np.arange(12, dtype=np.float16).reshape(3, 4)
TIMES = RowTimes(np.arange(3.0), np.array([0.5, 1.5, 2.5]), np.array([1.0, 2.0, 3.5]))


def test_npy_holds_the_features_alone(tmp_path):
    write_features(tmp_path / "new" / "folder" / "a.npy", FEATURES, TIMES, {})
    found = np.load(tmp_path / "new" / "folder" / "a.npy", allow_pickle=False)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, FEATURES)


def test_npz_holds_features_times_and_provenance_without_pickle(tmp_path):
    write_features(tmp_path / "a.npz", FEATURES, TIMES, {"backbone": "é", "n": 1})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        names = ["end_seconds", "features", "provenance", "start_seconds", "timestamps"]
        assert sorted(found) == names
        np.testing.assert_array_equal(found["features"], FEATURES)
        for name, values in TIMES._asdict().items():
            np.testing.assert_array_equal(found[name], values)
        assert json.loads(str(found["provenance"])) == {"backbone": "é", "n": 1}


def test_features_and_times_must_belong_together(tmp_path):
    with pytest.raises(ValueError, match="3 features and 2 timestamps"):
        write_features(tmp_path / "a.npz", FEATURES, RowTimes(*(each[:2] for each in TIMES)), {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_file_that_cannot_be_written_says_why_and_is_not_there(tmp_path, name):
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    features = np.zeros((1000, 100), np.float16)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_features(tmp_path / name, features, RowTimes(*np.zeros((3, 1000))), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read(tmp_path):
    for name in ("a.npy", "a.npz"):
        write_features(tmp_path / name, FEATURES, TIMES, {})
        features, timestamps = read_features(tmp_path / name)
        np.testing.assert_array_equal(features, FEATURES)
        if name == "a.npy":
            assert timestamps is None
            assert read_row_times(tmp_path / name) is None
        else:
            np.testing.assert_array_equal(timestamps, TIMES.timestamps)
            for found, given in zip(read_row_times(tmp_path / name), TIMES, strict=True):
                np.testing.assert_array_equal(found, given)


@pytest.mark.parametrize("name", ["empty.npy", "empty.npz", "text.npy", "half.npz", "other.npz"])
def test_what_is_no_feature_file_is_an_error_of_one_kind(tmp_path, name):
    path = tmp_path / name
    if name.startswith("half"):
        write_features(path, FEATURES, TIMES, {})
        path.write_bytes(path.read_bytes()[:-40])
    elif name.startswith("other"):
        np.savez(path, x=FEATURES)
    else:
        path.write_text("text" * name.startswith("text"))
    with pytest.raises(ValueError, match=r"."):
        read_features(path)
    with pytest.raises(FileNotFoundError):
        read_features(tmp_path / "gone.npy")


def test_a_file_of_before_has_its_middles_alone(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, features=FEATURES, timestamps=TIMES.timestamps, provenance="{}")
    np.testing.assert_array_equal(read_features(path)[1], TIMES.timestamps)
    with pytest.raises(ValueError, match="start_seconds"):
        read_row_times(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_an_object_is_written_whole_and_read(tmp_path, s3_server, name):
    url = f"s3://bucket/{name}"
    hashes = []

    def before(file):
        hashes.append(hash_content(file))

    path = prepare_object(tmp_path, url, FEATURES, TIMES, {"n": 1}, before=before)
    open_store("s3").upload(path, url)
    content = s3_server.get(name)
    assert hashes == [hashlib.sha256(content).hexdigest()[:HASH_DIGITS]]
    loaded = np.load(io.BytesIO(content), allow_pickle=False)
    np.testing.assert_array_equal(loaded if name == "a.npy" else loaded["features"], FEATURES)
    features, timestamps = read_features(url)
    np.testing.assert_array_equal(features, FEATURES)
    if name == "a.npz":
        np.testing.assert_array_equal(timestamps, TIMES.timestamps)
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_prepared_leaves_nothing(tmp_path):
    def fail(file):
        raise KeyError("x")

    with pytest.raises(KeyError):
        prepare_object(tmp_path, "s3://bucket/a.npy", FEATURES, TIMES, {}, before=fail)
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_none_is_an_error_of_the_same_kind(s3_server):
    url = s3_server.put("a.npy", b"text")
    with pytest.raises(ValueError, match=r"."):
        read_features(url)
    with pytest.raises(VideoError, match="no such file"):
        read_features("s3://bucket/none.npy")
