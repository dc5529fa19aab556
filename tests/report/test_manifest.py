"""The manifest says of each row what the disk and the records know."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from conftest import make_recipe, write_csv, write_line
from small_collection import SmallCollection
from videofeatures.files import hash_file
from videofeatures.planning import staleness
from videofeatures.planning.plan import MISSING, Request
from videofeatures.records import Recorder
from videofeatures.report import manifest
from videofeatures.report.manifest import make_manifest, try_write_manifest, write_manifest
from videofeatures.settings import Settings


@pytest.fixture
def collection(tmp_path) -> SmallCollection:
    return SmallCollection(tmp_path)


@pytest.fixture
def five(collection) -> SmallCollection:
    """A row of each state, and one that was made elsewhere."""
    collection.add("pending", "missing", "failed", "done", "elsewhere")
    collection.video("missing").unlink()
    collection.fail("failed")
    collection.make("done")
    collection.make_feature("elsewhere")
    return collection


STATES = {
    "pending": "pending",
    "missing": "missing",
    "failed": "failed",
    "done": "done",
    "elsewhere": "done",
}


def states(collection: SmallCollection) -> dict[str, str]:
    return {name: line["state"] for name, line in collection.manifest().items()}


def line_of(collection: SmallCollection, name: str, **changes: object) -> dict[str, str]:
    write_manifest(collection.plan(**changes))
    return collection.manifest()[name]


def test_each_row_has_its_state_in_the_order_of_the_csv(five):
    counts = write_manifest(five.plan())
    assert counts == {"done": 2, "failed": 1, "missing": 1, "pending": 1}
    assert list(states(five).items()) == list(STATES.items())
    assert [line["video_path"] for line in five.manifest().values()] == [
        str(five.video(name)) for name in STATES
    ]


def test_every_line_has_all_columns(five):
    write_manifest(five.plan())
    with open(five.results / "manifest.csv", newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == list(manifest.COLUMNS)
    assert {len(line) for line in lines} == {len(header)}
    assert set(STATES.values()) == set(manifest.STATES)


def test_a_row_that_is_not_done_says_why(five):
    write_manifest(five.plan())
    reasons = {name: line["reason"] for name, line in five.manifest().items()}
    assert reasons == {
        "pending": MISSING,
        "missing": "no such file",
        "failed": "broken",
        "done": "",
        "elsewhere": "",
    }
    assert {line["stale"] for line in five.manifest().values()} == {""}


FACTS = {
    "num_features": 3,
    "feature_dim": 1280,
    "duration_seconds": 2.5,
    "seconds": 0.25,
    "damaged_share": 0.0625,
    "ffmpeg_lines": ["line 1", "line 2"],
    "fallback": "cuda: no such luck",
}


def test_a_row_that_is_done_has_the_facts_of_its_file(collection):
    collection.add("a")
    collection.make("a", reason="ends at 3 s of 6 s", **FACTS)
    line = line_of(collection, "a")
    assert (line["state"], line["reason"]) == ("done", "ends at 3 s of 6 s")
    told = FACTS | {"ffmpeg_lines": "line 1 | line 2"}
    assert {name: line[name] for name in FACTS} == {k: str(v) for k, v in told.items()}


def test_a_row_that_failed_has_the_facts_of_its_failure(collection):
    collection.add("a")
    collection.fail("a", duration_seconds=2.5, seconds=0.0, ffmpeg_lines=["line 1"])
    line = line_of(collection, "a")
    assert (line["duration_seconds"], line["seconds"]) == ("2.5", "0.0")
    assert (line["num_features"], line["ffmpeg_lines"]) == ("", "line 1")


def test_a_row_that_the_machine_failed_is_pending_and_says_why(collection):
    collection.add("a")
    collection.fail("a", "ffmpeg was killed", is_machine=True)
    for retry_failed in (True, False):
        line = line_of(collection, "a", retry_failed=retry_failed)
        assert line["state"] == "pending"
        assert line["reason"] == f"{MISSING}; the machine failed: ffmpeg was killed"


def test_a_row_that_has_changed_since_it_failed_is_pending_and_has_no_facts(collection):
    collection.add("a")
    collection.fail("a", duration_seconds=2.5)
    collection.video("a").write_text("another video")
    line = line_of(collection, "a")
    assert (line["state"], line["reason"]) == ("pending", MISSING)
    assert line["duration_seconds"] == ""


def test_a_row_whose_file_is_stale_says_why_whatever_its_state(collection):
    collection.add("pending", "failed", "missing")
    for name in ("pending", "failed"):
        collection.make(name)
        collection.video(name).write_text("another video")
    collection.fail("failed", stale=True)
    collection.make("missing", interpolation="bicubic")
    collection.video("missing").unlink()
    write_manifest(collection.plan())
    assert states(collection) == {name: name for name in ("pending", "failed", "missing")}
    lines = collection.manifest()
    assert (lines["pending"]["stale"], lines["pending"]["reason"]) == (
        staleness.CHANGED,
        staleness.CHANGED,
    )
    assert (lines["failed"]["stale"], lines["failed"]["reason"]) == (staleness.CHANGED, "broken")
    told = f"{staleness.OTHER_SETTINGS} (interpolation: bicubic → bilinear)"
    assert (lines["missing"]["stale"], lines["missing"]["reason"]) == (told, "no such file")


def test_a_row_that_is_not_tried_again_has_failed(collection):
    collection.add("a", "b")
    collection.fail("a", duration_seconds=2.5)
    line = line_of(collection, "a", retry_failed=False)
    assert (line["state"], line["reason"]) == ("failed", "broken")
    assert line["duration_seconds"] == "2.5"
    assert states(collection) == {"a": "failed", "b": "pending"}


def test_paths_and_reasons_come_back_as_they_were(collection):
    name = 'a, "é"'
    collection.add(name)
    collection.fail(name, 'reason, "quoted"')
    assert line_of(collection, name)["reason"] == 'reason, "quoted"'


def test_counts_of_all_states_are_said_with_the_place_of_the_file(five):
    told = make_manifest(five.plan())
    place = f"{five.results / 'manifest.csv'} lists every row"
    assert told == f"2 done, 1 failed, 1 missing, 1 pending: {place}"


@pytest.mark.parametrize(
    "request_of",
    [
        lambda five: Request(feature_paths=frozenset([str(five.feature("failed"))])),
        lambda five: Request(forced=frozenset([str(five.feature("done"))])),
    ],
    ids=["asked for", "forced"],
)
def test_a_plan_that_is_not_whole_is_made_anew(five, request_of):
    part = five.plan(request_of(five))
    told = try_write_manifest(five.config, part)
    assert told.startswith("2 done, 1 failed, 1 missing, 1 pending: ")
    assert states(five) == STATES


def test_a_whole_plan_is_taken_as_it_is_and_without_one_it_is_made(five):
    whole = five.plan()
    five.make("pending")
    assert "2 done, 1 failed, 1 missing, 1 pending" in try_write_manifest(five.config, whole)
    assert "3 done, 1 failed, 1 missing, 0 pending" in try_write_manifest(five.config)


def remove_csv(collection: SmallCollection) -> str:
    Path(collection.config["videos"]).unlink()
    return "videos.csv: no such file"


def spoil_csv(collection: SmallCollection) -> str:
    Path(collection.config["videos"]).write_text("a,b\n")
    return "must name the columns video_path and feature_path"


def put_folder_in_the_way(collection: SmallCollection) -> str:
    (collection.results / "manifest.csv").mkdir()
    return "Is a directory"


@pytest.mark.parametrize("spoil", [remove_csv, spoil_csv, put_folder_in_the_way])
def test_what_cannot_be_written_is_said_and_that_is_all(five, spoil):
    before = set(five.results.iterdir())
    told_of = spoil(five)
    before |= set(five.results.glob("manifest.csv"))
    told = try_write_manifest(five.config)
    assert told.startswith("the manifest cannot be written: ")
    assert told_of in told
    assert set(five.results.iterdir()) == before


def test_a_manifest_is_replaced_only_by_another_one(five):
    try_write_manifest(five.config)
    before = five.manifest()
    remove_csv(five)
    assert "cannot be written" in try_write_manifest(five.config)
    assert five.manifest() == before


def test_a_manifest_of_no_rows_has_its_columns(collection):
    collection.add()
    assert write_manifest(collection.plan()) == {}
    text = (collection.results / "manifest.csv").read_text(encoding="utf-8")
    assert text == ",".join(manifest.COLUMNS) + "\n"


def test_a_spreadsheet_takes_no_text_for_a_formula_and_paths_are_exact(collection, monkeypatch):
    monkeypatch.chdir(collection.folder)
    (collection.folder / "=v.mp4").touch()
    write_csv(Path(collection.config["videos"]), [("=v.mp4", "-f.npy")])
    Path("-f.npy").write_text("features")
    digest = make_recipe(Settings(backbone=collection.config["backbone"])).digest
    with Recorder(collection.results, "extract") as recorder:
        facts = {"video_path": "=v.mp4", "digest": digest, "weights": "random"}
        video = Path("=v.mp4").stat()
        facts |= {"video_size": video.st_size, "video_mtime_ns": video.st_mtime_ns}
        facts |= {"reason": "@sum", "ffmpeg_lines": ["=v.mp4: Invalid data", "+"]}
        facts["file_hash"] = hash_file("-f.npy")
        write_line(recorder, "done", "-f.npy", **facts)
    write_manifest(collection.plan())
    (line,) = collection.manifest().values()
    assert (line["video_path"], line["feature_path"]) == ("=v.mp4", "-f.npy")
    assert line["reason"] == "'@sum"
    assert line["ffmpeg_lines"] == "'=v.mp4: Invalid data | +"


def test_parts_of_a_video_are_rows_with_their_ends(collection):
    collection.add("whole")
    video, path = collection.video("whole"), Path(collection.config["videos"])
    lines = [f"{video},{collection.feature('whole')},,"]
    lines += [f"{video},{collection.feature(name)},{ends}" for name, ends in ENDS.items()]
    path.write_text("\n".join(["video_path,feature_path,start,end", *lines]) + "\n")
    stat = video.stat()
    facts = {"video_size": stat.st_size, "video_mtime_ns": stat.st_mtime_ns}
    collection.make("both", **facts, start_seconds=1.5, end_seconds=20.0)
    collection.make("start", **facts, start_seconds=1.5)
    collection.fail("end", "ends at 9 s of 20 s", **facts, end_seconds=20.0)
    counts = write_manifest(collection.plan())
    assert counts == {"pending": 2, "done": 1, "failed": 1}
    rows = {
        name: tuple(line[key] for key in ("start_seconds", "end_seconds", "state"))
        for name, line in collection.manifest().items()
    }
    assert rows == {
        "whole": ("", "", "pending"),
        "both": ("1.5", "20", "done"),
        "start": ("3", "", "pending"),
        "end": ("", "20", "failed"),
    }
    assert collection.manifest()["start"]["stale"] == staleness.OTHER_PART


ENDS = {"both": "1.50,20", "start": "3,", "end": ",20"}


def test_rows_in_buckets_have_their_states_and_show_no_secret(collection, s3_server):
    signed = "?X-Amz-Signature=word"
    done, pending, missing = (f"s3://bucket/{name}.mp4" for name in ("a", "b", "none"))
    etag = hashlib.md5(b"video").hexdigest()
    for key in ("a.mp4", "b.mp4"):
        s3_server.put(key, b"video")
    s3_server.put("f/a.npy", b"features of some length" * 1000)
    rows = [(done, "s3://bucket/f/a.npy"), (pending, "s3://bucket/f/b.npy")]
    rows += [(missing, "s3://bucket/f/none.npy"), (f"{done}{signed}", "s3://bucket/f/c.npy")]
    write_csv(Path(collection.config["videos"]), rows)
    digest = make_recipe(Settings(backbone=collection.config["backbone"])).digest
    facts = {"digest": digest, "weights": "random", "file_hash": "ab", "num_features": 3}
    facts |= {"video_path": done, "video_size": 5, "video_mtime_ns": 1, "video_etag": etag}
    with Recorder(collection.results, "extract") as recorder:
        write_line(recorder, "done", "s3://bucket/f/a.npy", **facts)
        write_line(recorder, "placed", "s3://bucket/f/a.npy")
    s3_server.forget()
    line = line_of(collection, "a", allowed_schemes="s3")
    assert (line["state"], line["video_path"], line["num_features"]) == ("done", done, "3")
    found = {name: each["state"] for name, each in collection.manifest().items()}
    assert found == {"a": "done", "b": "pending", "none": "missing", "c": "missing"}
    assert "word" not in (collection.results / "manifest.csv").read_text(encoding="utf-8")
    assert not s3_server.counts["PUT"]
