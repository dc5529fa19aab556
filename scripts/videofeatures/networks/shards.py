"""Weights in several files, as transformers keeps large networks: an index, and the shards that it
names.

What is kept of them is a listing, a small file of JSON: the SHA-256 of each shard, by its name.
Beside it are the shards, each with digits of its hash in its name. So the SHA-256 of the listing
stands for all of them, and is known once the hub has said theirs, before any is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING

from videofeatures.errors import UserError
from videofeatures.files import replace_file
from videofeatures.networks import hub

if TYPE_CHECKING:
    from torch import Tensor

INDEX_SUFFIX = ".safetensors.index.json"
"""What the library calls an index; those of files that could be run are not read."""

LISTING_SUFFIX = ".json"
HASH = "#sha256="
HASH_DIGITS = 8
"""In the name of a shard, as in that of a file of weights."""

SHARD_NAME = re.compile(r"[\w-][\w.-]*\.safetensors", re.ASCII)


def is_index(origin: str | os.PathLike) -> bool:
    """Return whether an origin, or a path, is that of an index."""
    return str(origin).partition(HASH)[0].endswith(INDEX_SUFFIX)


def is_listing(path: str | os.PathLike) -> bool:
    """Return whether a path of verified weights is that of a listing."""
    return str(path).endswith(LISTING_SUFFIX)


def find_origin(repo: str, file_names: Sequence[str]) -> str:
    """Return the origin of the first of these files that a repository has, as `hub.find_origin`
    does; the hash of an index is that of the listing of its shards.

    Raises:
        UserError: the repository, or the cache of a machine that does not reach the hub, has an
            index, and not all of its shards.
    """
    origin = hub.find_origin(repo, file_names)
    address, hash_mark, _ = origin.partition(HASH)
    if not (is_index(origin) and hash_mark):
        return origin
    return f"{address}{HASH}{hashlib.sha256(make_listing(origin)).hexdigest()}"


def make_listing(origin: str) -> bytes:
    """Return the content of the listing of an index's shards.

    Args:
        origin: of an index on the hub, or the path of one, with its shards beside it.

    Raises:
        UserError: it is not an index, or a shard is missing.
        OSError: a file cannot be read.
    """
    if hub.is_origin(origin):
        repo, index_name = hub.split_origin(origin)
        names = _names_in(hub.read_json(repo, index_name), f"{repo}: {index_name}")
        hashes = {name: _hash_on_hub(repo, name) for name in names}
    else:
        names = _names_in(hub.read_json_file(origin), origin)
        hashes = {name: _hash_beside(Path(origin), name) for name in names}
    return json.dumps(hashes, indent=1, sort_keys=True).encode()


def fetch(listing: bytes, origin: str, folder: Path) -> None:
    """Put each shard of a listing into a folder, verified, unless it is there.

    Args:
        origin: of their index.

    Raises:
        UserError: one cannot be had, or is not what the listing says.
        OSError: a file cannot be read or written.
    """
    for name, expected in json.loads(listing).items():
        path = folder / _shared_name(name, expected)
        if path.exists():
            continue
        if hub.is_origin(origin):
            repo, _ = hub.split_origin(origin)
            shown_path = f"{hub.PREFIX}{repo}/{name}"
            source = hub.download(shown_path)
        else:
            source = Path(origin).parent / name
            shown_path = str(source)
        with replace_file(path, tidy=True) as file:
            with open(source, "rb") as content:
                shutil.copyfileobj(content, file)
            file.flush()
            if (found := _sha256(file)) != expected:
                raise UserError(
                    f"{shown_path}: its SHA-256 starts with {found[:HASH_DIGITS]}, not "
                    f"{expected[:HASH_DIGITS]}: it is incomplete, or not that file. Fetch it again"
                )


def check_shards(listing_path: str | os.PathLike) -> None:
    """Check that the shards beside a listing still are what it says.

    Raises:
        UserError: one is not, or is missing.
        OSError: one cannot be read.
    """
    for path, expected in _shards_of(listing_path):
        with open(path, "rb") as file:
            found = _sha256(file)
        if found != expected:
            raise UserError(
                f"{path}: is damaged, or has been changed since it was verified: its SHA-256 "
                f"starts with {found[:HASH_DIGITS]}. Remove it and {listing_path}: the next run "
                "makes them again"
            )


def read_state(listing_path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the tensors of all shards beside a listing, by name.

    Raises:
        UserError: a shard is missing, or two have a tensor of the same name.
        Exception: of safetensors' kinds: one cannot be read.
    """
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for path, _ in _shards_of(listing_path):
        part = load_file(path)
        if twice := sorted(state.keys() & part.keys()):
            raise UserError(f"{path}: has {twice[0]}, which another shard has, too. Fetch it again")
        state |= part
    return state


def _shards_of(listing_path: str | os.PathLike) -> list[tuple[Path, str]]:
    listing = hub.read_json_file(Path(listing_path))
    folder = Path(listing_path).parent
    shards = [(folder / _shared_name(name, known), known) for name, known in listing.items()]
    for path, _ in shards:
        if not path.is_file():
            raise UserError(
                f"{path}: is missing, one of the files of {listing_path}. Remove that: the next "
                "run makes both again"
            )
    return shards


def _shared_name(name: str, sha256: str) -> str:
    return f"{Path(name).stem}-{sha256[:HASH_DIGITS]}{Path(name).suffix}"


def _names_in(index: dict[str, object], shown_path: str) -> list[str]:
    """Return the names of the shards that an index names, of files beside it."""
    of_tensors = index.get("weight_map")
    names = set(of_tensors.values()) if isinstance(of_tensors, dict) else set()
    if not names or not all(isinstance(k, str) and SHARD_NAME.fullmatch(k) for k in names):
        raise UserError(
            f"{shown_path}: names no files of weights (`weight_map`) that are beside it and end in "
            ".safetensors. Fetch it again, or name another file with the key `weights`"
        )
    return sorted(names)


def _hash_on_hub(repo: str, name: str) -> str:
    origin = hub.find_origin(repo, [name])
    if HASH not in origin:
        hub.download(origin)  # which says why it cannot be had
        origin = hub.find_origin(repo, [name])
    return origin.partition(HASH)[2]


def _hash_beside(index_path: Path, name: str) -> str:
    path = index_path.parent / name
    if not path.is_file():
        raise UserError(f"{path}: is missing, which {index_path.name} names. Copy it there")
    with open(path, "rb") as file:
        return _sha256(file)


def _sha256(file: BufferedReader | BufferedRandom) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()
