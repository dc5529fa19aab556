"""Networks of timm are timm's own, and features are what timm calls so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from videofeatures.networks.backbones import find_backbone, from_timm
from videofeatures.networks.network import Network
from videofeatures.networks.weights import find_weights, prepare_weights

SMALL = ["resnet18.a1_in1k", "vit_tiny_patch16_224", "mobilenetv3_small_100"]
EXAMPLES = [
    "resnet50.a1_in1k",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "vit_pe_core_tiny_patch16_384",
    "mobilenetv3_small_100",
    "convnext_tiny",
    "vit_base_patch16_siglip_224",
]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def random_batch(side: int, num: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, side, side, 3), np.uint8)


@pytest.mark.parametrize("name", EXAMPLES)
def test_it_is_fed_as_timm_says(name):
    backbone = from_timm.describe(name)
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False)
    data = timm.data.resolve_model_data_config(network)
    resize, crop, *_ = timm.data.create_transform(**data, is_training=False).transforms
    view = backbone.view
    assert (view.resize_size, view.crop_size) == (resize.size, data["input_size"][-1])
    assert (view.crop_size, view.crop_size) == tuple(crop.size)
    assert view.interpolation == data["interpolation"] == resize.interpolation.value
    assert (view.resizer, view.resize_mode, view.frame_rate) == ("pillow", "shortest", 1)
    np.testing.assert_allclose(backbone.mean, 255 * np.array(data["mean"]), rtol=1e-6)
    np.testing.assert_allclose(backbone.std, 255 * np.array(data["std"]), rtol=1e-6)
    assert backbone.feature_dim == network.head_hidden_size


@pytest.mark.parametrize("name", SMALL)
def test_features_are_timm_s_own(name):
    backbone = find_backbone(f"timm:{name}")
    path = prepare_weights(find_weights(f"timm:{name}", "random"))
    network = Network(backbone, path, device=CPU, dtype=torch.float32)
    batch = random_batch(backbone.view.crop_size)
    theirs = timm.create_model(name, num_classes=0).eval()
    state = torch.load(path, weights_only=True)
    classifier = backbone.classifier or "head"
    theirs.load_state_dict({k: v for k, v in state.items() if not k.startswith(classifier)})
    pixels = torch.from_numpy(batch).float().permute(0, 3, 1, 2) / 255
    data = timm.data.resolve_model_data_config(theirs)
    normalised = (pixels - torch.tensor(data["mean"]).view(3, 1, 1)) / torch.tensor(
        data["std"]
    ).view(3, 1, 1)
    with torch.inference_mode():
        expected = theirs(normalised).numpy()
    np.testing.assert_allclose(network.features(batch), expected, rtol=1e-3, atol=1e-4)


def test_what_a_feature_is_can_be_chosen():
    backbone = find_backbone("timm:vit_tiny_patch16_224")
    path = prepare_weights(find_weights("timm:vit_tiny_patch16_224", "random"))
    features = {
        pooling: Network(backbone, path, device=CPU, dtype=torch.float32, pooling=pooling).features(
            random_batch(224)
        )
        for pooling in backbone.poolings
    }
    assert {name: f.shape[-1] for name, f in features.items()} == backbone.poolings
    assert features["tokens"].shape == (2, 196, 192)
    assert backbone.num_tokens == 196
    np.testing.assert_allclose(features["tokens"].mean(axis=1), features["mean"], atol=1e-5)
    np.testing.assert_allclose(features["class_token"], features["pooled"], atol=1e-5)


def test_convolutions_and_batch_normalisation_become_one():
    path = prepare_weights(find_weights("timm:resnet18", "random"))
    network = Network(find_backbone("timm:resnet18"), path, device=CPU, dtype=torch.float32)
    kinds = {type(module).__name__ for module in network.module.modules()}
    assert "FusedConv" in kinds
    assert "BatchNorm2d" not in kinds


def test_weights_in_timm_s_own_format_are_read(tmp_path):
    state = timm.create_model("resnet18").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    found = find_weights("timm:resnet18", str(tmp_path / "model.safetensors"))
    path = prepare_weights(found)
    assert path == Path(f"resources/weights/timm--resnet18-{found.identity}.safetensors")
    network = Network(find_backbone("timm:resnet18"), path, device=CPU, dtype=torch.float32)
    assert network.features(random_batch(64)).shape == (2, 512)


def test_names_of_layers_that_only_timm_knows_are_read(tmp_path):
    # As programs of training write them, which timm's converter takes.
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    state |= {"module.head.weight": torch.ones(1000, 192), "module.head.bias": torch.ones(1000)}
    torch.save({"model": state}, tmp_path / "original.pth")
    network = from_timm.convert({}, str(tmp_path / "original.pth"), "vit_tiny_patch16_224")
    assert torch.equal(network.get_parameter("cls_token"), theirs.get_parameter("cls_token"))
