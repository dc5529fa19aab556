"""What the network does on a CUDA device, in as far as that can be known without one.

Copies to the device stay here; that they are asked for, how, and in what order, is recorded.
"""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.network import Network

CPU = torch.device("cpu")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
def network(real_weights, monkeypatch, log) -> Network:
    """EfficientNet-Lite0, whose device says that it is CUDA."""
    backbone = BACKBONES["efficientnet_lite0"]
    network = Network(backbone, real_weights, device=CPU, dtype=torch.float32)
    real_to = torch.Tensor.to

    def to(tensor: torch.Tensor, *args: object, **options: object) -> torch.Tensor:
        place = str(args[0])
        if place in ("cuda", "cpu"):
            assert options == {"non_blocking": True}
            log.append(f"to {place}")
            return real_to(tensor, "cpu")
        return real_to(tensor, *args, **options)

    class Event:
        def record(self) -> None:
            log.append("record")

        def synchronize(self) -> None:
            log.append("synchronize")

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: log.append("pin") or self)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: log.append("empty_cache"))
    network.device = torch.device("cuda")
    return network


def frames(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (2, 64, 64, 3), np.uint8)


def test_cuda_waits_for_nothing_until_features_are_asked_for(network, log):
    first, second = network.submit(frames(1)), network.submit(frames(2))
    assert log == ["pin", "to cuda", "to cpu", "record"] * 2
    found = second()
    assert log[8:] == ["synchronize"]
    network.device = CPU
    np.testing.assert_allclose(found, network.features(frames(2)))
    np.testing.assert_allclose(first(), network.features(frames(1)))


def test_memory_is_free_when_cuda_has_run_out_of_it(network, log, monkeypatch):
    kept = []

    def forward(pixels: torch.Tensor) -> torch.Tensor:
        activations = torch.zeros(8)
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    class Cache:
        def __call__(self) -> None:
            gc.collect()
            log.append("empty_cache" if kept[0]() is None else "activations are still there")

    network.module = forward
    monkeypatch.setattr(torch.cuda, "empty_cache", Cache())
    with pytest.raises(MemoryError, match="CUDA out of memory"):
        network.submit(frames(1))
    assert log[-1] == "empty_cache"


def test_another_error_of_the_device_is_not_taken_for_lack_of_memory(network, log):
    def forward(pixels: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    network.module = forward
    with pytest.raises(RuntimeError, match="illegal memory access"):
        network.submit(frames(1))
    assert "empty_cache" not in log
