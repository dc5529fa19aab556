"""Several recipes in one configuration: what is made of each video, by name.

`backbone` is the name of one, a list of them, or a mapping from names of the user's own to settings
that these have on top of all others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from videofeatures.errors import UserError
from videofeatures.networks.backbones.families import safe_name
from videofeatures.networks.weights import RANDOM
from videofeatures.settings import KEYS, Config, Group

NAME = re.compile(r"[\w+-][\w.+-]*")
"""What can stand in the name of a folder, wherever; of `safe_name`, too."""

SHARED_KEYS = ("hwaccel",)
"""Keys that change numbers, and are of the one decoding that all recipes share."""

KEYS_OF_EACH = frozenset(
    name for name, key in KEYS.items() if key.group is Group.NUMBERS and name not in SHARED_KEYS
)
"""What each recipe may have of its own."""

WEIGHTS_OF_ALL = ("auto", RANDOM)
"""What `weights` may be where it is said once for several backbones."""


def split_config(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the configuration of each recipe, in which `backbone` is one, by its name.

    The name of a backbone that stands by itself, or in a list, is its `safe_name`. Values are not
    checked, except that they can be told apart.

    Raises:
        UserError: with all that is wrong with `backbone` as a list or a mapping.
    """
    given = config.get("backbone", Config.model_fields["backbone"].default)
    if isinstance(given, Mapping):
        named, problems = _from_mapping(given)
    elif isinstance(given, Sequence) and not isinstance(given, str):
        named, problems = _from_list(given, config)
    else:  # of no type that it may have, perhaps: that is reported with the other keys
        return {safe_name(given) if isinstance(given, str) else "": dict(config)}
    if not given:
        problems.append("is empty. Name one backbone, or several: [resnet152, resnext101]")
    number_of = Counter(name.casefold() for name in named)
    if same := [name for name in named if number_of[name.casefold()] > 1]:
        problems.append(
            f"{' and '.join(same)} differ in the case of letters alone, which some disks do not "
            "tell apart. Rename one"
        )
    if problems:
        raise UserError([f"configuration: backbone: {problem}" for problem in problems])
    return {name: {**config, **own} for name, own in named.items()}


def _from_list(
    given: Sequence[Any], config: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    named: dict[str, dict[str, Any]] = {}
    problems = []
    for item in given:
        if not isinstance(item, str) or not item:
            problems.append(f"{item!r} is not the name of a backbone, in a list of several")
        elif (name := safe_name(item)) in named:
            problems.append(
                f"{item} is there twice, as {name}. Give each a name of its own: {{a: {{backbone: "
                f"{item}, crop_size: 224}}, b: …}}"
            )
        else:
            named[name] = {"backbone": item}
    weights = config.get("weights", "auto")
    if len(named) > 1 and weights not in WEIGHTS_OF_ALL:
        first = next(iter(named))
        problems.append(
            f"of {len(named)}, and `weights: {weights}` can be those of one alone. Say it of that "
            f"one: {{{first}: {{weights: …}}, …}}"
        )
    return named, problems


def _from_mapping(given: Mapping[Any, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    named: dict[str, dict[str, Any]] = {}
    problems = []
    for name, own in given.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            problems.append(
                f"{name!r} is no name: it is to stand in the names of folders. Use letters, digits "
                "and _ - + ."
            )
        elif own and not isinstance(own, Mapping):  # what is left out is null, or "" (Snakemake)
            problems.append(f"{name}: {own!r} is not a mapping of keys, such as {{crop_size: 224}}")
        else:
            named[name] = {"backbone": name, **(own or {})}
            if not isinstance(named[name]["backbone"], str):
                problems.append(f"{name}: its `backbone` is the name of one")
            problems += [
                f"{name}: `{key}` is no key of one recipe: it is said once, for all of them"
                if key in KEYS
                else f"{name}: there is no key `{key}`"
                for key in own or {}
                if key not in KEYS_OF_EACH
            ]
    return named, problems
