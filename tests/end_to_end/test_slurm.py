"""The real workflow on a real SLURM: `make test-slurm`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from conftest import Workflow, make_clip, start_session, wait_for
from slurm_cluster import Cluster, why_not

pytestmark = pytest.mark.slurm

# A job's end is noticed at the second look at most. What it asks for fits twice into the cluster.
QUICK = ("--slurm-init-seconds-before-status-checks", "3", "--latency-wait", "5")
SMALL = ("--max-threads", "1", "--default-resources", "mem_mb=1000")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


class OnSlurm(Workflow):
    """The workflow, submitted as the README says."""

    def __init__(self, folder: Path, shared_weights: Path, cluster: Cluster):
        super().__init__(folder, shared_weights)
        self.cluster = cluster
        self.options = ("--profile", "slurm", "--resources", "gpu=2", *QUICK)
        self.environment = cluster.environment

    def start(self, *arguments: str, **config: object) -> subprocess.Popen:
        output = open(self.folder / "snakemake.log", "a")  # noqa: SIM115 (the process has it)
        with output:
            streams = {"stdout": output, "stderr": output, "env": self.environment}
            command = self.command(*arguments, **config)
            return start_session(command, self.folder, **streams)


@pytest.fixture
def slurm(tmp_path, real_weights, cluster) -> OnSlurm:
    return OnSlurm(tmp_path, real_weights, cluster)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_clip(folder / f"{k}.mp4", seconds=2 + k) for k in range(4)]


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory) -> Path:
    """Many minutes of work for one core: longer than SLURM takes to end a job of a minute."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    return make_clip(path, seconds=20000, size="64x64", rate=1)


def test_a_collection_is_spread_over_two_gpus_at_once(slurm, real_clips):
    rows = [(p, f"features/{k}_{n}.npy") for k in range(3) for n, p in real_clips.items()]
    slurm.write_rows(*rows)
    # The jobs have the environment of the submitting side.
    ffmpeg = slurm.folder / "ffmpeg"
    ffmpeg.write_text(
        f'#!/bin/sh\necho "$SLURM_JOB_ID" >> {slurm.folder}/ffmpeg.log\n'
        f'exec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"\n'
    )
    ffmpeg.chmod(0o755)
    slurm.environment = slurm.environment | {"IMAGEIO_FFMPEG_EXE": str(ffmpeg)}
    result = slurm.run(*SMALL, report="true")
    assert "9 of 9 pending rows done" in result.stderr
    assert "results/report.html: open it in a browser" in result.stderr
    seconds = {"bikes": 10, "bigbuckbunny": 5, "carphone_pristine": 4}
    found = {name: len(array) for name, array in slurm.features().items()}
    assert found == {f"{k}_{name}": n for k in range(3) for name, n in seconds.items()}
    assert set(slurm.count("started").values()) == {1}

    # The second job would have been given the first one's GPU, had that one been free again.
    first, second = slurm.records_by_process()
    assert {first[0]["cuda_visible_devices"], second[0]["cuda_visible_devices"]} == {"0", "1"}
    jobs = [j for j in slurm.cluster.jobs() if j["WorkDir"] == str(slurm.folder)]
    assert [job["JobState"] for job in jobs] == ["COMPLETED"] * 2
    assert [job["TresPerJob"] for job in jobs] == ["gres:gpu:1"] * 2
    # 15 minutes and 2 for each of four or five videos.
    assert sorted(job["TimeLimit"] for job in jobs) == ["00:23:00", "00:25:00"]
    used = set((slurm.folder / "ffmpeg.log").read_text().split())
    assert used == {job["JobId"] for job in jobs}
    told = next(line for line in result.stderr.splitlines() if line.startswith("The log of each"))
    log = slurm.folder / told.removeprefix("The log of each job: ").removesuffix(" and so on")
    assert "done " in log.read_text()


def test_a_node_can_be_checked(slurm, real_clips):
    slurm.write_rows((real_clips["bikes"], "features/bikes.npy"))
    values = " ".join(f"{key}={value}" for key, value in slurm.config.items())
    command = f"srun --gpus=1 python scripts/check.py {values}".replace("python", sys.executable)
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=slurm.folder,
        env=slurm.environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("ok   ") == 7
    # It computed on the CPU of the node, as the GPU that it was given is none, and says so.
    assert "CUDA_VISIBLE_DEVICES=0" in result.stderr + result.stdout


def test_what_the_profile_sets_takes_effect(slurm, clips):
    path = slurm.folder / "slurm" / "config.yaml"
    text = path.read_text()
    for before, after in (
        ("# runtime: 720", "runtime: 34"),
        ("# slurm_partition: gpu", "slurm_partition: second"),
        ("mem_mb: 8000", "mem_mb: 1500"),
        ("max-threads: 8", "max-threads: 3"),
        ("# gpu_model: a100", "gpu_model: tesla"),
        ("--constraint=fast_scratch", "--nice=100"),
        ("# slurm_extra", "slurm_extra"),
    ):
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)
    slurm.write_rows((clips[0], "features/0.npy"))
    slurm.run()
    (job,) = [j for j in slurm.cluster.jobs() if j["WorkDir"] == str(slurm.folder)]
    assert (job["Partition"], job["TimeLimit"]) == ("second", "00:34:00")
    assert job["TRES"].startswith("cpu=3,mem=1500M,")
    assert (job["TresPerJob"], job["Nice"]) == ("gres:gpu:tesla:1", "100")


def test_a_broken_video_costs_its_own_row_only(slurm, clips):
    broken = slurm.folder / "broken.mp4"
    broken.write_bytes(clips[2].read_bytes()[:3000])
    videos = [clips[0], broken, clips[1]]
    slurm.write_rows(*[(video, f"features/{video.stem}.npy") for video in videos])
    failed = slurm.run("--resources", "gpu=1", *SMALL, check=False)
    assert failed.returncode == 1
    assert "2 of 3 pending rows done, 1 failed" in failed.stderr
    assert sorted(slurm.features()) == ["0", "1"]
    assert list(slurm.pending()) == ["features/broken.npy"]
    broken.write_bytes(clips[2].read_bytes())
    assert "2 done, 1 pending in 1 jobs" in slurm.run(*SMALL).stderr
    assert slurm.count("started") == {"0": 1, "1": 1, "broken": 2}
    assert slurm.pending() == {}
    # By path: one that is not there, beside one that is.
    (slurm.folder / "features" / "0.npy").unlink()
    assert (
        "1 of 1 pending rows done" in slurm.run("features/0.npy", "features/1.npy", *SMALL).stderr
    )
    assert slurm.count("started") == {"0": 2, "1": 1, "broken": 2}


def start_long_job(slurm: OnSlurm, clips: list[Path], long_clip: Path, *arguments: str):
    """One job with three short videos, done by now, and a long one, begun by now."""
    long = slurm.folder / "long.mp4"
    long.write_bytes(long_clip.read_bytes())
    videos = [*clips[:3], long]
    slurm.write_rows(*[(video, f"features/{video.stem}.npy") for video in videos])
    process = slurm.start("--resources", "gpu=1", *arguments, decoders=1)
    wait_for(lambda: slurm.count("started")["long"] and len(slurm.features()) == 3)
    return process


def without_signs_of_life(state: dict[str, tuple[int, bytes]]) -> dict[str, tuple[int, bytes]]:
    """Files without the one that a run touches now and then, to say that it goes on."""
    return {path: file for path, file in state.items() if not path.endswith(".claim")}


def finish(slurm: OnSlurm, clips: list[Path]) -> None:
    """The next run does what is left, and nothing else."""
    assert sorted(slurm.features()) == ["0", "1", "2"]
    assert list(slurm.pending()) == ["features/long.npy"]
    (slurm.folder / "long.mp4").write_bytes(clips[3].read_bytes())
    slurm.run(*SMALL)
    assert slurm.count("started") == {"0": 1, "1": 1, "2": 1, "long": 2}
    assert len(slurm.features()["long"]) == 5
    assert list((slurm.folder / "features").glob(".*")) == []


def test_a_cancelled_job_keeps_what_it_finished_and_a_dry_run_beside_it_changes_nothing(
    slurm, clips, long_clip
):
    process = start_long_job(slurm, clips, long_clip, *SMALL)
    (job,) = slurm.cluster.running()
    slurm.cluster.ask("scontrol", "suspend", job)  # so that only the dry-run could change files
    before = without_signs_of_life(slurm.state())
    assert list(slurm.pending()) == ["features/long.npy"]
    assert without_signs_of_life(slurm.state()) == before
    slurm.cluster.ask("scontrol", "resume", job)
    slurm.cluster.ask("scancel", job)
    assert process.wait(120) == 1
    assert "3 of 4 pending rows done" in (slurm.folder / "snakemake.log").read_text()
    finish(slurm, clips)


def test_ctrl_c_cancels_the_jobs_and_keeps_what_they_finished(slurm, clips, long_clip):
    process = start_long_job(slurm, clips, long_clip, *SMALL)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(120) != 0
    wait_for(lambda: not slurm.cluster.running())
    finish(slurm, clips)


def test_a_job_that_runs_into_its_time_limit_keeps_what_it_finished(slurm, clips, long_clip):
    resources = ("--max-threads", "1", "--default-resources", "mem_mb=1000", "runtime=1")
    process = start_long_job(slurm, clips, long_clip, *resources)
    assert process.wait(400) == 1
    (job,) = [j for j in slurm.cluster.jobs() if j["WorkDir"] == str(slurm.folder)]
    assert job["JobState"] == "TIMEOUT"
    finish(slurm, clips)


def test_snakemake_killed_and_started_again_while_jobs_run_does_no_row_twice(slurm, tmp_path):
    # Jobs of unequal length: the second run's begin beside what is left of the first one's.
    lengths = [20, 20, 20, 20, 20, 20, 150, 150]
    videos = [
        make_clip(tmp_path / "videos" / f"{k}.mp4", seconds=seconds, rate=5)
        for k, seconds in enumerate(lengths)
    ]
    slurm.write_rows(*[(video, f"features/{video.stem}.npy") for video in videos])
    first = slurm.start(*SMALL, decoders=1)
    wait_for(lambda: len(slurm.cluster.running()) == 2 and len(slurm.count("started")) >= 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert len(slurm.cluster.running()) == 2
    again = slurm.run(*SMALL, check=False)
    assert again.returncode == 0, again.stderr
    wait_for(lambda: not slurm.cluster.running())
    assert slurm.count("started") == {str(k): 1 for k in range(8)}
    assert [len(features) for features in slurm.features().values()] == lengths
    assert len(slurm.records_by_process()) >= 2
    assert slurm.pending() == {}
    assert list((slurm.folder / "features").glob(".*")) == []
