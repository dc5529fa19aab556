"""What was not made alike is told, with two files and what differs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videofeatures.errors import UserError
from videofeatures.packing.kinds import Kinds, Made, find_made

BIG = Made("d1", "w", {"crop_size": 256, "precision": "auto"})
SMALL = Made("d2", "w", {"crop_size": 224, "precision": "auto"})


def check(*made: Made, **options: bool) -> None:
    kinds = Kinds(**options)
    for k, one in enumerate(made):
        kinds.check_made("n", f"{k}.npy", one)


def test_what_was_made_alike_belongs_together():
    check(BIG, BIG._replace(settings=None), BIG)


def test_each_recipe_has_its_own_kind():
    kinds = Kinds()
    kinds.check_made("a", "a.npy", BIG)
    kinds.check_made("b", "b.npy", SMALL)
    kinds.check_stored("a", "a.npy", "<f2", (3, 512))
    kinds.check_stored("b", "b.npy", "<f4", (3, 7, 768))


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (SMALL, "crop_size: 256 → 224"),
        (SMALL._replace(settings=None), "d1 → d2|crop_size: 256 → None"),
        (BIG._replace(weights="v"), "weights: w → v"),
        (SMALL._replace(weights="v"), "crop_size: 256 → 224, weights: w → v"),
        (Made(), "nothing tells what it was made with"),
    ],
)
def test_the_first_and_the_other_are_named_with_what_differs(other, difference):
    with pytest.raises(UserError, match=difference) as caught:
        check(BIG, BIG, other)
    assert str(caught.value).startswith("0.npy and 2.npy were not made alike")


def test_what_nobody_knows_of_belongs_together_and_to_others_if_it_is_said():
    check(Made(), Made())
    check(Made(), BIG, Made(), BIG, keep_unknown=True)
    with pytest.raises(UserError):
        check(Made(), BIG, SMALL, keep_unknown=True)


@pytest.mark.parametrize("other", [("<f4", (3, 512)), ("<f2", (3, 7, 512)), ("<f2", (3, 768))])
def test_numbers_of_another_kind_are_told(other):
    kinds = Kinds()
    kinds.check_stored("n", "a.npy", "<f2", (1, 512))
    kinds.check_stored("n", "b.npy", "<f2", (0, 512))
    with pytest.raises(UserError, match=r"a\.npy and c\.npy do not hold the same kind"):
        kinds.check_stored("n", "c.npy", *other)


def test_an_npz_without_a_record_says_what_it_was_made_with(tmp_path):
    path = tmp_path / "a.npz"
    told = {"digest": "d1", "weights": "w", "settings": {"crop_size": 256}}
    np.savez(path, features=np.zeros((1, 2)), provenance=np.array(json.dumps(told)))
    assert find_made(str(path), None, {}) == Made("d1", "w", {"crop_size": 256})


@pytest.mark.parametrize("content", ["nothing", "other", "broken", "list"])
def test_of_others_nothing_is_known(tmp_path, content):
    path = tmp_path / "a.npz"
    if content == "other":
        np.savez(path, features=np.zeros((1, 2)))
    elif content == "broken":
        path.write_text("x")
    elif content == "list":
        np.savez(path, provenance=np.array("[1]"))
    assert find_made(str(path), None, {}) == Made()
    assert find_made(str(tmp_path / "a.npy"), None, {}) == Made()
