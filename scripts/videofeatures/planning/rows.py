"""The CSV: one row per video, read and checked as a whole."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from videofeatures.errors import UserError
from videofeatures.files import path_problem
from videofeatures.networks.weights import SHARED_FOLDER
from videofeatures.planning.cells import read_cells
from videofeatures.planning.places import Places, fold
from videofeatures.record_files import records_place
from videofeatures.results import place_in, work_folder
from videofeatures.settings import Config
from videofeatures.source import Source
from videofeatures.urls import is_url, local_paths, redact, url_problem

COLUMNS = ("video_path", "feature_path")
PART_COLUMNS = ("start", "end")
"""Which part of the video it is, in seconds; either may be empty, or not there."""

FEATURE_SUFFIXES = (".npy", ".npz")

NUMBER = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""How seconds are written; with an exponent by programs, where there are few of them."""

MAX_SECONDS = 1e9
"""30 years: whatever this is, it is no second of a video."""

PLACEHOLDER = "{backbone}"
"""What stands in a feature_path for the name of each recipe."""

NOT_FOR_OUTPUTS = re.compile(r"[{}\n\r]")
"""What Snakemake cannot have in the name of an output: wildcards, and its lists by lines."""


class Row(NamedTuple):
    """A source, and what is to be made of it: one line of the CSV.

    Attributes:
        feature_paths: a file for each recipe of a plan, in their order; normalised (`./x` is `x`),
            those that are no URLs.
    """

    source: Source
    feature_paths: tuple[str, ...]


def find_own_paths(configs: Sequence[Config]) -> dict[str, str]:
    """Return what no feature file may replace, or stand in, each with what it is, in words.

    Args:
        configs: of each recipe.
    """
    config = configs[0]
    folders = {
        place_in(work_folder(config.results), name): f"a folder of runs, for {name}"
        for name in ("logs", "plan")
    }
    folders |= {
        records_place(config.results): "a folder of runs, for records",
        str(SHARED_FOLDER): "the folder of verified weights",
        ".snakemake": "Snakemake's own folder",
    }
    files = {config.videos: "the CSV itself"}
    weights = {each.weights for each in configs if os.path.isfile(each.weights)}
    return folders | files | dict.fromkeys(weights, "the file of the weights")


def read_rows(
    csv_path: str | os.PathLike,
    names: Sequence[str] = ("",),
    *,
    own_paths: Mapping[str, str] | None = None,
    allowed_schemes: Collection[str] = (),
) -> list[Row]:
    """Return the `video_path,feature_path` rows of a CSV, with `start,end` where they are; other
    columns are ignored.

    Cells are taken literally (no stripping, no `NA`). A UTF-8 BOM, CRLF, quoted
    cells, blank lines and an empty file are all fine. The feature file of a recipe is in the column
    `feature_path_NAME`, if there is one, else in `feature_path`, where `{backbone}` stands for its
    name.

    Args:
        names: of the recipes that make the feature files of each row; of one without a name,
            `{backbone}` stays as it is.
        own_paths: files and folders that no feature file may replace or stand in, each with what
            it is.
        allowed_schemes: of URLs that may stand there.

    Raises:
        UserError: with every problem found in the file, and in the folders it names.
    """
    rows, problems = [], []
    places = Places()
    own_places = {
        path if is_url(path) else os.path.realpath(path): what
        for path, what in (own_paths or {}).items()
    }
    # Hashes of places: a million take little memory, and what is found twice is looked at again.
    features: set[int] = set()
    others = {hash(fold(place)) for place in own_places}
    doubtful: set[int] = set()
    for line, video_path, feature_paths, start, end in _read_lines(csv_path, names):
        if row_problems := _problems_of_line(
            video_path, feature_paths, start, end, allowed_schemes
        ):
            problems += [f"{csv_path}, line {line}: {problem}" for problem in row_problems]
            continue
        paths = tuple(map(_normalise, feature_paths))
        for path in paths:
            key = hash(fold(places.find(path)))
            if key in features:
                doubtful.add(key)
            features.add(key)
        if _may_be_feature_file(video_path):
            others |= {hash(fold(place)) for place in _places_of_video(places, video_path)}
        rows.append(Row(Source(video_path, _seconds(start), _seconds(end)), paths))
    doubtful |= others & features
    del features, others
    owner_of = _find_owners(places, own_places)
    if doubtful or owner_of:
        collisions = _Collisions(places, doubtful, own_places, owner_of, allowed_schemes)
        problems += (
            f"{csv_path}, line {line}: {problem}"
            for line, problem in collisions.find(csv_path, names)
        )
    problems += _folder_problems(rows)
    if problems:
        # Otherwise planning finds these, as it looks at each feature file anyway.
        every = (path for row in rows for path in row.feature_paths)
        problems += [f"{path}: is a folder" for path in local_paths(every) if os.path.isdir(path)]
        raise UserError(problems)
    return rows


def _read_lines(
    csv_path: str | os.PathLike, names: Sequence[str]
) -> Iterator[tuple[int, str, list[str], str, str]]:
    """Yield the number, video_path, feature_path of each recipe, start and end of each line that
    is not blank."""
    video_column, feature_column = COLUMNS
    columns = [
        (f"{feature_column}_{name}", feature_column) if name else feature_column for name in names
    ]
    for line, (video_path, *cells, start, end) in read_cells(
        csv_path, [video_column, *columns], optional=PART_COLUMNS, suffixes=FEATURE_SUFFIXES
    ):
        if video_path or start or end or any(cells):
            feature_paths = [
                cell.replace(PLACEHOLDER, name) if name else cell
                for cell, name in zip(cells, names, strict=True)
            ]
            yield line, video_path, feature_paths, start, end


def _seconds(cell: str) -> float | None:
    """Return the seconds in a cell of `start` or `end`; None for 0, where all videos start."""
    return float(cell) or None if cell else None


def _normalise(path: str) -> str:
    return path if is_url(path) else os.path.normpath(path)


def _may_be_feature_file(video_path: str) -> bool:
    return video_path[-4:].lower() in FEATURE_SUFFIXES


def _places_of_video(places: Places, video_path: str) -> set[str]:
    """Return the place of a video, and that of what it leads to if it is a link."""
    if is_url(video_path):
        return {video_path}
    return {places.find(os.path.normpath(video_path)), os.path.realpath(video_path)}


def _find_owners(places: Places, own_places: Mapping[str, str]) -> dict[str, str]:
    """Return which of the known folders are, or are in, one of the own ones, each with that one."""
    starts = {f"{fold(own)}/": own for own in own_places}
    owner_of = {}
    for folder in places.folders:
        folded = f"{fold(folder)}/"
        if folded.startswith(tuple(starts)):
            for start, own in starts.items():
                if folded.startswith(start) and places.is_one_file(folder[: len(own)], own):
                    owner_of[folder] = own
    return owner_of


class _Collisions:
    """Feature files that are those of two rows, videos, or what belongs to a run.

    Args:
        doubtful: hashes of the places that may be those of two files.
        own_places: of a run, each with what it is.
        owner_of: by folder, the one of these that it is in.
        allowed_schemes: of URLs that may stand in the CSV.
    """

    def __init__(
        self,
        places: Places,
        doubtful: set[int],
        own_places: Mapping[str, str],
        owner_of: Mapping[str, str],
        allowed_schemes: Collection[str],
    ):
        self._places = places
        self._allowed_schemes = allowed_schemes
        self._doubtful = doubtful
        self._own_places = own_places
        self._owner_of = owner_of
        self._videos: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
        self._before: defaultdict[str, list[tuple[int, str, str]]] = defaultdict(list)

    def find(self, csv_path: str | os.PathLike, names: Sequence[str]) -> Iterator[tuple[int, str]]:
        """Yield the line of each row that has such a feature_path, and what is wrong with it."""
        features = []
        for line, video_path, feature_paths, start, end in _read_lines(csv_path, names):
            if _problems_of_line(video_path, feature_paths, start, end, self._allowed_schemes):
                continue
            if _may_be_feature_file(video_path):
                for place in _places_of_video(self._places, video_path):
                    self._videos[fold(place)].append((line, place))
            for feature_path in feature_paths:
                place = self._places.find(_normalise(feature_path))
                is_doubtful = hash(fold(place)) in self._doubtful
                if is_doubtful or os.path.dirname(place) in self._owner_of:
                    features.append((line, feature_path, place))
        for line, feature_path, place in features:
            for problem in self._problems_of(line, feature_path, place):
                yield line, f"feature_path {feature_path} {problem}"

    def _problems_of(self, line: int, feature_path: str, place: str) -> Iterator[str]:
        if owner := self._owner_of.get(os.path.dirname(place)):
            yield f"is in {owner}, {self._own_places[owner]}. Write features elsewhere"
        for own, what in self._own_places.items():
            if self._places.is_one_file(place, own):
                yield f"is {what}, which would be replaced. Write features elsewhere"
        key = fold(place)
        for video_line, video_place in self._videos[key]:
            if self._places.is_one_file(place, video_place):
                yield f"is the video of line {video_line}, which would be replaced. Give it another"
                break
        for line_before, path_before, place_before in self._before[key]:
            if self._places.is_one_file(place, place_before):
                is_as_written = _normalise(path_before) == _normalise(feature_path)
                as_there = "" if is_as_written else f", where it is called {path_before}"
                where = f"line {line_before}" if line_before != line else "another backbone"
                yield (
                    f"is that of {where} too{as_there}. Give every row a feature_path of its own"
                )
                break
        else:
            self._before[key].append((line, feature_path, place))


def _problems_of_line(
    video_path: str,
    feature_paths: Sequence[str],
    start: str,
    end: str,
    allowed_schemes: Collection[str],
) -> list[str]:
    """Return what is wrong with the text of a row, whose feature files must be several."""
    problems: list[str] = []
    for feature_path in dict.fromkeys(feature_paths):
        problems += problems_of(
            video_path, feature_path, start, end, allowed_schemes=allowed_schemes
        )
    if not problems and len({*map(_normalise, feature_paths)}) < len(feature_paths):
        problems.append(
            f"feature_path {feature_paths[0]} would be that of {len(feature_paths)} backbones. "
            f"Put {PLACEHOLDER} in it, which stands for the name of each, or give each a column "
            "of its own, feature_path_NAME"
        )
    return list(dict.fromkeys(problems))


def problems_of(
    video_path: str,
    feature_path: str,
    start: str = "",
    end: str = "",
    *,
    allowed_schemes: Collection[str] = (),
) -> list[str]:
    """Return what is wrong with the text of one row, without a look at the disk."""
    problems = []
    for column, path in zip(COLUMNS, (video_path, feature_path), strict=True):
        if problem := path_problem(path):
            problems.append(f"{column} {redact(problem) if is_url(path.strip()) else problem}")
        elif is_url(path) and (
            problem := url_problem(path, allowed_schemes, is_output=column == COLUMNS[1])
        ):
            problems.append(f"{column} {problem}")
    if not problems and not feature_path.endswith(FEATURE_SUFFIXES):
        problems.append(f"feature_path {feature_path} must end in {' or '.join(FEATURE_SUFFIXES)}")
    if NOT_FOR_OUTPUTS.search(feature_path.replace(PLACEHOLDER, "")):
        shown = redact(feature_path) if is_url(feature_path) else feature_path
        problems.append(
            f"feature_path {shown!r} holds a brace or a line break, which Snakemake "
            f"cannot have in the name of an output. Rename it (video paths may hold them; "
            f"{PLACEHOLDER} stands for the name of the backbone)"
        )
    if start or end:
        problems += _problems_of_part(start, end)
    return problems


def _problems_of_part(start: str, end: str) -> list[str]:
    """Return what is wrong with the cells `start` and `end` of one row."""
    problems = []
    for column, cell in zip(PART_COLUMNS, (start, end), strict=True):
        if not cell:
            continue
        if not NUMBER.fullmatch(cell):
            problems.append(
                f"{column} {cell!r} is not a number of seconds. Write it in digits, with a point "
                "(83.5 for 1:23.5), or leave the cell empty"
            )
        elif float(cell) >= MAX_SECONDS:
            problems.append(f"{column} {cell!r} is no time in a video, in seconds")
    if problems or not end:
        return problems
    first, last = float(start or 0), float(end)
    if first == last:
        problems.append(
            f"start and end are both {end!r}: nothing is between them. Write a later end, or "
            "leave it empty for the end of the video"
            if start
            else f"end {end!r} is where videos start. Write a later one, or leave it empty for "
            "the end of the video"
        )
    elif first > last:
        problems.append(f"end {end!r} is before start {start!r}. Exchange them, it may be")
    return problems


def _folder_problems(rows: list[Row]) -> list[str]:
    """Return the feature folders that cannot be made or written to; looks once at each of them."""
    problems = []
    features = {path for row in rows for path in local_paths(row.feature_paths)}
    for folder in sorted({os.path.dirname(path) for path in features}):
        path = Path(folder)
        inside = next((str(p) for p in (path, *path.parents) if str(p) in features), None)
        if inside:
            problems.append(f"{folder}: is a folder of one row and the feature file of another")
            continue
        problem = folder_problem(path)
        if problem:
            problems.append(problem)
    return problems


def folder_problem(folder: Path) -> str | None:
    """Return why files cannot be made in `folder`, itself to be made if need be, or None."""
    for ancestor in (folder, *folder.parents):
        try:
            mode = ancestor.stat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{folder}: files cannot be written there: {error.strerror} ({ancestor})"
        if not stat.S_ISDIR(mode):
            return f"{folder}: files cannot be written there: {ancestor} is not a folder"
        if not os.access(ancestor, os.W_OK | os.X_OK):
            return f"{folder}: files cannot be written there: no permission on {ancestor}"
        return None
    return None
