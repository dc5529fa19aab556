"""What libraries do with an image before their networks see it, as views have it.

torchvision, timm and open_clip hand out the steps as objects: these are read, so that no size or
mean is typed in here. What a view cannot do the same way is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from videofeatures.errors import UserError

Channels = tuple[float, float, float]


class Preprocessing(NamedTuple):
    """How a library feeds its network.

    Attributes:
        view: attributes of `View`.
        mean, std: for pixels of 0 to 255.
    """

    view: dict[str, Any]
    mean: Channels
    std: Channels


def read_steps(steps: Iterable[object], *, name: str) -> Preprocessing:
    """Return the preprocessing that torchvision's transforms do, one after the other.

    Args:
        steps: of a `Compose`: a resize, a crop and a normalisation; what only converts is left
            out.
        name: of the network, for messages.

    Raises:
        UserError: a step is none that a view can do.
    """
    view: dict[str, Any] = {"crop_size": 0}
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    for step in steps:
        kind = type(step).__name__
        if kind == "Resize":
            view |= view_of_resize(step.size, str(step.interpolation.value), name=name)  # type: ignore[attr-defined]
        elif kind == "CenterCrop":
            view["crop_size"] = square(step.size, name=name)  # type: ignore[attr-defined]
        elif kind == "Normalize":
            mean, std = channels(step.mean), channels(step.std)  # type: ignore[attr-defined]
        elif kind not in CONVERSIONS:
            raise UserError(f"{name}: its frames go through {kind}, which cannot be done here")
    if "resize_size" not in view:
        raise UserError(f"{name}: its library says of no size to resize to")
    return Preprocessing(view, pixels(mean), pixels(std))


CONVERSIONS = ("MaybeToTensor", "ToTensor", "MaybePILToTensor", "MaybeConvertMode", "function")
"""Steps that change how an image is held, not what it shows; those of open_clip convert to RGB."""


def view_of_resize(size: int | Sequence[int], interpolation: str, *, name: str) -> dict[str, Any]:
    """Return what torchvision's `resize` does, as attributes of a `View`.

    Args:
        size: of the shortest side, or (height, width), to which the frame is squashed.

    Raises:
        UserError: there is no such interpolation here.
    """
    if interpolation not in ("bilinear", "bicubic", "lanczos"):
        raise UserError(f"{name}: resizes by {interpolation}, which cannot be done here")
    sides = [size] if isinstance(size, int) else [int(side) for side in size]
    view = {"interpolation": interpolation, "resizer": "pillow", "crop_rounding": "nearest"}
    if len(sides) == 1:
        return view | {"resize_size": sides[0]}
    height, width = sides
    squash = {"resize_size": height, "resize_mode": "squash"}
    return view | squash | ({} if width == height else {"resize_width": width})


def square(size: int | Sequence[int], *, name: str) -> int:
    """Return the side of a square, which may be given by both sides.

    Raises:
        UserError: it is none.
    """
    sides = {size} if isinstance(size, int) else {int(side) for side in size}
    if len(sides) != 1:
        raise UserError(f"{name}: wants frames of {size}, and here they are square, or whole")
    return sides.pop()


def channels(values: Iterable[float]) -> Channels:
    """Return a number for each of red, green and blue."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def pixels(values: Channels) -> Channels:
    """Return numbers that are meant for pixels of 0 to 1, for pixels of 0 to 255."""
    red, green, blue = values
    return 255 * red, 255 * green, 255 * blue
