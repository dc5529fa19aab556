"""What it saves to decode a video once for several backbones: CPU time, one run beside single ones.

Decoding alone, with all that is done to frames before a network is given them, one thread for each
ffmpeg; this process and its workers included.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from resizing import cpu_seconds_of_all
from tables import print_tables

from fetch_clips import fetch_clips
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.networks.backbones import find_backbone
from videofeatures.settings import Settings
from videofeatures.source import Source

GROUPS = (
    ("resnet152", "resnext101"),
    ("resnet152", "efficientnet_lite0", "timm:vit_tiny_patch16_224"),
)
"""The two of the original program, and three on frames, of which the last is fed by Pillow."""


def decode(paths: list[Path], names: tuple[str, ...]) -> float:
    """Return the CPU time that it takes to decode videos once for some backbones, in seconds."""
    views = [find_backbone(name).view for name in names]
    before = cpu_seconds_of_all()
    with FfmpegDecoder(Settings()) as decoder:
        for path in paths:
            decoding = Decoding(decoder, Source(str(path)), *views)
            for _ in decoding.clips_of_views():
                pass
            assert not any(view.error for view in decoding.views)
    return cpu_seconds_of_all() - before


def measure(clips: Path) -> str:
    """Return a table in Markdown."""
    lines = [
        "| video | backbones | together, s of CPU | one by one, s of CPU | of it |",
        "|---|---|---|---|---|",
    ]
    for names in GROUPS:
        for path in fetch_clips(clips):
            together = decode([path], names)
            single = sum(decode([path], (name,)) for name in names)
            share = f"{together / single:.2f}"
            row = (path.name, ", ".join(names), f"{together:.2f}", f"{single:.2f}", share)
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print_tables(__doc__, measure)
