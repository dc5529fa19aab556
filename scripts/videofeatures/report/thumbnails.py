"""Frames as small pictures, for people to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

JPEG_QUALITY = 70
CAPTION_HEIGHT = 14
SHEET_HEIGHT = 160


def middle_frame(pixels: np.ndarray) -> np.ndarray:
    """A frame itself, (height, width, 3), or the middle one of a clip, (frames, …)."""
    return pixels if pixels.ndim == 3 else pixels[len(pixels) // 2]


def thumbnail(frame: np.ndarray, height: int) -> Image.Image:
    """A frame (height, width, 3), uint8, at another height."""
    picture = Image.fromarray(frame)
    width = max(1, round(picture.width * height / picture.height))
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def data_url(picture: Image.Image) -> str:
    """A picture as a page can hold it."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def contact_sheet(pixels: Sequence[np.ndarray], captions: Sequence[str]) -> Image.Image:
    """Frames or clips side by side, with what is said of each below.

    Args:
        pixels: what the network was given, at least one.
        captions: one for each of them, or none.
    """
    pictures = [thumbnail(middle_frame(clip), SHEET_HEIGHT) for clip in pixels]
    width = sum(picture.width for picture in pictures)
    sheet = Image.new("RGB", (width, SHEET_HEIGHT + CAPTION_HEIGHT * bool(captions)), "white")
    draw, left = ImageDraw.Draw(sheet), 0
    for k, picture in enumerate(pictures):
        sheet.paste(picture, (left, 0))
        if captions:
            text = captions[k]
            while len(text) > 1 and draw.textlength(text) > picture.width - 4:
                text = text[:-1]
            draw.text((left + 2, SHEET_HEIGHT + 1), text, fill="black")
        left += picture.width
    return sheet
