"""Whatever is killed, stopped or full: no file is torn, and the next run does what is left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest

from conftest import ROOT, RunFolder, Workflow, make_clip, start_session, wait_for, write_csv
from videofeatures.decoding.ffmpeg import ffmpeg_path
from videofeatures.records import read_records

NUM_VIDEOS = 10
OPTIONS = ("--backbone", "efficientnet_lite0", "--resize_size", "64", "--crop_size", "64")
INTERRUPTIONS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[Path]:
    """Clips of some seconds, large enough that each takes a while."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        make_clip(folder / f"{k}.mp4", seconds=2 + k / 2, size="640x360") for k in range(NUM_VIDEOS)
    ]


@pytest.fixture(scope="module")
def expected(videos, tmp_path_factory, real_weights) -> dict[str, np.ndarray]:
    """Features of an undisturbed run."""
    collection = Collection(tmp_path_factory.mktemp("undisturbed"), videos, real_weights)
    assert collection.run().returncode == 0
    return collection.features()


class Collection(RunFolder):
    """A CSV, and the script to run on it, in a folder of its own."""

    def __init__(self, folder: Path, videos: list[Path], real_weights: Path):
        super().__init__(folder)
        write_csv(folder / "videos.csv", [(v, f"features/{v.stem}.npy") for v in videos])
        (folder / "resources").symlink_to(real_weights.parents[1])

    def command(self, *options: object) -> list[str]:
        script = ROOT / "scripts" / "extract.py"
        return [sys.executable, str(script), "--csv", "videos.csv", *OPTIONS, *map(str, options)]

    def start(self, *options: object) -> subprocess.Popen:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return start_session(self.command(*options), self.folder, **quiet)

    def run(self, *options: object) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*options), cwd=self.folder, capture_output=True, text=True
        )

    def leftovers(self) -> list[Path]:
        return [*self.folder.rglob("*.part"), *self.folder.rglob("*.claim")]


@pytest.fixture
def collection(tmp_path, videos, real_weights) -> Collection:
    return Collection(tmp_path, videos, real_weights)


def assert_right(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Complete and, up to the rounding of how frames were batched, as undisturbed."""
    for name, features in found.items():
        assert features.shape == expected[name].shape
        ours, theirs = features.astype(float), expected[name].astype(float)
        # Both have length 1, up to float16.
        assert (ours * theirs).sum(axis=1).min() > 0.999, name


DECODERS = {"ffmpeg": "rawvideo", "worker": "videofeatures.decoding.worker"}
"""What decodes, by a word of its command line."""


@pytest.fixture(params=DECODERS)
def decoder(request, monkeypatch) -> str:
    """What decodes: an ffmpeg that is asked for is known by nobody, and decodes all."""
    if request.param == "ffmpeg":
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_path())
    return request.param


def find_decoders(process: subprocess.Popen, decoder: str) -> list[psutil.Process]:
    """What decodes for a process that runs."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        return [child for child in children if DECODERS[decoder] in child.cmdline()]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


@pytest.mark.parametrize("seed", range(6))
def test_the_script_is_killed_at_random_moments(collection, expected, seed):
    rng = random.Random(seed)
    numbers = (INTERRUPTIONS[seed % 3], rng.choice(INTERRUPTIONS))
    for number in numbers:
        process = collection.start()
        time.sleep(0.5 + rng.random() * 2.5)
        # To the script alone, as a scheduler does, or to all that it started, as a terminal does.
        (os.kill if rng.random() < 0.5 else os.killpg)(process.pid, number)
        status = process.wait(60)
        assert status in (0, -number, 128 + number)
        if signal.SIGKILL not in numbers:
            assert collection.leftovers() == []
        assert_right(collection.features(), expected)
    last = collection.run()
    assert last.returncode == 0, last.stderr
    assert_right(collection.features(), expected)
    assert len(collection.features()) == NUM_VIDEOS
    assert collection.leftovers() == []
    assert max(collection.count("done").values()) == 1  # what was finished was not done again


@pytest.mark.parametrize("seed", range(4))
def test_snakemake_is_killed_at_random_moments(tmp_path, videos, expected, real_weights, seed):
    rng = random.Random(seed)
    workflow = Workflow(tmp_path, real_weights)
    workflow.config |= {"resize_size": 64, "crop_size": 64, "videos_per_job": 4}
    workflow.write_rows(*[(video, f"features/{video.stem}.npy") for video in videos])

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    number = INTERRUPTIONS[seed % 3]
    process = start_session(workflow.command(), tmp_path, **quiet)
    time.sleep(2 + rng.random() * 5)
    # Snakemake alone leaves its script behind, which goes on: the next run shares with it.
    (os.kill if seed % 2 else os.killpg)(process.pid, number)
    process.wait(120)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("features/*.npy")}
    assert_right(workflow.features(), expected)
    result = workflow.run()
    assert_right(workflow.features(), expected)
    assert len(workflow.features()) == NUM_VIDEOS
    wait_for(lambda: not [*tmp_path.rglob("*.claim"), *tmp_path.rglob("*.part")])
    assert max(workflow.count("done").values()) == 1, result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert workflow.pending() == {}
    manifest = (tmp_path / "results" / "manifest.csv").read_text()
    assert manifest.count(",done,") == NUM_VIDEOS


@pytest.mark.parametrize("seed", range(2))
def test_one_decoder_is_killed(collection, expected, decoder, seed):
    process = collection.start("--decoders", 2)
    wait_for(lambda: len(find_decoders(process, decoder)) > 0)
    time.sleep(random.Random(seed).random())
    victims = find_decoders(process, decoder)
    for victim in victims[:1]:
        victim.kill()
    assert process.wait(120) == (1 if collection.count("failed") else 0)
    found = collection.features()
    assert_right(found, expected)
    assert len(found) >= NUM_VIDEOS - 1
    failed = [e for e in collection.records() if e["status"] == "failed"]
    assert len(failed) == NUM_VIDEOS - len(found)
    assert all(" was killed (signal 9)" in entry["reason"] for entry in failed)
    assert collection.run().returncode == 0
    assert_right(collection.features(), expected)
    assert len(collection.features()) == NUM_VIDEOS


def test_a_decoder_that_hangs_is_ended(collection, expected, decoder):
    process = collection.start("--decoders", 2, "--decode_timeout_seconds", 10)
    stopped = None
    while stopped is None:
        for child in find_decoders(process, decoder):
            child.suspend()
            stopped = child
            break
        assert process.poll() is None
    assert process.wait(120) == 1
    assert not stopped.is_running() or stopped.status() == psutil.STATUS_ZOMBIE
    (failed,) = [e for e in collection.records() if e["status"] == "failed"]
    assert failed["reason"] == "the decoder stopped answering for 10 s"
    assert len(collection.features()) == NUM_VIDEOS - 1
    assert collection.run().returncode == 0
    assert_right(collection.features(), expected)
    assert len(collection.features()) == NUM_VIDEOS


def test_a_stopped_script_loses_nothing_to_a_decoder_that_hangs(collection, decoder):
    # The time of a decoder runs only while somebody waits for it.
    process = collection.start("--decoders", 2, "--decode_timeout_seconds", 8)
    wait_for(lambda: len(find_decoders(process, decoder)) > 0)
    os.killpg(process.pid, signal.SIGSTOP)
    time.sleep(10)
    os.killpg(process.pid, signal.SIGCONT)
    assert process.wait(120) == 0
    assert len(collection.features()) == NUM_VIDEOS


@pytest.fixture
def tmpfs(tmp_path):
    """A disk of 48 KiB."""
    folder = tmp_path / "features"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k,nr_inodes=100", "none", folder]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("only root can make a small disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_ends_a_job_with_a_word(collection, expected, tmpfs):
    full = collection.run()
    assert full.returncode == 2
    assert "No space left on device. The job ends here; what is done is kept" in full.stderr
    assert "Traceback" not in full.stderr
    found = collection.features()
    assert 0 < len(found) < NUM_VIDEOS
    assert_right(found, expected)
    assert collection.leftovers() == []
    subprocess.run(["mount", "-o", "remount,size=10m", tmpfs], check=True)
    assert collection.run().returncode == 0
    assert_right(collection.features(), expected)
    assert len(collection.features()) == NUM_VIDEOS
    assert max(collection.count("done").values()) == 1


def test_a_full_disk_of_records_ends_a_job_with_a_word(collection, tmpfs):
    # Not the features' disk, but that of the records.
    (collection.folder / "results").symlink_to(tmpfs)
    csv = collection.folder / "videos.csv"
    csv.write_text(csv.read_text().replace(",features/", ",other/"))
    (tmpfs / "filler").write_bytes(bytes(48 << 10))
    full = collection.run()
    assert full.returncode == 2
    assert "records cannot be written: No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    (tmpfs / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=10m", tmpfs], check=True)
    assert collection.run().returncode == 0
    assert len(list((collection.folder / "other").glob("*.npy"))) == NUM_VIDEOS


LOCK_FIRST = """
import os, subprocess, sys, extract, videofeatures.extraction.pipeline as pipeline
run_job = pipeline.run_job
def lock_first(*args, **options):
    subprocess.run(sys.argv.pop().split(), check=True)
    return run_job(*args, **options)
pipeline.run_job = lock_first
sys.exit(extract.main(sys.argv[1:-1]))
"""


def test_a_folder_that_becomes_read_only_costs_its_own_rows(collection, videos, expected):
    # Root may write anywhere but into what is immutable.
    is_root = os.geteuid() == 0
    lock, unlock = ("chattr +i", "chattr -i") if is_root else ("chmod 555", "chmod 755")
    (collection.folder / "locked").mkdir()
    probe = subprocess.run([*lock.split(), "locked"], cwd=collection.folder)
    subprocess.run([*unlock.split(), "locked"], cwd=collection.folder)
    if probe.returncode:
        pytest.skip("the file system has no immutable folders, and root may write to all others")
    folders = ["locked" if k < 3 else "features" for k in range(NUM_VIDEOS)]
    rows = [(v, f"{folder}/{v.stem}.npy") for folder, v in zip(folders, videos, strict=True)]
    write_csv(collection.folder / "videos.csv", rows)
    command = [sys.executable, "-c", LOCK_FIRST, *collection.command()[2:], f"{lock} locked"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    try:  # it becomes read-only after planning
        result = subprocess.run(
            command, cwd=collection.folder, env=environment, capture_output=True, text=True
        )
    finally:
        subprocess.run([*unlock.split(), "locked"], cwd=collection.folder, check=True)
    assert result.returncode == 1, result.stderr
    assert result.stderr.count("FAILED") == 3
    assert "locked/0.npy: " in result.stderr
    assert_right(collection.features(), expected)
    assert len(collection.features()) == NUM_VIDEOS - 3
    assert collection.run().returncode == 0
    assert len(list((collection.folder / "locked").glob("*.npy"))) == 3
    assert collection.leftovers() == []


def test_weights_that_are_replaced_half_way_do_not_mix(collection, expected, real_weights):
    import torch

    (collection.folder / "resources").unlink()  # of its own, since something is put into it
    own = collection.folder / "mine.pth"
    shutil.copy(real_weights, own)
    process = collection.start("--weights", "mine.pth", "--decoders", 1)
    wait_for(lambda: list((collection.folder / "features").glob("*.npy")))
    state = torch.load(own, weights_only=True)
    torch.save({name: tensor * 0.5 for name, tensor in state.items()}, own)
    assert process.wait(120) == 0
    assert_right(collection.features(), expected)  # all with those that were there first
    # And the next run knows that they are others now.
    again = collection.run("--weights", "mine.pth")
    assert again.returncode == 0
    assert f"{NUM_VIDEOS} made with other weights" in again.stderr
    with pytest.raises(AssertionError):
        assert_right(collection.features(), expected)


@pytest.mark.parametrize("seed", range(3))
def test_several_scripts_share_a_collection_and_some_are_killed(collection, expected, seed):
    rng = random.Random(seed)
    processes = [collection.start("--threads", 1) for _ in range(2 + seed)]
    for victim in rng.sample(processes, 1 + seed // 2):
        time.sleep(2 + rng.random() * 3)
        victim.send_signal(rng.choice(INTERRUPTIONS))
    statuses = [process.wait(240) for process in processes]
    assert statuses.count(0) >= 1  # those who were not killed did it all
    assert_right(collection.features(), expected)
    assert len(collection.features()) == NUM_VIDEOS
    assert collection.leftovers() == []
    assert max(collection.count("done").values()) == 1
    assert collection.run().returncode == 0
    assert sum(collection.count("done").values()) <= NUM_VIDEOS


def test_stale_rows_are_shared_too(collection, expected):
    assert collection.run("--interpolation", "bicubic").returncode == 0
    processes = [collection.start("--threads", 1) for _ in range(3)]
    assert [process.wait(240) for process in processes] == [0, 0, 0]
    assert_right(collection.features(), expected)
    assert set(collection.count("done").values()) == {2}


def test_snakemakes_in_two_folders_and_a_script_share_a_collection(
    tmp_path, videos, expected, real_weights
):
    features = tmp_path / "features"
    rows = [(video, features / f"{video.stem}.npy") for video in videos]
    processes, collections = [], []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        workflow = Workflow(tmp_path / name, real_weights)
        workflow.config |= {"resize_size": 64, "crop_size": 64, "videos_per_job": 4}
        workflow.write_rows(*rows)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(start_session(workflow.command(), workflow.folder, **quiet))
        collections.append(workflow.folder)
    (tmp_path / "c").mkdir()
    script = Collection(tmp_path / "c", videos, real_weights)
    write_csv(tmp_path / "c" / "videos.csv", rows)
    processes.append(script.start())
    assert [process.wait(240) for process in processes] == [0, 0, 0]
    found = {path.stem: np.load(path) for path in features.glob("*.npy")}
    assert_right(found, expected)
    assert len(found) == NUM_VIDEOS
    assert [path.name for path in features.glob(".*")] == []
    done = Counter()
    for folder in (*collections, tmp_path / "c"):
        last = read_records(folder / "results").last
        done.update(Path(path).stem for path, record in last.items() if record.status == "done")
    assert set(done.values()) == {1}
    assert len(done) == NUM_VIDEOS
