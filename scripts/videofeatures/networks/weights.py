"""Weights: found, verified and copied once, into a folder that all nodes share.

A verified file is named `<name>-<identity>.pth`, or `.safetensors`; of weights in several files
it is a listing, `.json`, of the others (see `shards`). The identity is the first eight
digits of the file's SHA-256 (`random` for seeded random weights), as in torchvision's
own file names: weights given by name and the same weights given as a file are one
thing, and a file that is replaced under the same name is another.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import tempfile
import urllib.request
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import hash_content, replace_file
from videofeatures.networks import hub, shards
from videofeatures.networks.backbones import Backbone, families, find_backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

RANDOM = "random"
UNKNOWN = "missing"
"""In place of an identity that is not known, because its file is missing."""
RANDOM_SEED = 0
URL_TIMEOUT_SECONDS = 60
"""Of silence."""
HASH_DIGITS = 8
USER_FOLDER = Path("model")
"""Where users put files that cannot be downloaded; the original program's choice."""
SHARED_FOLDER = Path("resources/weights")
"""Where verified copies are kept; jobs read only these."""

SAFE = ".safetensors"
"""What files are called that hold tensors alone, and nothing that could be run."""


class Weights(NamedTuple):
    """The weights that a configuration names, and what is known of them before any is read.

    Attributes:
        backbone: name of the backbone.
        origin: `random`, a URL, or the path of a local file.
        identity: see above; None if it is not known, because its file is missing.
        requested: as the configuration names them.
    """

    backbone: str
    origin: str
    identity: str | None
    requested: str = "auto"

    @property
    def shared_path(self) -> Path:
        """Path of the verified copy, which may have yet to be made."""
        name = families.safe_name(self.backbone)
        suffix = SAFE if _without_fragment(self.origin).endswith(SAFE) else ".pth"
        if shards.is_index(self.origin):
            suffix = shards.LISTING_SUFFIX
        return SHARED_FOLDER / f"{name}-{self.identity or UNKNOWN}{suffix}"


def find_weights(backbone: str, requested: str) -> Weights:
    """Return the weights that `requested` stands for, without torch and without the network.

    A named file is taken from `model/` if it is there, else from torch's cache, else
    from its URL.

    Args:
        backbone: its name, as `find_backbone` knows it.
        requested: `auto` (the backbone's own), a name of its weights, `random`, or a path.

    Raises:
        UserError: of weights in several files, one is missing.
        OSError: a file that is there cannot be read.
    """
    return _find_weights(backbone, requested)._replace(requested=requested)


def _find_weights(backbone: str, requested: str) -> Weights:
    if requested == RANDOM:
        return Weights(backbone, RANDOM, RANDOM)
    urls = find_backbone(backbone).weights
    if requested == "auto":
        requested = next(iter(urls), "auto")
    if requested not in urls:
        return Weights(backbone, requested, _identity_of_file(requested))
    url = urls[requested]
    if os.path.isabs(url):  # of a network that is a folder
        return Weights(backbone, url, _identity_of_file(url))
    local = _local_path(url)
    if hub.is_origin(url) and _identity_in(url) is None and not local.is_file():
        # The hub could not be asked when the network was described.
        url = families.find_again(*backbone.split(":", 1)).weights[requested]
    identity = _identity_in(url)
    if local.is_file():
        return Weights(backbone, str(local), identity or _identity_of_file(local))
    if identity is None:
        return Weights(backbone, str(local), None)
    if url.startswith("package:"):
        return Weights(backbone, _packaged_file(url) or url, identity)
    if hub.is_origin(url):  # whose client has a cache of its own
        return Weights(backbone, url, identity)
    cached = _torch_cache() / local.name
    return Weights(backbone, str(cached) if cached.is_file() else url, identity)


def identity_of(shared_path: str | os.PathLike) -> str | None:
    """Return the identity in the name of a verified file, or None if it was not known."""
    identity = Path(shared_path).stem.rsplit("-", 1)[-1]
    return None if identity == UNKNOWN else identity


def prepare_weights(weights: Weights) -> Path:
    """Fetch, verify and copy the weights, unless that was done before; return the copy's path.

    Raises:
        UserError: the weights cannot be had or do not fit, and what to do.
        OSError: a file cannot be read or written.
    """
    path = weights.shared_path
    if path.exists():
        return path
    import torch

    backbone = find_backbone(weights.backbone)
    if weights.origin == RANDOM:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(RANDOM_SEED)
            state = backbone.build().state_dict()
        with replace_file(path, tidy=True) as file:
            torch.save(state, file)
        return path

    with replace_file(path, tidy=True) as file:
        if shards.is_index(weights.origin):
            file.write(_make_listing(weights))
        elif hub.is_origin(weights.origin):
            with open(hub.download(weights.origin), "rb") as origin:
                shutil.copyfileobj(origin, file)
        elif "://" in weights.origin:
            _download(weights, file)
        else:
            if not os.path.isfile(weights.origin):
                raise UserError(missing_message(weights))
            with open(weights.origin, "rb") as origin:
                shutil.copyfileobj(origin, file)
        file.flush()
        identity = hash_content(file)[:HASH_DIGITS]
        if identity != weights.identity:
            what_to_do = "Fetch it again"
            if hub.is_origin(weights.origin):
                description = families.path_of(weights.backbone)
                what_to_do = (
                    f"If its repository has changed, remove {description}, which is made again; "
                    "otherwise fetch it again"
                )
            raise UserError(
                f"{weights.origin}: its SHA-256 starts with {identity}, not {weights.identity}: "
                f"it is incomplete, or not that file. {what_to_do}, or name another file "
                "with the key `weights`"
            )
        if shards.is_index(weights.origin):
            file.seek(0)
            shards.fetch(file.read(), weights.origin, path.parent)
        load_network(backbone, file.name, shown_path=weights.origin, suffix=path.suffix)
    return path


def check_content(shared_path: str | os.PathLike) -> None:
    """Check that a verified file still is what it was, by the hash in its name.

    Of 230 MB, this takes 0.2 s (measured).

    Raises:
        UserError: it is not.
        OSError: it cannot be read.
    """
    identity = identity_of(shared_path)
    if identity is None or not re.fullmatch(f"[0-9a-f]{{{HASH_DIGITS}}}", identity):
        return  # seeded random weights
    if (now := _identity_of_file(shared_path)) not in (identity, None):
        raise UserError(
            f"{shared_path}: is damaged, or has been changed since it was verified: its SHA-256 "
            f"starts with {now}. Remove it: the next run makes it again"
        )
    if shards.is_listing(shared_path):
        shards.check_shards(shared_path)


def load_network(
    backbone: Backbone,
    path: str | os.PathLike,
    *,
    shown_path: str | None = None,
    suffix: str | None = None,
) -> nn.Module:
    """Return the published network with all weights of a file, in evaluation mode, on the CPU.

    The file holds a state dict, bare or under the key `state_dict`, with or without the
    prefix `module.` in front of every name (as `torch.nn.DataParallel` writes it). In a family, its
    layers may have other names than the network's, if the library knows what to do about it.

    Args:
        shown_path: what messages call the file; `path` by default.
        suffix: of a file of its format; its own by default.

    Raises:
        UserError: the file is not weights, or not of this network.
    """
    shown_path = shown_path or str(path)
    suffix = suffix or Path(path).suffix
    state = _read_state(path, shown_path, suffix)
    try:
        network = _fit(backbone, state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        problem = " ".join(line if len(line) < 200 else line[:200] + "…" for line in lines[:3])
    else:
        return network.eval().requires_grad_(False)
    if backbone.converter:
        # Libraries go by the names of files.
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder) / f"weights{suffix}"
            link.symlink_to(Path(path).absolute())
            try:
                return backbone.convert(state, str(link)).eval().requires_grad_(False)
            except Exception as error:  # libraries raise what they like
                problem += f" As its library reads it: {type(error).__name__}: {error}"[:400]
    name = " ".join(backbone.arguments[:1]) or backbone.constructor.split(":")[1]
    raise UserError(
        f"{shown_path}: these are not the weights of {name} ({problem}). Name the right file with "
        "the key `weights`"
    )


def _read_state(path: str | os.PathLike, shown_path: str, suffix: str) -> dict[str, Tensor]:
    import torch

    try:
        if suffix == shards.LISTING_SUFFIX:
            content: object = shards.read_state(path)
        elif suffix == SAFE:
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # torch raises half a dozen kinds for a file that is not one
        first_line = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{shown_path}: cannot be read as weights ({type(error).__name__}: "
            f"{first_line[0] if first_line else 'no detail'}). It must be a state dict "
            f"saved with torch.save, or a file of safetensors named *{SAFE}"
        ) from None
    state = _bare_state_dict(content)
    if not state:
        raise UserError(f"{shown_path}: holds no state dict. It must be one, saved by torch.save")
    for name, tensor in state.items():
        if kind := _unusable_kind(tensor):
            raise UserError(
                f"{shown_path}: {name} is a {kind} tensor. Weights must be dense real numbers: "
                "save them so with torch.save"
            )
    return state


def _fit(backbone: Backbone, state: dict[str, Tensor]) -> nn.Module:
    """Return the published network with a state dict, which must have all its layers, and no other.

    Raises:
        RuntimeError: it has not.
    """
    import torch

    # On the meta device nothing is allocated or initialised, which would take seconds. Networks
    # of libraries may hold more than their weights: tables that are computed when they are built.
    with torch.device("cpu" if backbone.extractor else "meta"):
        network = backbone.build()
    network.load_state_dict(state, strict=True, assign=True)
    return network


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


def _unusable_kind(tensor: Tensor) -> str | None:
    """Return what a tensor is instead of numbers that layers compute with, or None."""
    import torch

    if tensor.is_meta:
        return "meta"  # which has no numbers
    if tensor.is_quantized:
        return "quantized"
    if tensor.layout != torch.strided:
        return "sparse"
    return "complex" if tensor.is_complex() else None


def _download(weights: Weights, file: BufferedRandom) -> None:
    request = urllib.request.Request(weights.origin, headers={"User-Agent": "videofeatures"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS) as response:
            shutil.copyfileobj(response, file)
    except (OSError, http.client.HTTPException) as error:  # URLError, timeouts
        raise UserError(
            f"{weights.origin}: cannot be downloaded ({error}). "
            + by_hand(weights.backbone, weights.origin)
        ) from None


def missing_message(weights: Weights) -> str:
    """Return what to do about weights whose file is missing, for people."""
    urls = find_backbone(weights.backbone).weights
    for url in urls.values():
        if weights.origin == str(_local_path(url)):
            return f"{weights.origin}: the weights of {weights.backbone} are not there. " + by_hand(
                weights.backbone, url
            )
    return (
        f"{weights.origin}: no such weights file. The key `weights` takes `auto`, a name "
        f"({', '.join(urls)}), `random`, or the path of a file"
    )


def by_hand(backbone: str, url: str) -> str:
    """Return how to get weights that cannot be downloaded from here, for people."""
    hint = find_backbone(backbone).weights_hint
    what = url
    if hub.is_origin(url):
        repo, file_name = hub.split_origin(url)
        what = f"{file_name} of the repository {repo} (`hf download {repo} {file_name}`)"
        if shards.is_index(url):
            what += " and the files that it names"
    return (
        f"Fetch {what}{f' ({hint})' if hint else ''} on a machine with a network and put it at "
        f"{_local_path(url)}, or name your file with the key `weights`. `weights: random` "
        "tries things out without"
    )


def _local_path(url: str) -> Path:
    """Return where users put the file of a URL; those of hubs have the same names everywhere."""
    *folders, name = _without_fragment(url).split("/")
    return USER_FOLDER / ("--".join(folders[2:]) if hub.is_origin(url) else "") / name


def _without_fragment(url: str) -> str:
    return url.partition("#sha256=")[0]


def _identity_in(url: str) -> str | None:
    match = re.search(r"#sha256=([0-9a-f]{64})$", url)
    match = match or re.search(r"-([0-9a-f]{8,})\.[^/]*$", url)
    return match and match[1][:HASH_DIGITS]


def _make_listing(weights: Weights) -> bytes:
    if not (hub.is_origin(weights.origin) or os.path.isfile(weights.origin)):
        raise UserError(missing_message(weights))
    return shards.make_listing(weights.origin)


def _identity_of_file(path: str | os.PathLike) -> str | None:
    """Return a file's identity, or None if there is no such file.

    Raises:
        UserError: it is an index, and a file that it names is missing.
        OSError: it cannot be read.
    """
    if not os.path.isfile(path):
        return None
    if shards.is_index(path):
        return hashlib.sha256(shards.make_listing(str(path))).hexdigest()[:HASH_DIGITS]
    with open(path, "rb") as file:
        return hash_content(file)[:HASH_DIGITS]


def _packaged_file(url: str) -> str | None:
    package, _, inner = url.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package)
    return str(Path(spec.origin).parent / inner) if spec and spec.origin else None


def _torch_cache() -> Path:
    """Return torch.hub's folder, found as torch.hub does, without importing it."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"
