"""The house: rooms by step, none of which knows of the ones after it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conftest import ROOT

PACKAGE = ROOT / "scripts" / "videofeatures"
ROOMS = (
    *("decoding", "networks", "planning", "monitoring"),
    *("extraction", "report", "packing", "workflow"),
)
"""Each may import those before it, and what all share: the modules beside the rooms."""

WITHOUT_TORCH = ("decoding", "planning", "monitoring")
"""Rooms in which nothing imports torch."""

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def room_of(path: Path) -> str | None:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else None


def imports_of(path: Path) -> set[str]:
    """All that a module imports, at its top or when it needs it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(ROOMS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_nothing_of_a_later_room(path):
    room = room_of(path)
    allowed = ROOMS[: ROOMS.index(room) + 1] if room else ()
    later = {
        name
        for name in imports_of(path)
        if name.startswith("videofeatures.")
        and name.split(".")[1] in ROOMS
        and name.split(".")[1] not in allowed
    }
    assert not later


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_workflow_s_rules_know_snakemake_and_only_networks_know_torch(path):
    packages = {name.split(".")[0] for name in imports_of(path)}
    assert "snakemake" not in packages
    if room_of(path) in WITHOUT_TORCH or room_of(path) is None:
        assert "torch" not in packages


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_s_tests_are_found_by_its_name(path):
    if path.relative_to(PACKAGE).as_posix() in TESTED_WITH:
        return
    mirrored = ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.name}"
    assert mirrored.exists()


TESTED_WITH = {
    "source.py": "what it is made of",
    "decoding/at_once.py": "decoding/test_short_videos.py, which has workers do it",
    "decoding/told.py": "decoding/test_decoding.py: it does nothing",
    "extraction/events.py": "extraction/test_decoders.py, which says them: they do nothing",
    "packing/pack_format.py": "packing/test_hdf5_format.py and the other format's",
    "networks/backbones/transforms.py": "networks/backbones/test_from_timm.py and the others",
    "networks/backbones/efficientnet.py": "networks/test_backbones.py",
    "networks/backbones/resnet.py": "networks/test_backbones.py",
}
"""Modules that have no tests of their own, and why."""
