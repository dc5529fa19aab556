"""Items keep their order, and each owner has its share of the room."""

from __future__ import annotations

import random
import threading
from collections import defaultdict

from videofeatures.extraction.shared_queue import SharedQueue


def take_all(queue: SharedQueue) -> list:
    items = []
    while not queue.is_empty:
        items.append(queue.get(timeout_seconds=0))
    return items


def test_items_come_in_their_order():
    queue: SharedQueue[str] = SharedQueue(1000, 1000)
    for item in ("a1", "b1", "a2", "end of b", "a3"):
        num_bytes = 0 if item.startswith("end") else 1
        assert queue.put(item[-1], item, num_bytes, timeout_seconds=0)
    assert take_all(queue) == ["a1", "b1", "a2", "end of b", "a3"]


def test_who_comes_late_waits_for_no_more_than_a_share():
    queue: SharedQueue[object] = SharedQueue(10**6, 3)
    assert [queue.put("long", k, 1, timeout_seconds=0) for k in range(4)] == [True] * 3 + [False]
    assert queue.put("short", "first", 1, timeout_seconds=0)
    assert queue.get(timeout_seconds=0) == 0
    assert queue.put("long", 3, 1, timeout_seconds=0)
    assert take_all(queue) == [1, 2, "first", 3]


def test_the_room_is_bounded():
    queue: SharedQueue[str] = SharedQueue(10, 100)
    assert queue.put("a", "a1", 9, timeout_seconds=0)
    assert queue.put("b", "b1", 9, timeout_seconds=0)  # the last one may go beyond
    assert not queue.put("c", "c1", 1, timeout_seconds=0.01)
    assert queue.put("c", "end", 0, timeout_seconds=0)
    assert queue.get(timeout_seconds=0) == "a1"
    assert queue.put("c", "c1", 1, timeout_seconds=0)
    assert take_all(queue) == ["b1", "end", "c1"]


def test_nothing_is_had_from_an_empty_queue():
    queue: SharedQueue[str] = SharedQueue(10, 6)
    assert queue.get(timeout_seconds=0.01) is None
    assert queue.is_empty


def test_many_threads_lose_nothing_and_turn_nothing_around():
    queue: SharedQueue[tuple[int, int]] = SharedQueue(40, 3)

    def put(owner: int) -> None:
        rng = random.Random(owner)
        for k in range(300):
            assert queue.put(owner, (owner, k), rng.randrange(5), timeout_seconds=60)

    threads = [threading.Thread(target=put, args=[owner]) for owner in range(8)]
    for thread in threads:
        thread.start()
    found = defaultdict(list)
    for _ in range(8 * 300):
        owner, k = queue.get(timeout_seconds=60)
        found[owner].append(k)
    for thread in threads:
        thread.join()
    assert found == {owner: list(range(300)) for owner in range(8)}
    assert queue.is_empty
    assert queue.put("new", (0, 0), 10, timeout_seconds=0)
