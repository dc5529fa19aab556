"""Why a feature file has to be made again: what it looks like, and when its video has changed."""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from conftest import make_feature, make_recipe, write_csv
from small_collection import SmallCollection
from videofeatures.decoding.times import RowTimes
from videofeatures.errors import UserError
from videofeatures.extraction.storage import write_features
from videofeatures.planning import staleness
from videofeatures.planning.staleness import find_fault, is_same_video
from videofeatures.records import Record, read_records
from videofeatures.remote import RemoteStat, open_store
from videofeatures.settings import Settings

DIM = 1280
RECIPE = make_recipe(Settings(backbone="efficientnet_lite0"))


@pytest.fixture
def collection(tmp_path) -> SmallCollection:
    """A row whose feature file is there, made a while after its video."""
    collection = SmallCollection(tmp_path)
    collection.add("a")
    os.utime(collection.video("a"), ns=(10**18 + 123_456_789, 10**18 + 123_456_789))
    return collection


def find(collection: SmallCollection, **changes: object) -> tuple[str, str] | None:
    """Reason and detail of the row, or None if it is done."""
    pending = collection.plan(**changes).pending
    return (pending[0].reason, pending[0].detail) if pending else None


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_whole_features_have_no_fault(tmp_path, suffix, dtype):
    path = str(tmp_path / f"a{suffix}")
    write_features(path, np.ones((3, DIM), dtype), RowTimes(*np.ones((3, 3))), {"x": 1})
    assert find_fault(path, RECIPE) is None


def test_what_numpy_itself_wrote_has_no_fault(tmp_path):
    path = str(tmp_path / "a.npy")
    for features in (np.ones((3, DIM), ">f4"), np.asfortranarray(np.ones((3, DIM)))):
        np.save(path, features)
        assert find_fault(path, RECIPE) is None
    np.savez_compressed(tmp_path / "a.npz", features=np.ones((3, DIM)), more=np.ones(2))
    assert find_fault(str(tmp_path / "a.npz"), RECIPE) is None


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("share", [0, 0.001, 0.01, 0.5, 0.999])
def test_half_a_file_has_a_fault(tmp_path, suffix, share):
    path = tmp_path / f"a{suffix}"
    write_features(path, np.ones((30, DIM), np.float16), RowTimes(*np.ones((3, 30))), {})
    os.truncate(path, int(share * path.stat().st_size))
    assert find_fault(str(path), RECIPE)


@pytest.mark.parametrize(
    "features",
    [
        np.ones(DIM),
        np.ones((3, DIM + 1)),
        np.ones((0, DIM)),
        np.ones((3, 2, DIM)),
        np.ones((3, DIM), int),
        np.ones((3, DIM), complex),
        np.array([{}], object),
    ],
    ids=lambda features: f"{features.dtype}{features.shape}",
)
def test_what_is_no_rows_of_features_has_a_fault(tmp_path, features):
    path = str(tmp_path / "a.npy")
    np.save(path, features, allow_pickle=True)
    assert "not rows of 1280 features" in find_fault(path, RECIPE)


@pytest.mark.parametrize("content", [b"garbage", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x04\x00{'a'"])
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_garbage_has_a_fault(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    assert find_fault(str(path), RECIPE).startswith("no features of NumPy: ")


def test_an_archive_of_something_else_has_a_fault(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.ones(3))
    assert "features.npy" in find_fault(str(tmp_path / "a.npz"), RECIPE)


def test_a_file_of_another_program_counts_if_it_is_whole(collection):
    collection.make_feature("a")
    assert find(collection) is None
    os.truncate(collection.feature("a"), 1000)
    assert find(collection) == (staleness.NOT_WHOLE, "1,000 of 2,688 bytes")
    os.truncate(collection.feature("a"), 0)
    assert find(collection) == (staleness.NOT_WHOLE, "an empty file")


def test_a_file_that_is_shorter_than_its_record_says_is_not_whole(collection):
    collection.make("a", num_features=4, feature_dim=DIM)
    assert find(collection) is None
    os.truncate(collection.feature("a"), 4 * DIM * 2 - 1)
    assert find(collection)[0] == staleness.NOT_WHOLE
    collection.feature("a").write_bytes(b"")
    assert find(collection)[0] == staleness.NOT_WHOLE


def test_what_is_no_file_is_a_problem(collection):
    collection.feature("a").parent.mkdir()
    os.mkfifo(collection.feature("a"))
    with pytest.raises(UserError, match=r"a.npy: is a pipe or a device"):
        collection.plan()


def copy_by_tar(video: Path) -> None:
    """As any archive of the plain format does it: times in whole seconds."""
    archive = video.with_suffix(".tar")
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as file:
        file.add(video, video.name)
    video.unlink()
    with tarfile.open(archive) as file:
        file.extractall(video.parent, filter="data")


def copy_to_fat(video: Path) -> None:
    """As FAT keeps times: in even seconds."""
    seconds = video.stat().st_mtime_ns // 2_000_000_000 * 2
    os.utime(video, (seconds, seconds))


def copy_to_ntfs(video: Path) -> None:
    """As NTFS keeps times: in units of 100 ns."""
    times = video.stat().st_mtime_ns // 100 * 100
    os.utime(video, ns=(times, times))


@pytest.mark.parametrize("copy", [copy_by_tar, copy_to_fat, copy_to_ntfs])
@pytest.mark.parametrize("is_back", [False, True])
def test_a_copy_that_rounds_times_changes_nothing(collection, copy, is_back):
    video = collection.video("a")
    before = video.stat()
    if is_back:  # recorded from the copy, and now it is the original again
        copy(video)
    collection.make("a")
    if is_back:
        os.utime(video, ns=(before.st_mtime_ns, before.st_mtime_ns))
    else:
        copy(video)
    assert video.stat().st_mtime_ns != before.st_mtime_ns or is_back
    assert find(collection) is None


@pytest.mark.parametrize("change_ns", [3_000_000, -3_000_000, 10**9 + 1, 3 * 10**9])
def test_a_video_that_was_written_again_is_another_one(collection, change_ns):
    collection.make("a")
    times = collection.video("a").stat().st_mtime_ns + change_ns
    os.utime(collection.video("a"), ns=(times, times))
    assert find(collection) == (staleness.CHANGED, "")


def test_a_copy_without_times_changes_nothing_if_size_is_to_be_trusted(collection):
    collection.make("a")
    shutil.copyfile(collection.video("a"), collection.folder / "copy")
    os.replace(collection.folder / "copy", collection.video("a"))
    assert find(collection) == (staleness.CHANGED, "")
    assert find(collection, trust="size") is None
    collection.video("a").write_text("another video")
    assert find(collection, trust="size") == (staleness.CHANGED, "")


def test_a_file_of_another_program_that_is_older_counts_if_size_is_to_be_trusted(collection):
    collection.make_feature("a")
    os.utime(collection.feature("a"), (1, 1))
    assert find(collection) == (staleness.OLDER, "")
    assert find(collection, trust="size") is None


def test_a_copy_is_not_tried_again_either(collection):
    collection.fail("a")
    copy_by_tar(collection.video("a"))
    assert collection.plan(retry_failed=False).pending == []
    os.utime(collection.video("a"), (1, 1))
    assert len(collection.plan(retry_failed=False).pending) == 1
    assert collection.plan(retry_failed=False, trust="size").pending == []


def test_a_video_that_is_gone_is_that_of_a_record_without_one(collection):
    collection.fail("a")
    record: Record = read_records(collection.results).last[str(collection.feature("a"))]
    assert not is_same_video(record, None)
    assert is_same_video(record._replace(video_size=None, video_mtime_ns=None), None)


def test_what_a_recipe_wants_decides_the_length_of_a_row(tmp_path):
    make_feature(tmp_path / "a.npy")
    assert find_fault(str(tmp_path / "a.npy"), make_recipe(Settings())) is None
    assert find_fault(str(tmp_path / "a.npy"), RECIPE)


def of_size_5(time_ns: int, etag: str = "") -> RemoteStat:
    return RemoteStat(5, time_ns, etag)


def test_an_etag_tells_more_than_a_time(collection):
    times = collection.video("a").stat().st_mtime_ns
    collection.fail("a", video_etag="one")
    record: Record = read_records(collection.results).last[str(collection.feature("a"))]
    assert is_same_video(record, of_size_5(1, "one"))
    assert not is_same_video(record, of_size_5(times, "two"))
    assert not is_same_video(record, of_size_5(1, "one")._replace(st_size=6))
    assert is_same_video(record, of_size_5(times, "two"), trust="size")
    # Where one of both has none, the time tells.
    assert is_same_video(record, of_size_5(times))
    assert not is_same_video(record, of_size_5(times + 3 * 10**9))
    assert is_same_video(record._replace(video_etag=None), of_size_5(times, "two"))


def test_features_in_a_bucket_count_if_they_are_whole(tmp_path, s3_server):
    for suffix in (".npy", ".npz"):
        path = tmp_path / f"a{suffix}"
        write_features(str(path), np.ones((3, DIM), np.float16), RowTimes(*np.ones((3, 3))), {})
        content = path.read_bytes()
        assert find_fault(s3_server.put(path.name, content), RECIPE) is None
        assert find_fault(s3_server.put(path.name, content[:-500]), RECIPE)
    assert find_fault(s3_server.put("a.npy", b""), RECIPE) == "an empty file"
    assert find_fault("s3://bucket/none.npy", RECIPE) == "no such file"
    s3_server.fault = lambda request: request.fail(403, "AccessDenied")
    assert find_fault("s3://bucket/a.npy", RECIPE) == "bucket: no permission (403)"


@pytest.mark.parametrize(("seconds", "reason"), [(-0.9, None), (0.9, None), (1.1, "older")])
def test_an_object_is_older_by_a_second_at_least(collection, s3_server, seconds, reason):
    np.save(collection.folder / "x.npy", np.ones((1, DIM), np.float16))
    url = s3_server.put("a.npy", (collection.folder / "x.npy").read_bytes())
    written_ns = open_store("s3").stat(url).st_mtime_ns
    assert written_ns % 10**9 == 0
    times = written_ns + int(seconds * 1e9)
    os.utime(collection.video("a"), ns=(times, times))
    write_csv(Path(collection.config["videos"]), [(collection.video("a"), url)])
    found = find(collection, allowed_schemes="s3")
    assert found == (reason and (staleness.OLDER, ""))
