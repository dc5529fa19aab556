"""Networks of torchvision are torchvision's own, fed as their weights say."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce

import av
import numpy as np
import pytest
import torch
from torchvision import models

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.frames import resizing_of
from videofeatures.networks.backbones import find_backbone, from_torchvision
from videofeatures.networks.network import Network
from videofeatures.networks.weights import find_weights, prepare_weights

CPU = torch.device("cpu")

EXAMPLES = {
    "resnet50": 2048,
    "convnext_tiny": 768,
    "vit_b_16": 768,
    "vit_b_16/IMAGENET1K_SWAG_E2E_V1": 768,
    "swin_t": 768,
    "mobilenet_v3_small": 1024,
    "r3d_18": 512,
    "r2plus1d_18": 512,
    "s3d": 1024,
    "mvit_v2_s": 768,
    "swin3d_t": 768,
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("name", "feature_dim"), EXAMPLES.items())
def test_it_is_fed_as_its_weights_say(name, feature_dim):
    backbone = from_torchvision.describe(name)
    model, _, weights_name = name.partition("/")
    known = models.get_model_weights(model)
    weights = known[weights_name] if weights_name else known.DEFAULT
    preset, view = weights.transforms(), backbone.view
    assert backbone.feature_dim == feature_dim
    assert backbone.weights == {weights.name: weights.url}
    sides = list(preset.resize_size)
    width = view.resize_width or view.resize_size
    assert sides == ([view.resize_size, width] if len(sides) == 2 else [view.resize_size])
    assert view.resize_mode == ("squash" if len(sides) == 2 else "shortest")
    assert set(preset.crop_size) == {view.crop_size}
    assert view.interpolation == preset.interpolation.value
    np.testing.assert_allclose(backbone.mean, 255 * np.array(preset.mean))
    np.testing.assert_allclose(backbone.std, 255 * np.array(preset.std))
    module, path = backbone.classes.split(":")
    assert module in ("torchvision.models", "torchvision.models.video")
    assert reduce(getattr, path.split("."), models if module[-1] == "s" else models.video)


def test_clips_are_as_the_weights_were_evaluated():
    views = {name: from_torchvision.describe(name).view for name in ("r3d_18", "mvit_v2_s", "s3d")}
    assert {n: (v.frame_rate, v.num_frames_per_clip) for n, v in views.items()} == {
        "r3d_18": (15, 16),
        "mvit_v2_s": (7.5, 16),
        "s3d": (15, 128),
    }
    assert {v.last_clip for v in views.values()} == {"shift"}


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mobilenet_v3_small", (96, 96)),
        ("swin_t", (64, 64)),
        ("r3d_18", (4, 48, 48)),
        ("s3d", (16, 224, 224)),
    ],
)
def test_features_are_what_goes_into_the_classifier(name, shape):
    backbone = find_backbone(f"torchvision:{name}")
    path = prepare_weights(find_weights(f"torchvision:{name}", "random"))
    batch = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    features = Network(backbone, path, device=CPU, dtype=torch.float32).features(batch)
    theirs = models.get_model(name).eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    seen = []
    theirs.get_submodule(backbone.classifier).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    pixels = (torch.from_numpy(batch).float() - torch.tensor(backbone.mean)) / torch.tensor(
        backbone.std
    )
    with torch.inference_mode():
        theirs(pixels.movedim(-1, 1))
    (expected,) = seen
    if expected.ndim > 2:  # S3D's classifier is a convolution, whose places are averaged after it
        expected = expected.flatten(2).mean(dim=2)
    np.testing.assert_allclose(features, expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"])
@pytest.mark.parametrize("size", [(640, 272), (176, 144), (243, 431)])
def test_clips_are_resized_as_its_own_preset_does(real_clips, name, size):
    with av.open(str(real_clips["bikes"])) as container:
        image = next(container.decode(video=0)).to_image().resize(size)
    backbone, frame = from_torchvision.describe(name), np.asarray(image)
    metadata = VideoMetadata(*size, Fraction(1), None, None, "h264")
    resizing = resizing_of(metadata, backbone.view)
    ours = torch.from_numpy(resizing.finish(frame)).float()
    preset = models.get_model_weights(name).DEFAULT.transforms()
    theirs = preset(torch.from_numpy(frame.copy()).permute(2, 0, 1)[None])[:, 0].movedim(0, -1)
    levels = theirs * torch.tensor(backbone.std) + torch.tensor(backbone.mean) - ours
    assert levels.abs().max() < 1.01
    assert (levels.abs() > 0.01).float().mean() < 0.001
