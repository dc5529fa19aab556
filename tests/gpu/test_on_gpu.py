"""What a GPU changes: `make test-gpu` runs this where there is one, without a network or Snakemake.

Each test runs on the CPU, too, with stand-ins for what only a GPU has, so that whoever has one
first does not find its mistakes.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import (
    ROOT,
    RunFolder,
    make_clip,
    make_job,
    make_target,
    run_ffmpeg,
    seeded_state,
    write_csv,
)
from software_device import make_software_device
from videofeatures.decoding.decoder import Damage
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.hwaccel import Accelerator, find_problem
from videofeatures.decoding.told import Told
from videofeatures.decoding.view import View
from videofeatures.extraction.pipeline import run_job
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.devices import find_devices
from videofeatures.networks.network import Network
from videofeatures.networks.weights import load_network
from videofeatures.settings import Settings
from videofeatures.source import Source

SMALL = "efficientnet_lite0"
SHAPES = {"resnet152": (224, 398, 3), "resnext101": (16, 112, 112, 3), SMALL: (224, 224, 3)}
ON = {"cpu": (SMALL,), "cuda": tuple(SHAPES)}

WORST_COSINE = {"float32": 0.9999, "float16": 0.9999, "bfloat16": 0.98}
"""As config/README.md says: “What precision costs”."""

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "2")
CODECS = {
    "h264": ("640x360", (*X264, "-pix_fmt", "yuv420p")),
    "h264 of 10 bits": ("640x360", (*X264, "-pix_fmt", "yuv420p10le")),
    "h264, full range": ("640x360", (*X264, "-pix_fmt", "yuvj420p", "-color_range", "pc")),
    "h264, interlaced": ("640x360", (*X264, "-pix_fmt", "yuv420p", "-flags", "+ildct+ilme")),
    "h264, not of whole blocks": ("638x354", (*X264, "-pix_fmt", "yuv420p")),
    "hevc": ("640x360", ("-c:v", "libx265", "-pix_fmt", "yuv420p", "-x265-params", "log-level=0")),
    "hevc of 10 bits": (
        "640x360",
        ("-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=0"),
    ),
    "vp8": ("640x360", ("-c:v", "libvpx", "-cpu-used", "8", "-b:v", "1M")),
    "vp9": ("640x360", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "1M")),
    "vp9 of an odd size": ("641x361", ("-c:v", "libvpx-vp9", "-cpu-used", "8", "-b:v", "1M")),
    "av1": ("640x360", ("-c:v", "libsvtav1", "-preset", "12", "-pix_fmt", "yuv420p")),
}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> torch.device:
    """What to compute on; the CPU in ordinary runs."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU: torch finds no CUDA device")
    return torch.device(request.param)


@pytest.fixture
def decoding_device(device, tmp_path, monkeypatch) -> str:
    """A kind of device that decodes; with the CPU, ffmpeg only does as if."""
    if device.type == "cpu":
        monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(make_software_device(tmp_path)))
    elif problem := find_problem("cuda", 0):
        pytest.skip(f"the GPU decodes nothing: {problem}")
    return "cuda"


@pytest.fixture(scope="session")
def any_weights(tmp_path_factory) -> dict[str, Path]:
    """Weights without a network, of each backbone."""
    folder = tmp_path_factory.mktemp("any_weights")
    for name in SHAPES:
        torch.save(seeded_state(name), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in SHAPES}


def pixels(name: str, number: int, seed: int = 0) -> np.ndarray:
    """Pictures with edges and surfaces, no two alike."""
    random, shape = np.random.default_rng(seed), SHAPES[name]
    coarse = random.integers(0, 256, (number, *shape[:-3], 8, 8, 3), np.uint8)
    rows, columns = (np.arange(side) * 8 // side for side in shape[-3:-1])
    return np.ascontiguousarray(coarse[..., rows, :, :][..., columns, :])


def reference(name: str, weights: Path, batch: np.ndarray) -> np.ndarray:
    """The network as it is, on the CPU, with no code of the project but the network."""
    backbone = BACKBONES[name]
    module = backbone.extract(load_network(backbone, weights), "").eval()
    mean, std = (np.array(values, np.float32) for values in (backbone.mean, backbone.std))
    given = torch.from_numpy(np.moveaxis((batch.astype(np.float32) - mean) / std, -1, 1).copy())
    with torch.inference_mode():
        return module(given).numpy()


def worst_cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return ((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min()


def open_on(device: torch.device, name: str, weights: Path, precision: str) -> Network:
    dtype = getattr(torch, precision)
    return Network(BACKBONES[name], weights, device=device, dtype=dtype)


@pytest.mark.parametrize("precision", WORST_COSINE)
@pytest.mark.parametrize("name", SHAPES)
def test_features_are_those_of_the_cpu(device, name, precision, any_weights):
    if name not in ON[device.type]:
        pytest.skip("large, and compared on the CPU in networks/test_network.py")
    batch = pixels(name, 3)
    found = open_on(device, name, any_weights[name], precision).features(batch)
    assert worst_cosine(found, reference(name, any_weights[name], batch)) >= WORST_COSINE[precision]


def test_real_weights_in_float16_are_within_the_documented_bound(device, request):
    try:
        weights = request.getfixturevalue("real_weights")
        clips = request.getfixturevalue("real_clips")
    except Exception as error:  # each of many, without a network
        pytest.skip(f"real weights and clips cannot be had: {error}")
    view = View(frame_rate=1, resize_size=224, crop_size=224)
    frames, *_ = decode(clips["bikes"], view, Accelerator())
    batch = np.stack(frames[:4])
    found = open_on(device, SMALL, weights, "float16").features(batch)
    exact = reference(SMALL, weights, batch)
    assert worst_cosine(found, exact) >= WORST_COSINE["float16"]


def extract(
    folder: Path, videos: list[Path], weights: Path, device: torch.device, **settings: object
) -> tuple[list[np.ndarray], list[dict]]:
    """Features of a job that has to end well, and its records."""
    features = [folder / "features" / f"{video.stem}.npy" for video in videos]
    given = {"backbone": SMALL, "precision": "float32", "half_precision": False} | settings
    job = make_job(
        Settings(device=device.type, **given),
        weights,
        folder / "results",
        map(make_target, videos, features),
    )
    assert run_job(job, num_threads=2) == 0
    return [np.load(path) for path in features], RunFolder(folder).records()


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [make_clip(folder / f"{k}.mp4", seconds=5 + k, size="320x240") for k in range(3)]


@contextlib.contextmanager
def little_memory(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So little memory of the device that a batch of 16 does not fit, and one of 4 does."""
    if device.type == "cpu":
        submit = Network._submit

        def refuse(self: Network, batch: np.ndarray):
            if len(batch) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return submit(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(Network, "_submit", refuse)
            yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    # The network's widest layer takes 30 MB for a picture of 640×480, in float32.
    total = torch.cuda.get_device_properties(device).total_memory
    allowed = torch.cuda.memory_reserved(device) + (320 << 20)
    torch.cuda.set_per_process_memory_fraction(allowed / total, device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


def test_out_of_memory_halves_the_batch(device, tmp_path, videos, any_weights, monkeypatch, caplog):
    weights, options = any_weights[SMALL], {"batch_size": 16, "crop_size": 0, "resize_size": 480}
    expected, _ = extract(tmp_path / "all", videos, weights, device, **options)
    with little_memory(device, monkeypatch):
        features, records = extract(tmp_path / "little", videos, weights, device, **options)
    assert any("out of memory with a batch of" in message for message in caplog.messages)
    (end,) = (line for line in records if line["status"] == "end")
    assert end["batch_size"] < 16
    for found, exact in zip(features, expected, strict=True):
        assert worst_cosine(found, exact) >= WORST_COSINE["float32"]


def start_extract(
    folder: Path, videos: list[Path], weights: Path, device: torch.device, **variables: str
) -> subprocess.Popen:
    """`extract.py` by hand, as it runs where there is nothing else."""
    folder.mkdir()
    rows = [(video, f"features/{video.stem}.npy") for video in videos]
    write_csv(folder / "videos.csv", rows)
    command = [sys.executable, ROOT / "scripts" / "extract.py", "--csv", "videos.csv"]
    command += ["--backbone", SMALL, "--weights", weights, "--precision", "float32"]
    command += ["--device", device.type, "--threads", "1", "--half_precision", "0"]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def device_line(folder: Path) -> dict:
    (line,) = (line for line in RunFolder(folder).records() if line["status"] == "device")
    return line


@pytest.mark.parametrize("is_given", [True, False], ids=["shared", "in turn"])
def test_two_processes_on_one_gpu(device, tmp_path, videos, any_weights, is_given):
    """A scheduler's device is shared; any other is held, and the second process waits."""
    variables = {"SLURM_JOB_ID": "1"} if is_given else {}
    if device.type == "cuda":
        variables["CUDA_VISIBLE_DEVICES"] = "0"
    folders = [tmp_path / name for name in ("a", "b")]
    processes = [
        start_extract(folder, videos, any_weights[SMALL], device, **variables) for folder in folders
    ]
    for process in processes:
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
    first, second = (RunFolder(folder).features() for folder in folders)
    for name, features in first.items():
        assert worst_cosine(features, second[name]) >= WORST_COSINE["float32"]
    uuids = {device_line(folder)["device_uuid"] for folder in folders}
    assert len(uuids) == 1
    assert (None in uuids) is (device.type == "cpu")


def test_a_device_is_taken_by_its_uuid(device, tmp_path, videos, any_weights):
    if device.type == "cuda":
        expected = find_devices()[-1].uuid  # not the one that would be the first without
        parts = [expected[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))]
        visible = "GPU-" + "-".join(parts)
    else:
        expected, visible = None, ""
    process = start_extract(
        tmp_path / "a", videos[:1], any_weights[SMALL], device, CUDA_VISIBLE_DEVICES=visible
    )
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert device_line(tmp_path / "a")["device_uuid"] == expected


def pinned_bytes() -> int:
    """Memory of the host that torch has pinned at most, in this process."""
    if not torch.cuda.is_available():
        return 0
    return torch.cuda.host_memory_stats()["allocated_bytes.peak"]


def test_pinned_memory_is_bounded(device, any_weights):
    network = open_on(device, SMALL, any_weights[SMALL], "float32")
    batch = pixels(SMALL, 8)
    before = pinned_bytes()
    waiting: deque = deque()
    for _ in range(30):
        waiting.append(network.submit(batch))
        if len(waiting) >= network.max_submitted:
            waiting.popleft()()
    for wait in waiting:
        wait()
    # torch rounds to powers of two, and keeps a batch until its copy has ended.
    assert pinned_bytes() - before <= 2 * (network.max_submitted + 1) * batch.nbytes


def decode(
    path: Path, view: View, accelerator: Accelerator
) -> tuple[list[np.ndarray], Damage, deque[str]]:
    """All frames of a video, what decoded it, and what ffmpeg said."""
    told = Told()
    source = Source(str(path))
    with FfmpegDecoder(Settings(), accelerator=accelerator) as decoder:
        metadata = decoder.probe(source)
        frames = [frame for _, frame in decoder.frames(source, metadata, [view], [told])]
    return frames, told.damage, told.messages


VIEWS = [
    View(frame_rate=2, resize_size=224, crop_size=0),
    View(frame_rate="native", resize_size=112, crop_size=112, frame_interval=5),
    View(frame_rate=2, resize_size=224, crop_size=0, resizer="pillow"),
]


@pytest.mark.parametrize("turn", ["", "90"])
@pytest.mark.parametrize("codec", CODECS)
def test_a_device_decodes_what_the_cpu_decodes(device, decoding_device, tmp_path, codec, turn):
    """Byte for byte; for one that differs, the message says by how much."""
    if device.type == "cpu" and codec != "h264":
        pytest.skip("decoding/test_hwaccel.py has those")
    size, encoder = CODECS[codec]
    path = make_clip(tmp_path / "plain.mkv", seconds=3, size=size, codec=encoder)
    if turn:
        if codec != "h264":
            pytest.skip("one that is turned is enough")
        plain, path = path, tmp_path / "turned.mp4"
        run_ffmpeg("-display_rotation", turn, "-i", plain, "-c", "copy", path)
    for view in VIEWS:
        frames, damage, messages = decode(path, view, Accelerator(decoding_device, index=0))
        if damage.fallback:  # H.264 of 10 bits, and AV1, are decoded by some GPUs only
            pytest.skip(f"{codec} is not decoded here: {damage.fallback}")
        expected, *_ = decode(path, view, Accelerator())
        assert not messages
        assert len(frames) == len(expected)
        differences = np.abs(np.stack(frames).astype(int) - np.stack(expected))
        assert not differences.any(), (
            f"{codec}: {100 * (differences > 0).mean():.3f} % of the values differ, by up to "
            f"{differences.max()}, on average by {differences.mean():.5f}"
        )


def test_a_job_decodes_and_computes_on_a_device(
    device, decoding_device, tmp_path, videos, any_weights
):
    weights = any_weights[SMALL]
    old = make_clip(tmp_path / "old.avi", codec=("-c:v", "mpeg4"))
    expected, _ = extract(tmp_path / "cpu", [*videos, old], weights, device)
    features, records = extract(
        tmp_path / "device", [*videos, old], weights, device, hwaccel=decoding_device
    )
    done = {Path(line["video_path"]).stem: line for line in records if line["status"] == "done"}
    assert {name: line["decoded_on"] for name, line in done.items()} == {
        **{video.stem: "cuda" for video in videos},
        "old": "cpu",
    }
    assert done["old"]["fallback"] == "mpeg4 is not decoded on a device"
    for found, exact in zip(features, expected, strict=True):
        assert worst_cosine(found, exact) >= WORST_COSINE["float32"]


def test_the_benchmark_of_a_gpu_runs(device, tmp_path):
    """In its smallest setting; its figures belong to no test."""
    environment = dict(os.environ)
    if device.type == "cpu":
        environment["IMAGEIO_FFMPEG_EXE"] = str(make_software_device(tmp_path))
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--device", device.type, "--tiny"]
    result = subprocess.run(
        list(map(str, [*command, "--output", tmp_path])),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    saved = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["what"] for row in saved["network"]} == {"eager", "torch.compile", "CUDA graphs"}
    assert all(row["rate"] > 0 for row in saved["network"] if not row["problem"])
    assert saved["network"][0]["problem"] == ""
    assert {row["where"] for row in saved["decode"]} == {"CPU", "device"}
    assert all(row["video_seconds_per_second"] > 0 for row in saved["decode"])
    assert [row["hwaccel"] for row in saved["jobs"]] == ["none", "cuda", "auto"]
    assert (tmp_path / "gpu.md").read_text() in result.stdout


def test_without_a_gpu_the_benchmark_says_so(tmp_path):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, ROOT / "benchmarks" / "gpu.py", "--output", tmp_path / "a"]
    result = subprocess.run(
        list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("No GPU: torch finds no CUDA device")
    assert not (tmp_path / "a").exists()
