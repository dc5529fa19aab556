"""transformers' networks on images and clips: `facebook/dinov2-base`, `MCG-NJU/videomae-base`.

A name is that of a repository of the Hugging Face hub, or of a folder that has its files. Nothing
of these is run: they are read as data, for the library's own classes. A type that the library
knows, such as `videomae`, is its default network, whose weights are random.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoImageProcessor, AutoVideoProcessor

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.frames import resizing_of
from videofeatures.decoding.view import View
from videofeatures.errors import UserError
from videofeatures.networks import hub, shards
from videofeatures.networks.backbones import Backbone
from videofeatures.networks.backbones.families import did_you_mean
from videofeatures.networks.backbones.transforms import Channels, channels, square

HERE = "videofeatures.networks.backbones.from_transformers"
WEIGHTS_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
"""What the library keeps on the hub: large networks in several files, which an index names. The
last is read without what it could run."""

CONFIG_FILE = "config.json"
PROCESSOR_FILES = (
    "processor_config.json",
    "video_preprocessor_config.json",
    "preprocessor_config.json",
)
"""Where the library says how a network is fed; a repository has one of them, or several."""

CODE_KEYS = frozenset(
    ("auto_map", "custom_pipelines", "_attn_implementation", "attn_implementation")
)
"""What may name code that is fetched and run."""

INTERPOLATIONS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""By Pillow's numbers, which the library's files have."""

MAX_MEAN_LEVELS, MAX_LEVELS = 1, 8
"""How far our pixels may be from the library's, of 255: torch and Pillow round otherwise. A crop
that is off by one pixel of noise is off by 50 in the mean."""

MAX_DETAIL = 150
"""Letters of what the library says of an error: it lists all that it knows."""

DROPPING = ("dropout", "dot_product")
"""Parts of the names of torch's operators that draw in training alone."""


def describe(name: str) -> Backbone:
    """Return a network of transformers, fed as its processor does it.

    Args:
        name: a repository, OWNER/NAME; a folder; or a type of networks.

    Raises:
        UserError: there is none, its files are not to be had, it needs code of its own, sees no
            images or clips, or is fed as a view cannot.
    """
    _be_quiet()
    config_json = _read_config(name)
    try:
        with torch.device("meta"):
            network = _build(config_json).eval()
    except Exception as error:  # a package that it needs is missing, a size does not fit, …
        raise UserError(f"transformers:{name}: cannot be built: {_first_line(error)}") from None
    if network.main_input_name == "input_ids" and not _projection(network):
        raise UserError(
            f"transformers:{name}: {type(network).__name__} sees no images or clips without texts. "
            "Choose another network"
        )
    num_frames = _num_frames(network.config)
    processor = _read_processor(name, config_json, is_video=num_frames is not None)
    view, mean, std = _read_processing(processor, name, num_frames)
    poolings, num_tokens = _find_poolings(network, view, name)
    return Backbone(
        constructor=f"{HERE}:build",
        arguments=(config_json,),
        extractor=f"{HERE}:extract",
        converter=f"{HERE}:convert",
        feature_dim=next(iter(poolings.values())),
        poolings=poolings,
        num_tokens=num_tokens,
        weights=_find_weights(name),
        view=view,
        mean=mean,
        std=std,
        weights_hint="" if _is_place(name) else "a type of networks has no weights: name one",
    )


def build(config_json: str) -> nn.Module:
    """Return the network of a configuration, untrained."""
    _be_quiet()
    # Also where the default device is another: some tables are computed here, and in no file.
    with torch.device("cpu"):
        return _build(config_json)


def convert(state: dict[str, torch.Tensor], _: str, config_json: str) -> nn.Module:
    """Return the network of a configuration with weights in whatever form the library takes: also
    of this network under a head.

    Raises:
        RuntimeError: weights are missing, or have other shapes.
    """
    _be_quiet()
    config = _config(config_json)
    model_class = _model_class(config)
    network, info = model_class.from_pretrained(
        None,
        config=config,
        state_dict=state,
        dtype=torch.float32,
        output_loading_info=True,
        **_options(model_class),
    )
    missing = sorted(info["missing_keys"]) + [str(key) for key in info["mismatched_keys"]]
    if missing or info["error_msgs"]:
        shown = ", ".join(missing[:3]) or info["error_msgs"][0]
        raise RuntimeError(f"missing or of another shape: {shown}, {len(missing)} in all")
    return network


def extract(network: nn.Module, pooling: str) -> nn.Module:
    """Return a network that gives features; `projected` is what the library compares with texts."""
    return _Features(network, pooling)


class _Features(nn.Module):
    """The features of a network, of its side that sees images or clips."""

    def __init__(self, network: Any, pooling: str):
        super().__init__()
        self._pooling = pooling
        self._config = getattr(network.config, "vision_config", network.config)
        if pooling == "projected":
            # What only texts go through would take the device's memory.
            for name, _ in list(network.named_children()):
                if name.startswith("text_"):
                    setattr(network, name, None)
            self.tower = network
        else:
            self.tower = _tower(network)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        is_video = x.ndim == 5
        pixels = x.transpose(1, 2) if is_video else x  # time before colour
        if self._pooling == "projected":
            output = _projection(self.tower)(pixels)
            features = output if isinstance(output, torch.Tensor) else output.pooler_output
            return features.flatten(1)  # VideoPrism's are (N, 1, dim)
        output = self.tower(pixels)
        if self._pooling == "pooled":
            return output.pooler_output.flatten(1)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # a map, (N, dim, height, width)
            tokens = tokens.flatten(2).transpose(1, 2)
            num_prefix_tokens = 0
        else:
            num_prefix_tokens = _num_prefix_tokens(self._config, tokens.shape[1], x.shape[2:])
        if self._pooling == "class_token":
            return tokens[:, 0]
        tokens = tokens[:, num_prefix_tokens:]
        return tokens if self._pooling == "tokens" else tokens.mean(dim=1)

    def has_pooling(self, x: torch.Tensor) -> bool:
        """Return whether the network's output has what its pooling is made of."""
        output = self.tower(x.transpose(1, 2) if x.ndim == 5 else x)
        if self._pooling == "pooled":
            return getattr(output, "pooler_output", None) is not None
        tokens = output.last_hidden_state
        if tokens.ndim == 4:
            return self._pooling != "class_token"
        if not (hasattr(self._config, "patch_size") or hasattr(self._config, "tubelet_size")):
            return False  # nobody knows which tokens are of patches
        num_prefix_tokens = _num_prefix_tokens(self._config, tokens.shape[1], x.shape[2:])
        return self._pooling != "class_token" or num_prefix_tokens > 0


class _NoChance(TorchDispatchMode):
    """Refuses what draws random numbers, as networks do that hide patches of each image."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        draws = torch.Tag.nondeterministic_seeded in func.tags
        if draws and not any(word in str(func) for word in DROPPING):
            raise ValueError(f"its features depend on chance ({func})")
        return func(*args, **(kwargs or {}))


def _tower(network: Any) -> Any:
    """Return what of a network sees images or clips, without what it makes texts or guesses of."""
    if hasattr(network, "get_image_features"):
        return network.vision_model
    return network.encoder if hasattr(network, "predictor") else network


def _projection(network: Any) -> Any:
    """Return what makes of images or clips what the library compares with texts; None without."""
    of_images = getattr(network, "get_image_features", None)
    return of_images or getattr(network, "get_video_features", None)


def _num_prefix_tokens(config: Any, num_tokens: int, sides: tuple[int, ...]) -> int:
    """Return how many tokens come before those of patches or tubes: a class token, and registers.

    Args:
        sides: of the input, (height, width) or (frames, height, width).
    """
    patch = getattr(config, "tubelet_size", None) or 1
    if isinstance(patch, int):
        size = config.patch_size
        patch = (patch, *(size if isinstance(size, (list, tuple)) else (size, size)))
    num_patches = math.prod(
        side // step for side, step in zip(sides, patch[-len(sides) :], strict=True)
    )
    # Networks that merge patches have fewer.
    return max(num_tokens - num_patches, 0)


def _find_poolings(network: nn.Module, view: View, name: str) -> tuple[dict[str, int], int]:
    """Return what can be made of a network's output, each with its length, and how many tokens
    there are, by trying it out.

    Raises:
        UserError: the network does not take a view's frames.
    """
    height, width = _frame_size(view)
    frames = [view.num_frames_per_clip] if view.num_frames_per_clip else []
    pixels = torch.empty((1, 3, *frames, height, width), device="meta")
    names = ["class_token", "mean", "tokens"]
    # The default comes first. Networks on clips are used by their tokens.
    names = [*names, "pooled"] if frames else ["pooled", *names]
    if _projection(network):
        # What X-CLIP's frames are before is no feature of its clips.
        names = ["projected", *names] if hasattr(network, "get_image_features") else ["projected"]
    shapes = {}
    try:
        for pooling in names:
            features = _Features(network, pooling)
            with torch.inference_mode(), _NoChance():
                if pooling == "projected" or features.has_pooling(pixels):
                    shapes[pooling] = tuple(features(pixels).shape[1:])
    except Exception as error:
        raise UserError(
            f"transformers:{name}: does not take frames of {width}×{height}, as its processor "
            f"makes them: {_first_line(error)}"
        ) from None
    if not shapes:
        raise UserError(
            f"transformers:{name}: {type(network).__name__} gives nothing that is known here to be "
            "a feature. Choose another network"
        )
    num_tokens = shapes["tokens"][0] if "tokens" in shapes else 0
    return {pooling: shape[-1] for pooling, shape in shapes.items()}, num_tokens


def _frame_size(view: View) -> tuple[int, int]:
    """Return (height, width) of a view's frames; those of a wide video, if they are whole."""
    if view.crop_size:
        return view.crop_size, view.crop_size
    if view.resize_mode == "squash":
        return view.resize_size, view.resize_width or view.resize_size
    return view.resize_size, int(view.resize_size * 16 / 9)


def _is_folder(name: str) -> bool:
    """Return whether a name is that of a network's folder."""
    return os.path.isfile(Path(name) / CONFIG_FILE)


def _is_place(name: str) -> bool:
    """Return whether a name is that of a folder or a repository, not that of a type."""
    return _is_folder(name) or hub.is_repository(name)


def _read_config(name: str) -> str:
    """Return the configuration of a network, as JSON, without what may name code."""
    if _is_folder(name):
        content = hub.read_json_file(Path(name) / CONFIG_FILE)
    elif hub.is_repository(name):
        content = hub.read_json(name, CONFIG_FILE)
    elif name in CONFIG_MAPPING:
        content = CONFIG_MAPPING[name]().to_dict()
    else:
        hint = did_you_mean(name, CONFIG_MAPPING)
        raise UserError(
            f"transformers:{name}: is no folder, no repository OWNER/NAME, and no type that "
            f"transformers knows{hint}"
        )
    kind = content.get("model_type")
    if (
        not isinstance(kind, str)
        or kind not in CONFIG_MAPPING
        or CONFIG_MAPPING[kind] not in MODEL_MAPPING
    ):
        if "auto_map" in content:
            why = "needs code of its own, which is not run here"
        else:
            why = f"transformers {transformers.__version__} has no network of the type {kind!r}"
        raise UserError(
            f"transformers:{name}: {why}. Choose another network; those of timm are timm:NAME"
        )
    if "quantization_config" in content:
        raise UserError(
            f"transformers:{name}: its weights are quantized, which cannot be read here. Choose "
            "the network that they were made of"
        )
    return json.dumps(_without_code(content), sort_keys=True)


def _without_code(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _without_code(value) for k, value in content.items() if k not in CODE_KEYS}
    return [_without_code(value) for value in content] if isinstance(content, list) else content


def _read_processor(name: str, config_json: str, *, is_video: bool) -> Any:
    """Return the library's own processor of a network's images or clips."""
    files = {CONFIG_FILE: config_json}
    for file_name in PROCESSOR_FILES:
        if content := _find_json(name, file_name):
            files[file_name] = json.dumps(_without_code(content))
    if len(files) == 1:
        if hub.is_repository(name) and not _is_folder(name):
            hub.read_json(name, PROCESSOR_FILES[-1])  # which says why it cannot be had
        if _is_folder(name):
            raise UserError(f"{name}: has none of {', '.join(PROCESSOR_FILES)}. Copy it there")
        files[PROCESSOR_FILES[-1]] = "{}"
    problem: Exception | None = None
    with tempfile.TemporaryDirectory() as folder:
        for file_name, text in files.items():
            (Path(folder) / file_name).write_text(text, encoding="utf-8")
        for load in _loaders(is_video):
            try:
                return load(folder)
            except Exception as error:  # the library raises many kinds
                problem = problem or error
    assert problem is not None
    what = "clips" if is_video else "images"
    reason = _first_line(problem).replace(folder, "its repository")
    raise UserError(f"transformers:{name}: has no processor of {what}: {reason}")


def _loaders(is_video: bool) -> Iterator[Any]:
    if is_video:
        yield lambda folder: AutoVideoProcessor.from_pretrained(folder, trust_remote_code=False)
    yield lambda folder: AutoImageProcessor.from_pretrained(
        folder, trust_remote_code=False, backend="pil"
    )


def _find_json(name: str, file_name: str) -> dict[str, Any] | None:
    if _is_folder(name):
        path = Path(name) / file_name
        return hub.read_json_file(path) if path.exists() else None
    return hub.find_json(name, file_name) if hub.is_repository(name) else None


def _read_processing(
    processor: Any, name: str, num_frames: int | None
) -> tuple[View, Channels, Channels]:
    """Return how a processor's frames are made, and its mean and standard deviation, of 0 to 255.

    Raises:
        UserError: a view cannot do so. What the processor's settings leave open, an image shows.
    """
    mean, std = _read_normalization(processor)
    rate = getattr(processor, "fps", None)
    clips: dict[str, Any] = {"frame_rate": 1}
    if num_frames:
        # Unless the library says so, each frame is taken.
        clips = {
            "frame_rate": rate or "native",
            "num_frames_per_clip": num_frames,
            "last_clip": "shift",
        }
    view = View(**clips, **_read_geometry(processor, name))
    _check(processor, view, mean, std, name)
    return view, mean, std


def _read_geometry(processor: Any, name: str) -> dict[str, Any]:
    """Return the attributes of a view that say how a frame is resized and cropped."""
    size, crop = processor.size, processor.crop_size
    resample = processor.resample
    if not (processor.do_resize and size) or resample not in INTERPOLATIONS:
        raise UserError(f"transformers:{name}: {_shown(processor)} resizes in a way of its own")
    view = {
        "resizer": "pillow",
        "interpolation": INTERPOLATIONS[resample],
        "crop_rounding": "down",
        "crop_size": 0,
    }
    if processor.do_center_crop:
        view["crop_size"] = square((crop.height, crop.width), name=f"transformers:{name}")
    share = getattr(processor, "crop_pct", None)  # ConvNeXt's, which says `shortest_edge` for both
    if share and size.shortest_edge:
        side = size.shortest_edge
        if side < 384:
            return view | {"resize_size": int(side / share), "crop_size": side}
        return view | {"resize_size": side, "resize_mode": "squash"}
    if size.shortest_edge and not size.longest_edge:
        return view | {"resize_size": size.shortest_edge}
    if size.height and size.width:
        width = {} if size.width == size.height else {"resize_width": size.width}
        return view | {"resize_size": size.height, "resize_mode": "squash"} | width
    raise UserError(f"transformers:{name}: {_shown(processor)} makes frames of many sizes")


def _read_normalization(processor: Any) -> tuple[Channels, Channels]:
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    scale, offset = 1.0, 0.0
    if processor.do_normalize:
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    if processor.do_rescale:
        scale = round(1 / processor.rescale_factor, 6)  # 255, not 254.99999999999997
    if hasattr(processor, "rescale_and_normalize"):
        # ViViT's moves its numbers, too.
        black = torch.zeros(3, 1, 1)
        rescaled = processor.rescale_and_normalize(
            black, processor.do_rescale, processor.rescale_factor, False, mean, std
        )
        offset = float(rescaled[0, 0, 0])
    return (
        channels((value - offset) * scale for value in mean),
        channels(value * scale for value in std),
    )


def _three(values: float | tuple[float, ...]) -> Channels:
    return channels([values] * 3 if isinstance(values, (int, float)) else values)


def _check(processor: Any, view: View, mean: Channels, std: Channels, name: str) -> None:
    """Check that a view makes of an image what the processor makes of it.

    Raises:
        UserError: it does not.
    """
    image = _make_image(view)
    ours = _see(image, view)
    try:
        theirs = _process(processor, image, is_video=view.num_frames_per_clip is not None)
    except Exception as error:
        raise UserError(f"transformers:{name}: {_shown(processor)}: {_first_line(error)}") from None
    is_same = theirs.shape == ours.shape
    if is_same:
        levels = np.abs(theirs * std + mean - ours)
        is_same = bool(levels.mean() <= MAX_MEAN_LEVELS and levels.max() <= MAX_LEVELS)
    if not is_same:
        raise UserError(
            f"transformers:{name}: {_shown(processor)} does more to an image than to resize, crop "
            "and normalise it, which cannot be done here. Choose another network"
        )


def _make_image(view: View) -> np.ndarray:
    """Return noise that is larger than a view's frames, and of which the crop is off the middle by
    half a pixel."""
    height = round(1.3 * view.resize_size)
    width = round(1.8 * view.resize_size)
    while view.crop_size and (int(width * view.resize_size / height) - view.crop_size) % 4 != 3:
        width += 1
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def _see(image: np.ndarray, view: View) -> np.ndarray:
    """Return what the decoder makes of an image, (height, width, 3), uint8."""
    height, width, _ = image.shape
    metadata = VideoMetadata(width, height, Fraction(1), None, None, "")
    return resizing_of(metadata, view).finish(image)


def _process(processor: Any, image: np.ndarray, *, is_video: bool) -> np.ndarray:
    """Return what a processor makes of an image, or of a clip of it: (height, width, 3)."""
    if is_video:
        output = processor(np.stack([image, image]), return_tensors="np", do_sample_frames=False)
    else:
        output = processor(Image.fromarray(image), return_tensors="np")
    pixels = np.asarray(next(iter(output.values())))
    return np.moveaxis(pixels.reshape(-1, *pixels.shape[-3:])[0], 0, -1)


def _find_weights(name: str) -> dict[str, str]:
    if _is_folder(name):
        paths = [Path(name).absolute() / file_name for file_name in WEIGHTS_FILES]
        present = [path for path in paths if path.exists()]
        return {"own": str((present or paths)[0])}
    return {"own": shards.find_origin(name, WEIGHTS_FILES)} if hub.is_repository(name) else {}


def _build(config_json: str) -> Any:
    config = _config(config_json)
    model_class = _model_class(config)
    return model_class._from_config(config, dtype=torch.float32, **_options(model_class))


def _config(config_json: str) -> Any:
    content = json.loads(config_json)
    return CONFIG_MAPPING[content["model_type"]].from_dict(content)


def _model_class(config: Any) -> Any:
    classes = MODEL_MAPPING[type(config)]
    return classes[0] if isinstance(classes, (list, tuple)) else classes


def _options(model_class: Any) -> dict[str, Any]:
    """Return what a class is built with: without a pooler that classifiers' files do not have."""
    has_choice = "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
    return {"add_pooling_layer": False} if has_choice else {}


def _num_frames(config: Any) -> int | None:
    """Return how many frames a network on clips sees; None of a network on images."""
    if hasattr(config, "text_config"):  # X-CLIP, VideoPrism
        config = getattr(config, "vision_config", config)
    return getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)


def _shown(processor: Any) -> str:
    return type(processor).__name__


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no detail'}"[:MAX_DETAIL]


def _be_quiet() -> None:
    """Keep the library's advice to programmers, and its progress bars, off the logs."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
