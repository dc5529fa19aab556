"""Files of a pack are complete or not there, and no larger than was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from packable import make_sample

from videofeatures.errors import UserError
from videofeatures.packing import shard_files
from videofeatures.packing.hdf5_format import Hdf5Format
from videofeatures.packing.sample import Sample
from videofeatures.packing.shard_files import (
    Shards,
    cut_into_shards,
    find_number,
    locked,
    rewrite_shard,
    write_shard,
)


def some(*keys: str, num_numbers: int = 500) -> list[Sample]:
    return [make_sample(key, ("n", np.ones((1, num_numbers), np.float16), None)) for key in keys]


def test_shards_are_numbered_and_found_again(tmp_path):
    found = Shards(f"{tmp_path}/sub/a-%04d.b.tar")
    assert found.paths() == []
    assert found.next_path() == tmp_path / "sub" / "a-0000.b.tar"
    found.next_path().parent.mkdir()
    for name in ("a-0000.b.tar", "a-0007.b.tar", "a-12345.b.tar", "a-x.b.tar", "a-0001xb.tar"):
        (tmp_path / "sub" / name).touch()
    (tmp_path / "sub" / "a-3.b.tar").touch()  # not as this writes it
    numbers = [path.name for path in found.paths()]
    assert numbers == ["a-0000.b.tar", "a-0007.b.tar", "a-12345.b.tar"]
    assert found.next_path().name == "a-12346.b.tar"


@pytest.mark.parametrize(
    ("output", "is_many"),
    [("a.h5", False), ("a-%06d.h5", True), ("b/%d.tar", True), ("100%.h5", False)],
)
def test_a_number_in_the_name_makes_many(output, is_many):
    assert find_number(output) == is_many


@pytest.mark.parametrize("output", ["%d/a.tar", "%d-%d.tar"])
def test_a_number_elsewhere_is_told(output):
    with pytest.raises(UserError, match="let %06d stand once"):
        find_number(output)


def test_samples_are_cut_by_size_and_by_count(monkeypatch):
    def cut(samples: list[Sample], max_bytes: int) -> list[str]:
        return [
            "".join(s.key for s in shard) for shard in cut_into_shards(iter(samples), max_bytes)
        ]

    assert cut(some(*"abcde"), 2000) == ["ab", "cd", "e"]
    assert cut(some(*"abc"), 10) == ["a", "b", "c"]
    assert cut([], 10) == []
    monkeypatch.setattr(shard_files, "MAX_SAMPLES", 3)
    assert cut(some(*"abcdefg"), 10**9) == ["abc", "def", "g"]


def test_what_cannot_be_read_as_it_was_written_takes_no_place(tmp_path):
    class Forgets(Hdf5Format):
        def write(self, file, samples):
            super().write(file, (s for s in samples if s.key != "b"))

    class Changes(Hdf5Format):
        def write(self, file, samples):
            super().write(file, (s._replace(parts=some("x")[0].parts) for s in samples))

    class Tears(Hdf5Format):
        def write(self, file, samples):
            super().write(file, samples)
            file.truncate(600)

    path = tmp_path / "a.h5"
    for made_wrong, message in ((Forgets, "1 samples of 2"), (Changes, "numbers"), (Tears, "")):
        written = iter(some("a", "b", num_numbers=7))
        with pytest.raises(UserError, match=f"not what was written: .*{message}"):
            write_shard(made_wrong(), path, written)
        assert list(tmp_path.iterdir()) == []


def test_samples_are_left_out_of_a_file_and_an_empty_one_goes(tmp_path):
    path, pack_format = tmp_path / "a.h5", Hdf5Format()
    assert write_shard(pack_format, path, iter(some("a", "b", "c"))) == 3
    rewrite_shard(pack_format, path, {"b"}, 2)
    assert [sample.key for sample in pack_format.read(path)] == ["a", "c"]
    rewrite_shard(pack_format, path, {"a", "c"}, 0)
    assert not path.exists()


def test_an_output_is_locked_once_and_leaves_nothing(tmp_path):
    output = tmp_path / "sub" / "a.h5"
    with locked(output):
        with pytest.raises(UserError, match="another process"), locked(output):
            pass
        with locked(tmp_path / "sub" / "b.h5"):
            pass
    with locked(output):
        pass
    assert list(output.parent.iterdir()) == []
