"""Each family's networks are fed as their libraries feed them, to the pixel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from torchvision import models
from transformers import AutoImageProcessor, AutoVideoProcessor

from networks.feeding import feed, make_images, normalise, read_frames, see, worst_cosine
from videofeatures.networks.backbones import (
    Backbone,
    from_open_clip,
    from_timm,
    from_torchvision,
    from_transformers,
)

ROUNDING = 1e-5
"""What float32 leaves of the same numbers in another order."""

LEVELS = 2
"""Of 255: how far torch is from Pillow on frames. Both round between their two passes, which the
two do in another order where a frame is tall: of noise, bicubic then differs by up to 24 levels,
where it overshoots, and by 0.4 in the mean (measured)."""

MIN_COSINE = 0.9999

Transform = Callable[[Image.Image], torch.Tensor]


@pytest.fixture(scope="module")
def images(real_clips) -> dict[str, Image.Image]:
    (frame,) = read_frames(real_clips["bikes"], 1)
    return make_images(frame)


def largest_difference(
    backbone: Backbone, theirs: Transform, images: dict[str, Image.Image]
) -> tuple[float, str]:
    """The largest difference of a number that a network is given, and of which image."""
    return max(
        (float((feed(image, backbone) - theirs(image)).abs().max()), name)
        for name, image in images.items()
    )


def torchvision_transform(name: str) -> Transform:
    weights = models.get_model_weights(name).DEFAULT
    return weights.transforms()


def timm_transform(name: str) -> Transform:
    network = timm.create_model(name)
    data = timm.data.resolve_model_data_config(network)
    return timm.data.create_transform(**data, is_training=False)


def open_clip_transform(name: str) -> Transform:
    # As people get it: with a network, which has no weights here.
    model, _, tag = name.partition("/")
    settings = open_clip.get_pretrained_cfg(model, tag)
    keys = {"image_mean": "mean", "image_std": "std"}
    keys |= {"image_interpolation": "interpolation", "image_resize_mode": "resize_mode"}
    with torch.device("meta"):
        *_, transform = open_clip.create_model_and_transforms(
            model, device="meta", **{ours: settings[theirs] for ours, theirs in keys.items()}
        )
    return transform


def transformers_transform(kind: str, folder, backend: str) -> Transform:
    (folder / "config.json").write_text(from_transformers._read_config(kind))
    (folder / "preprocessor_config.json").write_text("{}")
    processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
    return lambda image: torch.as_tensor(
        np.asarray(processor(image, return_tensors="np")["pixel_values"][0])
    )


@pytest.mark.parametrize("name", ["resnet50", "vit_b_16", "convnext_tiny", "efficientnet_b1"])
def test_torchvision(name, images):
    backbone = from_torchvision.describe(name)
    assert largest_difference(backbone, torchvision_transform(name), images)[0] < ROUNDING


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_100"]
)
def test_timm(name, images):
    backbone = from_timm.describe(name)
    assert largest_difference(backbone, timm_transform(name), images)[0] < ROUNDING


@pytest.mark.parametrize(
    "name",
    [
        "ViT-B-32/openai",
        "ViT-B-16-SigLIP2/webli",
        "ViT-B-32-SigLIP2-256/webli",
        "MobileCLIP-S1/datacompdr",
        "MobileCLIP2-S0/dfndr2b",
        "RN50/yfcc15m",
        "PE-Core-B-16/meta",
        "ViT-H-14-CLIPA/datacomp1b",
    ],
)
def test_open_clip(name, images):
    backbone = from_open_clip.describe(name)
    assert largest_difference(backbone, open_clip_transform(name), images)[0] < ROUNDING


@pytest.mark.parametrize(
    "kind", ["clip", "dinov2", "siglip", "vit", "beit", "deit", "metaclip_2", "convnext"]
)
def test_transformers_on_images(kind, images, tmp_path):
    backbone = from_transformers.describe(kind)
    transform = transformers_transform(kind, tmp_path, "pil")
    assert largest_difference(backbone, transform, images)[0] < ROUNDING
    # What the library takes by default where torchvision is installed.
    transform = transformers_transform(kind, tmp_path, "torchvision")
    frames = {name: image for name, image in images.items() if "noise" not in name}
    difference, name = largest_difference(backbone, transform, frames)
    assert difference <= LEVELS / min(backbone.std) + ROUNDING, name


@pytest.mark.parametrize("kind", ["videomae", "vjepa2", "timesformer", "vivit"])
def test_transformers_on_clips(kind, images, tmp_path):
    backbone = from_transformers.describe(kind)
    (tmp_path / "config.json").write_text(backbone.arguments[0])
    (tmp_path / "video_preprocessor_config.json").write_text("{}")
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    for name, image in images.items():
        clip = np.stack([np.asarray(image), np.asarray(image)[::-1]])
        (theirs,) = processor(clip, return_tensors="pt").values()
        ours = normalise(np.stack([see(Image.fromarray(f), backbone.view) for f in clip]), backbone)
        assert theirs.shape[1:] == ours.shape
        difference = float((theirs[0] - ours).abs().max())
        assert difference <= LEVELS / min(backbone.std) + ROUNDING, name


@pytest.mark.parametrize("name", ["ViT-B-32/openai", "ViT-B-16-SigLIP2/webli"])
def test_what_the_decoder_makes_of_an_image_is_what_is_compared_here(name, images):
    view = from_open_clip.describe(name).view
    for image in images.values():
        ours = from_transformers._see(np.asarray(image), view)
        np.testing.assert_array_equal(ours, see(image, view))


def test_what_is_off_by_half_a_pixel_or_resized_otherwise_would_be_seen(images):
    # The tests above can fail.
    backbone = from_open_clip.describe("ViT-B-32/openai")
    theirs = open_clip_transform("ViT-B-32/openai")
    for change in ({"crop_rounding": "down"}, {"interpolation": "bilinear"}):
        view = type(backbone.view)(**(vars(backbone.view) | change))
        changed = Backbone(**(vars(backbone) | {"view": view}))
        assert largest_difference(changed, theirs, images)[0] > 0.1


def test_features_of_open_clip_are_those_of_its_own_transform(images):
    torch.manual_seed(0)
    name = "ViT-B-32/openai"
    backbone, theirs = from_open_clip.describe(name), open_clip_transform(name)
    network = backbone.extract(backbone.build(), "projected").eval()
    with torch.inference_mode():
        ours = network(torch.stack([feed(image, backbone) for image in images.values()]))
        expected = network(torch.stack([theirs(image) for image in images.values()]))
    assert worst_cosine(ours, expected) > MIN_COSINE
    # Features of different images are not all the same: the cosine means something.
    assert worst_cosine(ours, ours.roll(1, 0)) < 0.99


def test_features_of_videomae_are_those_of_its_own_processor(real_clips, tmp_path):
    torch.manual_seed(0)
    backbone = from_transformers.describe("videomae")
    (tmp_path / "config.json").write_text(backbone.arguments[0])
    (tmp_path / "video_preprocessor_config.json").write_text("{}")
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    frames = read_frames(real_clips["carphone_pristine"], 16)
    (theirs,) = processor(np.stack(frames), return_tensors="pt").values()
    ours = normalise(np.stack([see(frame, backbone.view) for frame in frames]), backbone)
    network = backbone.extract(backbone.build(), "mean").eval()
    with torch.inference_mode():
        features = network(ours.transpose(0, 1)[None])
        # As the library's own examples do it, but for the mean.
        expected = network.tower(theirs).last_hidden_state.mean(dim=1)
    assert features.shape == (1, 768)
    assert worst_cosine(features, expected) > MIN_COSINE


@pytest.mark.parametrize("kind", ["dinov2", "clip"])
def test_features_of_transformers_are_those_of_its_processor(kind, images, tmp_path):
    torch.manual_seed(0)
    backbone = from_transformers.describe(kind)
    theirs = transformers_transform(kind, tmp_path, "torchvision")
    pooling = next(iter(backbone.poolings))
    network = backbone.extract(backbone.build(), pooling).eval()
    some = [images["frame"], images["portrait"], images["odd noise"]]
    with torch.inference_mode():
        ours = network(torch.stack([feed(image, backbone) for image in some]))
        expected = network(torch.stack([theirs(image) for image in some]))
    assert worst_cosine(ours, expected) > MIN_COSINE
