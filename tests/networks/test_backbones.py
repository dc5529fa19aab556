"""The networks are the published ones, and the numbers are those of the original program."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import ROOT, seeded_state
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.network import Network, choose_dtype, is_slow
from videofeatures.networks.weights import load_network

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", BACKBONES)
def test_data_of_a_backbone_fit_its_network(name, tmp_path):
    backbone = BACKBONES[name]
    torch.save(seeded_state(name), tmp_path / "weights.pth")
    network = Network(backbone, tmp_path / "weights.pth", device=CPU, dtype=torch.float32)
    view = backbone.view
    length, side = view.num_frames_per_clip, view.crop_size or view.resize_size
    shape = (2, *((length,) if length else ()), side, side, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    features = network.features(batch)
    assert features.shape == (2, backbone.feature_dim)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert not np.allclose(features[0], features[1], rtol=1e-4)


def test_resnet152_is_torchvision_s():
    from torchvision.models import resnet152

    theirs = resnet152().eval()
    theirs.load_state_dict(seeded_state("resnet152"), strict=True)
    ours = BACKBONES["resnet152"].build().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", BACKBONES)
def test_batch_normalisation_is_part_of_the_convolutions(name, seeded_weights, real_weights):
    path = (seeded_weights | {"efficientnet_lite0": real_weights})[name]
    network = Network(BACKBONES[name], path, device=CPU, dtype=torch.float32)
    kinds = [type(module).__name__ for module in network.module.modules()]
    # efficientnet-lite-pytorch has its own kind of convolution, which torch does not fold.
    assert any(kind.startswith("BatchNorm") for kind in kinds) == (name == "efficientnet_lite0")


def test_resnext101_has_the_layers_of_the_published_file():
    state = seeded_state("resnext101")
    tensors = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert (len(state), len(tensors)) == (626, 522)
    parameters = [v.numel() for k, v in tensors.items() if "running" not in k]
    assert sum(parameters) == 48_340_816
    assert state["conv1.weight"].shape == (64, 3, 7, 7, 7)
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1, 1)
    assert state["layer3.22.conv2.weight"].shape == (512, 16, 3, 3, 3)
    assert state["fc.weight"].shape == (400, 2048)


def test_named_weights_are_torchvision_s():
    from torchvision.models import ResNet152_Weights

    assert BACKBONES["resnet152"].weights == {w.name: w.url for w in ResNet152_Weights}
    assert next(iter(BACKBONES["resnet152"].weights)) == "IMAGENET1K_V1"


def test_numbers_are_normalised_as_documented(tmp_path, monkeypatch):
    # A network that gives back what goes into it.
    class Probe(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(1, 1)

        def forward(self, pixels):
            return pixels.flatten(1)

    monkeypatch.setattr("videofeatures.networks.network.load_network", lambda *_: Probe())
    frame = np.array([[[[0, 127, 255]]]], np.uint8)  # one pixel: R 0, G 127, B 255
    expected = {
        "resnet152": [
            (0 / 255 - 0.485) / 0.229,
            (127 / 255 - 0.456) / 0.224,
            (255 / 255 - 0.406) / 0.225,
        ],
        "resnext101": [0 - 110.6, 127 - 103.2, 255 - 96.3],
        "efficientnet_lite0": [-127 / 128, 0, 1],
    }
    assert set(expected) == set(BACKBONES)
    for name, values in expected.items():
        network = Network(BACKBONES[name], "x", device=CPU, dtype=torch.float32)
        np.testing.assert_allclose(network.features(frame)[0], values, rtol=1e-6, atol=1e-6)


def test_clips_reach_the_network_with_time_before_space(monkeypatch):
    class Probe(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(1, 1)

        def forward(self, clips):
            assert clips.shape == (2, 3, 16, 5, 7)
            return clips.mean(dim=(1, 3, 4))

    monkeypatch.setattr("videofeatures.networks.network.load_network", lambda *_: Probe())
    network = Network(BACKBONES["resnext101"], "x", device=CPU, dtype=torch.float32)
    clips = (
        np.zeros((2, 16, 5, 7, 3), np.uint8) + np.arange(16, dtype=np.uint8)[:, None, None, None]
    )
    expected = np.tile(np.arange(16) - np.mean([110.6, 103.2, 96.3]), (2, 1))
    np.testing.assert_allclose(network.features(clips), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("precision", "device", "dtype"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.float16),
        ("float32", "cuda", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float16", "cpu", torch.float16),
    ],
)
def test_what_precision_means_on_a_device(precision, device, dtype):
    assert choose_dtype(precision, torch.device(device)) is dtype


def test_a_loaded_network_is_frozen_and_in_evaluation_mode(seeded_weights):
    network = load_network(BACKBONES["resnet152"], seeded_weights["resnet152"])
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(parameter.is_meta for parameter in network.parameters())
    assert not any(buffer.is_meta for buffer in network.buffers())


def test_golden_files_say_where_they_come_from():
    document = (ROOT / "tests" / "golden" / "README.md").read_text(encoding="utf-8")
    names = [path.name for path in (ROOT / "tests" / "golden").glob("*.npz")]
    assert len(names) == 2
    assert all(f"`{name}`" in document for name in names)


@pytest.mark.parametrize(
    ("cpuinfo", "slow"),
    [
        ("flags : fma avx2 f16c", {torch.bfloat16, torch.float16}),
        ("flags : avx2 avx512_bf16", {torch.float16}),
        ("Features : asimdhp bf16", set()),
    ],
)
def test_a_precision_without_instructions_is_known(cpuinfo, slow, monkeypatch):
    monkeypatch.setattr("pathlib.Path.read_text", lambda path: cpuinfo)
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    assert {dtype for dtype in dtypes if is_slow(dtype, CPU)} == slow
    assert not any(is_slow(dtype, torch.device("cuda")) for dtype in dtypes)
