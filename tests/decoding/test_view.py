"""What a backbone wants to see."""

from __future__ import annotations

from videofeatures.networks.backbones import BACKBONES


def test_how_many_features_a_second_of_video_gives():
    found = {name: backbone.view.clips_per_second for name, backbone in BACKBONES.items()}
    assert (found["resnet152"], found["resnext101"]) == (1, 1.5)
