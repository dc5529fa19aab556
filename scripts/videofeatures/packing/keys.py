"""What a sample is called: the same each time, whatever other rows there are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from videofeatures.errors import UserError
from videofeatures.planning.cells import read_cells
from videofeatures.planning.rows import COLUMNS, FEATURE_SUFFIXES, Row
from videofeatures.source import Source, describe_time
from videofeatures.urls import HIDDEN

VIDEO_COLUMN = COLUMNS[0]

UNSAFE_IN_TAR = re.compile(r"[%\x00-\x1f\x7f]|\.(?=[^/]*$)|^_(?=_)")
"""What a name of a member cannot hold: webdataset takes all from the first point of a name on for
what kind of member it is, and leaves out folders named `__…__`."""


def read_keys(rows: Sequence[Row], csv_path: str | os.PathLike, column: str) -> list[str]:
    """Return the key of each row: the path of its video, as it stands in the CSV, or another cell.

    A path is normalised (`./x` and `/x` are `x`, `s3://b/x` is `s3:/b/x`, as in the names of HDF5
    and of files), and a query, which may be signed, left out; of a part of a video, there is a
    media fragment behind it, in seconds (`a.mp4#t=12.5,20`:
    https://www.w3.org/TR/media-frags/#naming-time).

    Args:
        column: of the CSV; with any but `video_path`, its cells alone are the keys.

    Raises:
        UserError: a key is empty, or is that of two rows, or a folder of another.
    """
    if column == VIDEO_COLUMN:
        texts: Iterable[str] = (row.source.shown_path.removesuffix(f"?{HIDDEN}") for row in rows)
        keys = [
            key_of(text) + fragment_of(row.source) for text, row in zip(texts, rows, strict=True)
        ]
    else:
        lines = read_cells(csv_path, [VIDEO_COLUMN, column], suffixes=FEATURE_SUFFIXES)
        # A blank line is no row, and every other one names its video.
        keys = [key_of(cell) for _, (video_path, cell) in lines if video_path]
    _check(keys, rows, column)
    return keys


def key_of(text: str) -> str:
    """Return a path, or another name, as a key; "" if it is none."""
    return os.path.normpath(text).strip("/") if text.strip() and "\0" not in text else ""


def fragment_of(source: Source) -> str:
    """Return what tells a part of a video from the others: `#t=12.5,20`; "" of a whole one."""
    if not source.is_part:
        return ""
    end = "" if source.end_seconds is None else f",{describe_time(source.end_seconds)}"
    return f"#t={describe_time(source.offset_seconds)}{end}"


def tar_name(key: str) -> str:
    """Return a key as the start of the names of a tar's members: `urllib.parse.unquote` gives it
    back."""
    return UNSAFE_IN_TAR.sub(lambda match: f"%{ord(match[0]):02X}", key)


def _check(keys: Sequence[str], rows: Sequence[Row], column: str) -> None:
    known: set[str] = set()
    again: set[str] = set()
    for key in keys:
        (again if key in known else known).add(key)
    first_of: dict[str, Row] = {}
    problems = []
    for key, row in zip(keys, rows, strict=True):
        path = row.feature_paths[0]
        if not key or key in (".", ".."):
            problems.append(f"{path}: its {column} is no name for a sample: write one")
            continue
        if key in again:
            if key in first_of:
                problems.append(
                    f"{first_of[key].feature_paths[0]} and {path} would both be the sample {key}. "
                    "Name a column of the CSV that tells them apart: key=feature_path, say"
                )
            first_of.setdefault(key, row)
        folder = os.path.dirname(key)
        while folder and folder not in known:
            folder = os.path.dirname(folder)
        if folder:
            problems.append(
                f"{path}: the sample {key} would be inside the sample {folder}. Name a column of "
                "the CSV whose cells are no paths, or rename one"
            )
    if problems:
        raise UserError(problems)
