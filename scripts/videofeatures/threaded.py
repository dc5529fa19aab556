"""Functions that look at the disk, called in many threads where it takes a while to answer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
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
"""Items at a time, so that the results of a million need not be kept."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded_map(look: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield what `look` returns for each item, in their order.

    Args:
        look: a function that takes its time to wait for the disk.

    Raises:
        Exception: whatever `look` raises.
    """
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK_SIZE)):
        yield from _map_chunk(look, chunk)


def _map_chunk(look: Callable[[Item], Result], items: list[Item]) -> list[Result]:
    """Call `look` in this thread as long as the disk is quick, and in many from then on."""
    results: list[Result] = []
    while len(results) < len(items):
        started = time.perf_counter()
        results += [look(item) for item in items[len(results) : len(results) + NUM_ALONE]]
        if time.perf_counter() - started > NUM_ALONE * QUICK_SECONDS:
            break
    return results + map_in_threads(look, items[len(results) :])


def map_in_threads(look: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return what `look` returns for each item, in their order; each is known to take a while.

    Raises:
        Exception: whatever `look` raises.
    """
    # Not by concurrent.futures, which starts nothing more when the main thread has ended: the
    # end of a run may come later than that.
    num_threads = min(NUM_THREADS, len(items))  # no thread without work: each has a stack
    results: list[Result] = [None] * len(items)  # type: ignore[list-item]
    errors: list[Exception] = []

    def work(first: int) -> None:
        try:
            results[first::num_threads] = [look(item) for item in items[first::num_threads]]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[k]) for k in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def threaded_map_until(
    look: Callable[[Item], Result], items: Iterable[Item], *, max_seconds: float, num_threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yield items and what `look` returns for each, as they come, for at most `max_seconds`.

    What takes longer, on a disk or in a library that does not answer, is left behind.

    Args:
        look: a function that does not raise.
    """
    todo: queue.SimpleQueue[Item] = queue.SimpleQueue()
    results: queue.SimpleQueue[tuple[Item, Result]] = queue.SimpleQueue()
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
            results.put((item, look(item)))

    for _ in range(min(num_threads, num_left)):
        threading.Thread(target=work, daemon=True).start()
    while num_left:
        try:
            yield results.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return
        num_left -= 1
