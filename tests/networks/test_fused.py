"""Joined layers give what they gave apart, and overwrite nothing that is still needed."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from videofeatures.networks import fused
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.fused import (
    FusedConv,
    fold_batch_norm,
    fuse_convolutions,
    is_onednn_supported,
)
from videofeatures.networks.network import Network
from videofeatures.networks.weights import load_network


class Parts(nn.Module):
    """Layers that a test puts together."""

    def __init__(self, flow: Callable[[Parts, torch.Tensor], torch.Tensor]):
        super().__init__()
        self.flow = flow
        self.conv0 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.same = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flow(self, x)


def needed_later(m: Parts, x: torch.Tensor) -> torch.Tensor:
    a = m.conv0(x)
    return m.relu(m.conv1(x) + a) - a


def another_name_for_what_is_needed(m: Parts, x: torch.Tensor) -> torch.Tensor:
    a = m.conv0(x)
    return m.relu(m.conv1(x) + m.same(a)) - a


def read_by_the_convolution(m: Parts, x: torch.Tensor) -> torch.Tensor:
    a = m.conv0(x)
    return m.relu(m.conv1(a) + a)


def overwritten_meanwhile(m: Parts, x: torch.Tensor) -> torch.Tensor:
    a = m.conv0(x)
    b = m.conv1(a)
    return m.relu(b + m.relu(a))


def twice_the_same(m: Parts, x: torch.Tensor) -> torch.Tensor:
    a = m.conv0(x)
    return m.relu(a + a)


# (layers, convolutions that are joined to what follows or to nothing, the sum is left)
FLOWS = {
    "free": (lambda m, x: m.relu(m.conv0(x) + m.conv1(x)), 2, False),
    "the input": (lambda m, x: m.relu(m.conv1(x) + x), 1, True),
    "needed later": (needed_later, 2, True),
    "another name for what is needed": (another_name_for_what_is_needed, 2, True),
    "read by the convolution": (read_by_the_convolution, 2, True),
    "overwritten meanwhile": (overwritten_meanwhile, 2, True),
    "twice the same": (twice_the_same, 1, True),
    "no activation": (lambda m, x: m.conv1(x) + m.conv0(x), 2, True),
    "called twice": (lambda m, x: m.relu(m.conv0(m.conv0(x))), 0, False),
}


@pytest.mark.parametrize("name", FLOWS)
def test_nothing_is_overwritten_that_is_needed(name):
    flow, num_joined, sum_is_left = FLOWS[name]
    torch.manual_seed(0)
    module = Parts(flow).eval()
    x = torch.randn(2, 4, 9, 7).to(memory_format=torch.channels_last)
    before = x.clone()
    with torch.inference_mode():
        expected = module(x.clone())
        joined = fuse_convolutions(fold_batch_norm(copy.deepcopy(module)))
        for _ in range(2):  # the second time with weights that are in order
            torch.testing.assert_close(joined(x), expected)
            assert torch.equal(x, before)
    calls = {node.target for node in joined.graph.nodes if node.op == "call_module"}
    kinds = [type(joined.get_submodule(target)) for target in calls]
    assert kinds.count(FusedConv) == num_joined
    assert any(node.target is operator.add for node in joined.graph.nodes) == sum_is_left


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["resnet152", "resnext101"])
def test_the_large_networks_are_joined_and_compute_the_same(name, dtype, seeded_weights):
    if not is_onednn_supported(dtype):
        pytest.skip(f"oneDNN does not compute in {dtype} on this CPU")
    backbone, path = BACKBONES[name], seeded_weights[name]
    network = Network(backbone, path, device=torch.device("cpu"), dtype=dtype)
    graph = network.module.graph
    assert not any(node.target is operator.add for node in graph.nodes)
    kinds = [type(module) for module in network.module.modules()]
    num_joined = sum(isinstance(m, nn.Conv2d | nn.Conv3d) for m in backbone.build().modules())
    assert kinds.count(FusedConv) == num_joined
    assert not any(node.op == "call_module" and "relu" in node.target for node in graph.nodes)

    plain = load_network(backbone, path).to(dtype)
    setattr(plain, backbone.classifier, nn.Identity())
    # Other sizes than the first, for which weights were put in order.
    for height, width in ((64, 96), (96, 64), (70, 54)):
        length = backbone.view.num_frames_per_clip
        shape = (2, 3, *((length,) if length else ()), height, width)
        pixels = torch.randn(shape, generator=torch.Generator().manual_seed(height)).to(dtype)
        with torch.inference_mode():
            found, expected = network.module(pixels).float(), plain(pixels).float()
        cosines = nn.functional.cosine_similarity(found, expected)
        assert cosines.min() > (0.999999 if dtype == torch.float32 else 0.999)


LARGE, SMALL = (4, 64, 56, 98), (2, 64, 28, 12)


def order_of(packed: torch.Tensor) -> bytes:
    return bytes(torch.ops.mkldnn._get_mkldnn_serialized_md(packed).numpy())


def order_alone(weight: torch.Tensor, shape: tuple[int, ...]) -> bytes:
    """The order that oneDNN wants for a shape, if there is no other."""
    geometry = ([1, 1], [1, 1], [1, 1], 1)
    return order_of(torch.ops.mkldnn._reorder_convolution_weight(weight, *geometry, list(shape)))


@pytest.fixture
def convolution() -> nn.Conv2d:
    if not is_onednn_supported(torch.float32):
        pytest.skip("torch has no oneDNN here")
    torch.manual_seed(0)
    return nn.Conv2d(64, 64, 3, padding=1)


def test_each_shape_has_weights_in_its_own_order_whichever_came_first(convolution):
    shapes = [SMALL, LARGE, (1, 64, 56, 98), (8, 64, 17, 90)]
    expected = [order_alone(convolution.weight, shape) for shape in shapes]
    assert len(set(expected)) > 1, "these shapes are to be ones that need several orders"
    for places in ((0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)):
        weights = FusedConv(convolution, "none").weights
        for _ in range(2):
            for place in places:
                packed = weights.for_input(shapes[place])
                assert order_of(packed) == expected[place]
                assert torch.equal(packed.to_dense(), convolution.weight)
        # Shapes with one order share it.
        one = convolution.weight.numel() * 4
        assert weights.num_bytes == len(set(expected)) * one


def test_orders_that_are_kept_are_bounded_and_the_oldest_goes(convolution, monkeypatch):
    monkeypatch.setattr(fused, "MAX_ORDERS", 1)
    monkeypatch.setattr(fused, "MAX_SHAPES", 2)
    layer = FusedConv(convolution, "none")
    one = convolution.weight.numel() * 4
    with torch.inference_mode():
        for shape in (SMALL, LARGE, SMALL, LARGE, (1, 64, 9, 9), (3, 64, 7, 30), SMALL):
            x = torch.randn(shape)
            torch.testing.assert_close(layer(x), convolution(x))
            assert layer.weights.num_bytes == one
            assert len(layer.weights._order_of) <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["resnet152", "resnext101"])
def test_the_first_batch_decides_nothing_but_rounding(name, dtype, seeded_weights):
    if not is_onednn_supported(dtype):
        pytest.skip(f"oneDNN does not compute in {dtype} on this CPU")
    backbone, device = BACKBONES[name], torch.device("cpu")
    length = backbone.view.num_frames_per_clip
    rng = np.random.default_rng(0)

    def batch(*shape: int) -> np.ndarray:
        frame = shape[1:] if not length else (length, *shape[1:])
        return rng.integers(0, 256, (shape[0], *frame, 3), np.uint8)

    lucky, unlucky, same = (
        Network(backbone, seeded_weights[name], device=device, dtype=dtype) for _ in range(3)
    )
    pixels = batch(3, 64, 112)
    unlucky.features(batch(1, 112, 40))
    unlucky.features(batch(2, 64, 112))
    lucky.features(pixels)
    same.features(pixels)
    found, expected = unlucky.features(pixels), lucky.features(pixels)
    np.testing.assert_array_equal(found, expected)  # one order, one arithmetic
    np.testing.assert_array_equal(same.features(pixels), expected)
    alone = np.concatenate([unlucky.features(frame[None]) for frame in pixels])
    cosines = (alone * expected).sum(1) / np.linalg.norm(alone, axis=1)
    cosines /= np.linalg.norm(expected, axis=1)
    assert cosines.min() > (0.999999 if dtype == torch.float32 else 0.999)


def test_what_has_branches_stays_as_it_is():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) if x.sum() > 0 else x

    module = Branches().eval()
    assert fuse_convolutions(fold_batch_norm(module)) is module
