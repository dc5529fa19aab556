"""HDF5 as h5py reads it."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from packable import make_sample, some_features

from videofeatures.packing.hdf5_format import Hdf5Format
from videofeatures.packing.pack_format import DamagedError
from videofeatures.packing.sample import Sample

TIMES = np.arange(9, dtype=np.float64).reshape(3, 3)
ONE = make_sample("videos/ä b.mp4", ("n", some_features(1), TIMES))
TOKENS = make_sample("t.mp4#t=1,2", ("n", np.ones((2, 5, 8), np.float32), None))
EMPTY = make_sample("e.mp4", ("n", np.ones((0, 8), np.float16), np.ones((0, 3))))
TWO = make_sample(
    "two.mp4",
    ("b", some_features(2), TIMES),
    ("A.1", some_features(3), None),
)
ALL = [ONE, TOKENS, EMPTY, TWO]


def write(path, samples) -> None:
    with open(path, "x+b") as file:
        Hdf5Format().write(file, iter(samples))


def as_told(samples) -> dict[str, tuple]:
    """What samples hold, in a form that can be compared."""
    return {
        sample.key: (
            sample.provenance,
            [
                (part.name, name, array.dtype.str, array.shape, array.tobytes())
                for part in sample.parts
                for name, array in part.arrays.items()
            ],
        )
        for sample in samples
    }


def test_what_is_written_is_read(tmp_path):
    write(tmp_path / "a.h5", ALL)
    found = list(Hdf5Format().read(tmp_path / "a.h5"))
    assert len(found) == len(ALL)
    assert as_told(found) == as_told(ALL)
    assert not any(sample.fault for sample in found)
    provenance = dict(Hdf5Format().read_provenance(tmp_path / "a.h5"))
    assert provenance == {sample.key: sample.provenance for sample in ALL}


def test_h5py_finds_samples_by_their_keys(tmp_path):
    write(tmp_path / "a.h5", ALL)
    with h5py.File(tmp_path / "a.h5") as pack:
        np.testing.assert_array_equal(pack["videos/ä b.mp4/features"][()], some_features(1))
        np.testing.assert_array_equal(pack["videos"]["ä b.mp4"]["times"], TIMES)
        assert pack["e.mp4/features"].shape == (0, 8)
        np.testing.assert_array_equal(pack["two.mp4/A.1/features"][()], some_features(3))
        assert json.loads(pack["two.mp4"].attrs["provenance"])["key"] == "two.mp4"


def test_provenance_may_be_long(tmp_path):
    long = make_sample("a", ("n", some_features(0), None))
    told = json.dumps(json.loads(long.provenance) | {"ffmpeg_lines": ["x" * 100_000]})
    write(tmp_path / "a.h5", [long._replace(provenance=told)])
    (found,) = Hdf5Format().read(tmp_path / "a.h5")
    assert found.provenance == told


def test_files_are_merged_and_what_is_newer_takes_the_place_of_the_older(tmp_path):
    old = make_sample("two.mp4", ("b", some_features(8), None), ("A.1", some_features(9), None))
    write(tmp_path / "a.h5", [ONE, old])
    write(tmp_path / "0.h5", [TWO, EMPTY])
    write(tmp_path / "1.h5", [TOKENS])
    parts = [tmp_path / "0.h5", tmp_path / "1.h5"]
    for base, expected in (("a.h5", ALL), ("none.h5", ALL[1:])):
        with open(tmp_path / f"new-{base}", "x+b") as file:
            Hdf5Format().merge(tmp_path / base, parts, file)
        assert as_told(Hdf5Format().read(tmp_path / f"new-{base}")) == as_told(expected)


def test_a_copy_leaves_samples_out(tmp_path):
    write(tmp_path / "a.h5", ALL)
    with open(tmp_path / "b.h5", "x+b") as file:
        Hdf5Format().copy(tmp_path / "a.h5", file, {ONE.key, TWO.key})
    assert as_told(Hdf5Format().read(tmp_path / "b.h5")) == as_told([TOKENS, EMPTY])


@pytest.mark.parametrize("content", ["text", "torn", "array", "other"])
def test_what_is_no_pack_is_told(tmp_path, content):
    path = tmp_path / "a.h5"
    if content == "text":
        path.write_text("x" * 5000)
    elif content == "torn":
        write(path, ALL)
        path.write_bytes(path.read_bytes()[:-3000])
    else:
        with h5py.File(path, "w") as pack:
            pack["a/b" if content == "other" else "a"] = np.ones(3)
    with pytest.raises(DamagedError):
        list(Hdf5Format().read(path))
    with pytest.raises(DamagedError):
        list(Hdf5Format().read_provenance(path))


def test_a_disk_error_is_raised_once_and_as_it_was(tmp_path):
    class Full:
        """A file that ends at 4 KB."""

        def __init__(self, file):
            self._file = file
            for name in ("read", "readinto", "seek", "tell", "truncate", "flush"):
                setattr(self, name, getattr(file, name))

        def write(self, content) -> int:
            if self._file.tell() + len(content) > 4096:
                raise OSError(28, "No space left on device")
            return self._file.write(content)

    taken = []

    def samples() -> Sample:
        for k in range(10_000):
            taken.append(k)
            yield make_sample(f"{k}", ("n", some_features(k), None))

    with (
        open(tmp_path / "a.h5", "x+b") as file,
        pytest.raises(OSError, match="No space left on device"),
    ):
        Hdf5Format().write(Full(file), samples())
    assert len(taken) < 100  # there is no use in going on
