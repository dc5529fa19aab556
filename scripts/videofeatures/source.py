"""What is decoded."""

from __future__ import annotations

from typing import NamedTuple


class Source(NamedTuple):
    """A video, whole. The identity of a row's input, which travels as one from the CSV to the
    decoder.

    Attributes:
        path: of a file on a disk.
    """

    path: str
