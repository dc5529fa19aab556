"""A feature file that exists is complete."""

from __future__ import annotations

import errno
import json
import os
import resource

import numpy as np
import pytest

from videofeatures.files import replace_file, write_features

FEATURES = np.arange(12, dtype=np.float16).reshape(3, 4)
TIMES = np.array([0.5, 1.5, 2.5])


def test_npy_holds_the_features_alone(tmp_path):
    write_features(tmp_path / "new" / "folder" / "a.npy", FEATURES, TIMES, {})
    found = np.load(tmp_path / "new" / "folder" / "a.npy", allow_pickle=False)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, FEATURES)


def test_npz_holds_features_times_and_provenance_without_pickle(tmp_path):
    write_features(tmp_path / "a.npz", FEATURES, TIMES, {"backbone": "é", "n": 1})
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert sorted(found) == ["features", "provenance", "timestamps"]
        np.testing.assert_array_equal(found["features"], FEATURES)
        np.testing.assert_array_equal(found["timestamps"], TIMES)
        assert json.loads(str(found["provenance"])) == {"backbone": "é", "n": 1}


def test_features_and_times_must_belong_together(tmp_path):
    with pytest.raises(ValueError, match="3 features and 2 timestamps"):
        write_features(tmp_path / "a.npz", FEATURES, TIMES[:2], {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_file_that_cannot_be_written_says_why_and_is_not_there(tmp_path, name):
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    features = np.zeros((1000, 100), np.float16)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, most))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write_features(tmp_path / name, features, np.zeros(1000), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    assert caught.value.errno == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.npy"
    path.write_text("before")

    def interrupted():
        with replace_file(path) as file:
            file.write(b"half")
            file.flush()
            assert path.read_text() == "before"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["a.npy"]
    assert path.read_text() == "before"


def test_a_file_has_the_permissions_that_the_user_s_mask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_features(tmp_path / "a.npy", FEATURES, TIMES, {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.npy").stat().st_mode & 0o777 == 0o640


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("x" * 251 + ".npy")
    write_features(path, FEATURES, TIMES, {})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
