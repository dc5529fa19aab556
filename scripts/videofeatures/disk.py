"""Many looks at the disk, by many threads: one on a network takes a while to answer each."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

NUM_THREADS = 16
"""With an answer after 0.3 ms, 16 threads look at 40,000 files a second, and more at no more
(measured: Python's lock). On a local disk they take 3 µs longer for each than one thread."""

CHUNK_SIZE = 8192
"""Looked at together, so that what was seen of a million files need not be kept."""

Item = TypeVar("Item")
Seen = TypeVar("Seen")


def look_at(look: Callable[[Item], Seen], items: Iterable[Item]) -> Iterator[Seen]:
    """What `look` returns for each item, in their order.

    Args:
        look: a function that takes its time to wait for the disk, and does not raise.
    """

    def look_at_some(some: list[Item]) -> list[Seen]:
        return [look(item) for item in some]

    iterator = iter(items)
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        while chunk := list(islice(iterator, CHUNK_SIZE)):
            num_parts = min(NUM_THREADS, len(chunk))  # no thread without work: each has a stack
            parts = [chunk[k::num_parts] for k in range(num_parts)]
            seen: list[Seen] = [None] * len(chunk)  # type: ignore[list-item]
            for k, part in enumerate(threads.map(look_at_some, parts)):
                seen[k::num_parts] = part
            yield from seen


def find_file(path: str) -> os.stat_result | None:
    """What the disk knows of a file, or None if there is none that can be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None
