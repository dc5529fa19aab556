"""Videos whose pixels tell which frame they are of, and where they belong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conftest import run_ffmpeg

LOSSLESS = ("-c:v", "ffv1", "-pix_fmt", "yuv444p")


def make_numbered(path: Path, *, num_frames: int, rate: int) -> Path:
    """A lossless clip in which frame n has luma 16 + 2 n."""
    source = f"color=black:s=64x48:r={rate}:d={num_frames / rate},geq=lum=16+2*N:cb=128:cr=128"
    run_ffmpeg("-f", "lavfi", "-i", source, *LOSSLESS, path)
    return path


def numbers(frames) -> list[int]:
    """Which frames of `make_numbered` these are."""
    return [round(float(frame.mean()) * 219 / 255 / 2) for frame in frames]


def make_corners(path: Path, *options: str, size: str = "320x240", sar: str = "1") -> Path:
    """A clip: red at the top left, green at the top right, blue at the bottom, on black."""
    width, height = map(int, size.split("x"))
    w, h = width // 4, height // 4
    boxes = [("red", 0, 0), ("lime", width - w, 0), ("blue", 0, height - h)]
    drawn = ",".join(f"drawbox={x}:{y}:{w}:{h}:{colour}:fill" for colour, x, y in boxes)
    source = f"color=black:s={size}:r=5:d=2,format=rgb24,{drawn},setsar={sar}"
    run_ffmpeg("-f", "lavfi", "-i", source, *LOSSLESS, *options, path)
    return path


def colour_at(frame: np.ndarray, x: float, y: float) -> str:
    """Name of the colour at a place, given in parts of width and height."""
    height, width, _ = frame.shape
    pixel = frame[int(y * (height - 1)), int(x * (width - 1))]
    names = {(1, 0, 0): "red", (0, 1, 0): "lime", (0, 0, 1): "blue", (0, 0, 0): "black"}
    return names[tuple((pixel > 127).astype(int).tolist())]


def corners(frame: np.ndarray) -> list[str]:
    """Colours at the top left, top right, bottom left and bottom right."""
    near, far = 0.05, 0.95
    return [colour_at(frame, x, y) for y in (near, far) for x in (near, far)]
