"""A run is watched through the records of its jobs."""

from __future__ import annotations

import json

import pytest

from conftest import make_recipe, make_target, wait_for, write_line
from videofeatures.errors import MAX_SHOWN
from videofeatures.monitoring.progress import Display
from videofeatures.monitoring.watching import Watcher
from videofeatures.planning.jobs import count_complained, cut_into_jobs, describe_fallbacks
from videofeatures.records import Recorder, read_records
from videofeatures.settings import Settings


@pytest.fixture
def jobs(tmp_path):
    """Three jobs of ten rows, of one run."""
    targets = [make_target(f"{k}.mp4", f"{k}.npy") for k in range(30)]
    return cut_into_jobs(targets, Settings(), (make_recipe(),), str(tmp_path), videos_per_job=10)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def watcher(jobs, said) -> Watcher:
    return Watcher(jobs, Display(said.append))


def fail(recorder: Recorder, number: int) -> None:
    write_line(recorder, "failed", f"{number}.npy", video_path=f"{number}.mp4", reason="is broken")


def test_it_counts_what_all_jobs_of_the_run_record_and_nothing_else(jobs, watcher, said, tmp_path):
    assert watcher.progress.num_rows == 30
    watcher.look()  # there is no folder yet
    with (
        Recorder(tmp_path, jobs[0].name) as first,
        Recorder(tmp_path, jobs[2].name) as third,
        Recorder(tmp_path, "extract_00000000_0001") as of_another_run,
    ):
        for recorder in (first, third, of_another_run):
            write_line(recorder, "started", "a.npy")
            write_line(recorder, "done", "a.npy", duration_seconds=50)
        watcher.look()
        assert (watcher.progress.num_done, watcher.progress.video_seconds) == (2, 100)
        write_line(third, "done", "b.npy", duration_seconds=None, ffmpeg_lines=["x"])
        fail(first, 7)
        write_line(third, "elsewhere", num_rows=4)
        watcher.look()
        watcher.look()
    progress = watcher.progress
    assert (progress.num_done, progress.num_failed, progress.num_elsewhere) == (3, 1, 4)
    assert said == ["FAILED  7.mp4: is broken"]


@pytest.mark.parametrize(
    ("facts", "num_complained"),
    [
        ({}, 0),
        ({"reason": "", "ffmpeg_lines": [], "damaged_share": 0.0}, 0),
        ({"reason": "", "ffmpeg_lines": [], "damaged_share": None}, 0),
        ({"reason": "ends at 3 s of 6 s"}, 1),
        ({"ffmpeg_lines": ["x"]}, 1),
        ({"damaged_share": 0.01}, 1),
    ],
)
def test_it_counts_what_is_done_with_complaints(jobs, watcher, tmp_path, facts, num_complained):
    with Recorder(tmp_path, jobs[0].name) as recorder:
        write_line(recorder, "done", "a.npy", digest="", **facts)
        write_line(recorder, "end")
    watcher.look()
    assert (watcher.progress.num_done, watcher.progress.num_complained) == (1, num_complained)
    assert count_complained(read_records(tmp_path)) == num_complained


@pytest.mark.parametrize(
    ("facts", "num_fallbacks"),
    [({}, 0), ({"decoded_on": "cuda"}, 0), ({"decoded_on": "cpu", "fallback": "cuda: no"}, 1)],
)
def test_it_counts_what_the_cpu_did_for_a_device(jobs, watcher, tmp_path, facts, num_fallbacks):
    with Recorder(tmp_path, jobs[0].name) as recorder:
        write_line(recorder, "done", "a.npy", digest="", **facts)
        write_line(recorder, "end")
    watcher.look()
    assert watcher.progress.num_fallbacks == num_fallbacks
    lines = describe_fallbacks(read_records(tmp_path))
    assert len(lines) == num_fallbacks
    for line in lines:
        assert line.startswith("1 of the done ones were decoded on the CPU, not on the device: ")


def test_half_a_line_is_read_when_it_is_whole(jobs, watcher, tmp_path):
    (tmp_path / "records").mkdir()
    line = json.dumps({"status": "done", "time": 1, "feature_path": "ü.npy"}) + "\n"
    with open(tmp_path / "records" / f"{jobs[1].name}-x.jsonl", "w") as file:
        file.write(line + line[:20])
        file.flush()
        watcher.look()
        assert watcher.progress.num_done == 1
        file.write(line[20:])
        file.flush()
        watcher.look()
        assert watcher.progress.num_done == 2


def test_of_many_failures_the_first_are_named(jobs, watcher, said, tmp_path):
    with Recorder(tmp_path, jobs[0].name) as recorder:
        for number in range(MAX_SHOWN + 10):
            fail(recorder, number)
    watcher.look()
    assert watcher.progress.num_failed == MAX_SHOWN + 10
    assert len(said) == MAX_SHOWN + 1
    assert "manifest" in said[-1]


def test_what_is_recorded_before_it_stops_is_counted(jobs, watcher, tmp_path):
    watcher.start()
    with Recorder(tmp_path, jobs[0].name) as recorder:
        write_line(recorder, "done", "a.npy", duration_seconds=5)
    watcher.stop()
    assert watcher.progress.num_done == 1


def test_what_is_in_work_counts_by_what_has_been_decoded_of_it(tmp_path, said):
    targets = []
    for name, size in (("small", 100), ("large", 900), ("gone", 0)):
        video = tmp_path / f"{name}.mp4"
        if size:
            video.write_bytes(b"x" * size)
        targets.append(make_target(video, f"{name}.npy"))
    jobs = cut_into_jobs(targets, Settings(), (make_recipe(),), str(tmp_path), videos_per_job=10)
    watcher = Watcher(jobs, Display(said.append))
    watcher.start()
    with Recorder(tmp_path, jobs[0].name) as recorder:
        write_line(recorder, "working", "small.npy", share=0.5)
        write_line(recorder, "working", "large.npy", share=0.1)
        write_line(recorder, "working", "large.npy", share=0.5)
        wait_for(lambda: watcher.progress.working_bytes == 50 + 450)
        assert watcher.progress.total_bytes == 1000
        write_line(recorder, "done", "small.npy", duration_seconds=1)
        wait_for(lambda: watcher.progress.num_done == 1)
        assert (watcher.progress.num_bytes, watcher.progress.working_bytes) == (100, 450)
        write_line(recorder, "failed", "large.npy", video_path="large.mp4", reason="broken")
        write_line(recorder, "failed", "gone.npy", video_path="gone.mp4", reason="no such file")
    watcher.stop()
    assert (watcher.progress.num_bytes, watcher.progress.working_bytes) == (1000, 0)


def test_a_part_that_fails_is_named_as_such(jobs, watcher, said, tmp_path):
    part = {"video_path": "a.mp4", "start_seconds": 1.5, "end_seconds": 2}
    with Recorder(tmp_path, jobs[0].name) as recorder:
        write_line(recorder, "failed", "c.npy", **part, reason="is broken")
    watcher.look()
    assert said == ["FAILED  a.mp4 [1.5–2 s]: is broken"]


def test_features_in_a_bucket_are_done_when_they_are_there(jobs, watcher, tmp_path):
    urls = [f"s3://bucket/{k}.npy" for k in range(3)]
    with Recorder(tmp_path, jobs[0].name) as recorder:
        for url in urls:
            write_line(recorder, "done", url, duration_seconds=50)
        watcher.look()
        assert watcher.progress.num_done == 0
        write_line(recorder, "placed", urls[0])
        write_line(recorder, "failed", urls[1], video_path="a.mp4", reason="refused")
        write_line(recorder, "elsewhere", urls[2], num_rows=1)
        watcher.look()
    progress = watcher.progress
    assert (progress.num_done, progress.num_failed, progress.num_elsewhere) == (1, 1, 1)
    assert progress.video_seconds == 50


def test_what_is_recorded_in_a_bucket_is_counted_whenever_that_answers(
    s3_server, said, monkeypatch
):
    monkeypatch.setattr("videofeatures.remote.WAIT_SECONDS", 0.001)
    monkeypatch.setattr("videofeatures.record_files.FLUSH_SECONDS", 0.05)
    targets = [make_target(f"{k}.mp4", f"{k}.npy") for k in range(3)]
    results = "s3://bucket/run"
    jobs = cut_into_jobs(targets, Settings(), (make_recipe(),), results, videos_per_job=10)
    watcher = Watcher(jobs, Display(said.append))
    watcher.look()  # there is nothing yet
    with Recorder(results, jobs[0].name) as recorder:
        write_line(recorder, "done", "0.npy", duration_seconds=5)
        s3_server.fault = lambda request: request.fail(503, "SlowDown")
        watcher.look()
        assert watcher.progress.num_done == 0
        s3_server.fault = lambda request: None
        watcher.look()
        assert watcher.progress.num_done == 1
        fail(recorder, 1)

        def is_counted() -> bool:
            watcher.look()
            return watcher.progress.num_failed == 1

        wait_for(is_counted)  # while the job goes on
        write_line(recorder, "done", "2.npy", duration_seconds=5)
    watcher.look()
    assert (watcher.progress.num_done, watcher.progress.num_failed) == (2, 1)
