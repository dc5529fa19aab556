"""A pack holds all rows that are done, whatever was killed, and nothing that was made otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import webdataset
from packable import DIM, Packable, PackableInBucket, TwoRecipes, killed_at, some_features

from conftest import ROOT, write_csv
from videofeatures.errors import UserError
from videofeatures.files import hash_file
from videofeatures.packing.pack import OPTIONS, Options

OUTPUTS = [("hdf5", "f.h5"), ("hdf5", "f-%03d.h5"), ("webdataset", "f-%06d.tar")]


@pytest.fixture
def collection(tmp_path) -> Packable:
    return Packable(tmp_path)


@pytest.fixture(params=["disk", "bucket"])
def either(request, tmp_path) -> Packable:
    """A collection whose features are on a disk, or in a bucket."""
    if request.param == "disk":
        return Packable(tmp_path)
    return PackableInBucket(tmp_path, request.getfixturevalue("s3_server"))


def read_hdf5(*paths: Path) -> dict[str, dict]:
    """What other programs see of packs, by h5py alone."""
    found: dict[str, dict] = {}
    for path in paths:
        with h5py.File(path) as pack:

            def visit(key, group):
                if "provenance" in group.attrs:
                    assert key not in found
                    arrays: dict = {}
                    group.visititems(
                        lambda name, item: (
                            arrays.__setitem__(name, item[()])
                            if isinstance(item, h5py.Dataset)
                            else None
                        )
                    )
                    found[key] = arrays | {"json": json.loads(group.attrs["provenance"])}

            pack.visititems(visit)
    return found


def read_webdataset(*paths: Path) -> dict[str, dict]:
    """The same, by webdataset's own pipeline."""
    found: dict[str, dict] = {}
    for sample in webdataset.WebDataset([str(path) for path in paths], shardshuffle=False).decode():
        assert sample["json"]["key"] not in found
        found[sample["json"]["key"]] = {
            name.removesuffix(".npy").replace(".", "/"): value
            for name, value in sample.items()
            if not name.startswith("__")
        }
    return found


def read(folder: Path) -> dict[str, dict]:
    """All samples of all packs in a folder."""
    return read_hdf5(*sorted(folder.glob("*.h5"))) | (
        read_webdataset(*tars) if (tars := sorted(folder.glob("*.tar"))) else {}
    )


def check(collection: Packable, folder: Path, *names: str) -> None:
    """Check that just these rows are there, as they are now."""
    found = read(folder)
    assert set(found) == {collection.key(name) for name in names}
    for name in names:
        sample = found[collection.key(name)]
        np.testing.assert_array_equal(sample["features"], collection.array(name), strict=True)
        (facts,) = sample["json"]["features"].values()
        assert facts["feature_path"] == str(collection.feature(name))
        assert facts["file_hash"] == collection.hash(name)


@pytest.mark.parametrize(("pack_format", "name"), OUTPUTS)
def test_rows_that_are_done_are_packed_and_again_only_what_is_new(
    either, tmp_path, pack_format, name
):
    output = tmp_path / "packs" / name
    either.add_done("a", "b c.npz", "ä/ö.1")
    either.add("pending")
    outcome = either.pack(pack_format, output)
    assert (outcome.num_rows, outcome.num_packed, outcome.num_new) == (4, 3, 3)
    check(either, output.parent, "a", "b c.npz", "ä/ö.1")
    before = {path: path.stat().st_mtime_ns for path in output.parent.iterdir()}
    assert either.pack(pack_format, output).num_new == 0
    assert {path: path.stat().st_mtime_ns for path in output.parent.iterdir()} == before
    either.extract("pending", seed=9)
    outcome = either.pack(pack_format, output)
    assert (outcome.num_packed, outcome.num_new, outcome.num_replaced) == (4, 1, 0)
    check(either, output.parent, "a", "b c.npz", "ä/ö.1", "pending")


@pytest.mark.parametrize(("pack_format", "name"), OUTPUTS)
def test_a_row_that_was_made_again_takes_the_place_of_what_it_was(
    either, tmp_path, pack_format, name
):
    output = tmp_path / "packs" / name
    either.add_done("a", "b")
    either.pack(pack_format, output)
    either.extract("a", seed=77, num_rows=5)
    outcome = either.pack(pack_format, output)
    assert (outcome.num_packed, outcome.num_new, outcome.num_replaced) == (2, 1, 1)
    check(either, output.parent, "a", "b")
    either.extract("a", seed=78)
    either.extract("b", seed=79)
    assert either.pack(pack_format, output).num_replaced == 2
    check(either, output.parent, "a", "b")


@pytest.mark.parametrize(("pack_format", "name"), OUTPUTS)
def test_a_kill_at_any_moment_leaves_whole_files_and_what_is_lacking_is_added(
    tmp_path, pack_format, name
):
    collection = Packable(tmp_path)
    collection.add_done("a", "b", "c")
    first = tmp_path / "first" / name
    collection.pack(pack_format, first)
    collection.add_done("d", "e")
    collection.extract("a", seed=99, num_rows=300)  # a shard of its own, and a new one behind it
    event, was_killed = 0, True
    while was_killed:
        event += 1
        folder = tmp_path / f"packs-{event}"
        folder.mkdir()
        for path in first.parent.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

        def pack(folder=folder):
            return collection.pack(pack_format, folder / name, shard_mb=1)

        was_killed = killed_at(event, pack)
        found = read(folder)  # whole, whatever it was
        assert {collection.key(each) for each in "bc"} <= set(found)
        assert pack().num_packed == 5
        check(collection, folder, "a", "b", "c", "d", "e")
        assert not [path for path in folder.iterdir() if path.suffix not in (".h5", ".tar")]
    assert event > 15


def test_a_kill_costs_one_part_of_the_first_pack(collection, tmp_path):
    collection.add_done("a", "b", "c")
    for name in "abc":
        collection.extract(name, seed=ord(name), num_rows=300)  # 0.8 MB: a part for each

    def pack(say=lambda line: None):
        return collection.pack("hdf5", tmp_path / "f.h5", shard_mb=1)

    event = 0
    while len(list((tmp_path / "f.h5.parts").glob("*.h5"))) != 2:
        event += 1
        assert killed_at(event, pack)
        assert not (tmp_path / "f.h5").exists()
    assert pack().num_new == 1
    assert len(read_hdf5(tmp_path / "f.h5")) == 3


def test_webdataset_takes_a_folder_and_says_what_one_file_lacks(collection, tmp_path):
    collection.add_done("a")
    collection.pack("webdataset", f"{tmp_path}/packs/")
    assert [path.name for path in (tmp_path / "packs").iterdir()] == ["000000.tar"]
    with pytest.raises(UserError, match="let %06d stand in the name"):
        collection.pack("webdataset", tmp_path / "f.tar")
    with pytest.raises(UserError, match="is a folder"):
        collection.pack("hdf5", tmp_path)


def test_large_collections_are_cut_into_several_files(collection, tmp_path):
    collection.add_done("a", "b", "c")
    for name in "abc":
        collection.extract(name, seed=ord(name), num_rows=190)  # 0.49 MB
    collection.pack("webdataset", tmp_path / "packs" / "%d.tar", shard_mb=1)
    assert sorted(path.name for path in (tmp_path / "packs").iterdir()) == ["0.tar", "1.tar"]
    check(collection, tmp_path / "packs", "a", "b", "c")


def test_each_sample_says_what_it_was_made_with(collection, tmp_path):
    collection.add_done("a.npz")
    collection.extract("a.npz", seed=1, damaged_share=0.25, duration_seconds=3.5)
    collection.pack("hdf5", tmp_path / "f.h5")
    sample = read_hdf5(tmp_path / "f.h5")[collection.key("a.npz")]
    np.testing.assert_array_equal(sample["times"], [[0, 0.5, 1], [1, 1.5, 2], [2, 2.5, 3]])
    told = sample["json"]
    assert told["video_path"] == str(collection.video("a.npz"))
    facts = told["features"]["efficientnet_lite0"]
    (recipe,) = collection.plan().recipes
    assert facts["backbone"] == "efficientnet_lite0"
    assert (facts["digest"], facts["weights"]) == (recipe.digest, "random")
    assert facts["settings"]["crop_size"] == 224
    assert (facts["damaged_share"], facts["duration_seconds"]) == (0.25, 3.5)
    assert facts["shape"] == [3, DIM]


def test_parts_of_a_video_are_samples_of_their_own(collection, tmp_path):
    collection.add("a", "b")
    text = (
        "video_path,feature_path,start,end\n"
        f"{collection.video('a')},{collection.feature('a')},1.5,20\n"
        f"{collection.video('a')},{collection.feature('b')},20,\n"
    )
    Path(collection.config["videos"]).write_text(text)
    collection.extract("a", start_seconds=1.5, end_seconds=20.0)
    collection.write("b", some_features(1))
    stat = collection.video("a").stat()
    collection.record(
        *("b", "done"),
        file_hash=hash_file(collection.feature("b")),
        start_seconds=20.0,
        video_size=stat.st_size,
        video_mtime_ns=stat.st_mtime_ns,
    )
    assert collection.pack("hdf5", tmp_path / "f.h5").num_packed == 2
    found = read_hdf5(tmp_path / "f.h5")
    key = collection.key("a")
    assert set(found) == {f"{key}#t=1.5,20", f"{key}#t=20"}
    assert found[f"{key}#t=1.5,20"]["json"]["end_seconds"] == 20


@pytest.mark.parametrize(("pack_format", "name"), OUTPUTS)
def test_several_networks_are_one_sample_of_rows_of_which_all_are_done(tmp_path, pack_format, name):
    collection = TwoRecipes(tmp_path)
    collection.add_two("a", "b")
    frames = some_features(1)
    clips = np.random.default_rng(2).normal(size=(5, 2048)).astype(np.float16)
    collection.extract_of("a", "efficientnet_lite0", frames)
    collection.extract_of("a", "resnext101", clips)
    collection.extract_of("b", "efficientnet_lite0", frames)
    outcome = collection.pack(pack_format, tmp_path / "packs" / name)
    assert (outcome.num_rows, outcome.num_packed) == (2, 1)
    (sample,) = read(tmp_path / "packs").values()
    np.testing.assert_array_equal(sample["efficientnet_lite0/features"], frames)
    np.testing.assert_array_equal(sample["resnext101/features"], clips)
    assert sample["resnext101/times"].shape == (5, 3)
    with pytest.raises(UserError, match="Name another output"):
        collection.pack(pack_format, tmp_path / "packs" / name, backbone="resnext101")


def test_what_was_made_with_other_settings_is_not_mixed(either, tmp_path):
    either.add_done("a", "b")
    output = tmp_path / "f.h5"
    either.pack("hdf5", output)
    before = output.read_bytes()
    for name in "ab":
        either.extract(name, seed=5, crop_size=192)
    with pytest.raises(UserError) as caught:
        either.pack("hdf5", output, crop_size=192)
    message = str(caught.value)
    assert "crop_size: 224 → 192" in message
    assert either.key("a") in message
    assert str(either.feature("a")) in message
    assert output.read_bytes() == before


def test_other_weights_are_not_mixed(collection, tmp_path):
    collection.add_done("a", "b")
    collection.pack("hdf5", tmp_path / "f.h5")
    collection.config["weights"] = "auto"
    weights = collection.plan().recipes[0].weights_id
    for name in "ab":
        collection.extract(name, weights=weights)
    with pytest.raises(UserError, match=f"weights: random → {weights}"):
        collection.pack("hdf5", tmp_path / "f.h5")


def test_what_nobody_knows_of_is_not_mixed_unless_it_is_said(either, tmp_path):
    either.add_done("a")
    either.add("elsewhere")
    either.write("elsewhere", some_features(4))
    with pytest.raises(UserError, match="nothing tells what it was made with"):
        either.pack("hdf5", tmp_path / "f.h5")
    assert either.pack("hdf5", tmp_path / "f.h5", unrecorded=True).num_packed == 2
    assert either.pack("hdf5", tmp_path / "f.h5", unrecorded=True).num_new == 0
    check(either, tmp_path, "a", "elsewhere")


def test_numbers_of_another_type_are_not_mixed(either, tmp_path):
    either.add("a", "b")
    either.write("a", some_features(4))
    either.write("b", some_features(4, dtype="float32"))
    with pytest.raises(UserError, match="do not hold the same kind of numbers"):
        either.pack("hdf5", tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


def test_a_file_that_is_not_that_of_its_record_is_not_packed_and_told(either, tmp_path):
    either.add_done("a", "b")
    either.write("a", some_features(123))
    outcome = either.pack("hdf5", tmp_path / "f.h5")
    assert (outcome.num_rows, outcome.num_packed) == (2, 1)
    (problem,) = outcome.problems
    assert problem.startswith(f"{either.feature('a')}: is not the file that its record")
    check(either, tmp_path, "b")


@pytest.fixture
def in_bucket(tmp_path, monkeypatch, s3_server) -> PackableInBucket:
    monkeypatch.setattr("videofeatures.remote.WAIT_SECONDS", 0.01)
    return PackableInBucket(tmp_path, s3_server)


@pytest.mark.parametrize(("pack_format", "name"), OUTPUTS)
def test_each_object_is_read_once_and_not_again(in_bucket, tmp_path, pack_format, name):
    in_bucket.add_done("a", "b.npz")
    server = in_bucket.server
    for num_reads in (1, 0):
        server.forget()
        assert in_bucket.pack(pack_format, tmp_path / "packs" / name).num_packed == 2
        reads = [server.keys["GET", in_bucket.object_key(each)] for each in ("a", "b.npz")]
        assert reads == [num_reads] * 2


def test_objects_of_which_nothing_tells_are_known_by_what_they_say(in_bucket, tmp_path):
    in_bucket.add_done("a.npz")
    (recipe,) = in_bucket.plan().recipes
    told = {"digest": recipe.digest, "weights": "random", "settings": recipe.numerics}
    in_bucket.add("b.npz")
    in_bucket.write("b.npz", some_features(4), told)
    output = tmp_path / "f.h5"
    assert in_bucket.pack("hdf5", output).num_packed == 2
    assert in_bucket.pack("hdf5", output).num_new == 0
    # As long, and within the second.
    in_bucket.write("b.npz", some_features(5), told)
    assert in_bucket.pack("hdf5", output).num_replaced == 1
    check(in_bucket, tmp_path, "a.npz", "b.npz")
    in_bucket.write("b.npz", some_features(5), told | {"digest": "another"})
    with pytest.raises(UserError, match="were not made alike"):
        in_bucket.pack("hdf5", output)


def test_what_a_storage_refuses_is_told_and_the_others_are_packed(in_bucket, tmp_path):
    in_bucket.add_done("a", "b", "c", "d")
    refused, gone = (("GET", in_bucket.object_key(name)) for name in "ab")
    client = in_bucket.server.client

    def fault(request):
        if (request.method, request.key) == refused:
            return request.fail(403, "AccessDenied")
        if (request.method, request.key) == gone:  # since it was planned
            client.delete_object(Bucket="bucket", Key=request.key)
        is_first = in_bucket.server.keys[request.method, request.key] == 1
        if request.key == in_bucket.object_key("c") and is_first:
            return request.cut()
        return None

    in_bucket.server.fault = fault
    outcome = in_bucket.pack("hdf5", tmp_path / "f.h5")
    assert list(outcome.problems) == [
        f"{in_bucket.feature('a')}: bucket: no permission (403)",
        f"{in_bucket.feature('b')}: no such file",
    ]
    in_bucket.server.fault = lambda request: None
    check(in_bucket, tmp_path, "c", "d")


def test_samples_of_rows_that_left_the_csv_stay_and_are_counted(collection, tmp_path):
    collection.add_done("a", "b")
    collection.pack("hdf5", tmp_path / "f.h5")
    write_csv(Path(collection.config["videos"]), [(collection.video("a"), collection.feature("a"))])
    outcome = collection.pack("hdf5", tmp_path / "f.h5")
    assert (outcome.num_rows, outcome.num_packed, outcome.num_others) == (1, 1, 1)


@pytest.mark.parametrize(("pack_format", "name"), OUTPUTS)
def test_a_file_that_is_no_pack_is_left_alone(collection, tmp_path, pack_format, name):
    collection.add_done("a")
    path = tmp_path / (name % 0 if "%" in name else name)
    path.write_text("something else")
    with pytest.raises(UserError, match="is no pack that can be continued"):
        collection.pack(pack_format, tmp_path / name)
    assert path.read_text() == "something else"


def test_a_full_disk_is_told_and_leaves_nothing_half(collection, tmp_path):
    collection.add_done("a", "b")
    script = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000));"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "sys.path.insert(0, sys.argv[1]); sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], "
        "run_name='__main__')"
    )
    for pack_format, name in OUTPUTS:
        command = [sys.executable, "-c", script, ROOT / "scripts", ROOT / "scripts" / "pack.py"]
        command += values(collection, format=pack_format, output=tmp_path / "packs" / name)
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        assert result.returncode == 2, result.stderr
        assert result.stderr.endswith(
            "cannot be written: File too large. What is complete is kept\n"
        )
        assert len(result.stderr.splitlines()) == 1
        assert not [path for path in (tmp_path / "packs").rglob("*") if path.is_file()]


def values(collection: Packable, **more: object) -> list[str]:
    given = {key: collection.config[key] for key in ("videos", "results", "backbone", "weights")}
    return [f"{key}={value}" for key, value in (given | more).items()]


def run_script(collection: Packable, **more: object) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "scripts" / "pack.py", *values(collection, **more)]
    config = ["--configfile", ROOT / "config" / "config.yaml"]
    return subprocess.run(list(map(str, command + config)), capture_output=True, text=True)


def test_the_script_says_what_is_missing_by_its_status_too(collection, tmp_path):
    collection.add_done("a", "b")
    collection.add("pending", "broken", "missing")
    collection.fail("broken")
    collection.video("missing").unlink()
    result = run_script(collection, format="hdf5", output=tmp_path / "f.h5")
    assert result.returncode == 1, result.stderr
    assert "2 of 5 rows, 2 new" in result.stdout
    assert "2 done, 1 failed, 1 missing, 1 pending" in result.stdout
    assert set(collection.manifest()) == {"a", "b", "pending", "broken", "missing"}
    for name in ("pending", "broken", "missing"):
        collection.video(name).write_text("video")
        collection.extract(name)
    result = run_script(collection, format="webdataset", output=tmp_path / "shards/%06d.tar")
    assert (result.returncode, result.stderr) == (0, "")
    assert "5 of 5 rows, 5 new" in result.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "output: say it"),
        ({"format": "zip", "output": "x"}, "none of hdf5, webdataset"),
        ({"format": "hdf5", "output": "x.h5", "shard_mb": "0"}, "shard_mb: '0' must be"),
        ({"format": "hdf5", "output": "x.h5", "unrecorded": "maybe"}, "true or false"),
        ({"format": "hdf5", "output": "~/x.h5"}, "only a shell expands"),
        ({"format": "hdf5", "output": "s3://b/x.h5"}, "s3://b/x.h5 is a URL. Name a file of a"),
    ],
)
def test_options_that_cannot_be_are_told(given, message):
    with pytest.raises(UserError, match=message):
        Options.take_from(dict(given))


def test_options_are_taken_out_of_the_configuration():
    config = {"videos": "my.csv", "format": "hdf5", "output": "x.h5", "shard_mb": 7}
    assert Options.take_from(config) == Options("hdf5", "x.h5", shard_mb=7)
    assert config == {"videos": "my.csv"}
    assert set(OPTIONS) == {"format", "output", "key", "shard_mb", "unrecorded"}


def test_another_process_waits_for_the_first(collection, tmp_path):
    from videofeatures.packing.shard_files import locked

    collection.add_done("a")
    with locked(tmp_path / "f.h5"), pytest.raises(UserError, match="another process"):
        collection.pack("hdf5", tmp_path / "f.h5")
    collection.pack("hdf5", tmp_path / "f.h5")
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_what_is_not_installed_is_told_with_what_to_type(collection, tmp_path, monkeypatch):
    collection.add_done("a")
    for package, (pack_format, name) in zip(("h5py", "webdataset"), OUTPUTS[::2], strict=True):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(UserError, match=r"envs/requirements-pack\.txt"):
            collection.pack(pack_format, tmp_path / name)
