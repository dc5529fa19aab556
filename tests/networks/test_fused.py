"""Joined layers give what they gave apart, and overwrite nothing that is still needed."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import pytest
import torch
from torch import nn

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


def test_what_has_branches_stays_as_it_is():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x) if x.sum() > 0 else x

    module = Branches().eval()
    assert fuse_convolutions(fold_batch_norm(module)) is module
