"""What becomes of a target: a file and its record, or a record of why there is none."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conftest import RunFolder, make_recipe, make_target
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.times import RowTimes
from videofeatures.errors import MachineError, UserError, VideoError
from videofeatures.extraction.events import Begun, Decoded
from videofeatures.extraction.target_state import TargetState
from videofeatures.extraction.uploads import Uploads
from videofeatures.extraction.writer import Outcome, Writer
from videofeatures.files import hash_file
from videofeatures.records import Recorder, RowLine, read_records
from videofeatures.remote import RemoteStat, hash_object, open_store
from videofeatures.settings import Settings
from videofeatures.source import Source

METADATA = VideoMetadata(320, 240, Fraction(16, 15), 2.96, 25.0, "h264")
FACTS = {
    "num_frames": 3,
    "duration_seconds": 2.96,
    "average_fps": 25.0,
    "width": 320,
    "height": 240,
    "codec": "h264",
    "damaged_share": 0.125,
}
FELL_BACK = {"decoded_on": "cpu", "fallback": "cuda: no luck"}
TIMES = RowTimes(np.array([0.0, 1.0, 2.0]), np.array([0.5, 1.5, 2.5]), np.array([1.0, 2.0, 3.0]))
DECODED = Decoded(
    METADATA, num_frames=3, num_clips=3, damaged_share=0.125, seconds=0.5, times=TIMES
)
ENDS = ("start_seconds", "end_seconds")
PART = Source("a.mp4", 1.25, 9.0)
FEATURES = np.arange(12, dtype=np.float16).reshape(3, 4)
VIDEO = {"video_size": 1234, "video_mtime_ns": 5678}


class Desk(RunFolder):
    """A writer of two recipes, a target of the first, and the records of both."""

    def __init__(self, folder: Path, recorder: Recorder, **settings: object):
        super().__init__(folder)
        self.path = folder / "features" / "a.npz"
        self.recipes = [
            make_recipe(Settings(interpolation=name, **settings)) for name in ("bilinear", "area")
        ]
        self.made_with = [
            {
                "time": 1.0,
                "status": "process",
                "settings": recipe.numerics,
                "digest": recipe.digest,
                "weights": recipe.weights_id,
                "host": "node",
            }
            for recipe in self.recipes
        ]
        self.scratch = folder / "scratch"
        self.writer = Writer(self.recipes, self.made_with, recorder, Uploads(self.scratch))

    def state(self, features: np.ndarray = FEATURES, **facts: object) -> TargetState:
        """Of a target whose video has ended, with its features in the wrong order."""
        target = make_target("a.mp4", self.path)
        state = TargetState(target, Begun(target, *VIDEO.values()), DECODED)
        for k in reversed(range(len(features))):
            state.add_feature(k, features[k], float(k))
        for name, value in facts.items():
            setattr(state, name, value)
        if state.begun:
            state.begun = Begun(state.target, *VIDEO.values())
        return state

    def outcome(self, state: TargetState) -> Outcome:
        """What becomes of a target, in the end."""
        outcome = self.writer.finish(state)
        if outcome is not Outcome.UPLOADING:
            return outcome
        ((uploaded, outcome),) = self.writer.take_uploaded(all_of_them=True)
        assert uploaded is state
        assert list(self.writer.take_uploaded(all_of_them=True)) == []
        return outcome

    def failure(self, error: Exception | None, **facts: object) -> dict:
        """The only record of a target that ends with an error."""
        assert self.outcome(self.state(error=error, **facts)) is Outcome.FAILED
        (line,) = self.records()
        assert line["status"] == "failed"
        assert not self.path.exists()
        return line


@pytest.fixture
def recorder(tmp_path) -> Iterator[Recorder]:
    with Recorder(tmp_path / "results", "job") as recorder:
        yield recorder


@pytest.fixture
def desk(tmp_path, recorder) -> Desk:
    return Desk(tmp_path, recorder)


@pytest.mark.parametrize("stale", [True, False])
def test_a_beginning_says_which_video_and_whether_a_file_was_there(desk, stale):
    target = make_target("a.mp4", desk.path, stale=stale)
    desk.writer.begin(Begun(target, *VIDEO.values()))
    (line,) = desk.records()
    assert line.pop("time") > 0
    assert line == VIDEO | {
        "status": "started",
        "feature_path": str(desk.path),
        "video_path": "a.mp4",
        "digest": desk.recipes[0].digest,
        "weights": "aaaaaaaa",
        "stale": stale,
    }


def test_a_complete_target_has_its_file_and_all_facts_are_recorded(desk):
    state = desk.state(norm_sum=7.0, compute_seconds=0.25)
    assert desk.outcome(state) is Outcome.DONE
    with np.load(desk.path) as file:
        np.testing.assert_array_equal(file["features"], FEATURES)
    (line,) = desk.records()
    # The others are what is said of a row that is not done.
    unsaid = {"stale", "is_machine", "num_together", "video_etag", *ENDS, *FELL_BACK}
    assert set(line) == set(RowLine.__annotations__) - unsaid
    assert line.pop("time") > 0
    assert line.pop("seconds") >= 0
    assert line == VIDEO | FACTS | {
        "status": "done",
        "feature_path": str(desk.path),
        "video_path": "a.mp4",
        "digest": desk.recipes[0].digest,
        "weights": "aaaaaaaa",
        "reason": "",
        "ffmpeg_lines": [],
        "file_hash": hash_file(desk.path),
        "num_features": 3,
        "feature_dim": 4,
        "mean_norm": 2.333333,
        "decode_seconds": 0.5,
        "compute_seconds": 0.25,
    }


def test_a_record_is_of_the_target_s_own_recipe(desk):
    target = make_target("a.mp4", desk.path, recipe=1)
    desk.writer.begin(Begun(target, *VIDEO.values()))
    assert desk.outcome(desk.state(target=target)) is Outcome.DONE
    assert [line["digest"] for line in desk.records()] == [desk.recipes[1].digest] * 2


def test_a_file_is_recorded_before_it_takes_its_place(desk):
    desk.path.mkdir(parents=True)  # which no file can replace
    assert desk.outcome(desk.state()) is Outcome.FAILED
    done, failed = desk.records()
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert failed["reason"] == f"{desk.path}: {os.strerror(errno.EISDIR)}"
    assert list(desk.path.parent.iterdir()) == [desk.path]
    # The failure takes back what was said.
    assert read_records(desk.results).of_file(str(desk.path)) is None


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_a_file_holds_the_features_as_they_came(desk, suffix, dtype):
    desk.path = desk.path.with_suffix(f".{suffix}")
    assert desk.outcome(desk.state(FEATURES.astype(dtype))) is Outcome.DONE
    found = np.load(desk.path, allow_pickle=False)
    found = found if suffix == "npy" else found["features"]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, FEATURES)


def test_an_npz_says_of_what_it_is_made_and_with_what(desk):
    device = {"dtype": "float32", "device": "cpu", "device_uuid": None, "ffmpeg": "9.0"}
    desk.writer.compute_on({"time": 1.0, "status": "device", **device})
    assert desk.records()[0] == {"time": 1.0, "status": "device", **device}
    assert desk.outcome(desk.state()) is Outcome.DONE
    with np.load(desk.path, allow_pickle=False) as file:
        for name, values in TIMES._asdict().items():
            np.testing.assert_array_equal(file[name], values)
        provenance = json.loads(str(file["provenance"]))
    recipe = desk.recipes[0]
    assert provenance == VIDEO | FACTS | {
        "settings": json.loads(json.dumps(recipe.numerics)),
        "digest": recipe.digest,
        "weights": "aaaaaaaa",
        "host": "node",
        "dtype": "float32",
        "device": "cpu",
        "device_uuid": None,
        "ffmpeg": "9.0",
        "video_path": "a.mp4",
        "sample_aspect_ratio": "16/15",
    }


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, []),
        ({"messages": ("bad frame", "again")}, ["  but   a.mp4: ffmpeg says: bad frame"]),
        (
            {"messages": ("bad frame",), "warning": "ends at 3 s of 6 s"},
            ["  but   a.mp4: ends at 3 s of 6 s"],
        ),
    ],
)
def test_a_file_that_is_done_with_a_but_is_told_of(desk, caplog, more, told):
    caplog.set_level("INFO")
    assert desk.outcome(desk.state(decoded=DECODED._replace(**more))) is Outcome.DONE
    first, *others = caplog.messages
    assert first.startswith("done    a.mp4: 3 x 4 in ")
    assert others == told
    (line,) = desk.records()
    assert line["ffmpeg_lines"] == list(more.get("messages", ()))
    assert line["reason"] == more.get("warning", "")


@pytest.mark.parametrize("stale", [True, False])
def test_a_video_that_fails_is_recorded_with_what_ffmpeg_said(desk, caplog, stale):
    target = make_target("a.mp4", desk.path, stale=stale)
    line = desk.failure(VideoError("no video stream", ["line 1", "line 2"]), target=target)
    assert line.pop("time") > 0
    assert line.pop("seconds") >= 0
    assert line == VIDEO | {
        "status": "failed",
        "feature_path": str(desk.path),
        "video_path": "a.mp4",
        "digest": desk.recipes[0].digest,
        "weights": "aaaaaaaa",
        "stale": stale,
        "reason": "no video stream",
        "ffmpeg_lines": ["line 1", "line 2"],
        "duration_seconds": 2.96,
        "damaged_share": 0.125,
        "is_machine": False,
    }
    assert caplog.messages == ["FAILED  a.mp4: no video stream"]


@pytest.mark.parametrize(
    ("error", "is_machine"),
    [
        (VideoError("broken"), False),
        (KeyError("x"), False),
        (MachineError("ffmpeg was killed"), True),
        (OSError(errno.EIO, "Input/output error"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (MemoryError("no room"), True),
    ],
)
def test_it_is_recorded_whether_the_machine_failed_or_the_video(desk, error, is_machine):
    assert desk.failure(error)["is_machine"] is is_machine


def test_a_failure_leaves_the_file_of_before(desk):
    desk.path.parent.mkdir()
    desk.path.write_text("old")
    assert desk.outcome(desk.state(error=VideoError("broken"))) is Outcome.FAILED
    assert desk.path.read_text() == "old"


def test_a_target_that_could_not_begin_is_recorded_all_the_same(desk):
    line = desk.failure(VideoError("no such file"), begun=None, decoded=Decoded())
    assert (line["video_size"], line["video_mtime_ns"]) == (None, None)
    assert line["duration_seconds"] is None
    assert (line["video_path"], line["reason"]) == ("a.mp4", "no such file")


def test_a_file_that_cannot_be_written_is_named_in_its_failure(desk):
    desk.path.parent.write_text("in the way")
    line = desk.failure(None)
    assert line["reason"] == f"{desk.path}: {os.strerror(errno.EEXIST)}"
    assert line["ffmpeg_lines"] == []


def test_an_error_of_the_system_without_a_number_keeps_its_words(desk):
    assert desk.failure(OSError("gone away"))["reason"] == f"{desk.path}: gone away"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_ends_the_job(desk, number):
    with pytest.raises(UserError, match=r"The job ends here; .* Make room, and run again") as found:
        desk.writer.finish(desk.state(error=OSError(number, os.strerror(number))))
    assert str(found.value).startswith(f"{desk.path}: {os.strerror(number)}. ")
    assert desk.records() == []  # it is as pending as it was


def test_an_error_that_nobody_thought_of_costs_one_row_and_is_logged_whole(desk, caplog):
    line = desk.failure(KeyError("x"))
    assert line["reason"] == "KeyError: 'x'"
    failed, unexpected = caplog.records
    assert failed.getMessage() == "FAILED  a.mp4: KeyError: 'x'"
    assert unexpected.getMessage() == "unexpected error in a.mp4"
    assert unexpected.exc_info[0] is KeyError


def test_a_feature_that_is_missing_is_such_an_error(desk):
    decoded = DECODED._replace(num_clips=4)
    assert "3 features of 4 clips" in desk.failure(None, decoded=decoded)["reason"]


@pytest.mark.parametrize(
    ("l2_normalize", "half_precision", "hint"),
    [
        (True, True, "try `precision: float32`"),
        (True, False, "try `precision: float32`"),
        (False, False, "try `precision: float32`"),
        (False, True, "try `precision: float32` or `half_precision: false`"),
    ],
)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_a_feature_that_is_not_finite_is_a_failure_with_what_may_help(
    tmp_path, recorder, l2_normalize, half_precision, hint, number
):
    desk = Desk(tmp_path, recorder, l2_normalize=l2_normalize, half_precision=half_precision)
    features = FEATURES.copy()
    features[1, 2] = number
    assert desk.outcome(desk.state(features)) is Outcome.FAILED
    (line,) = desk.records()
    assert line["reason"] == f"a feature is not a finite number: {hint}"
    assert not desk.path.exists()


@pytest.fixture
def full(desk, recorder) -> Iterator[None]:
    """No file can grow beyond what the records have by now, and a feature file has not."""
    # Nor has the file, if it is one, that pytest itself writes to.
    recorder.write({"time": 1.0, "status": "process", "settings": {"x": "y" * 5_000_000}})
    (path,) = (desk.results / "records").iterdir()
    limit, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, most))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))


@pytest.mark.usefixtures("full")
def test_records_that_cannot_be_written_end_the_job_and_change_no_file(desk):
    desk.path.parent.mkdir()
    desk.path.write_text("old")
    with pytest.raises(UserError, match="records cannot be written: File too large"):
        desk.writer.begin(desk.state().begun)
    for error in (None, VideoError("broken"), KeyError("x")):
        with pytest.raises(UserError, match="records cannot be written: File too large"):
            desk.writer.finish(desk.state(error=error))
    assert desk.path.read_text() == "old"
    assert list(desk.path.parent.iterdir()) == [desk.path]


def test_records_tell_the_length_of_features_before_they_are_normalised(workflow, real_clips):
    workflow.write_rows((real_clips["bikes"], "features/bikes.npy"))
    workflow.run()
    (workflow.folder / "features" / "bikes.npy").unlink()
    workflow.run(l2_normalize="false", results="results/raw", half_precision="false")
    raw = workflow.features()["bikes"]
    for results in ("results", "results/raw"):
        lines = next((Path(workflow.folder) / results / "records").glob("*")).read_text()
        (done,) = (e for e in map(json.loads, lines.splitlines()) if e["status"] == "done")
        assert done["mean_norm"] == pytest.approx(np.linalg.norm(raw, axis=1).mean(), rel=1e-3)
        assert (done["width"], done["height"], done["codec"]) == (640, 272, "h264")


def test_a_part_is_recorded_and_its_times_are_those_of_the_video(desk, caplog):
    caplog.set_level("INFO")
    state = desk.state(target=make_target("a.mp4", desk.path)._replace(source=PART))
    state.decoded = DECODED._replace(times=TIMES.shifted(1.25))
    desk.writer.begin(state.begun)
    assert desk.outcome(state) is Outcome.DONE
    started, done = desk.records()
    for line in (started, done):
        assert [line[name] for name in ENDS] == [1.25, 9.0]
    assert done["duration_seconds"] == pytest.approx(2.96 - 1.25)
    with np.load(desk.path) as file:
        np.testing.assert_allclose(file["timestamps"], [1.75, 2.75, 3.75])
        provenance = json.loads(str(file["provenance"]))
    assert [provenance[name] for name in ENDS] == [1.25, 9.0]
    assert "done    a.mp4 [1.25–9 s]: 3 x 4 in" in caplog.text
    record = read_records(desk.results).last[str(desk.path)]
    assert (record.start_seconds, record.end_seconds) == PART.part


def test_a_part_that_fails_is_named_as_such(desk, caplog):
    target = make_target("a.mp4", desk.path)._replace(source=PART._replace(end_seconds=None))
    line = desk.failure(VideoError("broken"), target=target)
    assert line["start_seconds"] == 1.25
    assert "end_seconds" not in line
    assert "FAILED  a.mp4 [from 1.25 s]: broken" in caplog.text


def test_what_decoded_a_row_is_told_where_a_device_was_asked_for(desk, caplog):
    assert desk.outcome(desk.state(decoded=DECODED._replace(**FELL_BACK))) is Outcome.DONE
    said = ["  but   a.mp4: decoded on the CPU: cuda: no luck"]
    assert caplog.messages == said
    on_device = DECODED._replace(decoded_on="cuda")
    assert desk.outcome(desk.state(decoded=on_device)) is Outcome.DONE
    assert caplog.messages == said
    first, second = desk.records()
    assert {name: first[name] for name in FELL_BACK} == FELL_BACK
    assert (second["decoded_on"], second.get("fallback")) == ("cuda", None)
    assert read_records(desk.results).of_file(str(desk.path)).fallback is None
    with np.load(desk.path) as file:
        assert "cuda" in str(file["provenance"])


def test_a_failure_says_that_the_cpu_has_tried(desk):
    line = desk.failure(VideoError("x"), decoded=DECODED._replace(**FELL_BACK))
    assert {name: line[name] for name in FELL_BACK} == FELL_BACK


@pytest.fixture
def bucket_desk(desk, s3_server) -> Desk:
    """A desk whose feature file is in a bucket."""
    desk.scratch.mkdir()
    desk.path = "s3://bucket/features/a.npz"
    return desk


def made_of(desk: Desk) -> str | None:
    """The digest of what is there, as the records know it."""
    record = read_records(desk.results).of_file(str(desk.path))
    return record and record.digest


def test_an_object_is_recorded_and_then_that_it_is_there(bucket_desk):
    desk = bucket_desk
    assert desk.outcome(desk.state()) is Outcome.DONE
    done, placed = desk.records()
    assert (done["status"], done["file_hash"]) == ("done", hash_object(desk.path))
    assert placed.pop("time") >= done["time"]
    assert placed == {"status": "placed", "feature_path": desk.path}
    assert made_of(desk) == desk.recipes[0].digest
    assert list(desk.scratch.iterdir()) == []


def test_what_others_have_written_meanwhile_stays_and_is_no_failure(bucket_desk, s3_server):
    desk = bucket_desk
    s3_server.put("features/a.npz", b"theirs")
    assert desk.outcome(desk.state()) is Outcome.ELSEWHERE
    done, elsewhere = desk.records()
    assert elsewhere.pop("time") >= done["time"]
    assert elsewhere == {"status": "elsewhere", "num_rows": 1, "feature_path": desk.path}
    assert s3_server.get("features/a.npz") == b"theirs"
    assert made_of(desk) is None


def test_only_what_was_stale_is_replaced(bucket_desk, s3_server):
    desk = bucket_desk
    s3_server.put("features/a.npz", b"old")
    seen: RemoteStat = open_store("s3").stat(desk.path)
    facts = {"stale": True, "feature_etag": seen.etag, "feature_mtime_ns": seen.st_mtime_ns}
    target = make_target("a.mp4", desk.path, **facts)
    assert desk.outcome(desk.state(target=target)) is Outcome.DONE
    assert s3_server.get("features/a.npz") != b"old"
    s3_server.put("features/a.npz", b"theirs")
    assert desk.outcome(desk.state(target=target)) is Outcome.ELSEWHERE
    assert s3_server.get("features/a.npz") == b"theirs"


def test_an_upload_that_is_refused_is_a_failure_that_takes_back_what_was_said(
    bucket_desk, s3_server
):
    desk = bucket_desk
    s3_server.fault = lambda r: r.fail(403, "AccessDenied") if r.method == "PUT" else None
    assert desk.outcome(desk.state()) is Outcome.FAILED
    done, failed = desk.records()
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert (failed["reason"], failed["is_machine"]) == ("bucket: no permission (403)", False)
    assert made_of(desk) is None
    assert s3_server.list() == []


def test_a_video_from_elsewhere_is_recorded_with_its_etag_and_without_what_is_signed(desk):
    target = make_target("https://host/a.mp4?X-Amz-Signature=word", desk.path)
    begun = Begun(target, *VIDEO.values(), "etag")
    desk.writer.begin(begun)
    state = desk.state(target=target)
    state.begun = begun
    assert desk.outcome(state) is Outcome.DONE
    for line in desk.records():
        assert (line["video_etag"], line["video_path"]) == ("etag", "https://host/a.mp4?…")
    with np.load(desk.path) as file:
        assert "word" not in str(file["provenance"])
