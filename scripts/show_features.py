"""Show what a run of efficientnet_lite0 made: shapes, times, and what the network saw.

The classes come from the network's own last layer, applied to the stored features: so
these must be .npz files made with `l2_normalize: false`.
"""

from __future__ import annotations

import argparse

import numpy as np

from videofeatures.backbones import BACKBONES
from videofeatures.rows import read_rows
from videofeatures.weights import find_weights, load_network, prepare_weights

BACKBONE = "efficientnet_lite0"
MAX_ROWS_SHOWN = 10


def top_classes(features: np.ndarray) -> list[tuple[str, float]]:
    """The most likely ImageNet class of each feature, (rows, 1280), and its probability."""
    import torch
    from torchvision.models import EfficientNet_B0_Weights

    names = EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
    backbone = BACKBONES[BACKBONE]
    network = load_network(backbone, prepare_weights(find_weights(BACKBONE, "auto")))
    scores = network.get_submodule(backbone.classifier)(torch.from_numpy(features).float())
    best = scores.softmax(dim=1).max(dim=1)
    return [(names[k], float(p)) for p, k in zip(best.values, best.indices, strict=True)]


def main() -> None:
    """Print a few lines for each row of a CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", help="the CSV that was run")
    for row in read_rows(parser.parse_args().csv):
        with np.load(row.feature_path) as file:
            features, timestamps = file["features"], file["timestamps"]
        print(f"\n{row.feature_path}: {features.shape[0]} x {features.shape[1]} {features.dtype}")
        seen = top_classes(features)
        for timestamp, (name, probability) in list(zip(timestamps, seen, strict=True))[
            :MAX_ROWS_SHOWN
        ]:
            print(f"  at {timestamp:4.1f} s: {name} ({probability:.0%})")
        if len(seen) > MAX_ROWS_SHOWN:
            print(f"  … {len(seen) - MAX_ROWS_SHOWN} more rows")


if __name__ == "__main__":
    main()
