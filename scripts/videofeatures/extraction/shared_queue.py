"""A queue that no one fills alone: each owner of items has a share of the room."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class SharedQueue(Generic[Item]):
    """Items of several owners in the order in which they came, for several threads.

    Who comes with one item waits for no more than a share of what another one has. To take one
    of each owner in turn would be fairer, and was tried: where videos are decoded much faster than
    they are computed, all of those that wait are finished at the end, and a kill costs all of them.
    """

    def __init__(self, max_bytes: int, max_items_each: int):
        """
        Args:
            max_bytes: that items may have in all; the last one may go beyond.
            max_items_each: that one owner may have waiting.
        """
        self._max_bytes = max_bytes
        self._max_items_each = max_items_each
        self._num_bytes = 0
        self._num_of: Counter[Hashable] = Counter()
        self._waiting: deque[tuple[Hashable, Item, int]] = deque()
        self._changed = threading.Condition()

    def put(self, owner: Hashable, item: Item, num_bytes: int, *, timeout_seconds: float) -> bool:
        """Add an item as soon as there is room. False if there was none in time.

        Args:
            num_bytes: its size. One without a size always has room, and takes none.
        """
        with self._changed:
            if num_bytes and not self._changed.wait_for(
                lambda: self._has_room(owner), timeout_seconds
            ):
                return False
            self._waiting.append((owner, item, num_bytes))
            if num_bytes:
                self._num_bytes += num_bytes
                self._num_of[owner] += 1
            self._changed.notify_all()
            return True

    def get(self, *, timeout_seconds: float) -> Item | None:
        """Return the next item, or None if there was none in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, timeout_seconds):
                return None
            owner, item, num_bytes = self._waiting.popleft()
            if num_bytes:
                self._num_bytes -= num_bytes
                self._num_of[owner] -= 1
                if not self._num_of[owner]:
                    del self._num_of[owner]
            self._changed.notify_all()
            return item

    @property
    def is_empty(self) -> bool:
        """Whether nothing is waiting now."""
        return not self._waiting

    def _has_room(self, owner: Hashable) -> bool:
        return self._num_bytes < self._max_bytes and self._num_of[owner] < self._max_items_each
