"""A sample holds what its feature files do; what is not as it should be is told."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from packable import make_sample, some_features, some_times

from videofeatures.extraction.storage import write_features
from videofeatures.files import hash_file
from videofeatures.packing.kinds import Made
from videofeatures.packing.sample import (
    NUM_READERS,
    Candidate,
    Part,
    UnreadableError,
    hash_arrays,
    read_ahead,
    read_sample,
)
from videofeatures.planning.rows import Row
from videofeatures.records import Record
from videofeatures.source import Source


def make_record(file_hash: str | None, **facts: object) -> Record:
    empty = dict.fromkeys(Record._fields)
    given = {"status": "done", "ffmpeg_lines": (), "digest": "d", "weights": "w", "run_number": 1}
    number = None if file_hash is None else int(file_hash, 16)
    return Record(**empty | given | {"file_hash": number} | facts)


def candidate_of(path, record=None, source=Source("a.mp4")) -> Candidate:  # noqa: B008
    return Candidate("a.mp4", Row(source, (str(path),)), (record,))


def read(candidate: Candidate):
    return read_sample(candidate, ["n"], [Made("d", "w", {"backbone": "x"})], "f" * 16)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("shape", [(3, 8), (0, 8), (2, 5, 8)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_are_as_they_are_stored(tmp_path, suffix, shape, dtype):
    features = np.random.default_rng(0).normal(size=shape).astype(dtype)
    path = tmp_path / f"ä{suffix}"
    write_features(path, features, some_times(len(features)), {})
    record = make_record(hash_file(path), damaged_share=0.5, reason="")
    sample = read(candidate_of(path, record, Source("a.mp4", 1.5)))
    (part,) = sample.parts
    np.testing.assert_array_equal(part.features, features, strict=True)
    if suffix == ".npz":
        np.testing.assert_array_equal(part.times, np.stack(some_times(len(features)), axis=1))
    else:
        assert part.times is None
    assert sample.fault is None
    told = json.loads(sample.provenance)
    assert (told["video_path"], told["start_seconds"]) == ("a.mp4", 1.5)
    assert "end_seconds" not in told
    facts = told["features"]["n"]
    assert facts["file_hash"] == hash_file(path)
    assert (facts["backbone"], facts["digest"], facts["weights"]) == ("x", "d", "w")
    assert facts["damaged_share"] == 0.5
    assert "reason" not in facts


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"text", "is not a feature file"),
        (b"", "is not a feature file"),
        (np.arange(3), "are no features"),
        (np.zeros(3), "are no features"),
        (np.array([{}]), "is not a feature file"),
    ],
)
def test_what_is_no_feature_file_is_told(tmp_path, content, message):
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UnreadableError, match=message):
        read(candidate_of(path))


def test_times_of_other_rows_are_told(tmp_path):
    times = some_times(2)._asdict()
    np.savez(tmp_path / "a.npz", features=some_features(0), **times)
    with pytest.raises(UnreadableError, match="3 features, and times of"):
        read(candidate_of(tmp_path / "a.npz"))


def test_a_file_is_compared_with_its_record(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, some_features(0))
    record = make_record(hash_file(path))
    assert read(candidate_of(path, record)).fault is None
    assert read(candidate_of(path, make_record(None))).fault is None  # of version 0.1.0
    np.save(path, some_features(1))
    with pytest.raises(UnreadableError, match="is not the file that its record tells of"):
        read(candidate_of(path, record))


def test_a_fingerprint_is_that_of_the_files_and_not_of_where_they_are(tmp_path):
    path = tmp_path / "a.npy"
    record = make_record("ab12")
    known = candidate_of(path, record)
    assert known.fingerprint("n") == candidate_of(tmp_path / "b.npy", record).fingerprint("n")
    others = [
        candidate_of(path, make_record("ab13")),
        candidate_of(path, record, Source("a.mp4", 1.0)),
        candidate_of(path, record, Source("b.mp4")),
    ]
    assert known.fingerprint("n") not in {other.fingerprint("n") for other in others}
    np.save(path, some_features(0))
    unknown = candidate_of(path)
    before = unknown.fingerprint("n")
    assert unknown.fingerprint("n") == before
    np.save(path, some_features(0, num_rows=4))
    assert unknown.fingerprint("n") != before


def test_the_hash_is_of_all_that_is_stored():
    features, times = some_features(0), np.zeros((3, 3))
    first = hash_arrays([Part("a", features, times)])
    changed = features.copy()
    changed[2, 7] += 1
    others = [
        Part("a", changed, times),
        Part("a", features, times + 1),
        Part("a", features, None),
        Part("b", features, times),
        Part("a", features.reshape(1, *features.shape), times),
        Part("a", features.view(np.int16), times),
    ]
    assert first not in {hash_arrays([other]) for other in others}
    two = [Part("a", features, times), Part("b", features, None)]
    assert hash_arrays(two) == hash_arrays(two[::-1])


def test_a_sample_knows_when_it_is_another():
    sample = make_sample("a", ("n", some_features(0), None))
    assert sample.fault is None
    assert sample._replace(key="b").fault == "it is the sample a"
    assert sample._replace(provenance="{").fault.startswith("its provenance cannot be read")
    other = sample._replace(parts=make_sample("a", ("n", some_features(1), None)).parts)
    assert other.fault == "its numbers are others"


def test_a_few_are_read_ahead_and_no_more():
    begun, lock = [], threading.Lock()

    def read_one(item: int) -> int:
        with lock:
            begun.append(item)
        return item * 2

    results = read_ahead(read_one, range(100))
    assert [next(results) for _ in range(5)] == [0, 2, 4, 6, 8]
    assert len(begun) <= 5 + NUM_READERS + 1
    assert list(results) == [2 * k for k in range(5, 100)]
    assert sorted(begun) == list(range(100))


def test_what_a_reader_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(read_ahead(lambda item: 1 // item, [1, 0, 1]))
