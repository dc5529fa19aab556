"""Clips, weights and folders that the tests share."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from fetch_clips import fetch_clips
from videofeatures.decoding.frames import iter_frames as ffmpeg_frames
from videofeatures.networks import weights
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.jobs import Job
from videofeatures.planning.plan import MISSING, Target
from videofeatures.records import Recorder
from videofeatures.settings import Settings
from videofeatures.source import Source

ROOT = Path(__file__).parents[1]
PROJECT = ("Snakefile", "rules", "scripts", "config", "envs", "profiles", "slurm")

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are for as many processes of tests
    torch.set_num_threads(1)


def run_ffmpeg(*arguments: str | Path) -> None:
    """Run the ffmpeg that the project uses."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    subprocess.run([*command, *map(str, arguments)], check=True)


def make_clip(
    path: Path,
    *,
    seconds: float = 2,
    size: str = "320x240",
    rate: int = 25,
    source: str = "testsrc2",
    codec: tuple[str, ...] = ("-c:v", "libx264", "-pix_fmt", "yuv420p"),
) -> Path:
    """A synthetic clip: moving, coloured, with a frame counter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lavfi = f"{source}=s={size}:r={rate}:d={seconds}"
    run_ffmpeg("-f", "lavfi", "-i", lavfi, *codec, path)
    return path


@pytest.fixture
def by_program(monkeypatch) -> None:
    """No video is short: ffmpeg's program decodes all."""
    monkeypatch.setattr("videofeatures.decoding.short_videos.MAX_FILE_BYTES", -1)


@pytest.fixture
def complains_late(monkeypatch, by_program) -> str:
    """ffmpeg complains, behind the third frame, of videos of which packets are left out; what it
    gives until then is another picture."""
    complaint = "[h264 @ 0x55e3] concealing 7 errors"

    def iter_frames(*args, packet_filter=None, stderr_lines, **options):
        frames = ffmpeg_frames(
            *args, packet_filter=packet_filter, stderr_lines=stderr_lines, **options
        )
        for k, frame in enumerate(frames):
            if packet_filter is not None and k == 3:
                stderr_lines.append(complaint)
            number, pixels = frame
            yield number, pixels if packet_filter is None else 255 - pixels

    monkeypatch.setattr("videofeatures.decoding.ffmpeg_decoder.iter_frames", iter_frames)
    return complaint


def write_csv(path: Path, rows: list[tuple[str | Path, str | Path]]) -> Path:
    """A CSV of (video_path, feature_path)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["video_path", "feature_path"])
        writer.writerows(rows)
    return path


def make_feature(path: str | Path, num_features: int = 1, feature_dim: int = 2048) -> None:
    """A feature file as some other program may have made it."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.ones((num_features, feature_dim), np.float16))


def make_target(video: str | Path, feature: str | Path, **facts: object) -> Target:
    """A feature file that is missing."""
    given = {"stale": False, "reason": MISSING} | facts
    return Target(Source(str(video)), str(feature), **given)


def make_recipe(
    settings: Settings | None = None, weights_path: str | Path = "x-aaaaaaaa.pth"
) -> Recipe:
    """What settings, those of the default by default, make of a video."""
    return Recipe.from_settings(settings or Settings(), str(weights_path))


def make_job(
    settings: Settings, weights_path: str | Path, results: str | Path, targets: Iterable[Target]
) -> Job:
    """A job of one recipe."""
    recipes = (make_recipe(settings, weights_path),)
    return Job("extract_test", settings, recipes, str(results), tuple(targets))


def write_line(recorder: Recorder, status: str, feature_path: str | Path = "", **facts) -> None:
    """Record something, now."""
    line = {"time": time.time(), "status": status, "feature_path": str(feature_path)}
    recorder.write(line | facts)


def start_session(command: list[str], folder: Path, **options: object) -> subprocess.Popen:
    """Start a process group of its own, for a test to kill as a terminal would."""
    return subprocess.Popen(
        command,
        cwd=folder,
        start_new_session=True,
        # A shell starts what runs in its background with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        **options,
    )


def run_in_terminal(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit status, and all that a command writes where it has a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=theirs)
    os.close(theirs)
    told = b""
    with contextlib.suppress(OSError):  # that is how a terminal ends
        while part := os.read(ours, 4096):
            told += part
    os.close(ours)
    return process.wait(), told.decode()


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait until a condition holds; it is an error if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def seeded_state(backbone: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict that depends on nothing but NumPy's stable generator.

    Scaled so that signals neither die nor explode, and frames do not all look alike.
    """
    random = np.random.RandomState(seed)
    state = {}
    with torch.device("meta"):
        shapes = BACKBONES[backbone].build().state_dict()
    for name, tensor in shapes.items():
        shape = tuple(tensor.shape)
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(1)
        elif name.endswith("running_var"):
            state[name] = torch.from_numpy(random.uniform(0.8, 1.2, shape).astype(np.float32))
        elif len(shape) == 1:  # means, biases and scales of batch norm
            centre = 0.5 if name.endswith("weight") else 0
            values = centre + 0.1 * random.standard_normal(shape)
            state[name] = torch.from_numpy(values.astype(np.float32))
        else:
            fan_in = int(np.prod(shape[1:]))
            values = random.standard_normal(shape) * np.sqrt(2 / fan_in)
            state[name] = torch.from_numpy(values.astype(np.float32))
    return state


@pytest.fixture(scope="session")
def real_clips() -> dict[str, Path]:
    """The demo's real clips, by stem."""
    return {path.stem: path for path in fetch_clips(ROOT / "demo" / "clips")}


@pytest.fixture(scope="session")
def seeded_weights(tmp_path_factory) -> dict[str, Path]:
    """Weights files for the two original backbones, whose real weights cannot be shipped."""
    folder = tmp_path_factory.mktemp("weights")
    paths = {}
    for backbone in ("resnet152", "resnext101"):
        paths[backbone] = folder / f"{backbone}.pth"
        torch.save(seeded_state(backbone), paths[backbone])
    return paths


@pytest.fixture(scope="session")
def real_weights(tmp_path_factory) -> Path:
    """EfficientNet-Lite0's verified ImageNet weights, in a `resources/weights` of the tests."""
    folder = tmp_path_factory.mktemp("shared")
    before = Path.cwd()
    os.chdir(folder)
    try:
        return folder / weights.prepare_weights(weights.find_weights("efficientnet_lite0", "auto"))
    finally:
        os.chdir(before)


class RunFolder:
    """A folder in which something runs: the features and records that it leaves there.

    Attributes:
        results: the folder of the records.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.results = folder / "results"

    def features(self) -> dict[str, np.ndarray]:
        """What the `.npy` files in `features` hold, by stem."""
        return {p.stem: np.load(p) for p in sorted((self.folder / "features").glob("*.npy"))}

    def records_by_process(self) -> list[list[dict]]:
        """Each process's lines in a list; one that was cut off by a kill is left out."""
        paths = sorted((self.results / "records").glob("*.jsonl"))
        lines = [path.read_text().splitlines() for path in paths]
        return [[json.loads(line) for line in some if line.endswith("}")] for some in lines]

    def records(self) -> list[dict]:
        """All lines of all processes."""
        return [entry for entries in self.records_by_process() for entry in entries]

    def manifest(self) -> dict[str, dict[str, str]]:
        """The lines of the manifest, by the stem of each feature file."""
        with open(self.results / "manifest.csv", newline="") as file:
            return {Path(line["feature_path"]).stem: line for line in csv.DictReader(file)}

    def count(self, status: str) -> Counter[str]:
        """How often this was recorded of each row, by the stem of its feature file."""
        entries = [entry for entry in self.records() if entry["status"] == status]
        return Counter(Path(entry["feature_path"]).stem for entry in entries)


class Workflow(RunFolder):
    """A copy of the project in a folder of its own, and Snakemake to run there.

    Attributes:
        options: of each of its runs.
        environment: of each of its runs; None for that of the tests.
    """

    def __init__(self, folder: Path, shared_weights: Path):
        super().__init__(folder)
        for name in PROJECT:
            source = ROOT / name
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, folder / name)
        (folder / "resources").symlink_to(shared_weights.parents[1])
        # A report takes as long as a short run does: tests of it ask for it.
        self.config = {"backbone": "efficientnet_lite0", "videos": "videos.csv", "report": "false"}
        self.options: tuple[str, ...] = ("--cores", "2")
        self.environment: dict[str, str] | None = None

    def command(self, *arguments: str | Path, **config: object) -> list[str]:
        """`snakemake` with these arguments and, at the end, the configuration."""
        values = [f"{key}={value}" for key, value in (self.config | config).items()]
        return [
            *(sys.executable, "-m", "snakemake", *self.options, *map(str, arguments)),
            *("--config", *values),
        ]

    def run(self, *arguments: str | Path, check: bool = True, **config: object):
        """Run Snakemake to its end; `check` wants it to end well."""
        result = subprocess.run(
            self.command(*arguments, **config),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        if check:
            assert result.returncode == 0, result.stdout + result.stderr
        return result

    def pending(self, **config: object) -> dict[str, str]:
        """Feature path to video path and reason, as a dry-run names them."""
        lines = self.run("-n", **config).stderr.splitlines()
        return dict(line.split("  ←  ") for line in lines if "  ←  " in line)

    def write_rows(self, *rows: tuple[str | Path, str | Path]) -> None:
        """Make `videos.csv`."""
        write_csv(self.folder / "videos.csv", list(rows))

    def state(self) -> dict[str, tuple[int, bytes]]:
        """Every file but Snakemake's own and Python's caches: mtime and content."""
        return {
            str(path.relative_to(self.folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in self.folder.rglob("*")
            if path.is_file() and not {".snakemake", "__pycache__"} & set(path.parts)
        }


@pytest.fixture
def workflow(tmp_path, real_weights) -> Workflow:
    return Workflow(tmp_path, real_weights)


@pytest.fixture(scope="session")
def shared_s3_server():
    """See `s3_server`."""
    for package in ("s3fs", "moto"):
        pytest.importorskip(package)
    from s3_server import S3Server

    with S3Server().running() as server:
        yield server


@pytest.fixture
def s3_server(shared_s3_server, monkeypatch):
    """An S3 server with an empty bucket, which this process and those that it starts know."""
    import s3fs

    from videofeatures.remote import open_store

    shared_s3_server.start_anew()
    for name, value in shared_s3_server.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    open_store.cache_clear()
    yield shared_s3_server
    open_store.cache_clear()
