"""What streams through the pipeline equals what is computed the plain way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from conftest import ROOT, make_clip, make_job, make_recipe, make_target, wait_for, write_csv
from software_device import make_software_device
from videofeatures.decoding import hwaccel
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.times import RowTimes
from videofeatures.errors import UserError
from videofeatures.extraction import pipeline
from videofeatures.extraction.pipeline import run_job
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.weights import load_network
from videofeatures.planning import plan
from videofeatures.planning.jobs import plan_folder
from videofeatures.records import Recorder, read_records
from videofeatures.settings import Settings

# Raw features in float32: nothing between the network and the comparison.
RAW = {"precision": "float32", "half_precision": False, "l2_normalize": False}


def extract(
    videos: list[Path], folder: Path, settings: Settings, weights: Path, *, suffix: str = "npz"
) -> tuple[int, list[Path]]:
    """Do one job; gives how many rows failed, and the feature paths."""
    features = [folder / "features" / f"{k}_{v.stem}.{suffix}" for k, v in enumerate(videos)]
    targets = map(make_target, videos, features)
    job = make_job(settings, weights, folder / "results", targets)
    return run_job(job, num_threads=2), features


def read_lines(results: str | Path) -> list[dict]:
    (path,) = (Path(results) / "records").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def load(path: Path) -> np.ndarray:
    with np.load(path) as file:
        return file["features"]


def plain_features(name: str, weights: Path, video: Path, width: int, height: int) -> np.ndarray:
    """The reference: all frames at once, one forward pass, float32, no code of the project
    but the network.

    Args:
        width, height: what the frame is resized to, worked out by hand.
    """
    frame_rate = 24 if name == "resnext101" else 1
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", video]
    command += ["-filter_complex", f"fps={frame_rate},scale={width}:{height}:flags=bilinear"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3).astype(np.float32)
    if name == "resnet152":
        frames = (frames / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    elif name == "resnext101":
        left, top = (width - 112) // 2, (height - 112) // 2
        frames = frames[:, top : top + 112, left : left + 112]
        padding = -len(frames) % 16
        frames = np.concatenate([frames, np.zeros((padding, 112, 112, 3), np.float32)])
        frames = frames - np.array([110.6, 103.2, 96.3])
    else:
        left, top = (width - 224) // 2, (height - 224) // 2
        frames = (frames[:, top : top + 224, left : left + 224] - 127) / 128
    pixels = torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2).contiguous()
    if name == "resnext101":
        pixels = pixels.unflatten(0, (-1, 16)).transpose(1, 2)
    network = load_network(BACKBONES[name], weights)
    network.set_submodule(BACKBONES[name].classifier, torch.nn.Identity())
    with torch.inference_mode():
        return network(pixels).numpy()


def assert_alike(found: np.ndarray, expected: np.ndarray) -> None:
    """The bar of the project: cosine 0.9999, mean-centred 0.999, for each row."""
    assert found.shape == expected.shape
    found, expected = found.astype(np.float64), expected.astype(np.float64)

    def cosine(a, b):
        return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))

    assert cosine(found, expected).min() > 0.9999
    mean = expected.mean(axis=0)
    if len(expected) > 1:
        assert cosine(found - mean, expected - mean).min() > 0.999
    np.testing.assert_allclose(
        np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1), rtol=1e-3
    )


@pytest.fixture(scope="session")
def weights(seeded_weights, real_weights) -> dict[str, Path]:
    return seeded_weights | {"efficientnet_lite0": real_weights}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize(
    ("clip", "sizes"),
    [
        ("bikes", {224: (527, 224), 112: (263, 112)}),
        ("synthetic", {224: (224, 298), 112: (112, 149)}),
    ],
)
def test_streaming_equals_the_plain_way(name, clip, sizes, tmp_path, real_clips, weights):
    synthetic = ("testsrc2", "240x320")  # portrait
    video = real_clips.get(clip) or make_clip(
        tmp_path / "a.mp4", seconds=3.3, source=synthetic[0], size=synthetic[1]
    )
    settings = Settings(backbone=name, batch_size=3, **RAW)
    failed, (feature,) = extract([video], tmp_path, settings, weights[name])
    assert failed == 0
    size = sizes[BACKBONES[name].view.resize_size]
    assert_alike(load(feature), plain_features(name, weights[name], video, *size))


@pytest.mark.parametrize("name", ["resnet152", "resnext101"])
def test_numbers_are_those_of_the_original_program(name, tmp_path, real_clips, weights):
    videos = [real_clips["bikes"], real_clips["bigbuckbunny"]]
    failed, features = extract(videos, tmp_path, Settings(backbone=name, **RAW), weights[name])
    assert failed == 0
    with np.load(ROOT / "tests" / "golden" / "original.npz") as golden:
        for video, feature in zip(videos, features, strict=True):
            assert_alike(load(feature), golden[f"{name}/{video.stem}"])


def test_numbers_of_real_weights_are_golden(tmp_path, real_clips, weights):
    settings = Settings(backbone="efficientnet_lite0", **RAW)
    _, (feature,) = extract(
        [real_clips["bikes"]], tmp_path, settings, weights["efficientnet_lite0"]
    )
    with np.load(ROOT / "tests" / "golden" / "efficientnet_lite0.npz") as golden:
        assert_alike(load(feature), golden["bikes"])


def test_the_network_sees_what_is_on_the_screen(tmp_path, real_clips, real_weights):
    from torchvision.models import EfficientNet_B0_Weights

    names = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
    settings = Settings(backbone="efficientnet_lite0", **RAW)
    videos = [real_clips["carphone_pristine"], real_clips["bikes"]]
    _, features = extract(videos, tmp_path, settings, real_weights)
    network = load_network(BACKBONES["efficientnet_lite0"], real_weights)

    def seen(feature: Path) -> list[str]:
        scores = network._fc(torch.from_numpy(load(feature)))
        return [names[k] for k in scores.argmax(dim=1)]

    # A man with a tie in a car; cyclists in a street.
    assert set(seen(features[0])) <= {"Windsor tie", "bow tie", "suit"}
    assert {"unicycle", "mountain bike", "bicycle-built-for-two"} & set(seen(features[1]))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list[Path]:
    """Clips of several shapes and lengths; their order is not that of their shapes."""
    folder = tmp_path_factory.mktemp("mixed")
    shapes = ["320x240", "240x320", "320x240", "400x100", "320x240", "240x320", "64x64"]
    return [
        make_clip(folder / f"{k}.mp4", seconds=1 + 1.3 * k, size=shape, rate=10 + k)
        for k, shape in enumerate(shapes)
    ]


def test_how_frames_were_batched_changes_nothing(tmp_path, mixed, real_weights):
    options = {"backbone": "efficientnet_lite0", "crop_size": 0, **RAW}
    alone = []
    for k, video in enumerate(mixed):
        settings = Settings(batch_size=1, decoders=1, **options)
        alone += extract([video], tmp_path / f"alone{k}", settings, real_weights)[1]
    for batch_size, decoders in ((64, 7), (3, 2), (5, 1)):
        folder = tmp_path / f"{batch_size}-{decoders}"
        settings = Settings(batch_size=batch_size, decoders=decoders, **options)
        failed, together = extract(mixed, folder, settings, real_weights)
        assert failed == 0
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(load(b), load(a), rtol=1e-3, atol=1e-4)


def test_a_rare_shape_does_not_wait_for_the_end_of_the_job(tmp_path, real_weights):
    rare = make_clip(tmp_path / "rare.mp4", seconds=2, size="64x200")
    common = [make_clip(tmp_path / f"{k}.mp4", seconds=4) for k in range(6)]
    settings = Settings(backbone="efficientnet_lite0", batch_size=3, decoders=1, crop_size=0)
    extract([rare, *common], tmp_path, settings, real_weights)
    # Its two frames wait while four batches' worth of the others go by: three of six videos.
    assert done_order(tmp_path).index("rare.mp4") <= 3


def done_order(folder: Path) -> list[str]:
    (path,) = (folder / "results" / "records").iterdir()
    entries = map(json.loads, path.read_text().splitlines())
    return [Path(e["video_path"]).name for e in entries if e["status"] == "done"]


def test_a_stuck_video_does_not_hold_up_the_others(tmp_path, real_weights, monkeypatch):
    videos = [make_clip(tmp_path / f"{k}.mp4", seconds=2) for k in range(4)]
    others_done = threading.Event()
    real_frames = FfmpegDecoder.frames

    def slow_for_the_first(self, source, *args, **options):
        for frame in real_frames(self, source, *args, **options):
            if Path(source.path).name == "0.mp4":
                assert others_done.wait(60)
            yield frame

    def watch():
        while len(list((tmp_path / "features").glob("*.npz"))) < 3:
            time.sleep(0.05)
        others_done.set()

    monkeypatch.setattr(FfmpegDecoder, "frames", slow_for_the_first)
    (tmp_path / "features").mkdir()
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    settings = Settings(backbone="efficientnet_lite0", decoders=2, batch_size=2)
    failed, _ = extract(videos, tmp_path, settings, real_weights)
    assert failed == 0
    assert done_order(tmp_path)[-1] == "0.mp4"


def test_a_broken_video_costs_its_own_row_only(tmp_path, real_weights, caplog):
    good = [make_clip(tmp_path / f"{k}.mp4") for k in range(2)]
    text, missing = tmp_path / "text.mp4", tmp_path / "missing.mp4"
    text.write_text("not a video")
    videos = [good[0], text, missing, good[1]]
    settings = Settings(backbone="efficientnet_lite0")
    failed, features = extract(videos, tmp_path, settings, real_weights)
    assert failed == 2
    assert [feature.exists() for feature in features] == [True, False, False, True]
    last = read_records(tmp_path / "results").last
    assert [last[str(feature)].status for feature in features] == [
        "done",
        "failed",
        "failed",
        "done",
    ]
    assert last[str(features[2])].reason == "no such file"
    assert f"FAILED  {text}: text, not a video: Invalid data" in caplog.text
    assert f"FAILED  {missing}: no such file" in caplog.text


@pytest.mark.parametrize(
    ("options", "dtype", "length"),
    [
        ({}, np.float16, 1),
        ({"half_precision": False}, np.float32, 1),
        ({"l2_normalize": False}, np.float16, None),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_output_is_normalised_and_cast_as_asked(
    tmp_path, real_clips, real_weights, options, dtype, length, suffix
):
    settings = Settings(backbone="efficientnet_lite0", **options)
    video = real_clips["bikes"]
    _, (feature,) = extract([video], tmp_path, settings, real_weights, suffix=suffix)
    found = np.load(feature) if suffix == "npy" else load(feature)
    assert (found.shape, found.dtype) == ((10, 1280), dtype)
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    if length:
        np.testing.assert_allclose(lengths, length, rtol=2e-3)
    else:
        assert lengths.min() > 2


def test_npz_tells_times_and_where_its_features_come_from(tmp_path, real_clips, weights):
    video = real_clips["carphone_pristine"]  # 4.004 s, 96 frames of 24 a second
    settings = Settings(backbone="resnext101")
    recipe = make_recipe(settings)
    _, (feature,) = extract([video], tmp_path, settings, weights["resnext101"])
    with np.load(feature, allow_pickle=False) as file:
        assert file["features"].shape == (6, 2048)
        np.testing.assert_allclose(file["timestamps"], (np.arange(6) + 0.5) * 16 / 24)
        provenance = json.loads(str(file["provenance"]))
    assert provenance["settings"] == json.loads(json.dumps(recipe.numerics))
    assert provenance["digest"] == recipe.digest
    assert provenance["dtype"] == "float32"
    assert provenance["video_path"] == str(video)
    assert provenance["video_size"] == video.stat().st_size
    assert (provenance["num_frames"], provenance["duration_seconds"]) == (96, 4.004)
    assert {"weights", "ffmpeg", "torch", "device"} <= set(provenance)


@pytest.mark.parametrize(
    ("name", "seconds", "rows"),
    [
        ("resnet152", 0.3, 1),
        ("resnet152", 1.4, 1),
        ("resnet152", 1.6, 2),
        ("resnext101", 0.04, 1),
        ("resnext101", 0.72, 2),
    ],
)
def test_short_videos_have_all_their_rows(tmp_path, weights, name, seconds, rows):
    video = make_clip(tmp_path / "a.mp4", seconds=seconds, size="64x64")
    # Small frames: it is the number of rows that matters here.
    settings = Settings(backbone=name, resize_size=64, crop_size=64)
    failed, (feature,) = extract([video], tmp_path, settings, weights[name])
    assert (failed, load(feature).shape) == (0, (rows, 2048))


def test_a_feature_that_is_not_a_number_is_a_failed_row(tmp_path, real_clips, real_weights):
    state = torch.load(real_weights, weights_only=True)
    state["_bn1.bias"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    settings = Settings(backbone="efficientnet_lite0")
    failed, (feature,) = extract([real_clips["bikes"]], tmp_path, settings, tmp_path / "nan.pth")
    assert (failed, feature.exists()) == (1, False)
    record = read_records(tmp_path / "results").last[str(feature)]
    assert record.reason == "a feature is not a finite number: try `precision: float32`"


def test_a_file_that_somebody_else_finished_is_kept(tmp_path, real_clips, real_weights):
    settings = Settings(backbone="efficientnet_lite0")
    (tmp_path / "features").mkdir()
    theirs = tmp_path / "features" / "0_bikes.npz"
    theirs.write_text("theirs")
    failed, _ = extract([real_clips["bikes"]], tmp_path, settings, real_weights)
    assert (failed, theirs.read_text()) == (0, "theirs")
    assert not (tmp_path / "results" / "records").exists()


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("chattr") is None,
    reason="only root can make a file immutable, with chattr",
)
def test_a_stale_file_that_cannot_be_replaced_stays_stale(tmp_path, real_clips, real_weights):
    path = tmp_path / "a.npy"
    path.write_text("old")
    if subprocess.run(["chattr", "+i", path], capture_output=True).returncode:
        pytest.skip("the file system has no immutable files")
    target = make_target(real_clips["bikes"], path, stale=True, reason=plan.FORCED)
    settings = Settings(backbone="efficientnet_lite0")
    job = make_job(settings, real_weights, tmp_path / "results", [target])
    try:
        assert run_job(job, num_threads=2) == 1
    finally:
        subprocess.run(["chattr", "-i", path], check=True)
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "results"]
    records = read_records(tmp_path / "results")
    assert records.last[str(path)].status == "failed"
    assert "Operation not permitted" in records.last[str(path)].reason
    assert records.of_file(str(path)) is None


def test_a_file_that_cannot_be_recorded_does_not_take_its_place(
    tmp_path, real_clips, real_weights, monkeypatch
):
    path = tmp_path / "a.npy"
    path.write_text("old")
    target = make_target(real_clips["bikes"], path, stale=True, reason=plan.FORCED)
    settings = Settings(backbone="efficientnet_lite0")
    job = make_job(settings, real_weights, tmp_path / "results", [target])
    write = Recorder.write

    def fill_up(self, line):
        if line["status"] == "done":
            raise UserError("records cannot be written: No space left on device")
        write(self, line)

    monkeypatch.setattr(Recorder, "write", fill_up)
    with pytest.raises(UserError, match="No space left"):
        run_job(job, num_threads=2)
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npy", "results"]
    assert read_records(tmp_path / "results").last[str(path)].status == "started"


def test_videos_are_decoded_while_the_network_is_loaded(tmp_path, real_weights, monkeypatch):
    video = make_clip(tmp_path / "a.mp4", seconds=2)
    decoded = threading.Event()
    real_frames, real_load_networks = FfmpegDecoder.frames, pipeline._load_networks

    def frames(*args, **options):
        for frame in real_frames(*args, **options):
            decoded.set()
            yield frame

    def load_networks(*args):
        assert decoded.wait(60)
        return real_load_networks(*args)

    monkeypatch.setattr(FfmpegDecoder, "frames", frames)
    monkeypatch.setattr(pipeline, "_load_networks", load_networks)
    settings = Settings(backbone="efficientnet_lite0")
    assert extract([video], tmp_path, settings, real_weights)[0] == 0


def test_a_job_says_where_its_time_went(tmp_path, real_clips, real_weights, caplog):
    caplog.set_level("INFO")
    videos = [real_clips["bikes"], tmp_path / "missing.mp4"]
    extract(videos, tmp_path, Settings(backbone="efficientnet_lite0"), real_weights)
    (path,) = (tmp_path / "results" / "records").iterdir()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    end, (done,) = entries[-1], [e for e in entries if e["status"] == "done"]
    assert end["status"] == "end"
    assert (end["num_clips"], end["video_seconds"], end["batch_size"]) == (10, 10.0, 2)
    assert done["decode_seconds"] > 0
    assert done["compute_seconds"] == pytest.approx(end["compute_seconds"], abs=0.01)
    assert end["started_time"] < end["first_batch_time"] < end["time"]
    assert 0 < end["compute_seconds"] + end["idle_seconds"] < end["seconds"]
    assert end["decode_cpu_seconds"] > 0
    assert end["compute_cpu_seconds"] > 0
    assert "10 s of video in" in caplog.text


LIMITED = """
import resource, sys, torch
import videofeatures.networks.network, videofeatures.decoding.frames
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv.pop(1)),) * 2)
import extract
sys.exit(extract.main(sys.argv[1:]))
"""


def test_a_video_that_takes_long_is_told_of_while_it_is_in_work(
    tmp_path, real_weights, monkeypatch
):
    for name in ("WORKING_SECONDS", "WAIT_SECONDS"):
        monkeypatch.setattr(pipeline, name, 0.01)
    video = make_clip(tmp_path / "a.mp4", seconds=60, size="320x240")
    small = make_clip(tmp_path / "b.mp4", seconds=2, size="320x240")
    num_failed, (feature, _) = extract(
        [video, small], tmp_path, Settings(backbone="efficientnet_lite0"), real_weights
    )
    assert num_failed == 0
    (path,) = (tmp_path / "results" / "records").iterdir()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    working = [line for line in lines if line["status"] == "working"]
    shares = [line["share"] for line in working if line["feature_path"] == str(feature)]
    assert len(shares) > 1
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] <= 1


@pytest.mark.parametrize(("num_seconds", "num_threads"), [(2, [1, 1]), (60, [1, 4])])
def test_a_video_that_is_most_of_a_job_has_the_threads_of_the_others(
    tmp_path, real_weights, monkeypatch, num_seconds, num_threads
):
    given = []
    real_frames = FfmpegDecoder.frames

    def frames(self, source, *args, num_threads):
        given.append((source.path, num_threads))
        return real_frames(self, source, *args, num_threads=num_threads)

    monkeypatch.setattr(FfmpegDecoder, "frames", frames)
    lengths = [2, 2, 2, 2, num_seconds]
    videos = [
        make_clip(tmp_path / f"{k}.mp4", seconds=length, size="160x120")
        for k, length in enumerate(lengths)
    ]
    targets = [make_target(video, tmp_path / f"{video.stem}.npy") for video in videos]
    job = make_job(
        Settings(backbone="efficientnet_lite0"), real_weights, tmp_path / "results", targets
    )
    assert run_job(job, num_threads=4) == 0
    assert [dict(given)[str(videos[k])] for k in (0, -1)] == num_threads


SAMPLINGS = {
    "native": ({"frame_rate": "native", "frame_interval": 8}, [0, 8, 16, 24, 32]),
    "spread": ({"num_frames": 3}, [0, 19, 39]),
    "keys": ({"keyframes_only": True}, [0, 15, 30]),
}
"""Keys, and which of 40 frames are taken."""


def test_a_sampling_reaches_the_file_with_its_times(tmp_path, weights):
    video = make_clip(tmp_path / "a.mp4", seconds=1.6, codec=("-c:v", "libx264", "-g", "15"))
    options = {"backbone": "efficientnet_lite0"} | RAW
    path = weights["efficientnet_lite0"]
    # The same frames as at 25 a second, which is the video's own.
    _, (feature,) = extract([video], tmp_path / "all", Settings(**options, frame_rate=25), path)
    every = load(feature)
    for name, (sampling, places) in SAMPLINGS.items():
        failed, (feature,) = extract(
            [video], tmp_path / name, Settings(**options, **sampling), path
        )
        assert failed == 0
        with np.load(feature) as file:
            found, times = file["features"], {key: file[key] for key in RowTimes._fields}
        starts = np.array(places) / 25
        np.testing.assert_allclose(times["start_seconds"], starts, atol=1e-6)
        ends = [*starts[1:], 1.6] if name == "keys" else starts + 0.04
        np.testing.assert_allclose(times["end_seconds"], ends, atol=1e-6)
        np.testing.assert_allclose(times["timestamps"], (starts + ends) / 2, atol=1e-6)
        assert_alike(found, every[places])


def test_windows_reach_the_file(tmp_path, weights):
    video = make_clip(tmp_path / "a.mp4", seconds=36 / 24, rate=24, size="160x120")
    found = {}
    for stride in (16, 8):
        settings = Settings(backbone="resnext101", clip_stride=stride, last_clip="drop", **RAW)
        folder = tmp_path / str(stride)
        failed, (feature,) = extract([video], folder, settings, weights["resnext101"])
        assert failed == 0
        with np.load(feature) as file:
            np.testing.assert_allclose(file["start_seconds"] * 24, range(0, 21, stride))
            np.testing.assert_allclose(file["end_seconds"] * 24, range(16, 37, stride))
        found[stride] = load(feature)
    assert_alike(found[8][::2], found[16])


def test_a_batch_that_is_too_large_for_the_memory_is_halved(tmp_path, real_clips):
    write_csv(tmp_path / "a.csv", [(real_clips["bikes"], "limited.npy")])
    write_csv(tmp_path / "b.csv", [(real_clips["bikes"], "free.npy")])
    options = ["--backbone", "efficientnet_lite0", "--frame_rate", "10", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}

    def run(csv: str, *limit: str, batch_size: int) -> str:
        command = [sys.executable, *limit, "--csv", csv, *options]
        return subprocess.run(
            [*map(str, command), "--batch_size", str(batch_size)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stderr

    run("b.csv", ROOT / "scripts" / "extract.py", batch_size=2)
    log = run("a.csv", "-c", LIMITED, 1100 << 20, batch_size=100)
    assert log.count("out of memory with a batch of 100: it is halved until it fits") == 1
    limited, free = np.load(tmp_path / "limited.npy"), np.load(tmp_path / "free.npy")
    assert len(limited) == 100
    assert_alike(limited, free)


PEAK = """
import resource, sys, extract
status = extract.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
sys.exit(status)
"""


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path):
    def peak_mb(seconds: int) -> int:
        video = make_clip(tmp_path / f"{seconds}.mp4", seconds=seconds, rate=2, size="64x64")
        write_csv(tmp_path / "a.csv", [(video, tmp_path / f"{seconds}.npy")])
        command = [sys.executable, "-c", PEAK, "--csv", "a.csv"]
        # A given size: a long video finds the fastest one out, which may be larger.
        command += ["--backbone", "efficientnet_lite0", "--threads", "1", "--batch_size", "4"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return int(result.stdout)

    # 600 frames are 90 MB, and were 140 MB when what is between them was pinned.
    assert peak_mb(600) - peak_mb(20) < 60


def test_no_thread_and_no_ffmpeg_is_left_after_an_error(tmp_path, real_weights, monkeypatch):
    videos = [make_clip(tmp_path / f"{k}.mp4", seconds=30) for k in range(2)]

    def broken(self, batch):
        raise RuntimeError("the device is gone")

    monkeypatch.setattr("videofeatures.networks.network.Network.submit", broken)
    settings = Settings(backbone="efficientnet_lite0", decoders=2)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="the device is gone"):
        extract(videos, tmp_path, settings, real_weights)
    assert threading.active_count() == before
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
    assert not children.split()


def test_a_video_may_have_several_feature_files(tmp_path, mixed, real_weights):
    """Two recipes in one job give the files that each of them gives alone."""
    settings = [
        Settings(backbone="efficientnet_lite0", batch_size=3),
        Settings(backbone="efficientnet_lite0", frame_rate=2, crop_size=0, l2_normalize=False),
    ]
    recipes = tuple(make_recipe(each, real_weights) for each in settings)
    targets = [
        make_target(video, tmp_path / "both" / f"{video.stem}-{k}.npz", recipe=k)
        for video in mixed
        for k in range(2)
    ]
    job = make_job(settings[0], real_weights, tmp_path / "results", targets)
    assert run_job(job._replace(recipes=recipes), num_threads=2) == 0
    last = read_records(tmp_path / "results")
    for k, each in enumerate(settings):
        _, alone = extract(mixed, tmp_path / f"alone-{k}", each, real_weights)
        for video, path in zip(mixed, alone, strict=True):
            both = tmp_path / "both" / f"{video.stem}-{k}.npz"
            assert load(both).dtype == load(path).dtype
            np.testing.assert_allclose(load(both), load(path), atol=2e-3, rtol=2e-3)
            with np.load(both) as file, np.load(path) as other:
                np.testing.assert_array_equal(file["timestamps"], other["timestamps"])
            record = last.of_file(str(both))
            assert record.digest == recipes[k].digest
            assert last.settings[record.digest] == json.loads(json.dumps(recipes[k].numerics))


def test_a_video_that_a_device_cannot_decode_is_done_by_the_cpu_and_counted(
    tmp_path, real_weights, monkeypatch, caplog
):
    """With ffmpeg as if it had a device, which fails on some videos."""
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(make_software_device(tmp_path)))
    good = make_clip(tmp_path / "good.mp4")
    videos = [good, *(tmp_path / f"{name}.mp4" for name in ("undecodable", "midway"))]
    for path in videos[1:]:
        shutil.copy(good, path)
    videos.append(make_clip(tmp_path / "old.avi", codec=("-c:v", "mpeg4")))
    settings = Settings(backbone="efficientnet_lite0", hwaccel="cuda", **RAW)
    failed, features = extract(videos, tmp_path, settings, real_weights)
    assert failed == 0
    for feature in features[1:3]:
        np.testing.assert_allclose(load(feature), load(features[0]), rtol=1e-3, atol=1e-4)
    records = read_records(tmp_path / "results")
    fallbacks = [records.of_file(str(feature)).fallback for feature in features]
    assert fallbacks == [
        None,
        "cuda: ffmpeg failed: the device does not know this profile",
        "cuda: ffmpeg failed: the device was lost",
        "mpeg4 is not decoded on a device",
    ]
    said = [message for message in caplog.messages if "on the CPU" in message]
    assert len(said) == 4
    assert said[-1].startswith("3 videos were decoded on the CPU, not on the device: ")


def test_a_device_that_is_not_there_ends_the_job_before_any_row(
    tmp_path, real_weights, monkeypatch
):
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\necho '[CUDA @ 0x1] Cannot load libcuda.so.1' >&2; exit 1\n")
    fake.chmod(0o755)
    video = make_clip(tmp_path / "a.mp4")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    settings = Settings(backbone="efficientnet_lite0", hwaccel="cuda")
    with pytest.raises(UserError, match=r"hwaccel: cuda: .*Cannot load libcuda.so.1"):
        extract([video], tmp_path, settings, real_weights)
    assert not read_records(tmp_path / "results").last


def test_a_device_and_the_cpu_decode_side_by_side(tmp_path, real_weights, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(make_software_device(tmp_path)))
    monkeypatch.setattr(hwaccel, "MIN_SHARED_PIXELS", 40 * 320 * 240)
    videos = [make_clip(tmp_path / f"{k}.mp4", seconds=1 + k) for k in range(4)]
    settings = Settings(backbone="efficientnet_lite0", hwaccel="auto", **RAW)
    hwaccel.find_hwaccel.cache_clear()
    try:
        failed, features = extract(videos, tmp_path, settings, real_weights)
    finally:
        hwaccel.find_hwaccel.cache_clear()
    assert failed == 0
    assert [len(load(feature)) for feature in features] == [1, 2, 3, 4]
    (path,) = (tmp_path / "results" / "records").iterdir()
    entries = map(json.loads, path.read_text().splitlines())
    on = {Path(e["video_path"]).stem: e["decoded_on"] for e in entries if e["status"] == "done"}
    assert on == {"0": "cpu", "1": "cuda", "2": "cuda", "3": "cuda"}


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_video_that_is_decoded_once_more_has_the_features_of_the_second_time(
    tmp_path, weights, batch_size, complains_late
):
    still = make_clip(tmp_path / "still.avi", seconds=5)  # of which nothing is left out
    videos = [make_clip(tmp_path / "a.mp4", seconds=14), still]
    options = RAW | {"backbone": "efficientnet_lite0", "batch_size": batch_size, "decoders": 1}
    found = {}
    for skip_unused in (True, False):
        settings = Settings(**options, skip_unused=skip_unused)
        folder = tmp_path / str(skip_unused)
        num_failed, paths = extract(videos, folder, settings, weights["efficientnet_lite0"])
        assert num_failed == 0
        found[skip_unused] = list(map(load, paths))
        lines = read_lines(folder / "results")
        assert lines[-1]["num_repeated"] == skip_unused
    for skipping, plain in zip(found[True], found[False], strict=True):
        assert len(skipping) in (5, 14)
        np.testing.assert_allclose(skipping, plain, rtol=1e-4, atol=1e-5)  # of other batches


def test_the_next_video_is_done_while_features_are_on_their_way(tmp_path, s3_server, real_weights):
    videos = [make_clip(tmp_path / f"{k}.mp4", seconds=1) for k in range(2)]
    targets = [make_target(video, f"s3://bucket/{video.stem}.npy") for video in videos]
    settings = Settings(backbone="efficientnet_lite0", decoders=1)
    job = make_job(settings, real_weights, tmp_path / "results", targets)
    seen = []

    def fault(request):
        if request.method == "PUT" and s3_server.counts["PUT"] == 1:
            wait_for(lambda: sum(one["status"] == "done" for one in read_lines(job.results)) == 2)
            claims = [path for path in plan_folder(job.results).iterdir() if "claim" in path.name]
            seen.append(len(claims))

    s3_server.fault = fault
    assert run_job(job, num_threads=1) == 0
    assert seen == [2]  # both are ours until they are there
    assert sorted(s3_server.list()) == ["0.npy", "1.npy"]
    statuses = [line["status"] for line in read_lines(job.results)]
    assert statuses.count("placed") == 2
    assert list(plan_folder(job.results).iterdir()) == []
