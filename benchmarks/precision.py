"""What a precision costs in the numbers, on real weights and real frames.

Random weights would prove nothing: they make all frames look alike. So this takes
EfficientNet-Lite0 with its ImageNet weights and six frames a second of the demo's clips,
and compares the features with those of float32: cosine of the features as they are, and
after the mean of all features is subtracted from each (what tells one frame from another).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from fetch_clips import fetch_clips
from videofeatures.backbones import BACKBONES
from videofeatures.network import DTYPES, Network, choose_device
from videofeatures.video import iter_frames, probe_video, resized_size
from videofeatures.weights import find_weights, prepare_weights

NAME = "efficientnet_lite0"
FRAME_RATE = 6


def real_frames(clips: Path) -> np.ndarray:
    """(N, 224, 224, 3) frames of the demo's clips."""
    backbone = BACKBONES[NAME]
    frames = []
    for path in map(str, fetch_clips(clips)):
        size = resized_size(probe_video(path), backbone.resize_size, square_pixels=True)
        crop_size = backbone.crop_size
        frames += iter_frames(path, size, frame_rate=FRAME_RATE, crop_size=crop_size)
    return np.stack(frames)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of `a` with the same row of `b`."""
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, default=Path("demo/clips"))
    frames = real_frames(parser.parse_args().clips)
    device = choose_device()
    weights_path = prepare_weights(find_weights(NAME, "auto"))
    features = {}
    for precision, dtype in DTYPES.items():
        network = Network(BACKBONES[NAME], weights_path, device=device, dtype=dtype)
        batches = [network.features(batch) for batch in np.array_split(frames, len(frames) // 8)]
        features[precision] = np.concatenate(batches).astype(np.float64)
    exact = features["float32"]
    mean = exact.mean(axis=0)
    print(f"{len(frames)} real frames, {NAME}, {device}, torch {torch.__version__}\n")
    print("| precision | cosine, worst | cosine, mean | centred, worst | centred, mean |")
    print("|---|---|---|---|---|")
    for precision, found in features.items():
        raw, centred = cosines(found, exact), cosines(found - mean, exact - mean)
        figures = (raw.min(), raw.mean(), centred.min(), centred.mean())
        print(f"| {precision} | " + " | ".join(f"{figure:.5f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
