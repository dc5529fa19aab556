"""A backbone on a device: uint8 frames in, float32 features out."""

from __future__ import annotations

import os

import numpy as np
import torch
from torch import nn

from videofeatures.backbones import Backbone
from videofeatures.weights import load_network

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device() -> torch.device:
    """The first CUDA device that is visible, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """What `precision` means on a device: `auto` is float16 on CUDA, else float32."""
    if precision == "auto":
        precision = "float16" if device.type == "cuda" else "float32"
    return DTYPES[precision]


class Network:
    """The features of a backbone, computed on one device in one dtype."""

    def __init__(
        self,
        backbone: Backbone,
        weights_path: str | os.PathLike,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ):
        """Load weights that `prepare_weights` made.

        Raises:
            InputError: the file is not weights of this backbone.
        """
        self.device = device
        self.dtype = dtype
        # float32 means float32: no TensorFloat-32, which has 10 bits of mantissa.
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        module = load_network(backbone, weights_path)
        setattr(module, backbone.classifier, nn.Identity())
        self.module = module.to(device, dtype)
        self.mean = torch.tensor(backbone.mean, device=device)
        self.std = torch.tensor(backbone.std, device=device)

    @torch.inference_mode()
    def features(self, batch: np.ndarray) -> np.ndarray:
        """Features of a batch, (N, feature_dim), float32.

        Args:
            batch: frames (N, height, width, 3) or clips (N, frames, height, width, 3), uint8.
        """
        pixels = torch.from_numpy(batch).to(self.device).float()
        pixels = (pixels - self.mean) / self.std
        pixels = pixels.movedim(-1, 1).to(self.dtype)
        return self.module(pixels).float().cpu().numpy()
