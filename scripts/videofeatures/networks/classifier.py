"""A backbone's own classifier on stored features: the quickest check that these are what they
should be."""

from __future__ import annotations

import importlib
import os
from functools import reduce
from typing import NamedTuple

import numpy as np

from videofeatures.networks.backbones import Backbone
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import RANDOM, load_network


class Prediction(NamedTuple):
    """A class, and how probable the network takes it to be."""

    name: str
    probability: float


def class_names(backbone: Backbone) -> list[str]:
    """Return the names of a backbone's classes, in the order of its classifier; [] if unknown."""
    if not backbone.classes:
        return []
    module, names = backbone.classes.split(":")
    weights = reduce(getattr, names.split("."), importlib.import_module(module))
    return list(weights.meta["categories"])


def find_classifier(recipe: Recipe) -> Classifier | None:
    """Return the classifier of a recipe's backbone, or None if its classes have no names, if it is
    not what the features are for, or if the weights are random or not here.

    Raises:
        UserError: see `Classifier`.
    """
    is_for_classifier = recipe.pooling in ("", "pooled")
    is_meaningful = recipe.backbone.classes and recipe.weights_id != RANDOM and is_for_classifier
    if not (is_meaningful and os.path.exists(recipe.weights_path)):
        return None
    return Classifier(recipe.backbone, recipe.weights_path)


class Classifier:
    """The last layer of a backbone, for features that are stored."""

    def __init__(self, backbone: Backbone, weights_path: str | os.PathLike):
        """Load verified weights.

        Raises:
            UserError: the file is not weights of this backbone.
        """
        self.names = class_names(backbone)
        self._layer = load_network(backbone, weights_path).get_submodule(backbone.classifier)

    def predict(self, features: np.ndarray, *, num_classes: int = 1) -> list[list[Prediction]]:
        """Return the most probable classes of each feature, best first.

        Args:
            features: (N, feature_dim), of any float dtype, as the network gave them: those that
                were divided by their norms have to be multiplied by these.
        """
        import torch

        scores = self._layer(torch.from_numpy(np.asarray(features, np.float32)))
        best = scores.softmax(dim=1).topk(num_classes, dim=1)
        return [
            [Prediction(self.names[k], float(p)) for p, k in zip(values, indices, strict=True)]
            for values, indices in zip(best.values, best.indices.tolist(), strict=True)
        ]
