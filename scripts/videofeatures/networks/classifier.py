"""What the classifier of a backbone makes of its features: the quickest look at whether they are
what they should be."""

from __future__ import annotations

import importlib
import os
from functools import reduce
from typing import NamedTuple

import numpy as np

from videofeatures.networks.backbones import Backbone
from videofeatures.networks.weights import RANDOM, Weights, load_network


class Prediction(NamedTuple):
    """A class, and how probable the network takes it to be."""

    name: str
    probability: float


def class_names(backbone: Backbone) -> list[str]:
    """Names of a backbone's classes, in the order of its classifier; empty if there are none."""
    if not backbone.classes:
        return []
    module, names = backbone.classes.split(":")
    weights = reduce(getattr, names.split("."), importlib.import_module(module))
    return list(weights.meta["categories"])


def find_classifier(backbone: Backbone, weights: Weights) -> Classifier | None:
    """A backbone's classifier, if it means something, and if its weights are here."""
    means_something = backbone.classes and weights.identity != RANDOM
    if not (means_something and weights.shared_path.exists()):
        return None
    return Classifier(backbone, weights.shared_path)


class Classifier:
    """The last layer of a backbone, for features that are stored."""

    def __init__(self, backbone: Backbone, weights_path: str | os.PathLike):
        """Load verified weights.

        Raises:
            UserError: the file is not weights of this backbone.
        """
        self.names = class_names(backbone)
        self._layer = load_network(backbone, weights_path).get_submodule(backbone.classifier)

    def guess(self, features: np.ndarray, *, num_classes: int = 1) -> list[list[Prediction]]:
        """The most probable classes of each feature, best first.

        Args:
            features: (rows, feature_dim), as the network gave them: those that were divided by
                their lengths have to be multiplied by these.
        """
        import torch

        scores = self._layer(torch.from_numpy(np.asarray(features, np.float32)))
        best = scores.softmax(dim=1).topk(num_classes, dim=1)
        return [
            [Prediction(self.names[k], float(p)) for p, k in zip(values, indices, strict=True)]
            for values, indices in zip(best.values, best.indices.tolist(), strict=True)
        ]
