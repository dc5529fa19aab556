"""The classifier of a backbone names what its features show, or is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import make_recipe, seeded_state
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.classifier import Classifier, class_names, find_classifier
from videofeatures.networks.network import Network
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import load_network
from videofeatures.settings import Settings

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", BACKBONES)
def test_the_classifier_makes_of_features_what_the_whole_network_makes_of_frames(name, tmp_path):
    backbone = BACKBONES[name]
    path = tmp_path / "weights.pth"
    torch.save(seeded_state(name), path)
    view = backbone.view
    length, side = view.num_frames_per_clip, view.crop_size or view.resize_size
    shape = (2, *((length,) if length else ()), side, side, 3)
    batch = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    pixels = (torch.from_numpy(batch).float() - torch.tensor(backbone.mean)) / torch.tensor(
        backbone.std
    )
    with torch.inference_mode():
        expected = load_network(backbone, path)(pixels.movedim(-1, 1)).softmax(dim=1).max(dim=1)
    features = Network(backbone, path, device=CPU, dtype=torch.float32).features(batch)
    classifier = Classifier(backbone, path)
    assert len(classifier.names) == {"resnext101": 400}.get(name, 1000)
    found = [best for (best,) in classifier.predict(features)]
    assert [best.name for best in found] == [classifier.names[k] for k in expected.indices]
    np.testing.assert_allclose([p for _, p in found], expected.values, rtol=1e-3)


def recipe_of(weights_path: Path) -> Recipe:
    return make_recipe(Settings(backbone="efficientnet_lite0"), weights_path)


def test_verified_weights_have_a_classifier(real_weights):
    classifier = find_classifier(recipe_of(real_weights))
    assert classifier.names == class_names(BACKBONES["efficientnet_lite0"])
    (found,) = classifier.predict(np.zeros((1, 1280)), num_classes=3)
    assert len({best.name for best in found}) == 3
    assert found[0].probability >= found[1].probability >= found[2].probability > 0


def test_random_weights_have_none(tmp_path):
    path = tmp_path / "efficientnet_lite0-random.pth"
    torch.save(seeded_state("efficientnet_lite0"), path)
    assert find_classifier(recipe_of(path)) is None


def test_weights_that_are_not_here_have_none(tmp_path):
    assert find_classifier(recipe_of(tmp_path / "efficientnet_lite0-57934424.pth")) is None
    assert find_classifier(recipe_of(tmp_path / "efficientnet_lite0-missing.pth")) is None


def test_a_backbone_without_names_of_classes_has_none(real_weights, monkeypatch):
    backbone = replace(BACKBONES["efficientnet_lite0"], classes="")
    monkeypatch.setitem(BACKBONES, "efficientnet_lite0", backbone)
    assert class_names(backbone) == []
    assert find_classifier(recipe_of(real_weights)) is None
