"""Which rows are pending, and why; how they become jobs."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import pytest

from conftest import make_feature, make_recipe, make_target, write_csv, write_line
from small_collection import SmallCollection
from videofeatures.errors import UserError
from videofeatures.networks.weights import UNKNOWN
from videofeatures.planning import plan, staleness
from videofeatures.planning.plan import Plan, Request, Target, check_config, find_recipes
from videofeatures.planning.rows import Row
from videofeatures.records import Recorder, read_records
from videofeatures.settings import Config, Settings
from videofeatures.source import Source

SETTINGS = Settings()
RECIPE = make_recipe(SETTINGS)


class Bench:
    """A folder with one row, whose files and records a test arranges."""

    def __init__(self, folder: Path):
        self.video, self.feature = folder / "a.mp4", folder / "a.npy"
        self.row = Row(Source(str(self.video)), (str(self.feature),))
        self.results = folder / "results"
        self.video.write_text("video")

    def make_feature(self, *, seconds_after_video: float = 10) -> None:
        make_feature(self.feature)
        seconds = self.video.stat().st_mtime + seconds_after_video
        os.utime(self.feature, (seconds, seconds))

    def record(self, *statuses: str, settings=SETTINGS, weights="aaaaaaaa", **facts) -> None:
        recipe = make_recipe(settings)
        video = self.video.stat()
        with Recorder(self.results, "test") as recorder:
            write_line(recorder, "process", digest=recipe.digest, settings=recipe.numerics)
            for status in statuses:
                write_line(
                    recorder,
                    status,
                    self.feature,
                    digest=recipe.digest,
                    weights=weights,
                    video_size=video.st_size,
                    video_mtime_ns=video.st_mtime_ns,
                    **facts,
                )
            write_line(recorder, "end")

    def find_target(self, weights="aaaaaaaa", **options) -> Target | None:
        """The row's feature file, or None if it is done."""
        records = read_records(self.results)
        recipe = make_recipe(SETTINGS, f"x-{weights}.pth")
        pending = plan.find_pending([self.row], [recipe], records, **options)
        return pending[0] if pending else None

    def find(self, weights="aaaaaaaa", **options) -> tuple[str, str, bool] | None:
        """Reason, detail and staleness of the row, or None if it is done."""
        target = self.find_target(weights, **options)
        return (target.reason, target.detail, target.stale) if target else None


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
    assert bench.find_target().failure == "no video stream"
    assert str(bench.find_target()).endswith("no feature file (failed before: no video stream)")


def test_a_file_made_elsewhere_is_done_if_newer_than_its_video(bench):
    bench.make_feature()
    assert bench.find() is None
    bench.make_feature(seconds_after_video=-10)
    assert bench.find() == (staleness.OLDER, "", True)


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
    assert bench.find()[0] == staleness.OTHER_SETTINGS
    bench.record("failed", stale=True, reason="no video stream")
    assert bench.find()[0] == staleness.OTHER_SETTINGS
    assert bench.find_target().failure == "no video stream"


def test_a_touched_video_makes_its_row_pending(bench):
    bench.make_feature(seconds_after_video=1000)
    bench.record("started", "done")
    seconds = bench.video.stat().st_mtime + 1
    os.utime(bench.video, (seconds, seconds))
    assert bench.find() == (staleness.CHANGED, "", True)


def test_a_replaced_video_with_an_older_mtime_makes_its_row_pending(bench):
    bench.make_feature()
    bench.record("started", "done")
    bench.video.write_text("another video")
    os.utime(bench.video, (0, 0))
    assert bench.find() == (staleness.CHANGED, "", True)


def test_a_deleted_video_leaves_its_row_done(bench):
    bench.make_feature()
    bench.record("started", "done")
    bench.video.unlink()
    assert bench.find() is None


def test_other_settings_make_a_row_pending_and_are_named(bench):
    bench.make_feature()
    bench.record("started", "done", settings=Settings(interpolation="bicubic"))
    reason, detail, stale = bench.find()
    assert (reason, stale) == (staleness.OTHER_SETTINGS, True)
    assert detail == "interpolation: bicubic → bilinear"


def test_settings_that_change_only_the_speed_leave_a_row_done(bench):
    bench.make_feature()
    bench.record("started", "done", settings=Settings(batch_size=7, decoders=3))
    assert bench.find() is None


def test_other_weights_make_a_row_pending_unless_theirs_are_unknown(bench):
    bench.make_feature()
    bench.record("started", "done")
    assert bench.find("bbbbbbbb") == (staleness.OTHER_WEIGHTS, "aaaaaaaa → bbbbbbbb", True)
    # The weights file was put away after the collection was done.
    assert bench.find(UNKNOWN) is None


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
    assert bench.find(forced={str(bench.feature)}) == (plan.FORCED, "", True)


def test_a_few_pending_rows_are_listed_and_many_stand_in_a_file(tmp_path):
    rows = [make_target(f"{k},é.mp4", f"{k}.npy", failure="broken") for k in range(30)]
    path = tmp_path / "pending.csv"
    assert list(plan.list_pending(rows[:20], 20, path)) == [str(row) for row in rows[:20]]
    assert not path.exists()
    lines = list(plan.list_pending(rows, 20, path))
    assert lines == [*map(str, rows[:20]), f"… and 10 more: all of them are in {path}"]
    with open(path, newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert [line["video_path"] for line in listed] == [row.source.path for row in rows]
    assert set(listed[0]) == set(plan.PENDING_COLUMNS)
    assert (listed[0]["start_seconds"], listed[0]["end_seconds"]) == ("", "")
    assert (listed[0]["reason"], listed[0]["failed_before"]) == (plan.MISSING, "broken")
    # A disk that cannot be written to is no reason to end a dry-run.
    (tmp_path / "file").touch()
    *_, last = plan.list_pending(rows, 20, tmp_path / "file" / "x.csv")
    assert "… and 10 more (" in last


def test_a_feature_path_that_is_a_folder_is_named(bench):
    bench.feature.mkdir()
    with pytest.raises(UserError, match=r"a\.npy: is a folder"):
        bench.find()


def test_a_missing_file_is_done_as_soon_as_there_is_one(bench):
    target = bench.find_target()
    assert not target.is_done
    bench.make_feature()
    assert target.is_done


def test_a_stale_file_is_done_as_soon_as_it_is_another_one(bench):
    bench.make_feature(seconds_after_video=-10)
    target = bench.find_target()
    assert (target.stale, target.is_done) == (True, False)
    bench.make_feature(seconds_after_video=-5)
    assert target.is_done
    bench.feature.unlink()
    assert not target.is_done


def test_a_stale_file_of_which_nobody_knows_the_mtime_stays_to_be_done(bench):
    bench.make_feature()
    target = make_target(bench.video, bench.feature, stale=True)
    assert not target.is_done


def test_what_failed_with_the_same_video_settings_and_weights_fails_again(bench):
    assert not bench.find_target().fails_again  # it was not tried
    bench.record("started")
    assert not bench.find_target().fails_again
    bench.record("started", "failed", reason="broken")
    assert bench.find_target().fails_again
    assert bench.find_target(UNKNOWN).fails_again
    assert not bench.find_target("bbbbbbbb").fails_again


def part(bench: Bench, start: float | None, end: float | None) -> None:
    bench.row = Row(Source(str(bench.video), start, end), bench.row.feature_paths)


def test_another_part_of_a_video_makes_a_row_pending(bench):
    bench.make_feature()
    part(bench, 1.5, 3.0)
    bench.record("started", "done", start_seconds=1.5, end_seconds=3.0)
    assert bench.find() is None
    for other in ((1.5, 4.0), (1.0, 3.0), (1.5, None), (None, 3.0), (None, None)):
        part(bench, *other)
        assert bench.find() == (staleness.OTHER_PART, "", True)


def test_a_part_of_what_was_made_of_the_whole_is_pending(bench):
    bench.make_feature()
    bench.record("started", "done")  # as all versions did that knew no parts
    assert bench.find() is None
    part(bench, None, 3.0)
    assert bench.find() == (staleness.OTHER_PART, "", True)


def test_what_failed_may_come_out_better_with_another_part(bench):
    part(bench, 20.0, None)
    bench.record("started", "failed", reason="starts at 20 s", start_seconds=20.0)
    assert bench.find_target().fails_again
    part(bench, 2.0, None)
    target = bench.find_target()
    assert (target.fails_again, target.failure) == (False, "starts at 20 s")


def test_a_part_is_listed_as_such(tmp_path):
    ends = [(12.5, 20.0), (12.5, None), (None, 20.0), (None, None)]
    rows = [make_target("a.mp4", f"{k}.npy") for k in range(4)]
    rows = [row._replace(source=Source("a.mp4", *e)) for row, e in zip(rows, ends, strict=True)]
    texts = [str(row).split("←")[1].partition(": ")[0].strip() for row in rows]
    assert texts == ["a.mp4 [12.5–20 s]", "a.mp4 [from 12.5 s]", "a.mp4 [0–20 s]", "a.mp4"]
    list(plan.list_pending(rows, 1, tmp_path / "pending.csv"))
    with open(tmp_path / "pending.csv", newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    found = [(line["start_seconds"], line["end_seconds"]) for line in listed]
    assert found == [("12.5", "20"), ("12.5", ""), ("", "20"), ("", "")]


def test_what_the_machine_failed_is_tried_again(bench):
    bench.record("started", "failed", reason="ffmpeg was killed", is_machine=True)
    target = bench.find_target()
    assert (target.fails_again, target.failure) == (False, "ffmpeg was killed")


@pytest.mark.parametrize("is_stale", [True, False])
def test_what_failed_may_come_out_better_with_another_video(bench, is_stale):
    if is_stale:
        bench.make_feature()
        bench.record("started", "done", settings=Settings(interpolation="bicubic"))
    bench.record("started", "failed", reason="broken", stale=is_stale)
    target = bench.find_target()
    assert (target.stale, target.fails_again) == (is_stale, True)
    seconds = bench.video.stat().st_mtime + 1
    os.utime(bench.video, (seconds, seconds))
    target = bench.find_target()
    assert (target.fails_again, target.failure) == (False, "broken")
    bench.video.unlink()
    assert not bench.find_target().fails_again


def test_what_failed_may_come_out_better_with_other_settings(bench):
    bench.record("failed", reason="broken", settings=Settings(interpolation="bicubic"))
    assert not bench.find_target().fails_again


@pytest.fixture
def collection(tmp_path) -> SmallCollection:
    return SmallCollection(tmp_path)


@pytest.fixture
def four(collection) -> SmallCollection:
    """A row that is done, one that fails again, one that may not, and one not tried."""
    collection.add("done", "again", "failed", "new")
    collection.make("done")
    collection.fail("again")
    collection.fail("failed", "no space", interpolation="bicubic")
    return collection


def names(targets: list[Target]) -> list[str]:
    return [Path(target.feature_path).stem for target in targets]


def asked_for(collection: SmallCollection, *names: str) -> frozenset[str]:
    return frozenset(str(collection.feature(name)) for name in names)


def test_a_plan_is_of_what_is_not_done_in_the_order_of_the_csv(four):
    made = four.plan()
    assert names(made.pending) == names(made.not_done) == ["again", "failed", "new"]
    assert (made.not_tried, made.is_whole) == ([], True)
    assert [row.source.path for row in made.rows] == [
        str(four.video(name)) for name in ("done", "again", "failed", "new")
    ]
    assert made.config.backbone == "efficientnet_lite0"
    assert made.records.of_file(str(four.feature("done"))).status == "done"


def test_all_problems_of_the_configuration_and_of_the_csv_are_told_at_once(collection):
    rows = [("a.mp4", "a.txt"), ("", "b.npy"), ("c.mp4", "c.npy"), ("d.mp4", "./c.npy")]
    write_csv(Path(collection.config["videos"]), rows)
    with pytest.raises(UserError) as caught:
        collection.plan(batch_size=0, backbon="resnet152")
    told = (
        "did you mean `backbone`?",
        "batch_size: 0 is not a whole number of 1 or more",
        "line 2: feature_path a.txt must end in",
        "line 3: video_path is empty",
        "line 5: feature_path ./c.npy is that of line 4 too",
    )
    problems = sorted(caught.value.problems)
    assert len(problems) == len(told)
    assert all(any(part in problem for problem in problems) for part in told)


def test_a_csv_that_is_missing_is_one_problem_of_several(collection):
    with pytest.raises(UserError) as caught:
        collection.plan(batch_size=0)
    told = sorted(caught.value.problems)
    assert len(told) == 2
    assert f"{collection.config['videos']}: no such file" in told[0]
    assert "batch_size" in told[1]


def test_where_the_csv_is_no_name_that_is_the_problem(collection):
    with pytest.raises(UserError, match="videos: 7 is not a text"):
        collection.plan(videos=7)


def test_a_configuration_that_is_no_recipe_is_a_problem(collection):
    with pytest.raises(UserError, match="crop_size: 300 is larger than"):
        check_config(collection.config | {"crop_size": 300})
    (checked,) = check_config(collection.config | {"crop_size": 200}).values()
    assert isinstance(checked, Config)
    assert (checked.crop_size, checked.videos) == (200, collection.config["videos"])


def test_what_fails_again_is_not_tried_if_nobody_wants_it(four):
    made = four.plan(retry_failed=False)
    assert names(made.not_tried) == ["again"]
    assert names(made.pending) == ["failed", "new"]
    assert sorted(names(made.not_done)) == ["again", "failed", "new"]
    four.video("again").write_text("another video")
    assert names(four.plan(retry_failed=False).pending) == ["again", "failed", "new"]


def test_what_is_asked_for_is_tried_again(four):
    request = Request(feature_paths=asked_for(four, "again", "done"))
    made = four.plan(request, retry_failed=False)
    assert (names(made.pending), made.not_tried) == (["again"], [])


@pytest.mark.parametrize("is_all", [True, False])
def test_what_is_forced_is_tried_again(four, is_all):
    forced = Request(is_all_forced=True) if is_all else Request(forced=asked_for(four, "again"))
    made = four.plan(forced, retry_failed=False)
    assert "again" in names(made.pending)
    assert made.not_tried == []


def test_only_rows_that_are_asked_for_are_planned(four):
    made = four.plan(Request(feature_paths=asked_for(four, "new", "done")))
    assert [Path(path).stem for row in made.rows for path in row.feature_paths] == ["done", "new"]
    assert (names(made.pending), made.is_whole) == (["new"], False)


def test_all_rows_are_planned_if_something_else_is_asked_for(four):
    others = asked_for(four, "new", "of no row")
    made = four.plan(Request(feature_paths=others))
    assert (len(made.rows), made.is_whole) == (4, True)
    assert names(made.pending) == ["again", "failed", "new"]


def test_a_row_is_asked_for_by_its_whole_path_however_the_csv_names_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    collection = SmallCollection(tmp_path)
    write_csv(tmp_path / "videos.csv", [("a.mp4", "./features//a.npy"), ("b.mp4", "b.npy")])
    path = frozenset([str(tmp_path / "features" / "a.npy")])
    (target,) = collection.plan(Request(feature_paths=path)).pending
    assert target.feature_path == "features/a.npy"
    Path("features").mkdir()
    Path("features/a.npy").touch()
    reasons = {t.feature_path: t.reason for t in collection.plan(Request(forced=path)).pending}
    assert reasons == {"features/a.npy": plan.FORCED, "b.npy": plan.MISSING}


def test_all_can_be_forced(four):
    made = four.plan(Request(is_all_forced=True))
    reasons = dict(zip(names(made.pending), (t.reason for t in made.pending), strict=True))
    assert reasons == {
        "done": plan.FORCED,
        "again": plan.MISSING,
        "failed": plan.MISSING,
        "new": plan.MISSING,
    }
    assert not made.is_whole


def test_a_plan_is_whole_if_what_is_forced_is_no_row_s(four):
    assert not four.plan(Request(forced=asked_for(four, "done"))).is_whole
    assert four.plan(Request(forced=asked_for(four, "of no row"))).is_whole


def test_recipes_are_those_of_the_configuration_with_its_weights(collection):
    configs = check_config(collection.config | {"interpolation": "area", "device": "cpu"})
    (weights,), (recipe,) = find_recipes(configs)
    assert (weights.backbone, weights.identity) == ("efficientnet_lite0", "random")
    assert recipe.weights_id == "random"
    assert recipe.weights_path == str(weights.shared_path)
    settings = Settings(backbone="efficientnet_lite0", interpolation="area")
    assert recipe.digest == make_recipe(settings).digest
    collection.add()
    made: Plan = collection.plan(interpolation="area")
    assert (made.weights, made.recipes) == ((weights,), (recipe,))


def test_a_plan_is_told_in_a_few_lines(four):
    assert four.plan(retry_failed=False).describe(1) == [
        "4 rows: 1 done, 2 pending in 1 jobs",
        "       1 failed before and are not tried (retry_failed: false)",
        "       2 no feature file",
        "WARNING: random weights: these features mean nothing, and are for trying out",
    ]


def test_weights_that_are_not_there_are_told_of_if_they_are_needed(four):
    weights = str(four.folder / "gone.pth")
    told = f"WARNING: {weights}: these weights are not there yet"
    assert four.plan(weights=weights).describe(1)[-1] == told
    request = Request(feature_paths=asked_for(four, "done"))
    assert four.plan(request, weights=weights).describe(0) == [
        "1 rows: 1 done, 0 pending in 0 jobs"
    ]


def test_a_plan_of_no_rows_has_nothing_to_do(collection):
    collection.add()
    assert collection.plan().describe(0) == ["Nothing to do: the CSV has no rows"]


def test_a_command_line_asks_for_feature_files_or_for_all():
    def paths(*names: str) -> frozenset[str]:
        return frozenset(os.path.abspath(name) for name in names)

    asked = Request.from_arguments
    assert asked(targets=[]) == Request()
    assert asked(targets=["all"]) == Request()
    assert asked(targets=["all", "a.npy"]) == Request()  # another rule's, it may be
    assert asked(targets=["a.npy", "./b.npz"]) == Request(paths("a.npy", "b.npz"))
    assert asked(targets=["a.npy"], others=["b.npy", "some_rule"]) == Request(
        paths("a.npy", "b.npy")
    )
    assert asked(targets=["a.npy"], is_forced=True) == Request(paths("a.npy"), paths("a.npy"))
    assert asked(targets=["all"], is_forced=True) == Request()  # the end marks, not the features
    forced = asked(targets=["a.npy"], others=["b.npy"], forced=["b.npy"])
    assert forced == Request(paths("a.npy", "b.npy"), paths("b.npy"))
    assert asked(targets=[], forced=["b.npy", "extract"]) == Request(None, paths("b.npy"))
    assert asked(targets=[], is_all_forced=True) == Request(is_all_forced=True)


def test_a_configuration_without_a_csv_has_that_of_the_project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"config/videos.csv: no such file"):
        plan.make_plan({"backbone": "efficientnet_lite0", "weights": "random"})


def test_what_is_brought_goes_to_a_disk(collection):
    with pytest.raises(UserError, match="configuration: scratch: s3://bucket/x is a URL"):
        collection.plan(scratch="s3://bucket/x")


@pytest.mark.parametrize(
    ("results", "problem"),
    [
        ("s3://bucket/x", "nothing else is read or written unless you say so: `allowed_schemes"),
        ("https://host/x", "https://host/x cannot be written"),
        ("file:///tmp/x", "file:///tmp/x is a URL of the scheme 'file', which is none of"),
    ],
)
def test_a_bucket_of_results_is_one_that_is_allowed_and_can_be_written(
    collection, results, problem
):
    collection.add("a")
    schemes = "https" if results.startswith("https") else None
    with pytest.raises(UserError) as caught:
        collection.plan(results=results, allowed_schemes=schemes)
    (told,) = caught.value.problems
    assert told.startswith(f"configuration: results: {results} ")
    assert problem in told


def test_of_results_in_a_bucket_the_folder_on_the_disk_must_be_writable(
    collection, monkeypatch, s3_server
):
    monkeypatch.chdir(collection.folder)
    Path("results").mkdir(exist_ok=True)
    Path("results/s3").write_text("in the way")
    with pytest.raises(UserError, match="results: results/s3/bucket/x: files cannot be written"):
        collection.plan(results="s3://bucket/x/", allowed_schemes="s3")
    assert not s3_server.counts


@pytest.mark.parametrize("place", ["videos.csv", "videos.csv/below", "/dev/null/r"])
def test_results_that_cannot_be_a_folder_are_named(collection, monkeypatch, place):
    monkeypatch.chdir(collection.folder)
    (collection.folder / "videos.csv").touch()
    with pytest.raises(UserError) as caught:
        collection.plan(results=place)
    assert f"configuration: results: {place}: files cannot be written there" in str(caught.value)


def test_a_link_to_the_file_of_another_row_is_no_feature_file(tmp_path):
    collection = SmallCollection(tmp_path)
    collection.add("a", "b", "c")
    collection.make("a")
    collection.feature("b").symlink_to("a.npy")
    elsewhere = tmp_path / "elsewhere.npy"
    collection.make_feature("c")
    collection.feature("c").rename(elsewhere)
    collection.feature("c").symlink_to(elsewhere)  # of a disk that was full, say
    (target,) = collection.plan().pending
    assert (target.feature_path, target.reason) == (str(collection.feature("b")), plan.LINK)
    assert not target.is_done
    # One that leads nowhere is not done when another row is.
    collection.feature("a").unlink()
    pending = {t.feature_path: t for t in collection.plan().pending}
    of_b = pending[str(collection.feature("b"))]
    assert of_b.reason == plan.MISSING
    collection.make("a")
    assert not of_b.is_done
    collection.feature("b").unlink()
    collection.make("b")
    assert of_b.is_done
