"""What resizing by ffmpeg costs in the numbers, and what resizing by Pillow costs in time.

Networks' libraries resize whole frames in RGB, by Pillow; ffmpeg's scaler works in the colours of
the video, before they become RGB. Real frames, a network with real weights (EfficientNet-Lite0) and
two with random ones, which are not trained to overlook the difference. The frames of both ways are
the same ones; the features of Pillow's are those that a library's own transform gives.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from precision import cosines
from tables import print_tables

from fetch_clips import fetch_clips
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.view import View
from videofeatures.extraction.timing import cpu_seconds
from videofeatures.networks.backbones import find_backbone
from videofeatures.networks.network import Network
from videofeatures.networks.weights import find_weights, prepare_weights
from videofeatures.settings import Settings
from videofeatures.source import Source

NETWORKS = {
    "efficientnet_lite0": "auto",
    "timm:resnet50.a1_in1k": "random",
    "timm:vit_tiny_patch16_224": "random",
}
RESIZE_SIZE, CROP_SIZE = 256, 224
"""As most libraries have it."""
FRAME_RATE = 6
BATCH_SIZE = 8


def frames_of(paths: list[Path], view: View) -> tuple[np.ndarray, float]:
    """Return the frames of videos, (N, 224, 224, 3), uint8, and the seconds of CPU they took."""
    before = cpu_seconds_of_all()
    with FfmpegDecoder(Settings()) as decoder:
        frames = [
            frame for path in paths for frame in Decoding(decoder, Source(str(path)), view).clips()
        ]
    return np.stack(frames), cpu_seconds_of_all() - before


def cpu_seconds_of_all() -> float:
    """Return what this process and those that it has started and ended took of the CPU."""
    return sum(map(cpu_seconds, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def features_of(name: str, frames: np.ndarray) -> np.ndarray:
    """Return a network's features of frames, (N, dim), float64."""
    backbone = find_backbone(name)
    path = prepare_weights(find_weights(name, NETWORKS[name]))
    network = Network(backbone, path, device=torch.device("cpu"), dtype=torch.float32)
    parts = [
        network.features(frames[k : k + BATCH_SIZE]) for k in range(0, len(frames), BATCH_SIZE)
    ]
    return np.concatenate(parts).astype(np.float64)


def measure(clips: Path) -> str:
    """Return two tables in Markdown. Weights are prepared in the working directory."""
    paths = list(fetch_clips(clips))
    lines = [
        "| interpolation | network | weights | cosine, worst | centred, worst |",
        "|---|---|---|---|---|",
    ]
    for interpolation in ("bicubic", "bilinear"):
        view = View(
            frame_rate=FRAME_RATE,
            resize_size=RESIZE_SIZE,
            crop_size=CROP_SIZE,
            interpolation=interpolation,
            resizer="pillow",
        )
        exact, _ = frames_of(paths, view)
        scaled, _ = frames_of(paths, replace(view, resizer="ffmpeg"))
        for name, weights in NETWORKS.items():
            a, b = (features_of(name, frames) for frames in (scaled, exact))
            mean = b.mean(axis=0)
            worst = [f"{v.min():.5f}" for v in (cosines(a, b), cosines(a - mean, b - mean))]
            kind = "real" if weights == "auto" else weights
            lines.append(f"| {interpolation} | {name} | {kind} | {' | '.join(worst)} |")
    lines += ["", "| frames/s | video | ffmpeg, s of CPU | pillow, s of CPU |", "|---|---|---|---|"]
    for rate in (1, 24):
        view = View(frame_rate=rate, resize_size=RESIZE_SIZE, crop_size=CROP_SIZE)
        for path in paths:
            _, scaled_seconds = frames_of([path], view)
            _, whole_seconds = frames_of([path], replace(view, resizer="pillow"))
            lines.append(f"| {rate} | {path.name} | {scaled_seconds:.2f} | {whole_seconds:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print_tables(__doc__, measure)
