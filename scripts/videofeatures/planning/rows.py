"""The CSV: one row per video, read and checked as a whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from videofeatures.errors import UserError
from videofeatures.source import Source

COLUMNS = ("video_path", "feature_path")
FEATURE_SUFFIXES = (".npy", ".npz")

CHUNK_SIZE = 65536
"""Lines of a CSV read at a time: a table of a million takes as much memory as their rows."""


class Row(NamedTuple):
    """A source, and what is to be made of it: one line of the CSV.

    Attributes:
        feature_paths: a file for each recipe of a plan, in their order; normalised (`./x` is `x`).
    """

    source: Source
    feature_paths: tuple[str, ...]


def read_rows(csv_path: str | os.PathLike) -> list[Row]:
    """Return the `video_path,feature_path` rows of a CSV; other columns are ignored.

    Cells are taken literally (no stripping, no `NA`). A UTF-8 BOM, CRLF, quoted
    cells, blank lines and an empty file are all fine.

    Raises:
        UserError: with every problem found in the file, and in the folders it names.
    """
    rows, problems = [], []
    here = os.getcwd()
    keys: set[str] = set()
    repeated: set[str] = set()
    for line, video_path, feature_path in _read_cells(csv_path):
        if not video_path and not feature_path:
            continue  # a blank line
        if row_problems := problems_of(video_path, feature_path):
            problems += [f"{csv_path}, line {line}: {problem}" for problem in row_problems]
            continue
        path = os.path.normpath(feature_path)
        key = _key_of(path, here)
        if key in keys:
            repeated.add(key)
        keys.add(key)
        rows.append(Row(Source(video_path), (path,)))
    del keys
    if repeated:
        problems += _repetitions(csv_path, repeated, here)
    problems += _folder_problems(rows)
    if problems:
        # Otherwise planning finds these, as it looks at each feature file anyway.
        features = (path for row in rows for path in row.feature_paths)
        problems += [f"{path}: is a folder" for path in features if os.path.isdir(path)]
        raise UserError(problems)
    return rows


def _key_of(path: str, here: str) -> str:
    """Return the same for all paths of one file: the path as it is, if it is below `here`."""
    # Not os.path.abspath: of a million rows, the paths as they are need no memory of their own.
    if path.startswith(".."):
        path = os.path.normpath(os.path.join(here, path))
    return path[len(here) + 1 :] if path.startswith(f"{here}/") else path


def _repetitions(csv_path: str | os.PathLike, repeated: set[str], here: str) -> Iterator[str]:
    """Yield a problem for each line whose feature_path is that of one before."""
    first_line_of: dict[str, int] = {}
    for line, _, feature_path in _read_cells(csv_path):
        key = _key_of(os.path.normpath(feature_path), here)
        if key in repeated and first_line_of.setdefault(key, line) != line:
            yield (
                f"{csv_path}, line {line}: feature_path {feature_path} is that of line "
                f"{first_line_of[key]} too. Give every row a feature_path of its own"
            )


def _read_cells(csv_path: str | os.PathLike) -> Iterator[tuple[int, str, str]]:
    """Yield the number, video_path and feature_path of each line after the first.

    Raises:
        UserError: there is no such file, or it is not a CSV with these columns.
    """
    # Imported here: a job that is handed its rows does not pay for pandas (0.5 s).
    import pandas as pd

    if not os.path.isfile(csv_path):
        raise UserError(
            f"{csv_path}: no such file. Write a CSV with the columns "
            f"{','.join(COLUMNS)}, and name it with the key `videos`"
        )
    try:
        tables = pd.read_csv(
            csv_path,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,  # so that row numbers are line numbers
            index_col=False,
            encoding="utf-8-sig",
            chunksize=CHUNK_SIZE,
        )
        for table in tables:
            if missing := [column for column in COLUMNS if column not in table.columns]:
                present = ", ".join(map(str, table.columns)) or "none"
                raise UserError(
                    f"{csv_path}: the first line must name the column{'s' * (len(missing) > 1)} "
                    f"{' and '.join(missing)} (found: {present})"
                )
            cells = (table[column] for column in COLUMNS)
            for number, *texts in zip(table.index, *cells, strict=True):
                # What a short line lacks is not text.
                yield number + 2, *(text if isinstance(text, str) else "" for text in texts)
    except pd.errors.EmptyDataError:
        return
    except UnicodeDecodeError as error:
        raise UserError(f"{csv_path}: is not UTF-8 ({error}). Save it as UTF-8") from None
    except pd.errors.ParserError as error:
        detail = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        raise UserError(
            f"{csv_path}: {detail}. Put quotes around paths that hold a comma"
        ) from None


def problems_of(video_path: str, feature_path: str) -> list[str]:
    """Return what is wrong with the text of one row, without a look at the disk."""
    problems = []
    if not video_path.strip():
        problems.append("video_path is empty")
    if "\0" in video_path + feature_path:
        problems.append("a path holds a NUL character")
    if not feature_path.strip():
        problems.append("feature_path is empty")
    elif not feature_path.endswith(FEATURE_SUFFIXES):
        problems.append(f"feature_path {feature_path} must end in {' or '.join(FEATURE_SUFFIXES)}")
    if any(character in feature_path for character in "{}\n\r"):
        problems.append(
            f"feature_path {feature_path!r} holds a brace or a line break, which Snakemake "
            "cannot have in the name of an output. Rename it (video paths may hold them)"
        )
    return problems


def _folder_problems(rows: list[Row]) -> list[str]:
    """Return the feature folders that cannot be made or written to; looks once at each of them."""
    problems = []
    features = {path for row in rows for path in row.feature_paths}
    for folder in sorted({os.path.dirname(path) for path in features}):
        path = Path(folder)
        inside = next((str(p) for p in (path, *path.parents) if str(p) in features), None)
        if inside:
            problems.append(f"{folder}: is a folder of one row and the feature file of another")
            continue
        problem = _folder_problem(path)
        if problem:
            problems.append(problem)
    return problems


def _folder_problem(folder: Path) -> str | None:
    """Return why files cannot be made in `folder`, itself to be made if need be, or None."""
    for ancestor in (folder, *folder.parents):
        try:
            mode = ancestor.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{folder}: features cannot be written there: {error.strerror} ({ancestor})"
        if not stat.S_ISDIR(mode):
            return f"{folder}: features cannot be written there: {ancestor} is not a folder"
        if not os.access(ancestor, os.W_OK | os.X_OK):
            return f"{folder}: features cannot be written there: no permission on {ancestor}"
        return None
    return None
