"""What networks are fed with, made in a second way: as a view says it, with Pillow alone."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from videofeatures.decoding.view import View
from videofeatures.networks.backbones import Backbone

RESAMPLING = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def see(image: Image.Image, view: View) -> np.ndarray:
    """What a view makes of an image: (height, width, 3), uint8."""
    side, (width, height) = view.resize_size, image.size
    if view.resize_mode == "squash":
        size = (view.resize_width or side, side)
    elif width <= height:
        size = (side, int(side * height / width))
    else:
        size = (int(side * width / height), side)
    frame = np.asarray(image.resize(size, RESAMPLING[view.interpolation]))
    if not view.crop_size:
        return frame
    margins = [length - view.crop_size for length in frame.shape[:2]]
    if view.crop_rounding == "nearest":
        top, left = (round(margin / 2) for margin in margins)
    else:
        top, left = (margin // 2 for margin in margins)
    return frame[top : top + view.crop_size, left : left + view.crop_size]


def normalise(pixels: np.ndarray, backbone: Backbone) -> torch.Tensor:
    """What a network is given of frames (…, height, width, 3): (…, 3, height, width)."""
    frames = torch.tensor(pixels).float()
    frames = (frames - torch.tensor(backbone.mean)) / torch.tensor(backbone.std)
    return frames.movedim(-1, -3)


def feed(image: Image.Image, backbone: Backbone) -> torch.Tensor:
    """What a network is given of an image: (3, height, width)."""
    return normalise(see(image, backbone.view), backbone)


def read_frames(path: Path, number: int) -> list[Image.Image]:
    """The first frames of a video, RGB."""
    with av.open(str(path)) as container:
        frames = container.decode(video=0)
        return [next(frames).to_image() for _ in range(number)]


def make_images(frame: Image.Image) -> dict[str, Image.Image]:
    """Images of many shapes, of a frame and of noise; odd sides leave half a pixel at the crop."""
    shapes = {
        "odd": (331, 257),
        "portrait": (243, 431),
        "4:3": (640, 480),
        "square": (300, 300),
        "small": (91, 71),
        "wide": (517, 224),
    }
    rng = np.random.default_rng(0)
    images = {name: frame.resize(size) for name, size in shapes.items()}
    noise = {
        f"{name} noise": Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        for name, (width, height) in shapes.items()
    }
    return {"frame": frame} | images | noise


def worst_cosine(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The smallest cosine of rows that belong together."""
    return float(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1).min())
