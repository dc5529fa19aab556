"""A collection of videos, as a folder, a list or a pattern, and the rows that it becomes."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from videofeatures.errors import UserError, VideoError
from videofeatures.files import replace_text
from videofeatures.planning.rows import COLUMNS, Row, problems_of
from videofeatures.remote import open_store
from videofeatures.source import Source
from videofeatures.urls import (
    LISTED,
    PACKAGES,
    folder_of,
    is_url,
    redact,
    scheme_of,
    url_problem,
)

VIDEO_SUFFIXES = (
    ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".ivf", ".m2ts", ".m4v",
    ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogg", ".ogv", ".rm",
    ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m",
)  # fmt: skip
"""Ends of the names of videos in a folder, in any case: of formats that ffmpeg may open."""


class Collection:
    """Paths of videos, each with the folder below which its place is mirrored.

    Attributes:
        root_of: by path, that folder.
        problems: one sentence for each source without videos.
    """

    def __init__(self) -> None:
        self.root_of: dict[str, str] = {}
        self.problems: list[str] = []

    def add_folder(self, folder: str, suffixes: Sequence[str]) -> None:
        """Add the videos in a folder and all folders below it."""
        videos = sorted(_walk(folder, suffixes))
        if not videos:
            self.problems.append(
                f"{folder}: no videos in it (by their names: {' '.join(suffixes)})"
            )
        self.root_of |= dict.fromkeys(videos, folder)

    def add_prefix(self, url: str, suffixes: Sequence[str]) -> None:
        """Add the videos in a bucket whose URLs begin so, in folders below it, too."""
        root = url if url.endswith("/") else f"{url}/"
        try:
            pages = open_store(scheme_of(root)).list_pages(root, is_deep=True)
            names = [name for page in pages for name, _ in page]
        except VideoError as error:
            self.problems.append(f"{redact(url)}: cannot be listed: {error.reason}")
            return
        except UserError as error:
            self.problems += error.problems
            return
        videos = sorted(name for name in names if _is_video(name.rsplit("/", 1)[1], suffixes))
        if not videos:
            self.problems.append(
                f"{redact(url)}: no videos in it (by their names: {' '.join(suffixes)})"
            )
        self.root_of |= dict.fromkeys(videos, root)

    def add_url(self, url: str, suffixes: Sequence[str]) -> None:
        """Add a video by its URL, or what is in a bucket below it."""
        if problem := url_problem(url.rstrip("/") + "/x", PACKAGES):
            self.problems.append(problem)
        elif url.lower().endswith(tuple(suffixes)):
            self.root_of[url] = folder_of(url)
        elif scheme_of(url) in LISTED:
            self.add_prefix(url, suffixes)
        else:
            self.problems.append(f"{redact(url)}: a server has no listing. Name videos, or a list")

    def add_pattern(self, pattern: str) -> None:
        """Add the files that match a pattern, with `**` for any number of folders."""
        matches = glob.iglob(pattern, recursive=True)
        videos = sorted(path for path in matches if os.path.isfile(path))
        if not videos:
            self.problems.append(f"{pattern}: no such file, and no file that matches it")
        self.root_of |= dict.fromkeys(videos, _root_of_pattern(pattern))

    def add_list(self, content: bytes) -> None:
        """Add the paths of a list, one a line: only line feeds end one, after a carriage return
        or not, as others may be part of a name."""
        text = content.decode("utf-8-sig", errors="surrogateescape")
        self.add_paths(line.removesuffix("\r") for line in text.split("\n"))

    def add_paths(self, paths: Iterable[str]) -> None:
        """Add paths as they are, whether there is a file or not."""
        videos = [path for path in paths if path.strip()]
        urls = [path for path in videos if is_url(path)]
        self.root_of |= {url: folder_of(url) for url in urls}
        videos = [path for path in videos if not is_url(path)]
        folders = {os.path.dirname(os.path.abspath(path)) for path in videos}
        root = os.path.commonpath(folders) if folders else ""
        self.root_of |= dict.fromkeys(videos, root)


def find_videos(
    sources: Iterable[str], *, suffixes: Sequence[str] = VIDEO_SUFFIXES, stdin: BinaryIO
) -> dict[str, str]:
    """Return the videos of a collection, each with the folder below which its place is mirrored.

    Args:
        sources: folders (searched to the bottom, hidden files left out), patterns, videos, URLs of
            buckets or of folders in them, lists (`.txt`, a path a line), or `-` for a list on
            `stdin`.
        suffixes: ends of the names of videos in a folder, in lower case.

    Raises:
        UserError: a source has no videos.
    """
    collection, single_videos = Collection(), []
    for source in sources:
        if source == "-":
            collection.add_list(stdin.read())
        elif is_url(source):
            collection.add_url(source, suffixes)
        elif os.path.isdir(source):
            collection.add_folder(source, suffixes)
        elif source.lower().endswith(".txt"):
            try:
                collection.add_list(Path(source).read_bytes())
            except OSError as error:
                collection.problems.append(f"{source}: {error.strerror}")
        elif os.path.isfile(source):  # also one whose name looks like a pattern
            single_videos.append(source)
        else:
            collection.add_pattern(source)
    collection.add_paths(single_videos)
    if collection.problems:
        raise UserError(collection.problems)
    return collection.root_of


def _walk(folder: str, suffixes: Sequence[str]) -> Iterator[str]:
    """Yield the paths of videos at or below a folder; follow links, and enter no folder twice."""
    visited = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folder_stat = os.stat(parent)
        if (folder_stat.st_dev, folder_stat.st_ino) in visited:
            folders.clear()
            continue
        visited.add((folder_stat.st_dev, folder_stat.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in files:
            if _is_video(name, suffixes):
                yield os.path.join(parent, name)


def _is_video(name: str, suffixes: Sequence[str]) -> bool:
    # A Mac leaves `._a.mp4` beside a.mp4 on disks of others.
    return name.lower().endswith(tuple(suffixes)) and not name.startswith(".")


def _root_of_pattern(pattern: str) -> str:
    """Return the folders of a pattern that are the same for all that it matches."""
    parts = Path(pattern).parts[:-1]
    fixed = next((k for k, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    return str(Path(*parts[:fixed]))


def make_rows(
    root_of: dict[str, str], features: str, *, suffix: str = ".npy", keep_extension: bool = False
) -> list[Row]:
    """Return a row for each video, its feature file at the same place below the folder `features`.

    Args:
        root_of: what `find_videos` returned.
        suffix: of the feature files, `.npy` or `.npz`.
        keep_extension: name them `a.mp4.npy` instead of `a.npy`.

    Raises:
        UserError: two videos would have one feature file, or a row cannot be as it is.
    """
    rows, problems = [], []
    taken: dict[str, str] = {}
    for video, root in root_of.items():
        inside = (
            video[len(root) :].partition("?")[0]
            if is_url(video)
            else os.path.relpath(os.path.abspath(video), os.path.abspath(root))
        )
        stem = inside if keep_extension else os.path.splitext(inside)[0]
        path = (
            f"{features.rstrip('/')}/{stem}{suffix}"
            if is_url(features)
            else os.path.normpath(os.path.join(features, stem + suffix))
        )
        first = taken.setdefault(path, video)
        if first != video:
            hint = "rename one, or take them in two CSVs"
            if not keep_extension and os.path.splitext(first)[0] == os.path.splitext(video)[0]:
                hint = "`--keep_extension` makes two files of them"
            problems.append(f"{video}: would have the feature file of {first}, {path}: {hint}")
        problems += [
            f"{redact(video)}: {problem}"
            for problem in problems_of(video, path, allowed_schemes=PACKAGES)
        ]
        if any("\udc80" <= character <= "\udcff" for character in video):
            problems.append(f"{os.fsencode(video)!r}: its name is not UTF-8: rename it")
        rows.append(Row(Source(video), (path,)))
    if problems:
        raise UserError(problems)
    return rows


def write_rows(csv_path: str, rows: Sequence[Row]) -> None:
    """Write the CSV of these rows.

    Raises:
        OSError: it cannot be written.
    """
    with replace_text(csv_path) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows((row.source.path, *row.feature_paths) for row in rows)
