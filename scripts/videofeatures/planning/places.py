"""Where paths lead: whether two of them are one file, whatever they are called."""

from __future__ import annotations

import os
import unicodedata

from videofeatures.urls import is_url


class Places:
    """Where files are or will be: folders as links lead, each looked at once.

    The last part of a path stays as it is: a file that takes its place by a rename replaces a
    link there, and not what the link leads to.
    """

    def __init__(self) -> None:
        self._real_folders = {"": os.getcwd(), "/": "/"}
        self._real_starts: dict[str, str] = {}  # of whole paths, with a slash at the end
        self._case_blind: dict[str, bool] = {}
        self._url_folders: set[str] = set()

    def find(self, path: str) -> str:
        """Return the absolute path of a file, given a normalised one, without links in folders; a
        URL is as it is."""
        if is_url(path):
            self._url_folders.add(os.path.dirname(path))
            return path
        cut = path.rfind("/") + 1
        start = path[:cut]
        real = self._real_starts.get(start)
        if real is None:
            folder = self._find_folder(start.rstrip("/") if len(start) > 1 else start)
            real = self._real_starts[start] = os.path.join(folder, "")
        return real + path[cut:]

    def _find_folder(self, folder: str) -> str:
        """Return the absolute path of a folder, which need not be there, without links in it."""
        real = self._real_folders.get(folder)
        if real is None:
            above, name = os.path.split(folder)
            real = os.path.join(self._find_folder(above), name)
            if name == ".." or os.path.islink(real):
                real = os.path.realpath(real)
            self._real_folders[folder] = real
        return real

    @property
    def folders(self) -> set[str]:
        """All that were looked at, without links; those of URLs, too."""
        return {*self._real_folders.values(), *self._url_folders}

    def is_one_file(self, path: str, other: str) -> bool:
        """Whether two absolute paths without links in their folders are one file on their disk."""
        if path == other or fold(path) != fold(other) or is_url(path) or is_url(other):
            return path == other
        folder = os.path.commonpath([path, other])  # of the first names that differ
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if folder not in self._case_blind:
            self._case_blind[folder] = _is_case_blind(folder)
        return self._case_blind[folder]


def fold(path: str) -> str:
    """Return the same text for all paths that a disk may take for one: by the case of letters,
    and by how accents are composed, as those of Macs and Windows do."""
    if not path.isascii():
        path = unicodedata.normalize("NFC", path)
    return path.casefold()


def _is_case_blind(folder: str) -> bool:
    """Whether the disk does not tell upper from lower case in a folder.

    Asks for something that is there by the other case of its name: nothing is written.
    """
    try:
        names = os.listdir(folder)
    except OSError:
        names = []
    present = set(names)
    for name in names:
        other = name.swapcase()
        if other != name and other not in present:
            return os.path.lexists(os.path.join(folder, other))
    above, name = os.path.split(folder)
    other = os.path.join(above, name.swapcase())
    return other != folder and os.path.exists(other) and os.path.samefile(folder, other)
