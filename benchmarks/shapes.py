"""How fast a network computes batches of several shapes, in a lucky and in an unlucky order.

The same batches, to a network that is fresh: once the common shape in full batches first, once
what is rare first: a portrait video, a batch that was not full, small frames. If the first batch
decides how fast later ones are, the second order is slower. Beside it, the rate for each size of
a batch, and the size that a job finds out for itself.

From memory, with random weights. CPU time is that of the process, all threads: other work on the
machine disturbs it less than the clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from videofeatures.extraction.batch_size import BatchSizeSearch
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.network import Network, choose_device, choose_dtype
from videofeatures.networks.weights import find_weights, prepare_weights

COMMON = {"resnet152": (224, 398, 3), "resnext101": (16, 112, 112, 3)}
"""The shape of 16:9 videos: by far the commonest there is."""

RARE: dict[str, list[tuple[int, ...]]] = {
    "resnet152": [(2, 224, 126, 3), (1, 224, 398, 3), (2, 398, 224, 3), (1, 96, 170, 3)],
    "resnext101": [(1, 16, 112, 112, 3), (3, 16, 112, 112, 3)],
}
"""Shapes of batches that come once: portrait videos, and batches that were not full."""

NUM_COMMON = 6
COMMON_BATCH = 4
SIZES = (1, 2, 4, 8, 16)


def orders(name: str) -> dict[str, list[np.ndarray]]:
    """Return the same batches in two orders, by what these are called."""
    rng = np.random.default_rng(0)
    rare = [rng.integers(0, 256, shape, np.uint8) for shape in RARE[name]]
    shape = (COMMON_BATCH, *COMMON[name])
    common = [rng.integers(0, 256, shape, np.uint8) for _ in range(NUM_COMMON)]
    return {"lucky": [*common, *rare], "unlucky": [*rare, *common]}


def open_network(name: str, precision: str) -> Network:
    """Return a network with random weights that has computed nothing yet."""
    device = choose_device()
    weights_path = prepare_weights(find_weights(name, "random"))
    dtype = choose_dtype(precision, device)
    return Network(BACKBONES[name], weights_path, device=device, dtype=dtype)


def measure_orders(precisions: Sequence[str]) -> str:
    """Return a table in Markdown: both orders, for each network and precision."""
    lines = [
        "| network | precision | first batches | seconds | CPU s | the common shape, a CPU s "
        "| all, a CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in COMMON:
        for precision in precisions:
            for order, batches in orders(name).items():
                network = open_network(name, precision)
                cpu, wall = np.zeros(len(batches)), np.zeros(len(batches))
                for k, batch in enumerate(batches):
                    started = time.process_time(), time.monotonic()
                    network.features(batch)
                    cpu[k], wall[k] = (
                        time.process_time() - started[0],
                        time.monotonic() - started[1],
                    )
                common = [b.shape == (COMMON_BATCH, *COMMON[name]) for b in batches]
                # The median: the first one of a shape sets up, whatever the order.
                rate = COMMON_BATCH / np.median(cpu[common])
                total = sum(map(len, batches)) / cpu.sum()
                lines.append(
                    f"| {name} | {precision} | {order} | {wall.sum():.1f} | {cpu.sum():.1f} "
                    f"| {rate:.2f} | {total:.2f} |"
                )
    return "\n".join(lines)


def measure_sizes(precisions: Sequence[str]) -> str:
    """Return a table in Markdown: the rate for each size, and the size that is found."""
    lines = [
        f"| network | precision | {' | '.join(f'{size}, /s' for size in SIZES)} | found |",
        "|---|---|" + "---|" * (len(SIZES) + 1),
    ]
    for name, shape in COMMON.items():
        for precision in precisions:
            network = open_network(name, precision)
            search = BatchSizeSearch(SIZES)
            best = dict.fromkeys(SIZES, 0.0)
            while not search.is_settled:
                size = search.size
                batch = np.zeros((size, *shape), np.uint8)
                started = time.monotonic()
                network.features(batch)
                seconds = time.monotonic() - started
                best[size] = max(best[size], size / seconds)
                search.record(size, seconds)
            rates = " | ".join(f"{rate:.2f}" for rate in best.values())
            lines.append(f"| {name} | {precision} | {rates} | {search.size} |")
    return "\n".join(lines)


def measure(precisions: Sequence[str]) -> str:
    """Return both tables, in Markdown. Weights are prepared in the working directory."""
    return f"{measure_orders(precisions)}\n\n{measure_sizes(precisions)}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--sizes", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print((measure if args.sizes else measure_orders)(args.precisions))


if __name__ == "__main__":
    main()
