"""Weights: found, verified and copied once, into a folder that all nodes share.

A verified file is named `<name>-<identity>.pth`. The identity is the first eight
digits of the file's SHA-256 (`random` for seeded random weights), as in torchvision's
own file names: weights given by name and the same weights given as a file are one
thing, and a file that is replaced under the same name is another.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import replace_file
from videofeatures.networks.backbones import BACKBONES, Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

RANDOM = "random"
RANDOM_SEED = 0
HASH_DIGITS = 8
USER_FOLDER = Path("model")
"""Where users put files that cannot be downloaded; the original program's choice."""
SHARED_FOLDER = Path("resources/weights")
"""Where verified copies are kept; jobs read only these."""


class Weights(NamedTuple):
    """Which weights are asked for, and what is known of them before any is read.

    Attributes:
        backbone: name of the backbone.
        origin: `random`, a URL, or the path of a local file.
        identity: see above; None if the file that would tell is not there.
    """

    backbone: str
    origin: str
    identity: str | None

    @property
    def shared_path(self) -> Path:
        """Where the verified copy is, or will be."""
        return SHARED_FOLDER / f"{self.backbone}-{self.identity or 'missing'}.pth"


def find_weights(backbone: str, asked: str) -> Weights:
    """Say what `asked` means, without torch and without the network.

    Args:
        backbone: a name in `BACKBONES`.
        asked: `auto` (the backbone's own), a name of its weights, `random`, or a path.

    A named file is taken from `model/` if it is there, else from torch's cache, else
    from its URL.
    """
    if asked == RANDOM:
        return Weights(backbone, RANDOM, RANDOM)
    named = BACKBONES[backbone].weights
    if asked == "auto":
        asked = next(iter(named))
    if asked not in named:
        return Weights(backbone, asked, _hash_of(asked))
    source = named[asked]
    local = _place_for(source)
    identity = _hash_in(local.name)
    if local.is_file():
        return Weights(backbone, str(local), identity or _hash_of(local))
    if identity is None:
        return Weights(backbone, str(local), None)
    if source.startswith("package:"):
        return Weights(backbone, _packaged_file(source) or source, identity)
    cached = _torch_cache() / local.name
    return Weights(backbone, str(cached) if cached.is_file() else source, identity)


def identity_of(shared_path: str | os.PathLike) -> str:
    """The identity in the name of a verified file."""
    return Path(shared_path).stem.rsplit("-", 1)[-1]


def prepare_weights(weights: Weights) -> Path:
    """Fetch, verify and copy the weights, unless that was done before.

    Raises:
        UserError: the weights cannot be had or do not fit, and what to do.
    """
    target = weights.shared_path
    if target.exists():
        return target
    import torch

    backbone = BACKBONES[weights.backbone]
    if weights.origin == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            state = backbone.build().state_dict()
        with replace_file(target, tidy=True) as file:
            torch.save(state, file)
        return target

    with replace_file(target, tidy=True) as file:
        if "://" in weights.origin:
            _download(weights, file.name)
        else:
            if not os.path.isfile(weights.origin):
                raise UserError(missing_message(weights))
            shutil.copyfile(weights.origin, file.name)
        found = _hash_of(file.name)
        if found != weights.identity:
            raise UserError(
                f"{weights.origin}: its SHA-256 starts with {found}, not {weights.identity}: "
                "it is incomplete, or not that file. Fetch it again, or name another file "
                "with the key `weights`"
            )
        load_network(backbone, file.name, shown_path=weights.origin)
    return target


def load_network(
    backbone: Backbone, path: str | os.PathLike, *, shown_path: str | None = None
) -> nn.Module:
    """The published network with the weights of a file, all of them, in evaluation mode.

    The file holds a state dict, bare or under the key `state_dict`, with or without the
    prefix `module.` in front of every name (as `torch.nn.DataParallel` writes it).

    Raises:
        UserError: the file is not weights, or not of this network.
    """
    import torch

    shown_path = shown_path or str(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds for a file that is not one
        first_line = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{shown_path}: cannot be read as weights ({type(error).__name__}: "
            f"{first_line[0] if first_line else 'no detail'}). It must be a state dict "
            "saved with torch.save"
        ) from None
    state = _bare_state_dict(state)
    if not state:
        raise UserError(f"{shown_path}: holds no state dict. It must be one, saved by torch.save")
    # On the meta device nothing is allocated or initialised, which would take seconds.
    with torch.device("meta"):
        network = backbone.build()
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        detail = " ".join(line if len(line) < 200 else line[:200] + "…" for line in lines[:3])
        raise UserError(
            f"{shown_path}: these are not the weights of {backbone.constructor.split(':')[1]} "
            f"({detail}). Name the right file with the key `weights`"
        ) from None
    return network.eval().requires_grad_(False)


def _bare_state_dict(state: object) -> dict[str, Tensor] | None:
    import torch

    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not state:
        return None
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        return None
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def _download(weights: Weights, path: str) -> None:
    import torch

    try:
        torch.hub.download_url_to_file(weights.origin, path, weights.identity, progress=False)
    except Exception as error:  # URLError, timeouts, a wrong hash (RuntimeError)
        raise UserError(
            f"{weights.origin}: cannot be downloaded ({error}). "
            + by_hand(weights.backbone, weights.origin)
        ) from None


def missing_message(weights: Weights) -> str:
    """What to do about weights whose file is not there."""
    named = BACKBONES[weights.backbone].weights
    for source in named.values():
        if weights.origin == str(_place_for(source)):
            return f"{weights.origin}: the weights of {weights.backbone} are not there. " + by_hand(
                weights.backbone, source
            )
    return (
        f"{weights.origin}: no such weights file. The key `weights` takes `auto`, a name "
        f"({', '.join(named)}), `random`, or the path of a file"
    )


def by_hand(backbone: str, source: str) -> str:
    """What to do where weights cannot be downloaded."""
    hint = BACKBONES[backbone].weights_hint
    return (
        f"Fetch {source}{f' ({hint})' if hint else ''} on a machine with a network and put it at "
        f"{_place_for(source)}, or name your file with the key `weights`. `weights: random` "
        "tries things out without"
    )


def _place_for(source: str) -> Path:
    return USER_FOLDER / source.rsplit("/", 1)[-1]


def _hash_in(file_name: str) -> str | None:
    match = re.search(r"-([0-9a-f]{8,})\.", file_name)
    return match and match[1][:HASH_DIGITS]


def _hash_of(path: str | os.PathLike) -> str | None:
    if not os.path.isfile(path):
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:HASH_DIGITS]


def _packaged_file(source: str) -> str | None:
    package, _, inner = source.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    return str(Path(spec.origin).parent / inner) if spec and spec.origin else None


def _torch_cache() -> Path:
    """torch.hub's folder, found as torch.hub does, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"
