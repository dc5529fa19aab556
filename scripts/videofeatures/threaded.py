"""Many looks at the disk, by many threads where it takes a while to answer each."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

NUM_THREADS = 16
"""With an answer after 0.3 ms, 16 threads look at 40,000 files a second, and more at no more
(measured: Python's lock). On a local disk they take three times as long as one thread does, which
looks at 600,000 files a second."""

NUM_ALONE = 16
QUICK_SECONDS = 50e-6
"""One thread goes on alone while so many looks take no longer than this each."""

CHUNK_SIZE = 8192
"""Looked at together, so that what was seen of a million files need not be kept."""

Item = TypeVar("Item")
Seen = TypeVar("Seen")


def threaded_map(look: Callable[[Item], Seen], items: Iterable[Item]) -> Iterator[Seen]:
    """What `look` returns for each item, in their order; raises what it raises.

    Args:
        look: a function that takes its time to wait for the disk.
    """
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK_SIZE)):
        yield from _look_at_all(look, chunk)


def _look_at_all(look: Callable[[Item], Seen], items: list[Item]) -> list[Seen]:
    """By this thread as long as the disk is quick, and by many from then on."""
    seen: list[Seen] = []
    while len(seen) < len(items):
        started = time.perf_counter()
        seen += [look(item) for item in items[len(seen) : len(seen) + NUM_ALONE]]
        if time.perf_counter() - started > NUM_ALONE * QUICK_SECONDS:
            break
    return seen + _look_together(look, items[len(seen) :])


def _look_together(look: Callable[[Item], Seen], items: list[Item]) -> list[Seen]:
    # Not by concurrent.futures, which starts nothing more when the main thread has ended: the
    # end of a run may come later than that.
    num_threads = min(NUM_THREADS, len(items))  # no thread without work: each has a stack
    seen: list[Seen] = [None] * len(items)  # type: ignore[list-item]
    errors: list[Exception] = []

    def work(first: int) -> None:
        try:
            seen[first::num_threads] = [look(item) for item in items[first::num_threads]]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[k]) for k in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return seen


def threaded_map_until(
    look: Callable[[Item], Seen], items: Iterable[Item], *, max_seconds: float, num_threads: int
) -> Iterator[tuple[Item, Seen]]:
    """Items and what `look` returns for each, as they come, for no more than `max_seconds`.

    What takes longer, on a disk or in a library that does not answer, is left behind.

    Args:
        look: a function that does not raise.
    """
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    seen: queue.SimpleQueue[tuple[Item, Seen]] = queue.SimpleQueue()
    num_left = 0
    for item in items:
        todo.put(item)
        num_left += 1
    deadline = time.monotonic() + max_seconds

    def work() -> None:
        while time.monotonic() < deadline:
            try:
                item = todo.get_nowait()
            except queue.Empty:
                return
            seen.put((item, look(item)))

    for _ in range(min(num_threads, num_left)):
        threading.Thread(target=work, daemon=True).start()
    while num_left:
        try:
            yield seen.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return
        num_left -= 1


def stat_or_none(path: str) -> os.stat_result | None:
    """What the disk knows of a file, or None if there is none that can be seen."""
    try:
        return os.stat(path)
    except OSError:
        return None
