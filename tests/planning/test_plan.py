"""Which rows are pending, and why; how they become jobs."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest

from videofeatures.errors import UserError
from videofeatures.networks.weights import Weights
from videofeatures.planning import plan
from videofeatures.planning.rows import Row
from videofeatures.records import Recorder, read_records
from videofeatures.settings import Settings

SETTINGS = Settings()
WEIGHTS = Weights("resnet152", "x.pth", "aaaaaaaa")


class Bench:
    """A folder with one row, whose files and records a test arranges."""

    def __init__(self, folder: Path):
        self.row = Row(str(folder / "a.mp4"), str(folder / "a.npy"))
        self.video, self.feature = Path(self.row.video_path), Path(self.row.feature_path)
        self.results = folder / "results"
        self.video.write_text("video")

    def make_feature(self, *, seconds_after_video: float = 10) -> None:
        self.feature.write_text("features")
        seconds = self.video.stat().st_mtime + seconds_after_video
        os.utime(self.feature, (seconds, seconds))

    def record(self, *statuses: str, settings=SETTINGS, weights="aaaaaaaa", **facts) -> None:
        process = {"digest": settings.digest(), "settings": settings.numerics()}
        video = self.video.stat()
        with Recorder(self.results, "test", process) as recorder:
            for status in statuses:
                recorder.record(
                    status,
                    self.row.feature_path,
                    digest=settings.digest(),
                    weights=weights,
                    video_size=video.st_size,
                    video_mtime_ns=video.st_mtime_ns,
                    **facts,
                )
            recorder.note("end")

    def find_row(self, weights=WEIGHTS, **options) -> plan.PendingRow | None:
        """The row, or None if it is done."""
        records = read_records(self.results)
        pending = plan.find_pending([self.row], records, SETTINGS, weights, **options)
        return pending[0] if pending else None

    def find(self, weights=WEIGHTS, **options) -> tuple[str, str, bool] | None:
        """Reason, detail and staleness of the row, or None if it is done."""
        row = self.find_row(weights, **options)
        return (row.reason, row.detail, row.stale) if row else None


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path)


def test_a_row_without_a_file_is_pending(bench):
    assert bench.find() == (plan.MISSING, "", False)


def test_a_deleted_file_makes_its_row_pending_whatever_the_record_says(bench):
    bench.record("started", "done")
    assert bench.find() == (plan.MISSING, "", False)


def test_a_failure_is_pending_with_its_reason(bench):
    bench.record("started")
    bench.record("failed", reason="no video stream")
    assert bench.find() == (plan.MISSING, "", False)
    assert bench.find_row().failure == "no video stream"
    assert str(bench.find_row()).endswith("no feature file (failed before: no video stream)")


def test_a_file_made_elsewhere_is_done_if_newer_than_its_video(bench):
    bench.make_feature()
    assert bench.find() is None
    bench.make_feature(seconds_after_video=-10)
    assert bench.find() == (plan.OLDER, "", True)


def test_a_file_put_there_after_a_failure_is_taken_as_made_elsewhere(bench):
    bench.record("started", "failed", reason="x")
    bench.make_feature()
    assert bench.find() is None


def test_a_recorded_file_is_done_whatever_its_own_mtime(bench):
    bench.make_feature(seconds_after_video=-1000)
    bench.record("started", "done")
    assert bench.find() is None


def test_a_file_that_is_being_made_again_is_that_of_before(bench):
    bench.make_feature()
    bench.record("started", "done", settings=Settings(interpolation="bicubic"))
    bench.record("started", stale=True)
    assert bench.find()[0] == plan.OTHER_SETTINGS
    bench.record("failed", stale=True, reason="no video stream")
    assert bench.find()[0] == plan.OTHER_SETTINGS
    assert bench.find_row().failure == "no video stream"


def test_a_touched_video_makes_its_row_pending(bench):
    bench.make_feature(seconds_after_video=1000)
    bench.record("started", "done")
    seconds = bench.video.stat().st_mtime + 1
    os.utime(bench.video, (seconds, seconds))
    assert bench.find() == (plan.CHANGED, "", True)


def test_a_replaced_video_with_an_older_mtime_makes_its_row_pending(bench):
    bench.make_feature()
    bench.record("started", "done")
    bench.video.write_text("another video")
    os.utime(bench.video, (0, 0))
    assert bench.find() == (plan.CHANGED, "", True)


def test_a_deleted_video_leaves_its_row_done(bench):
    bench.make_feature()
    bench.record("started", "done")
    bench.video.unlink()
    assert bench.find() is None


def test_other_settings_make_a_row_pending_and_are_named(bench):
    bench.make_feature()
    bench.record("started", "done", settings=Settings(interpolation="bicubic"))
    reason, detail, stale = bench.find()
    assert (reason, stale) == (plan.OTHER_SETTINGS, True)
    assert detail == "interpolation: bicubic → bilinear"


def test_settings_that_change_only_the_speed_leave_a_row_done(bench):
    bench.make_feature()
    bench.record("started", "done", settings=Settings(batch_size=7, decoders=3))
    assert bench.find() is None


def test_other_weights_make_a_row_pending_unless_theirs_are_unknown(bench):
    bench.make_feature()
    bench.record("started", "done")
    other = WEIGHTS._replace(identity="bbbbbbbb")
    assert bench.find(other) == (plan.OTHER_WEIGHTS, "aaaaaaaa → bbbbbbbb", True)
    # The weights file was put away after the collection was done.
    assert bench.find(WEIGHTS._replace(identity=None)) is None


def test_the_last_record_by_time_decides_whatever_the_names_of_the_files(bench):
    bench.make_feature()
    bench.record("started", "done", settings=Settings(interpolation="area"))
    time.sleep(0.01)
    bench.record("started", "done")
    old, new = sorted((bench.results / "records").iterdir(), key=lambda p: p.stat().st_mtime_ns)
    for number, path in enumerate((new, old)):
        path.rename(path.with_name(f"{number}.jsonl"))
    assert bench.find() is None


def test_a_forced_row_is_pending(bench):
    bench.make_feature()
    assert bench.find(forced={bench.row.feature_path}) == (plan.FORCED, "", True)


def test_a_few_pending_rows_are_listed_and_many_stand_in_a_file(tmp_path):
    rows = [
        plan.PendingRow(f"{k},é.mp4", f"{k}.npy", False, plan.MISSING, failure="broken")
        for k in range(30)
    ]
    path = tmp_path / "pending.csv"
    assert plan.list_pending(rows[:20], 20, path) == [str(row) for row in rows[:20]]
    assert not path.exists()
    lines = plan.list_pending(rows, 20, path)
    assert lines == [*map(str, rows[:20]), f"… and 10 more: all of them are in {path}"]
    with open(path, newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [line["video_path"] for line in listed] == [row.video_path for row in rows]
    assert set(listed[0]) == set(plan.PENDING_COLUMNS)
    assert (listed[0]["reason"], listed[0]["failed_before"]) == (plan.MISSING, "broken")
    # A disk that cannot be written to is no reason to end a dry-run.
    (tmp_path / "file").touch()
    assert "… and 10 more (" in plan.list_pending(rows, 20, tmp_path / "file" / "x.csv")[-1]


def test_a_feature_path_that_is_a_folder_is_named(bench):
    bench.feature.mkdir()
    with pytest.raises(UserError, match=r"a\.npy: is a folder"):
        bench.find()
