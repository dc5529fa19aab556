"""What a precision costs in the numbers, on real weights and real frames.

Random weights would prove nothing: they make all frames look alike. So this takes
EfficientNet-Lite0 with its ImageNet weights and six frames a second of the demo's clips,
and compares the features with those of float32: cosine of the features as they are, and
after the mean of all features is subtracted from each (what tells one frame from another).
Beside it, what a precision gives: the speed of the two large networks alone, from memory.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from tables import print_tables

from fetch_clips import fetch_clips
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.network import (
    DTYPES,
    Network,
    choose_device,
    choose_dtype,
    is_slow,
)
from videofeatures.networks.weights import find_weights, prepare_weights
from videofeatures.settings import Settings
from videofeatures.source import Source

NAME = "efficientnet_lite0"
FRAME_RATE = 6
SHAPES = {"resnet152": (224, 398, 3), "resnext101": (16, 112, 112, 3)}
SECONDS = 5
"""How long a network is timed; at least one batch."""


def real_frames(clips: Path) -> np.ndarray:
    """Return frames of the demo's clips, (N, 224, 224, 3), uint8."""
    view = replace(BACKBONES[NAME].view, frame_rate=FRAME_RATE)
    decoder = FfmpegDecoder(Settings())
    frames: list[np.ndarray] = []
    for path in map(str, fetch_clips(clips)):
        frames += Decoding(decoder, Source(path), view).clips()
    return np.stack(frames)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of `a` with the same row of `b`, both (N, dim)."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def clips_per_second(name: str, precision: str) -> float:
    """Return the speed of a network with random weights, in frames or clips a second."""
    device = choose_device()
    dtype = choose_dtype(precision, device)
    weights_path = prepare_weights(find_weights(name, "random"))
    network = Network(BACKBONES[name], weights_path, device=device, dtype=dtype)
    batch = np.zeros((network.batch_sizes[0], *SHAPES[name]), np.uint8)
    network.features(batch)  # not counted: set-up
    count, started = 0, time.monotonic()
    while (seconds := time.monotonic() - started) < SECONDS:
        network.features(batch)
        count += len(batch)
    return count / seconds


def measure(clips: Path) -> str:
    """Return a table in Markdown. Weights are prepared in the working directory."""
    frames = real_frames(clips)
    device = choose_device()
    weights_path = prepare_weights(find_weights(NAME, "auto"))
    features = {}
    for precision, dtype in DTYPES.items():
        network = Network(BACKBONES[NAME], weights_path, device=device, dtype=dtype)
        batches = [network.features(batch) for batch in np.array_split(frames, len(frames) // 8)]
        features[precision] = np.concatenate(batches).astype(np.float64)
    exact = features["float32"]
    mean = exact.mean(axis=0)
    lines = [
        f"{len(frames)} real frames, {NAME}, {device}, torch {torch.__version__}; the networks "
        "alone, from memory\n",
        "| precision | cosine, worst | mean | centred, worst | mean | resnet152 frames/s "
        "| resnext101 clips/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for precision, rounded in features.items():
        raw, centred = cosines(rounded, exact), cosines(rounded - mean, exact - mean)
        figures = [f"{v:.5f}" for v in (raw.min(), raw.mean(), centred.min(), centred.mean())]
        if is_slow(DTYPES[precision], device):
            figures += ["very slow"] * len(SHAPES)  # a minute for one batch
        else:
            figures += [f"{clips_per_second(name, precision):.2f}" for name in SHAPES]
        lines.append(f"| {precision} | {' | '.join(figures)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print_tables(__doc__, measure)
