"""No feature is lost: whatever fails, is killed, tried again, or run with another profile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil
import pytest

from conftest import ROOT, Workflow, make_clip, start_session, wait_for
from videofeatures.records import read_records

NOTHING_TO_DO = "Nothing to be done"
PROFILES = {
    "default": (),
    "none": ("--workflow-profile", "none"),
    "workstation": ("--workflow-profile", "profiles/workstation"),
}
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_clip(folder / f"{k}.mp4", seconds=2, size="160x120") for k in range(6)]


@pytest.fixture
def videos(workflow, clips) -> list[Path]:
    """Copies of the clips that a test may break; the CSV names them."""
    (workflow.folder / "videos").mkdir()
    copies = [workflow.folder / "videos" / clip.name for clip in clips]
    for clip, copy in zip(clips, copies, strict=True):
        copy.write_bytes(clip.read_bytes())
    workflow.config |= {"resize_size": 64, "crop_size": 64}
    workflow.write_rows(*[(f"videos/{p.name}", f"features/{p.stem}.npy") for p in copies])
    return copies


@pytest.fixture
def done(workflow, videos) -> Workflow:
    """Six rows, all done."""
    workflow.run()
    assert len(workflow.features()) == 6
    return workflow


@pytest.fixture(params=PROFILES)
def profile(request, workflow) -> str:
    """The workflow runs with another profile from now on."""
    workflow.options += PROFILES[request.param]
    return request.param


def contents(workflow: Workflow) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workflow.folder / "features").glob("*")}


def made_with(workflow: Workflow) -> dict[str, str]:
    """The interpolation that each feature file was made with, by the records."""
    records = read_records(workflow.folder / "results")
    before = Path.cwd()
    os.chdir(workflow.folder)
    try:
        found = {k: records.of_file(f"features/{k}.npy") for k in workflow.features()}
    finally:
        os.chdir(before)
    return {k: records.settings[r.digest]["interpolation"] for k, r in found.items() if r}


def test_a_job_that_cannot_start_leaves_all_features_where_they_are(done, profile):
    before = contents(done)
    failed = done.run(check=False, frame_rate=2, device="cuda")
    assert failed.returncode == 1
    assert contents(done) == before
    lines = done.manifest().values()
    assert {(line["state"], line["stale"]) for line in lines} == {
        ("pending", "made with other settings (frame_rate: 1 → 2)")
    }
    # They are what they were: with the settings of before, nothing is to do.
    assert done.pending() == {}


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_an_ffmpeg_that_fails_leaves_the_features_of_changed_videos(done, profile, state):
    before = contents(done)
    for k in range(3):
        os.utime(done.folder / "videos" / f"{k}.mp4", (time.time() - 7, time.time() - 7))
    # One that cannot even say which version it is ends the job; else, each row fails.
    knows = f'[ "$1" = -version ] && exec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"\n'
    ffmpeg = done.folder / "ffmpeg"
    ffmpeg.write_text("#!/bin/sh\n" + (knows if state == "failed" else "") + "exit 1\n")
    ffmpeg.chmod(0o755)
    done.environment = os.environ | {"IMAGEIO_FFMPEG_EXE": str(ffmpeg)}
    failed = done.run("--keep-going", check=False)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert contents(done) == before
    lines = list(done.manifest().values())
    assert [line["state"] for line in lines] == [state] * 3 + ["done"] * 3
    assert {line["stale"] for line in lines[:3]} == {"the video has changed since"}
    done.environment = None
    done.run()
    assert done.count("done") == {str(k): 2 if k < 3 else 1 for k in range(6)}
    assert done.pending() == {}


def test_a_broken_video_costs_its_own_row_whatever_the_profile(workflow, videos, profile):
    good = videos[2].read_bytes()
    videos[2].write_text("not a video")
    for _ in range(2):  # and so again at each run
        failed = workflow.run("--keep-going", check=False)
        assert failed.returncode == 1
        assert sorted(workflow.features()) == ["0", "1", "3", "4", "5"]
        assert "Removing output files" not in failed.stdout + failed.stderr
    assert max(workflow.count("done").values()) == 1
    videos[2].write_bytes(good)
    workflow.run()
    assert workflow.count("done") == {str(k): 1 for k in range(6)}
    assert NOTHING_TO_DO in workflow.run().stderr


def test_without_keep_going_the_other_jobs_do_not_run_and_nothing_is_lost(done):
    before = contents(done)
    for k in range(6):
        (done.folder / "videos" / f"{k}.mp4").write_text("not a video any more")
    done.options = ("--cores", "1", "--workflow-profile", "none")
    first = done.run(check=False, videos_per_job=1)
    assert first.returncode == 1
    assert "0 of 6 pending rows done, 1 failed, 5 not finished" in first.stderr
    assert contents(done) == before
    states = [line["state"] for line in done.manifest().values()]
    assert sorted(states) == ["failed", *["pending"] * 5]
    every = done.run("--keep-going", check=False, videos_per_job=1)
    assert "0 of 6 pending rows done, 6 failed, 0 not finished" in every.stderr
    assert contents(done) == before
    assert {line["stale"] for line in done.manifest().values()} == {"the video has changed since"}


def test_retries_do_no_row_twice(done):
    for k in range(6):
        os.utime(done.folder / "videos" / f"{k}.mp4", (time.time() - 7, time.time() - 7))
    (done.folder / "videos" / "0.mp4").write_text("not a video any more")
    before = contents(done)["0.npy"]
    failed = done.run("--retries", "2", "--workflow-profile", "none", check=False)
    assert failed.returncode == 1
    assert "5 of 6 pending rows done, 1 failed" in failed.stderr
    assert done.count("done") == {"0": 1} | {str(k): 2 for k in range(1, 6)}
    assert done.count("failed") == {"0": 3}
    assert contents(done)["0.npy"] == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_stopped_after_a_setting_was_changed_loses_nothing(done, number):
    options = {"interpolation": "bicubic", "decoders": 1}
    old = done.features()
    for num_new in (0, 2):
        process = start_session(done.command("--nolock", **options), done.folder, **QUIET)
        num_before = sum(done.count("done").values())
        wait_for(lambda n=num_before + num_new: sum(done.count("started").values()) > n)
        os.killpg(process.pid, number)
        assert process.wait(60) != 0
        assert sorted(done.features()) == [str(k) for k in range(6)]
    # Each is the old one, or the new one, and the records know which.
    for name, interpolation in made_with(done).items():
        is_old = np.array_equal(done.features()[name], old[name])
        assert is_old == (interpolation == "bilinear"), name
    finished = [name for name, value in made_with(done).items() if value == "bicubic"]
    stats = {n: (done.folder / "features" / f"{n}.npy").stat().st_ino for n in finished}
    done.run(**options)
    assert set(made_with(done).values()) == {"bicubic"}
    after = {n: (done.folder / "features" / f"{n}.npy").stat().st_ino for n in finished}
    assert after == stats  # what was finished was not done again
    assert done.pending(**options) == {}
    assert [p for p in (done.folder / "features").iterdir() if p.name.startswith(".")] == []


DIE = """
import os, sys, extract
moment, name = sys.argv.pop(1), sys.argv.pop(1)
replace = os.replace
def die(source, target):
    if str(target).endswith(name):
        if moment == "after":
            replace(source, target)
        os._exit(9)
    replace(source, target)
os.replace = die
sys.exit(extract.main())
"""


def extract(workflow: Workflow, *arguments: str, die: str | None = None) -> int:
    """Run the script by hand; it dies before or after its file of row 3 comes to its place."""
    script = [str(ROOT / "scripts" / "extract.py")]
    options = [f"--{key}={value}" for key, value in workflow.config.items() if "size" in key]
    command = [sys.executable, *(["-c", DIE, die, "3.npy"] if die else script)]
    command += ["--csv", "videos.csv", "--backbone", "efficientnet_lite0", "--decoders", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    return subprocess.run(
        [*command, *options, *arguments],
        cwd=workflow.folder,
        env=environment,
        capture_output=True,
    ).returncode


@pytest.mark.parametrize("is_stale", [False, True])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_the_rename_is_understood(workflow, videos, moment, is_stale):
    if is_stale:
        assert extract(workflow) == 0
    options = ("--interpolation", "bicubic")
    assert extract(workflow, *options, die=moment) == 9
    is_new = moment == "after"
    assert ("3" in workflow.features()) == (is_new or is_stale)
    expected = "bicubic" if is_new else "bilinear"
    assert made_with(workflow).get("3") == (expected if is_new or is_stale else None)
    # A copy of the collection is understood just as well: it is not told by inodes or mtimes.
    for path in (workflow.folder / "features").glob("*.npy"):
        path.write_bytes(path.read_bytes())
    pending = workflow.pending(interpolation="bicubic")
    assert ("features/3.npy" in pending) != is_new
    # Another setting, stopped before it has done anything, does not change what is known.
    assert extract(workflow, "--interpolation", "area", die="before") == 9
    assert made_with(workflow).get("3") == (expected if is_new or is_stale else None)
    before = workflow.count("started")["3"]
    assert extract(workflow, *options) == 0
    assert workflow.count("started")["3"] == before + (0 if is_new else 1)
    assert made_with(workflow) == {str(k): "bicubic" for k in range(6)}
    assert workflow.pending(interpolation="bicubic") == {}


def test_files_can_be_asked_for_by_path_whatever_their_state(workflow, videos, profile):
    paths = [f"features/{k}.npy" for k in range(6)]
    # Pending; then done, where Snakemake keeps its own books, too.
    first = workflow.run(paths[0])
    assert "1 of 1 pending rows done" in first.stderr
    assert "not present when the DAG was created" not in first.stderr
    assert NOTHING_TO_DO in workflow.run(paths[0]).stderr
    # Done and pending; by an absolute path, too.
    workflow.run(paths[0], workflow.folder / paths[1])
    assert workflow.count("done") == {"0": 1, "1": 1}
    # Stale: replaced, and then done.
    os.utime(videos[0], (time.time() - 7, time.time() - 7))
    stale = workflow.run("-n", paths[0])
    assert "the video has changed since" in stale.stderr
    assert "rule feature" not in stale.stdout + stale.stderr
    workflow.run(paths[0])
    assert workflow.count("done") == {"0": 2, "1": 1}
    assert NOTHING_TO_DO in workflow.run(paths[0], paths[1]).stderr
    # Failed, beside one that is stale and one that is pending.
    videos[2].write_text("not a video")
    os.utime(videos[1], (time.time() - 7, time.time() - 7))
    failed = workflow.run("-k", *paths[:4], check=False)
    assert failed.returncode == 1
    assert "videos/2.mp4: text, not a video: Invalid data found" in failed.stderr
    assert sorted(workflow.features()) == ["0", "1", "3"]
    assert workflow.count("done") == {"0": 2, "1": 2, "3": 1}
    # No row has it.
    unknown = workflow.run("features/9.npy", check=False)
    assert unknown.returncode == 1
    assert "features/9.npy: no row of videos.csv has this feature_path" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    # Forced: the target, all targets, one beside the targets.
    workflow.run("-f", paths[0])
    workflow.run("-F", paths[1])
    workflow.run(paths[0], "-R", paths[3])
    assert workflow.count("done") == {"0": 3, "1": 3, "3": 2}
    assert NOTHING_TO_DO in workflow.run(paths[0], paths[1], paths[3]).stderr


def test_files_can_be_asked_for_by_path_on_a_cluster(done):
    """Through an executor whose jobs start Snakemake again, as they do on other nodes."""
    (done.folder / "submit.sh").write_text('bash "$1" >> cluster.log 2>&1\necho 7\n')
    submit = ("--executor", "cluster-generic", "--jobs", "2", "--latency-wait", "2")
    submit += ("--cluster-generic-submit-cmd", "bash submit.sh")
    submit += ("--seconds-between-status-checks", "1")
    done.options = (*submit, "--workflow-profile", "none")
    (done.folder / "features" / "0.npy").unlink()
    os.utime(done.folder / "videos" / "1.mp4", (time.time() - 7, time.time() - 7))
    done.run("features/0.npy", "features/1.npy", "features/2.npy")
    assert done.count("done") == {"0": 2, "1": 2} | {str(k): 1 for k in range(2, 6)}
    assert NOTHING_TO_DO in done.run("features/0.npy", "features/1.npy").stderr


LATE = """\
bash "$1" >> cluster.log 2>&1
mv features hidden
(sleep 4; mv hidden features) > /dev/null 2>&1 &
echo 7
"""


@pytest.mark.parametrize("targets", [(), ("features/0.npy", "features/1.npy")])
def test_files_that_are_seen_late_are_done(workflow, videos, targets):
    """On a disk that shows what another machine has made some seconds later."""
    (workflow.folder / "features").mkdir()
    (workflow.folder / "submit.sh").write_text(LATE)
    submit = ("--executor", "cluster-generic", "--jobs", "1", "--latency-wait", "30")
    submit += ("--cluster-generic-submit-cmd", "bash submit.sh")
    submit += ("--seconds-between-status-checks", "1")
    workflow.options = (*submit, "--workflow-profile", "none")
    result = workflow.run(*targets)
    num = len(targets) or 6
    assert f"{num} of {num} pending rows done, 0 failed, 0 not finished" in result.stderr
    assert "cannot be seen" not in result.stderr
    assert [line["state"] for line in workflow.manifest().values()].count("done") == num
    assert workflow.count("done") == {str(k): 1 for k in range(num)}


CLOCK = """
import os, time
utime = os.utime
def late(path, times=None, **options):
    if times is None and not options.get("ns") and str(path).endswith(".npy"):
        times = (time.time() - 1000,) * 2
    return utime(path, times, **options)
os.utime = late
"""


@pytest.mark.parametrize("options", PROFILES.values(), ids=PROFILES)
def test_a_disk_whose_clock_is_behind_loses_no_file_that_was_asked_for(workflow, videos, options):
    """Snakemake takes its own rule for failed there, and would remove what that has made."""
    workflow.options += options
    (workflow.folder / "sitecustomize.py").write_text(CLOCK)
    workflow.environment = os.environ | {"PYTHONPATH": str(workflow.folder)}
    failed = workflow.run("features/0.npy", check=False)
    assert failed.returncode == 1
    assert "older modification time" in failed.stderr
    assert list(workflow.features()) == ["0"]
    assert "features/0.npy" not in workflow.pending()


def is_running(folder: Path) -> bool:
    """Whether a job of a run in this folder is still there."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_job = any(part.endswith("extract.py") for part in process.cmdline())
            if is_job and process.cwd() == str(folder):
                return True
    return False


class Books:
    """What was seen of the feature files, to be compared with what is there later."""

    def __init__(self, workflow: Workflow):
        self.workflow = workflow
        self.seen: set[str] = set()
        self.interpolation_of: dict[tuple[str, bytes], str] = {}

    def check(self) -> None:
        """Every file that was there is there, is complete, and was made with what the records say:
        they never change their mind."""
        found = self.workflow.features()  # each can be read
        assert found.keys() >= self.seen
        self.seen = set(found)
        known = made_with(self.workflow)
        assert known.keys() == self.seen
        for name, content in contents(self.workflow).items():
            interpolation = known[Path(name).stem] if name.endswith(".npy") else ""
            assert self.interpolation_of.setdefault((name, content), interpolation) == interpolation


@pytest.mark.parametrize("seed", range(2))
def test_no_schedule_of_changes_kills_and_profiles_loses_a_feature(workflow, videos, clips, seed):
    rng = random.Random(seed)
    books = Books(workflow)
    workflow.config |= {"videos_per_job": 2}
    options = workflow.options
    broken: set[Path] = set()
    for _ in range(8):
        video = rng.choice(videos)
        match rng.choice(["break", "touch", "run", "kill", "kill"]):
            case "break":
                video.write_text("not a video")
                broken.add(video)
                continue
            case "touch":
                os.utime(video, (time.time() - rng.random() * 100,) * 2)
                continue
            case what:
                pass
        targets = [f"features/{k}.npy" for k in rng.sample(range(6), 2)]
        workflow.options = (*options, *rng.choice([*PROFILES.values(), ("--retries", "1")]))
        command = workflow.command(
            *rng.choice([(), targets]),
            *rng.choice([(), ("-F",), ("--keep-going",)]),
            "--rerun-incomplete",
            interpolation=rng.choice(["bilinear", "bicubic", "area"]),
        )
        process = start_session(command, workflow.folder, **QUIET)
        if what == "kill":
            time.sleep(1.5 + 2 * rng.random())
            number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
            (os.kill if rng.random() < 0.4 else os.killpg)(process.pid, number)
        status = process.wait(120)
        assert what == "kill" or broken or status == 0
        wait_for(lambda: not is_running(workflow.folder))  # a job that outlived its run
        books.check()
    for video in broken:
        video.write_bytes(clips[0].read_bytes())
    workflow.options = options
    workflow.run()
    books.check()
    assert len(books.seen) == 6
    assert workflow.pending() == {}
    wait_for(lambda: not [*workflow.folder.rglob("*.claim")])
