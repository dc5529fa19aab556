"""Several recipes in one configuration."""

from __future__ import annotations

import pytest

from videofeatures.errors import UserError
from videofeatures.networks.named_recipes import split_config

CONFIG = {"crop_size": 0, "weights": "random"}


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet152", {"resnet152": "resnet152"}),
        (["resnet152"], {"resnet152": "resnet152"}),
        (["resnet152", "timm:a/b.c"], {"resnet152": "resnet152", "timm--a--b.c": "timm:a/b.c"}),
        ({"resnet152": None, "b": {"backbone": "a:b"}}, {"resnet152": "resnet152", "b": "a:b"}),
        (
            {"resnet152": "", "resnext101": {}},
            {"resnet152": "resnet152", "resnext101": "resnext101"},
        ),
    ],
)
def test_each_recipe_has_its_name_and_its_backbone(backbone, expected):
    split = split_config(CONFIG | {"backbone": backbone})
    assert split == {name: CONFIG | {"backbone": one} for name, one in expected.items()}


def test_a_recipe_has_its_own_keys_on_top_of_the_others():
    given = {"a": {"backbone": "resnet152", "crop_size": 112, "weights": "auto"}, "resnet152": {}}
    split = split_config(CONFIG | {"backbone": given})
    assert split == {
        "a": {"backbone": "resnet152", "crop_size": 112, "weights": "auto"},
        "resnet152": CONFIG | {"backbone": "resnet152"},
    }


def test_without_a_word_it_is_the_usual_one():
    assert split_config({}) == {"resnet152": {}}


@pytest.mark.parametrize("backbone", [7, None, True])
def test_what_can_be_no_backbone_is_left_for_the_check_of_all_keys(backbone):
    assert split_config({"backbone": backbone}) == {"": {"backbone": backbone}}


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ([], "is empty"),
        ({}, "is empty"),
        (["resnet152", 7], "7 is not the name of a backbone"),
        (["resnet152", ""], "'' is not the name of a backbone"),
        (["resnet152", "resnet152"], "resnet152 is there twice, as resnet152. Give each a name"),
        (["timm:a/b", "timm:a:b"], "timm:a:b is there twice, as timm--a--b"),
        (["timm:a", "timm:A"], "timm--a and timm--A differ in the case of letters alone"),
        ({"a/b": {}}, "'a/b' is no name: it is to stand in the names of folders"),
        ({".a": {}}, "'.a' is no name"),
        ({7: {}}, "7 is no name"),
        ({"a": "resnet152"}, "a: 'resnet152' is not a mapping of keys"),
        ({"a": {"backbone": ["b"]}}, "a: its `backbone` is the name of one"),
        ({"a": {"hwaccel": "cuda"}}, "a: `hwaccel` is no key of one recipe: it is said once"),
        ({"a": {"batch_size": 2}}, "a: `batch_size` is no key of one recipe"),
        ({"a": {"crop": 2}}, "a: there is no key `crop`"),
    ],
)
def test_a_slip_is_told(backbone, message):
    with pytest.raises(UserError) as error:
        split_config({"backbone": backbone})
    assert any(message in problem for problem in error.value.problems)
    assert all(problem.startswith("configuration: backbone: ") for problem in error.value.problems)


def test_weights_of_one_cannot_be_those_of_several():
    config = {"backbone": ["resnet152", "resnext101"], "weights": "my.pth"}
    with pytest.raises(UserError, match=r"of 2, and `weights: my.pth` can be those of one alone"):
        split_config(config)
    assert len(split_config(config | {"weights": "random"})) == 2
    assert len(split_config(config | {"backbone": ["resnet152"]})) == 1
