"""Networks of whole libraries: a name becomes a backbone by asking its library.

A library takes seconds to import, and hundreds of MB. So it is asked in a process of its own, once
for each of its versions, and what it says is kept in a file, which all nodes read.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videofeatures.errors import UserError
from videofeatures.files import replace_file

if TYPE_CHECKING:
    from videofeatures.networks.backbones import Backbone

FAMILIES = {
    "torchvision": ("from_torchvision", ("torchvision",)),
    "timm": ("from_timm", ("timm",)),
    "open_clip": ("from_open_clip", ("open_clip_torch", "timm")),
    "transformers": ("from_transformers", ("transformers",)),
}
"""By name: the module beside this one that knows the library, and the packages that it needs."""

SHARED_FOLDER = Path("resources/backbones")
"""Where descriptions are kept, beside the weights; all nodes read them."""

FORM = 2
"""Raised when what a description says, or how a family makes it, changes."""

MAX_SECONDS = 300
"""Of describing: a hub may be slow."""

SCRIPT = f"import sys, {__name__} as families; sys.exit(families.print_description(*sys.argv[1:]))"


@cache
def find(family: str, name: str) -> Backbone:
    """Return the backbone of this name in a family.

    Raises:
        UserError: there is none, or its library is not installed, or says that it cannot be used.
    """
    from videofeatures.networks.backbones import Backbone

    path, made_with = path_of(f"{family}:{name}"), _made_with(family, name)
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["made_with"] == made_with:
            return Backbone.from_json(content["backbone"])
    content = _ask(family, name)
    with suppress(OSError), replace_file(path) as file:  # only slower, without
        file.write(json.dumps({"made_with": made_with, "backbone": content}, indent=1).encode())
    return Backbone.from_json(content)


def find_again(family: str, name: str) -> Backbone:
    """Forget what is known of a backbone, and ask its library, and its hub, once more.

    Raises:
        UserError: see `find`.
    """
    with suppress(OSError):
        path_of(f"{family}:{name}").unlink(missing_ok=True)
    find.cache_clear()
    return find(family, name)


def path_of(backbone: str) -> Path:
    """Return the path of the file that keeps what a library says of a network."""
    return SHARED_FOLDER / f"{safe_name(backbone)}.json"


def safe_name(backbone: str) -> str:
    """Return the name of a backbone as it can stand in the name of a file: `timm--resnet50`."""
    return re.sub(r"[^\w.+-]+", "--", backbone)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a question with the names that are nearest to one that there is not, or ""."""
    by_lower = {other.lower(): other for other in known}
    near = [by_lower[key] for key in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    return f"; did you mean {' or '.join(near)}?" if near else ""


def describe(family: str, name: str) -> Backbone:
    """Ask a library for a backbone, in this process. See `find`."""
    module, _ = FAMILIES[family]
    return importlib.import_module(f"videofeatures.networks.backbones.{module}").describe(name)


def _made_with(family: str, name: str) -> dict[str, Any]:
    """Return all that a description depends on: versions, and what a network's own folder says."""
    _, packages = FAMILIES[family]
    try:
        versions = {package: version(package) for package in packages}
    except PackageNotFoundError as error:
        raise UserError(
            f"{family}:… needs the package {error.name}, which is not installed. Install what is "
            "in envs/requirements.txt: make env"
        ) from None
    with suppress(OSError):
        texts = {path.name: path.read_text() for path in Path(name).glob("*.json")}
        if texts:
            versions["folder"] = hashlib.sha256(
                json.dumps(texts, sort_keys=True).encode()
            ).hexdigest()
    return {"form": FORM, **versions}


def _ask(family: str, name: str) -> dict[str, Any]:
    """Return what `describe` returns in another process, as JSON has it."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "PYTHONUTF8": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    try:
        process = subprocess.run(
            [sys.executable, "-c", SCRIPT, family, name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=environment,
            timeout=MAX_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{family}:{name}: its library said nothing in {MAX_SECONDS} s: its hub does not "
            "answer, it may be. HF_HUB_OFFLINE=1 does without"
        ) from None
    lines = process.stdout.decode(errors="replace").splitlines()
    if process.returncode == 0 and lines:
        return json.loads(lines[-1])
    if process.returncode == 2 and lines:
        raise UserError(json.loads(lines[-1]))
    last = process.stderr.decode(errors="replace").strip().splitlines()[-1:]
    raise UserError(f"{family}:{name}: {last[0] if last else 'its library failed'}")


def print_description(family: str, name: str) -> int:
    """Print what `describe` returns, or the problems that it raises, as JSON; return the exit
    status, 0 or 2."""
    try:
        print(json.dumps(asdict(describe(family, name))))
    except UserError as error:
        print(json.dumps(error.problems))
        return 2
    return 0
