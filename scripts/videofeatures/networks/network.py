"""A backbone on a device: uint8 frames in, float32 features out."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from videofeatures.errors import UserError
from videofeatures.networks.backbones import Backbone
from videofeatures.networks.fused import fold_batch_norm, fuse_convolutions, is_onednn_supported
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import check_content, load_network
from videofeatures.settings import Settings

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(requested: str = "auto", index: int = 0) -> torch.device:
    """Return the device to compute on; a CUDA device is made torch's default.

    Args:
        requested: `auto` (CUDA where it can be used, else the CPU), `cuda` or `cpu`.
        index: of the CUDA device to use.

    Raises:
        UserError: `cuda` is requested and cannot be used.
    """
    if requested != "cpu" and torch.cuda.is_available():
        # Memory is pinned for the default device, and events belong to it.
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    if requested == "cuda":
        raise UserError(
            f"device: no CUDA device can be used on {platform.node()}. Look at `nvidia-smi` and "
            "CUDA_VISIBLE_DEVICES there, or set `device: auto`"
        )
    visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    if requested == "auto" and visible_devices:
        logger.warning(
            "this job was given a GPU (CUDA_VISIBLE_DEVICES=%s), but torch can use none: it "
            "computes on the CPU. `device: cuda` makes this an error",
            visible_devices,
        )
    return torch.device("cpu")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype of a precision on a device.

    Args:
        precision: a key of `DTYPES`, or `auto`: float16 on CUDA, else float32.
    """
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    return DTYPES[precision]


CPU_FLAGS = {
    torch.bfloat16: {"avx512_bf16", "amx_bf16", "bf16"},
    torch.float16: {"avx512_fp16", "amx_fp16", "asimdhp"},
}
"""Linux's names of instructions that compute in a dtype, on x86 and ARM."""


def is_slow(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether the device has no instructions for this dtype: it is slower than float32.

    ResNet-152 in bfloat16 took 8 times as long as in float32 on a CPU with AVX2 (measured).
    """
    if device.type != "cpu" or dtype not in CPU_FLAGS:
        return False
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False  # not Linux: nobody knows
    return CPU_FLAGS[dtype].isdisjoint(words)


def choose_batch_sizes(device: torch.device, dtype: torch.dtype) -> tuple[int, ...]:
    """Return the sizes of batches to try, the likely one first; one alone is used as it is.

    On CUDA 64, as in the original program: `submit` returns before anything is computed, so that a
    clock around it says nothing of the device, and one from wait to wait says as much of decoding.

    On a CPU it depends. With AVX512-BF16, ResNet-152 does 2.1 to 2.4 frames a second and core in
    float32, whatever the size; with AMX, it was a quarter faster in bfloat16 in batches of 16 than
    of 4 (both measured). Larger ones take more memory, and what is written comes later.
    """
    if device.type == "cuda":
        return (64,)
    return (2, 4, 8, 16, 1) if dtype == torch.float32 else (4, 8, 16, 2, 1)


def open_network(recipe: Recipe, settings: Settings, *, device_index: int = 0) -> Network:
    """Return a recipe's network, on the device and in the dtype that fit the settings.

    Args:
        device_index: of the CUDA device to use.

    Raises:
        UserError: the device cannot be used, or the weights do not fit, or are damaged.
    """
    device = choose_device(settings.device, device_index)
    dtype = choose_dtype(recipe.precision, device)
    if is_slow(dtype, device):
        logger.warning(
            "this CPU has no instructions for %s: it will be much slower than float32",
            recipe.precision,
        )
    check_content(recipe.weights_path)
    network = Network(
        recipe.backbone, recipe.weights_path, device=device, dtype=dtype, pooling=recipe.pooling
    )
    if settings.batch_size:
        network.batch_sizes = (settings.batch_size,)
    return network


class Network:
    """The features of a backbone, computed on one device in one dtype.

    Attributes:
        device_name: of the device, for people.
        batch_sizes: frames or clips to submit at a time; of several, the fastest is to be found
            out for each shape. The first is a guess.
        max_submitted: batches to submit before the features of the first are waited for, so
            that the device is never idle: on CUDA, one is computed while the next is copied.
    """

    def __init__(
        self,
        backbone: Backbone,
        weights_path: str | os.PathLike,
        *,
        device: torch.device,
        dtype: torch.dtype,
        pooling: str = "",
    ):
        """Load weights that `prepare_weights` made.

        Args:
            pooling: what a feature is; the backbone's own by default.

        Raises:
            UserError: the file is not weights of this backbone.
        """
        self.device = device
        self.dtype = dtype
        self.batch_sizes = choose_batch_sizes(device, dtype)
        self.max_submitted = 2 if device.type == "cuda" else 1
        # float32 means float32: no TensorFloat-32, which has 10 bits of mantissa.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        pooling = pooling or next(iter(backbone.poolings), "")
        module = backbone.extract(load_network(backbone, weights_path), pooling).eval()
        module = fold_batch_norm(module)
        self.module = _to_channels_last(module.to(device, dtype))
        if device.type == "cpu" and is_onednn_supported(dtype):
            self.module = fuse_convolutions(self.module)
        self.device_name = torch.cuda.get_device_name() if device.type == "cuda" else device.type
        self.mean = torch.tensor(backbone.mean, device=device)
        self.std = torch.tensor(backbone.std, device=device)

    def features(self, batch: np.ndarray) -> np.ndarray:
        """Return the features of a batch, (N, feature_dim), or (N, tokens, feature_dim), float32.

        Takes and raises what `submit` does.
        """
        return self.submit(batch)()

    def submit(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        """Start to compute a batch; return a function that waits for its features.

        On CUDA this returns when copies and kernels are queued; on a CPU, when all is done.

        Args:
            batch: frames (N, height, width, 3) or clips (N, frames, height, width, 3), uint8.

        Returns:
            A function that returns the features, (N, feature_dim), float32.

        Raises:
            MemoryError: the batch does not fit the device's memory. A smaller one may.
        """
        try:
            return self._submit(batch)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            reason = str(error)
        # Not in the handler: the error holds on to the memory that was used so far.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        raise MemoryError(reason)

    @torch.inference_mode()
    def _submit(self, batch: np.ndarray) -> Callable[[], np.ndarray]:
        pixels = torch.from_numpy(batch)
        if self.device.type == "cuda":
            pixels = pixels.pin_memory()  # only such memory is copied while kernels run
        pixels = pixels.to(self.device, non_blocking=True).float()
        pixels = (pixels - self.mean) / self.std
        features = self.module(pixels.movedim(-1, 1).to(self.dtype)).float()
        if self.device.type != "cuda":
            return features.numpy
        features = features.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def wait() -> np.ndarray:
            copied.synchronize()
            return features.numpy()

        return wait


LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""By dimensions: the layout of the decoder's pixels, and the fastest one for convolutions."""


def _to_channels_last(module: nn.Module) -> nn.Module:
    """Give all weights the layout of their dimensions: networks on clips may have both kinds."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim in LAYOUTS:
            tensor.data = tensor.data.contiguous(memory_format=LAYOUTS[tensor.ndim])
    return module


def _is_out_of_memory(error: RuntimeError) -> bool:
    # Without CUDA, torch's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
