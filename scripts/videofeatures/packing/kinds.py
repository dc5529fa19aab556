"""Only features that were made alike belong together: what each file was made with, and as what
it is stored."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from videofeatures.errors import UserError, VideoError
from videofeatures.planning.staleness import describe_difference
from videofeatures.records import Record
from videofeatures.remote import open_file

WHAT_TO_DO = (
    "Make those that are out of date again, by a run, or pack the others alone: by another CSV, "
    "into another output"
)


class Made(NamedTuple):
    """What a feature file was made with, as far as it is known.

    Attributes:
        digest: of the settings; None if nothing tells of them.
        weights: their identity.
        settings: that change numbers.
    """

    digest: str | None = None
    weights: str | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def kind(self) -> tuple[str | None, str | None]:
        """What two files that belong together have in common."""
        return self.digest, self.weights


def find_made(path: str, record: Record | None, settings: Mapping[str, Mapping[str, Any]]) -> Made:
    """Return what a feature file was made with: by its record, or else by what an `.npz` says.

    Args:
        settings: of the records, by digest.
    """
    if record is not None:
        return Made(record.digest, record.weights, settings.get(record.digest))
    if not path.endswith(".npz"):
        return Made()
    try:
        with open_file(path) as content, np.load(content, allow_pickle=False) as file:
            provenance = json.loads(str(file["provenance"]))
        return Made(provenance.get("digest"), provenance.get("weights"), provenance.get("settings"))
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        return Made()  # some other program's
    except VideoError:
        return Made()  # it will be told when all of it is read


class Kinds:
    """What all feature files of each recipe must have in common: that of the first one.

    Args:
        keep_unknown: files of which nothing tells what they were made with belong to any.
    """

    def __init__(self, *, keep_unknown: bool = False):
        self._keep_unknown = keep_unknown
        self._made: dict[str, tuple[str, Made]] = {}
        self._stored: dict[str, tuple[str, tuple[str, int, int]]] = {}

    def check_made(self, name: str, what: str, made: Made) -> None:
        """Check that a file was made as the others were.

        Args:
            name: of its recipe.
            what: the file, for people.

        Raises:
            UserError: it was made with other settings or weights, or nobody knows with which.
        """
        if self._keep_unknown and made.digest is None:
            return
        first, first_made = self._made.setdefault(name, (what, made))
        if made.kind != first_made.kind:
            raise UserError(
                f"{first} and {what} were not made alike: {_difference(first_made, made)}. "
                f"{WHAT_TO_DO}"
            )

    def check_stored(self, name: str, what: str, dtype: str, shape: Sequence[int]) -> None:
        """Check that features are numbers of the same type and length as the others.

        Args:
            name: of their recipe.
            what: the file, for people.
            dtype, shape: of the array, (rows, …, feature_dim).

        Raises:
            UserError: they are not.
        """
        stored = (dtype, len(shape), shape[-1])
        first, first_stored = self._stored.setdefault(name, (what, stored))
        if stored != first_stored:
            raise UserError(
                f"{first} and {what} do not hold the same kind of numbers: {first_stored} and "
                f"{stored} (dtype, dimensions, length of a feature). {WHAT_TO_DO}"
            )


def _difference(before: Made, after: Made) -> str:
    """Return what differs, for people."""
    if None in (before.digest, after.digest):
        return (
            "of one of them, nothing tells what it was made with (unrecorded=true packs it all "
            "the same)"
        )
    parts = []
    if before.digest != after.digest:
        known = None if before.settings is None else dict(before.settings)
        text = describe_difference(known, dict(after.settings or {}))
        parts.append(text or f"their settings, {before.digest} → {after.digest}")
    if before.weights != after.weights:
        parts.append(f"weights: {before.weights} → {after.weights}")
    return ", ".join(parts)
