"""The flow of the program of 2019, written plainly: what a collection cost before.

Worker processes decode whole videos with ffmpeg, as float32; the main process computes them
one video after the other, in batches of 64 of its own frames or clips, with the network as
published; then it writes the file. Frames, weights and network are ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
import torch
from torch.nn.functional import normalize
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from videofeatures.decoding.frames import resized_size
from videofeatures.decoding.probe import probe_video
from videofeatures.networks.backbones import BACKBONES, Backbone
from videofeatures.networks.weights import load_network
from videofeatures.planning.rows import read_rows

BATCH_SIZE = 64


class Collection(Dataset):
    """Whole videos, (frames, 3, height, width), float32, 0 to 255."""

    def __init__(self, csv: str, backbone: Backbone):
        self.rows = read_rows(csv)
        self.backbone = backbone

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        row, view = self.rows[index], self.backbone.view
        path, side = row.source.path, view.crop_size
        metadata = probe_video(path)
        assert metadata is not None
        width, height = resized_size(metadata, view)
        stream = ffmpeg.input(path).filter("fps", fps=view.frame_rate)
        stream = stream.filter("scale", width, height, flags="bilinear")
        if side:
            stream = stream.crop((width - side) // 2, (height - side) // 2, side, side)
            width = height = side
        pixels, _ = stream.output("pipe:", format="rawvideo", pix_fmt="rgb24").run(
            cmd=imageio_ffmpeg.get_ffmpeg_exe(), capture_stdout=True, quiet=True
        )
        frames = np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3)
        return row.feature_paths[0], torch.from_numpy(frames.astype(np.float32)).permute(0, 3, 1, 2)


def preprocess(frames: torch.Tensor, backbone: Backbone) -> torch.Tensor:
    """Return normalised frames, or clips (N, 3, frames, height, width), float32.

    Args:
        frames: (N, 3, height, width), float32, 0 to 255.
    """
    length = backbone.view.num_frames_per_clip
    if length:
        padding = -len(frames) % length
        frames = torch.cat([frames, torch.zeros(padding, *frames.shape[1:])])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.mean, backbone.std))
    frames = (frames - mean) / std
    return frames.unflatten(0, (-1, length)).transpose(1, 2) if length else frames


@torch.no_grad()
def main() -> None:
    """Extract a CSV, and print a line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--csv", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--weights", required=True, help="file of the network's weights")
    parser.add_argument("--workers", type=int, required=True)
    args = parser.parse_args()
    backbone = BACKBONES[args.backbone]
    network = load_network(backbone, args.weights)
    setattr(network, backbone.classifier, torch.nn.Identity())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    loaded_time = time.time()
    num_features = 0
    # One video a batch, as there: the copy leaves pixels in the order of (3, height, width).
    loader = DataLoader(Collection(args.csv, backbone), batch_size=1, num_workers=args.workers)
    for (feature_path,), (frames,) in loader:
        batches = preprocess(frames, backbone).split(BATCH_SIZE)
        features = torch.cat([normalize(network(batch.to(device)), dim=1) for batch in batches])
        Path(feature_path).parent.mkdir(parents=True, exist_ok=True)
        np.save(feature_path, features.cpu().numpy().astype(np.float16))
        num_features += len(features)
    print(json.dumps({"loaded_time": loaded_time, "num_features": num_features}))


if __name__ == "__main__":
    main()
