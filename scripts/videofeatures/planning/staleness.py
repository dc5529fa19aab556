"""Why a feature file that exists has to be made again: by its record, or by a look into it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from functools import cache
from typing import IO, Any

from videofeatures.errors import VideoError
from videofeatures.files import stat_or_none
from videofeatures.listing import FileStat, Look
from videofeatures.networks.recipe import Recipe
from videofeatures.records import Record, Records
from videofeatures.remote import RemoteStat, open_file
from videofeatures.settings import Trust
from videofeatures.source import Source

NOT_WHOLE = "its feature file is not whole"
OLDER = "the video is newer than its features"
CHANGED = "the video has changed since"
OTHER_PART = "made of another part of the video"
OTHER_SETTINGS = "made with other settings"
OTHER_WEIGHTS = "made with other weights"

SECOND_NS = 1_000_000_000
COARSE_NS = 2 * SECOND_NS
"""The coarsest times that a file system keeps (FAT; zip archives, too), in whole seconds. Others
have whole seconds (HFS+, tar's plain format)."""

FINE_NS = 1_000_000
"""File systems with times in milliseconds at least keep no more of them (NTFS: 100 ns)."""


class Staleness:
    """Tells why feature files are stale, for several threads at a time."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        records: Records,
        trust: Trust = "time",
        look: Look = stat_or_none,
    ):
        """
        Args:
            recipes: that feature files are made by.
            trust: what tells that a video has changed: its `size` alone, or its `time`, too.
            look: at videos.
        """
        self._look = look
        self._recipes = recipes
        self._records = records
        self._trust = trust
        # As they would come back from a record.
        numerics = [json.loads(json.dumps(recipe.numerics)) for recipe in recipes]

        @cache  # a changed setting is the same for thousands of rows
        def difference(old_digest: str, number: int) -> str:
            return describe_difference(records.settings.get(old_digest), numerics[number])

        self._difference = difference

    def why(
        self, source: Source, path: str, feature: FileStat, number: int
    ) -> tuple[str, str] | None:
        """Return why a feature file has to be made again, and a detail or "", or None.

        By the record of it, it was made with other settings or weights, of another part or another
        content of its video, or is shorter than it was. Without a record, it is no whole file of
        features, or older than its video. A video that has been deleted since changes nothing.

        Args:
            feature: of the file at `path`.
            number: of its recipe.
        """
        recipe, made = self._recipes[number], self._records.of_file(path)
        if made is not None:
            reason = find_difference(made, recipe)
            if reason == OTHER_SETTINGS:
                return reason, self._difference(made.digest, number)
            if reason == OTHER_WEIGHTS:
                return reason, f"{made.weights} → {recipe.weights_id}"
            if not is_same_part(made, source):
                return OTHER_PART, ""
            num_bytes = (made.num_features or 0) * (made.feature_dim or 0) * recipe.bytes_per_number
            if feature.st_size < num_bytes:
                return NOT_WHOLE, f"{feature.st_size:,} bytes, and {num_bytes:,} of features alone"
        elif fault := find_fault(path, recipe):
            return NOT_WHOLE, fault
        video = self._look(source.path)
        if video is None:
            return None
        if made is not None:
            return None if is_same_video(made, video, self._trust) else (CHANGED, "")
        return (OLDER, "") if self._trust == "time" and _is_older(feature, video) else None


def find_difference(record: Record, recipe: Recipe) -> str | None:
    """Return what a recipe has changed since a record, or None. Weights that are not there yet are
    no others."""
    if record.digest != recipe.digest:
        return OTHER_SETTINGS
    is_known = recipe.weights_id is not None
    return OTHER_WEIGHTS if is_known and record.weights != recipe.weights_id else None


def is_same_part(record: Record, source: Source) -> bool:
    """Return whether a record is of this part of its video, or of the whole of it, as it is now."""
    return (record.start_seconds, record.end_seconds) == source.part


def is_same_video(record: Record, video: FileStat | None, trust: Trust = "time") -> bool:
    """Return whether a record is of this video as it is now, None if there is none.

    Copies keep a video's size, and of its times what the file system or the archive can hold. In a
    bucket, an ETag tells more than a time, which is that of the copy.
    """
    if video is None or record.video_size is None or record.video_mtime_ns is None:
        return video is None and record.video_size is None
    if video.st_size != record.video_size:
        return False
    if trust == "size":
        return True
    if record.video_etag and isinstance(video, RemoteStat) and video.etag:
        return record.video_etag == video.etag
    return _is_same_time(video.st_mtime_ns, record.video_mtime_ns)


def _is_older(feature: FileStat, video: FileStat) -> bool:
    """Return whether a file was written before another; of objects, to the second, of which many
    storages keep no parts."""
    has_object = isinstance(feature, RemoteStat) or isinstance(video, RemoteStat)
    unit_ns = SECOND_NS if has_object else 1
    return feature.st_mtime_ns // unit_ns < video.st_mtime_ns // unit_ns


def _is_same_time(one_ns: int, other_ns: int) -> bool:
    distance = abs(one_ns - other_ns)
    is_coarse = one_ns % SECOND_NS == 0 or other_ns % SECOND_NS == 0
    return distance < FINE_NS or (is_coarse and distance < COARSE_NS)


def find_fault(path: str, recipe: Recipe) -> str | None:
    """Return why a file that some other program has made cannot be whole features, or None.

    Reads its header; of an `.npz`, that of its `features`.

    Args:
        recipe: that is to have made it.
    """
    import numpy as np  # a job, which imports this, does without for a while

    try:
        with open_file(path) as file:
            num_bytes = file.seek(0, os.SEEK_END)
            file.seek(0)
            if not num_bytes:
                return "an empty file"
            if not path.endswith(".npz"):
                shape, dtype = _read_header(file)
                needed = file.tell() + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
                if num_bytes < needed:
                    return f"{num_bytes:,} of {needed:,} bytes"
            else:
                # Its table of contents is at its end: it was written to its end.
                with zipfile.ZipFile(file) as archive, archive.open("features.npy") as member:
                    shape, dtype = _read_header(member)
    except OSError as error:
        return error.strerror or str(error)
    except VideoError as error:
        return error.reason
    except Exception as error:  # half a dozen kinds, for a file that is none
        return f"no features of NumPy: {error}"
    is_like_features = dtype.kind == "f" and len(shape) == recipe.num_dims and shape[0]
    if not is_like_features or shape[-1] != recipe.feature_dim:
        return f"{dtype} {shape}, not rows of {recipe.feature_dim} features"
    return None


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    """Return shape and dtype of an `.npy` file, and leave it at the first number.

    Raises:
        Exception: it is none.
    """
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"format {version}")
    return shape, dtype


def describe_difference(before: dict[str, Any] | None, after: dict[str, Any]) -> str:
    """Return each setting that two feature files were made with differently, for people.

    Args:
        before: of one of them; None if they are not known, which gives "".
    """
    if before is None:
        return ""
    keys = sorted(before.keys() | after.keys())
    changed = [key for key in keys if before.get(key) != after.get(key)]
    return ", ".join(f"{key}: {before.get(key)} → {after.get(key)}" for key in changed)
