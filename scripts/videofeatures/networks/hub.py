"""The Hugging Face hub: what its repositories have, and their files, by its own client.

All that people set for that client holds: `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, `HF_TOKEN`.
A file is named by its origin, `hf://REPOSITORY/FILE#sha256=…`: the hash is the hub's own, so that a
file has an identity before it is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from videofeatures.errors import UserError

PREFIX = "hf://"
TIMEOUT_SECONDS = 5
"""For the hub to say what it knows of a file; then what is in the cache counts."""
SHA256 = re.compile("[0-9a-f]{64}")


def is_origin(origin: str) -> bool:
    """Return whether an origin is that of a file on the hub."""
    return origin.startswith(PREFIX)


def is_repository(name: str) -> bool:
    """Return whether a name has the form of a repository's: OWNER/NAME, as the hub has it."""
    return bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name, re.ASCII)) and ".." not in name


def find_origin(repo: str, file_names: Sequence[str]) -> str:
    """Return the origin of the first of these files that a repository has.

    Asks the hub, else the cache. Where neither knows the file it is the first, without a hash:
    `download` says why.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for name in file_names:
        try:
            metadata = get_hf_file_metadata(hf_hub_url(repo, name), timeout=TIMEOUT_SECONDS)
        except EntryNotFoundError:
            continue
        except Exception:  # the client lets its HTTP library's many kinds through
            break
        if metadata.etag and SHA256.fullmatch(metadata.etag):
            return f"{PREFIX}{repo}/{name}#sha256={metadata.etag}"
        # The hub has the SHA-256 of large files only.
        try:
            return f"{PREFIX}{repo}/{name}#sha256={_hash_of(_fetch(repo, name))}"
        except UserError:
            break
    for name in file_names:
        if path := _find_in_cache(repo, name):
            return f"{PREFIX}{repo}/{name}#sha256={_hash_of(path)}"
    return f"{PREFIX}{repo}/{file_names[0]}"


def download(origin: str) -> Path:
    """Return the path of a file in the client's cache, where it is put unless it is there.

    Its content is not checked against the hash in `origin`.

    Raises:
        UserError: it cannot be had, why, and what to do.
    """
    repo, file_name = split_origin(origin)
    return _fetch(repo, file_name)


def check_origin(origin: str) -> None:
    """Check that a file can be had, from the cache or from the hub, without a download.

    Raises:
        UserError: it cannot, why, and what to do.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    repo, file_name = split_origin(origin)
    if _find_in_cache(repo, file_name):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repo, file_name), timeout=TIMEOUT_SECONDS)
    except Exception as error:  # the client lets its HTTP library's many kinds through
        _refuse(repo, file_name, error)


def split_origin(origin: str) -> tuple[str, str]:
    """Return the repository and the file of an origin."""
    owner, name, file_name = origin.removeprefix(PREFIX).partition("#")[0].split("/", 2)
    return f"{owner}/{name}", file_name


def read_json(repo: str, file_name: str) -> dict[str, Any]:
    """Return what a JSON file of a repository says.

    Raises:
        UserError: it cannot be had, why, and what to do; or it is not JSON.
    """
    return read_json_file(_fetch(repo, file_name), f"{repo}: {file_name}")


def find_json(repo: str, file_name: str) -> dict[str, Any] | None:
    """Return what a JSON file says; None if the repository, or the cache of a machine that does not
    reach the hub, does not have it.

    Raises:
        UserError: the hub refuses it, why, and what to do; or it is not JSON.
    """
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        path = _fetch_as_it_is(repo, file_name)
    except EntryNotFoundError:
        return None
    except (RepositoryNotFoundError, HFValidationError) as error:
        _refuse(repo, file_name, error)
    except Exception:  # the client lets its HTTP library's many kinds through
        return None
    return read_json_file(path, f"{repo}: {file_name}")


def read_json_file(path: str | Path, shown_path: str | None = None) -> dict[str, Any]:
    """Return what a JSON file says.

    Args:
        shown_path: what messages call the file; `path` by default.

    Raises:
        UserError: it cannot be read, or is not an object of JSON.
    """
    shown_path = shown_path or str(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{shown_path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{shown_path}: is not JSON ({error}). Fetch it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown_path}: is not an object of JSON. Fetch it again")
    return content


def _fetch(repo: str, file_name: str) -> Path:
    try:
        return _fetch_as_it_is(repo, file_name)
    except Exception as error:  # the client lets its HTTP library's many kinds through
        _refuse(repo, file_name, error)


def _fetch_as_it_is(repo: str, file_name: str) -> Path:
    """Return the path of a file in the cache; raise whatever the client does.

    The hub is asked once first: where there is none, the client would try for 23 s (measured).
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(repo, file_name), timeout=TIMEOUT_SECONDS)
    except Exception:
        if path := _find_in_cache(repo, file_name):
            return path
        raise
    return Path(hf_hub_download(repo, file_name, etag_timeout=TIMEOUT_SECONDS))


def _refuse(repo: str, file_name: str, error: Exception) -> NoReturn:
    """Raise what the failure to fetch a file means, and what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    file = f"{file_name} of the repository {repo}"
    if isinstance(error, GatedRepoError):
        text = (
            f"{file}: its owners give it only to those who have accepted their terms. Accept them "
            f"on the page of {repo}, and set HF_TOKEN to a token of that account"
        )
    elif isinstance(error, (RepositoryNotFoundError, HFValidationError)):
        text = (
            f"{file}: the hub has no such repository, or it is private. Look at its name; for one "
            "of your own, set HF_TOKEN"
        )
    elif isinstance(error, RemoteEntryNotFoundError):
        text = f"{file}: the repository has no such file. Name another repository, or a folder"
    else:
        first_line = str(error).strip().splitlines()[:1]
        detail = first_line[0].rstrip(".") if first_line else "no detail"
        text = (
            f"{file}: it is not in the cache, and cannot be fetched ({type(error).__name__}: "
            f"{detail}). {by_hand(repo, file_name)}"
        )
    raise UserError(text) from None


def by_hand(repo: str, file_name: str) -> str:
    """Return how to get a file that cannot be fetched from here, for people."""
    from huggingface_hub import constants

    return (
        f"Run `hf download {repo} {file_name}` on a machine with a network, and copy its HF_HOME "
        f"to this one ({constants.HF_HOME}), or name a folder that has the file"
    )


def _find_in_cache(repo: str, file_name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repo, file_name)
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def _hash_of(path: Path) -> str:
    """Return the SHA-256 of a file in the cache, where a large one's blob has it as its name."""
    blob = path.resolve()
    if SHA256.fullmatch(blob.name):
        return blob.name
    with open(blob, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
