"""Pending rows become jobs, jobs become files, and what failed is told at the end."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from conftest import make_recipe, make_target, write_line
from videofeatures.errors import UserError
from videofeatures.planning import jobs, staleness
from videofeatures.planning.plan import Target
from videofeatures.records import Recorder, read_records
from videofeatures.settings import Settings
from videofeatures.source import Source

SETTINGS = Settings()
RECIPES = (make_recipe(SETTINGS),)


def targets(count: int) -> list[Target]:
    return [make_target(f"{k}.mp4", f"{k}.npy") for k in range(count)]


@pytest.mark.parametrize(
    ("num_rows", "videos_per_job", "num_gpus", "sizes"),
    [
        (0, 10, 1, []),
        (10, 10, 1, [10]),
        (11, 10, 1, [5, 6]),
        (25, 10, 1, [8, 8, 9]),
        (10, 256, 4, [2, 3, 2, 3]),
        (2, 256, 4, [1, 1]),
        (1, 1, 1, [1]),
    ],
)
def test_jobs_are_no_larger_than_asked_and_no_fewer_than_gpus(
    num_rows, videos_per_job, num_gpus, sizes
):
    pending = targets(num_rows)
    made = jobs.cut_into_jobs(
        pending, SETTINGS, RECIPES, "results", videos_per_job=videos_per_job, num_gpus=num_gpus
    )
    assert [len(job.targets) for job in made] == sizes
    assert [target for job in made for target in job.targets] == pending
    assert len({job.name for job in made}) == len(made)


def test_a_job_has_a_name_that_no_other_run_gave():
    def names():
        made = jobs.cut_into_jobs(targets(4), SETTINGS, RECIPES, "results", videos_per_job=2)
        return {job.name for job in made}

    assert len(names() | names()) == 4


def test_jobs_of_one_run_are_numbered_on():
    run_name = jobs.new_run_name()
    names = [
        job.name
        for first in (1, 3)
        for job in jobs.cut_into_jobs(
            targets(2),
            SETTINGS,
            RECIPES,
            "results",
            videos_per_job=1,
            run_name=run_name,
            first_number=first,
        )
    ]
    assert names == [f"{run_name}_000{k}" for k in range(1, 5)]
    assert jobs.run_name_of(job_of(names[0])) == run_name


def job_of(name: str) -> jobs.Job:
    return jobs.Job(name, SETTINGS, RECIPES, "results", ())


def test_a_job_is_read_as_it_was_written(tmp_path):
    odd = make_target(
        'é {0} "$x;,\n.mp4', "-é *.npy", stale=True, reason=staleness.CHANGED, detail="detail"
    )
    part = odd._replace(source=Source("a.mp4", 0.1, None))
    (job,) = jobs.cut_into_jobs(
        [*targets(2), odd, part], Settings(decoders=3), RECIPES, str(tmp_path), videos_per_job=9
    )
    jobs.write_job(job)
    assert jobs.read_job(jobs.job_path(tmp_path, job.name)) == job


def test_parts_of_one_video_are_named_and_have_shares_of_its_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"x" * 1000)
    ends = [
        ("a", None, 10.0),
        ("a", 10.0, 15.0),
        ("a", 19.0, 20.0),
        ("a", 3.0, None),
        ("b", None, None),
    ]
    parts = [
        make_target("", f"{k}.npy")._replace(source=Source(str(tmp_path / f"{name}.mp4"), *of))
        for k, (name, *of) in enumerate(ends)
    ]
    assert list(jobs.find_video_sizes(parts).values()) == [500, 250, 50, 1000, 1000]
    (job,) = jobs.cut_into_jobs(parts, SETTINGS, RECIPES, str(tmp_path), videos_per_job=9)
    assert jobs.describe_job(job) == "5 videos, a.mp4 [0–10 s] … b.mp4"
    assert jobs.describe_job(job._replace(targets=job.targets[1:2])) == "a.mp4 [10–15 s]"
    lines = jobs.describe_end([job], [(parts[1], "no such file")])
    assert f"  {tmp_path}/a.mp4 [10–15 s]: no such file" in lines


def test_a_job_of_a_run_that_has_ended_says_so(tmp_path):
    with pytest.raises(UserError, match=r"a.json: is not there: the run that planned"):
        jobs.read_job(tmp_path / "a.json")


def test_the_end_names_each_failure_once(tmp_path):
    done, failed, unfinished, theirs = (
        row._replace(feature_path=str(tmp_path / f"{k}.npy")) for k, row in enumerate(targets(4))
    )
    for row in (done, theirs):  # the latter by somebody whose records are elsewhere
        (tmp_path / row.feature_path).touch()
    with Recorder(tmp_path, "x") as recorder:
        for row, status in ((done, "done"), (failed, "failed"), (unfinished, "started")):
            write_line(recorder, status, row.feature_path, digest="", reason="no such file")
    made = jobs.cut_into_jobs(
        [done, failed, unfinished, theirs], SETTINGS, RECIPES, "results", videos_per_job=9
    )
    found = jobs.find_not_done(made, read_records(tmp_path))
    assert found == [(failed, "no such file"), (unfinished, jobs.IN_WORK)]
    text = "\n".join(jobs.describe_end(made, found))
    assert "2 of 4 pending rows done, 1 failed, 1 not finished" in text
    assert text.count("1.mp4: no such file") == 1
    assert text.count(f"2.mp4: {jobs.IN_WORK}") == 1
    assert "complaints" not in text
    (line,) = (
        line for line in jobs.describe_end(made, [], num_complained=3) if "complaints" in line
    )
    assert line.startswith("3 of the done ones have complaints of the decoder: ")


def test_a_row_that_was_in_work_when_its_process_was_stopped_is_not_named(tmp_path):
    target = make_target("a.mp4", tmp_path / "a.npy")
    with Recorder(tmp_path, "x") as recorder:
        write_line(recorder, "started", target.feature_path, digest="")
        write_line(recorder, "stopped")
    made = jobs.cut_into_jobs([target], SETTINGS, RECIPES, "results", videos_per_job=9)
    assert jobs.find_not_done(made, read_records(tmp_path)) == [(target, jobs.UNFINISHED)]
    text = "\n".join(jobs.describe_end(made, [(target, jobs.UNFINISHED)]))
    assert "a.mp4" not in text
    assert "1 not finished" in text


def test_what_may_bring_its_process_down_comes_last_and_does_not_hold_up_the_others():
    pending = [
        target._replace(num_interrupted=number)
        for target, number in zip(targets(8), (1, 0, 2, 0, 1, 0, 3, 0), strict=True)
    ]
    made = jobs.cut_into_jobs(
        pending, SETTINGS, RECIPES, "results", videos_per_job=3, num_gpus=2, run_number=7
    )
    names = [[target.source.path[0] for target in job.targets] for job in made]
    assert names == [["1", "3"], ["5", "7"], ["0", "4"], ["2"], ["6"]]
    assert {job.run_number for job in made} == {7}
    assert len({job.name for job in made}) == 5


def test_what_is_done_and_not_seen_is_looked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_AGAIN_SECONDS", 0.01)
    planned = [make_target(f"{k}.mp4", tmp_path / f"{k}.npy") for k in range(4)]
    made = jobs.cut_into_jobs(planned, SETTINGS, RECIPES, str(tmp_path), videos_per_job=2)
    # The first job has ended well. The second was killed, after it had recorded that a row is done.
    jobs.end_path(tmp_path, made[0].name).parent.mkdir()
    jobs.end_path(tmp_path, made[0].name).touch()
    with Recorder(tmp_path, made[1].name) as recorder:
        write_line(recorder, "done", planned[2].feature_path, digest="", file_hash="x")
        write_line(recorder, "started", planned[3].feature_path, digest="")
    records = read_records(tmp_path)
    late = [(row, jobs.NOT_SEEN) for row in planned[:3]]
    unfinished = [(planned[3], jobs.IN_WORK)]
    assert jobs.find_not_done(made, records) == unfinished + late
    text = "\n".join(jobs.describe_end(made, unfinished + late))
    assert "3 of 4 pending rows done, 0 failed, 1 not finished" in text
    assert "3 of the done feature files cannot be seen on this machine yet" in text

    # They are seen one after another, and nobody waits longer than that.
    def appear() -> None:
        for row in planned[:3]:
            time.sleep(0.05)
            Path(row.feature_path).touch()

    thread = threading.Thread(target=appear)
    thread.start()
    assert jobs.find_not_done(made, records, latency_seconds=1000) == unfinished
    thread.join()


def make_videos(*recipes_of: tuple[int, ...], **facts: object) -> list[Target]:
    """The targets of some videos, each made by these recipes."""
    return [
        make_target(f"{k}.mp4", f"{recipe}/{k}.npy", recipe=recipe, **facts)
        for k, recipes in enumerate(recipes_of)
        for recipe in recipes
    ]


def test_what_is_made_of_one_video_is_in_one_job():
    targets = make_videos((0, 1, 2), (1,), (0, 2), (0, 1, 2))
    recipes = (make_recipe(Settings()),) * 3
    made = jobs.cut_into_jobs(targets, Settings(), recipes, "results", videos_per_job=2)
    assert [job.targets for job in made] == [tuple(targets[:4]), tuple(targets[4:])]
    assert [job.num_videos for job in made] == [2, 2]
    assert made[0].unit == "feature files"
    assert jobs.describe_job(made[0]) == "2 videos, 0.mp4 … 1.mp4"
    (single,) = jobs.cut_into_jobs(targets[:3], Settings(), recipes, "results", videos_per_job=2)
    assert jobs.describe_job(single) == "0.mp4"
    again = jobs.cut_into_jobs(
        [targets[0], targets[1]._replace(num_interrupted=1), *targets[2:]],
        Settings(),
        recipes,
        "results",
        videos_per_job=9,
    )
    # All of a video that was in work goes to the end.
    assert [job.targets for job in again] == [tuple(targets[3:]), again[1].targets]
    assert [target.feature_path for target in again[1].targets] == ["0/0.npy", "1/0.npy", "2/0.npy"]


def test_a_video_that_is_there_twice_is_two():
    one, other = make_target("a.mp4", "a.npy"), make_target("a.mp4", "b.npy")
    assert list(jobs.group_by_video([one, other])) == [(one,), (other,)]
    part = other._replace(source=Source("a.mp4", 1.0), recipe=1)
    assert list(jobs.group_by_video([one, part])) == [(one,), (part,)]
    assert list(jobs.group_by_video([])) == []
