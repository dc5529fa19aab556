"""The example that trains from packs reads what `pack.py` wrote, from each format the same."""

from __future__ import annotations

import runpy
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from conftest import ROOT, write_csv
from small_collection import SmallCollection
from videofeatures.files import hash_file

EXAMPLE = ROOT / "examples" / "packed_features.py"
LENGTHS = {"a": 3, "ä b": 1, "long": 40}


@pytest.fixture(scope="module")
def example() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(EXAMPLE)))


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> SmallCollection:
    """A collection that is packed in both formats, by the script."""
    collection = SmallCollection(tmp_path_factory.mktemp("packs"))
    collection.add(*LENGTHS)
    for seed, (name, num_rows) in enumerate(LENGTHS.items()):
        path = collection.feature(name)
        path.parent.mkdir(exist_ok=True)
        numbers = np.random.default_rng(seed).normal(size=(num_rows, 1280))
        np.save(path, numbers.astype(np.float16))
        facts = {"num_features": num_rows, "feature_dim": 1280, "file_hash": hash_file(path)}
        collection.record(name, "done", **facts)
    given = {key: collection.config[key] for key in ("videos", "results", "backbone", "weights")}
    for pack_format, output in (("hdf5", "features.h5"), ("webdataset", "shards")):
        values = given | {"format": pack_format, "output": collection.folder / output}
        command = [sys.executable, ROOT / "scripts" / "pack.py"]
        command += [f"{key}={value}" for key, value in values.items()]
        subprocess.run(list(map(str, command)), cwd=ROOT, check=True, capture_output=True)
    return collection


def open_all(example: SimpleNamespace, packs: SmallCollection) -> dict:
    return {
        "files": example.Files(packs.config["videos"]),
        "hdf5": example.Hdf5(str(packs.folder / "features.h5")),
        "webdataset": example.open_shards(str(packs.folder / "shards")),
    }


@pytest.mark.parametrize("what", ["files", "hdf5", "webdataset"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_hold_each_video_once_padded_and_masked(example, packs, what, num_workers):
    dataset = open_all(example, packs)[what]
    loader = DataLoader(dataset, batch_size=3, collate_fn=example.pad, num_workers=num_workers)
    seen = {}
    for paths, features, mask in loader:
        assert features.shape[:2] == mask.shape
        assert not features[~mask].any()
        seen |= {path: each[kept] for path, each, kept in zip(paths, features, mask, strict=True)}
    assert set(seen) == {str(packs.video(name)) for name in LENGTHS}
    for name in LENGTHS:
        expected = np.load(packs.feature(name)).astype(np.float32)
        np.testing.assert_array_equal(seen[str(packs.video(name))], expected)


def test_rows_that_are_not_done_are_left_out_of_files(example, packs, tmp_path):
    rows = [(packs.video("a"), packs.feature("a")), (packs.video("a"), tmp_path / "none.npy")]
    assert len(example.Files(write_csv(tmp_path / "my.csv", rows))) == 1


@pytest.mark.parametrize(
    ("num_rows", "expected"),
    [(8, [0, 1, 2, 3, 4, 5, 6, 7]), (4, [1, 3, 5, 7]), (1, [4]), (16, [k // 2 for k in range(16)])],
)
def test_rows_are_spread_evenly(example, num_rows, expected):
    features = torch.arange(8.0)[:, None]
    assert example.spread_evenly(features, num_rows)[:, 0].tolist() == expected


def test_a_video_without_rows_is_zeros(example):
    samples = [("a", torch.zeros(0, 5)), ("b", torch.ones(2, 5))]
    paths, features = example.sample_evenly(samples, 3)
    assert paths == ("a", "b")
    assert features.shape == (2, 3, 5)
    assert features.sum(dim=(1, 2)).tolist() == [0, 15]
    assert example.pad(samples)[2].tolist() == [[False, False], [True, True]]


def test_2d_and_3d_are_joined_by_time(example):
    # 2d once a second, 3d at 1.5 a second, the times as the workflow writes them.
    times_2d = np.array([[k, k + 0.5, k + 1] for k in range(4)], np.float64)
    times_3d = np.array([[k, k + 0.5, k + 1] for k in range(6)]) * 16 / 24
    rows_2d, rows_3d = np.arange(4.0)[:, None], np.arange(6.0)[:, None]
    joined = example.join_by_time(rows_2d, times_2d, rows_3d, times_3d)
    # By distance alone: 0.5, 1.5, 2.5, 3.5 to 0.33, 1, 1.67, 2.33, 3, 3.67
    assert joined.tolist() == [[0, 0], [1, 2], [2, 3], [3, 5]]
    one = example.join_by_time(rows_2d, times_2d, rows_3d[:1], times_3d[:1])
    assert one[:, 1].tolist() == [0, 0, 0, 0]


def test_samples_of_two_backbones_are_joined(example):
    times = np.array([[0, 0.5, 1]])
    arrays = {"features": np.ones((1, 2)), "times": times}
    group = {f"{name}/{what}": value for name in ("A", "b") for what, value in arrays.items()}
    assert example.join_hdf5({k: _Whole(v) for k, v in group.items()}, "A", "b").shape == (1, 4)
    members = {f"{key.lower().replace('/', '.')}.npy": value for key, value in group.items()}
    assert example.join_shards(members, "A", "b").shape == (1, 4)


class _Whole:
    """As a data set of h5py is read."""

    def __init__(self, array: np.ndarray):
        self._array = array

    def __getitem__(self, index: tuple) -> np.ndarray:
        assert index == ()
        return self._array


@pytest.mark.parametrize("what", ["videos.csv", "features.h5", "shards"])
def test_the_example_prints_a_batch_of_each_kind(packs, what):
    command = [sys.executable, EXAMPLE, packs.folder / what]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    padded, spread = result.stdout.splitlines()
    assert padded == "3 videos, 44 rows, padded to (3, 40, 1280)"
    assert spread == "3 videos, eight rows of each: (3, 8, 1280)"
