"""Looks at many files: those on a disk one by one, those in buckets by listings.

A request for each of 100,000 objects takes minutes, and a listing names 1,000 of them in one. Which
prefixes are listed is decided by what is asked for:

- A folder is listed alone, if much is asked for in it, or nothing but it is asked for: many folders
  at a time. Not if the storage names more of them at a time than a folder has.
- Folders in which little is asked for are listed together, by what they have in common.
- What is listed may hold far more than is asked for. So a listing ends when it has taken as many
  requests as there would be without it, and the folders below are listed by themselves, or, of a
  folder, the objects asked for one by one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

from videofeatures.errors import UserError, VideoError
from videofeatures.files import stat_or_none
from videofeatures.remote import RemoteStat, open_store, stat_object
from videofeatures.threaded import NUM_THREADS, threaded_map_until
from videofeatures.urls import LISTED, folder_of, is_url, scheme_of

FileStat = os.stat_result | RemoteStat
Look = Callable[[str], FileStat | None]
"""What tells the state of a file by its path, and None where there is none that can be seen."""

MIN_EACH = 500
"""Objects asked for in each folder, on average, from which on folders are listed one by one: half
of what a request may name."""

USUAL_PAGE = 1000
"""Objects in an answer of S3, at most. Where there are more, one listing after the other is quicker
than folders side by side."""

MAX_SINGLE = 3
"""Objects of one folder that are asked for one by one."""

FOREVER_SECONDS = 7 * 86400.0


class _Group(NamedTuple):
    """What is asked for below a prefix.

    Attributes:
        prefix: ends with a slash.
        names: URLs by their folder.
    """

    prefix: str
    names: dict[str, set[str]]

    @property
    def num_urls(self) -> int:
        return sum(map(len, self.names.values()))


def look_at(path: str) -> FileStat | None:
    """Return the state of one file, on a disk or elsewhere, or None if there is none.

    Raises:
        VideoError: a storage cannot be asked.
    """
    return stat_object(path) if is_url(path) else stat_or_none(path)


def look_at_all(paths: Iterable[str]) -> Look:
    """Return a look at each of these paths, for several threads: of a disk, as it is when it is
    looked at; of buckets, as it is now.

    Raises:
        UserError: a storage cannot be asked.
    """
    urls = {path for path in paths if is_url(path)}
    if not urls:
        return stat_or_none
    known = list_objects(urls)

    def look(path: str) -> FileStat | None:
        return known.get(path) if is_url(path) else stat_or_none(path)

    return look


def list_objects(urls: Collection[str]) -> dict[str, RemoteStat]:
    """Return those of these objects that are there.

    Raises:
        UserError: a storage cannot be asked.
    """
    known: dict[str, RemoteStat] = {}
    problems: dict[str, None] = {}

    def take(group: _Group) -> list[_Group]:
        try:
            return _list_group(group, known)
        except VideoError as error:
            problems[f"{group.prefix}: cannot be listed: {error.reason}"] = None
        except UserError as error:
            problems.update(dict.fromkeys(error.problems))
        return []

    groups = _by_host(urls)
    while groups and not problems:
        found = threaded_map_until(
            take, groups, max_seconds=FOREVER_SECONDS, num_threads=NUM_THREADS
        )
        groups = [group for _, more in found for group in more]
    if problems:
        raise UserError(problems)
    return known


def _by_host(urls: Iterable[str]) -> list[_Group]:
    """Return a group for each bucket, or server."""
    names: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for url in urls:
        host = url[: url.index("/", url.index("://") + 3) + 1]
        names[host][folder_of(url)].add(url)
    return [_Group(host, dict(folders)) for host, folders in names.items()]


def _list_group(group: _Group, known: dict[str, RemoteStat]) -> list[_Group]:
    """Take what is known of a group's objects; return the groups that it has to be cut into."""
    num_folders = len(group.names)
    if scheme_of(group.prefix) not in LISTED or (num_folders == 1 and group.num_urls <= MAX_SINGLE):
        return _ask_for_each(group, known)
    if num_folders == 1:
        (folder,) = group.names
        whole = _list(folder, group, known, is_deep=False, max_requests=group.num_urls)
        return [] if whole else _ask_for_each(group, known)
    prefix = os.path.commonprefix(list(group.names))  # noqa: RUF071 (cut below)
    prefix = prefix[: prefix.rfind("/") + 1]
    are_full = group.num_urls >= MIN_EACH * num_folders
    if _list(
        prefix,
        group,
        known,
        is_deep=True,
        max_requests=num_folders,
        min_page=USUAL_PAGE + 1 if are_full else 0,
    ):
        return []
    if are_full:
        return [_Group(folder, {folder: urls}) for folder, urls in group.names.items()]
    return _cut(prefix, group)


def _list(
    prefix: str,
    group: _Group,
    known: dict[str, RemoteStat],
    *,
    is_deep: bool,
    max_requests: int,
    min_page: int = 0,
) -> bool:
    """List what begins so; False if it was too much, and not all is known.

    Args:
        min_page: end behind the first page if it is smaller.
    """
    pages = open_store(scheme_of(prefix)).list_pages(prefix, is_deep=is_deep)
    for number, page in enumerate(pages, start=1):
        known |= {url: state for url, state in page if url in group.names.get(folder_of(url), ())}
        if number == max_requests or len(page) < min_page:
            return next(pages, None) is None
    return True


def _cut(prefix: str, group: _Group) -> list[_Group]:
    """Return a group for each folder below a prefix, and one for what is in it."""
    groups: defaultdict[str, dict[str, set[str]]] = defaultdict(dict)
    for folder, urls in group.names.items():
        below = folder[len(prefix) :].partition("/")[0]
        groups[f"{prefix}{below}/" if below else prefix][folder] = urls
    return [_Group(below, names) for below, names in groups.items()]


def _ask_for_each(group: _Group, known: dict[str, RemoteStat]) -> list[_Group]:
    """Ask for one object, or cut a group into such."""
    if group.num_urls > 1:
        return [
            _Group(group.prefix, {folder: {url}})
            for folder, urls in group.names.items()
            for url in urls
            if url not in known
        ]
    ((url,),) = group.names.values()
    state = stat_object(url)
    if state is not None:
        known[url] = state
    return []
