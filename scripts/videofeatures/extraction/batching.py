"""Clips to features: batches of one shape across videos, through the network, and back."""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from videofeatures.errors import MachineError
from videofeatures.extraction.batch_size import BatchSizeSearch, sizes_for
from videofeatures.extraction.features import as_stored, norms_of
from videofeatures.extraction.target_state import TargetState
from videofeatures.extraction.timing import Timing
from videofeatures.networks.recipe import Recipe

if TYPE_CHECKING:
    from videofeatures.networks.network import Network

MAX_BATCHES_WAITING = 4
"""Batches' worth of clips, of all shapes, that may come while a batch waits to be filled. So a
video of a rare shape is written soon after its end, whatever the others do, and what waits
here takes a bounded amount of memory."""

logger = logging.getLogger(__name__)


class _Item(NamedTuple):
    """A clip that waits, and whose it is."""

    state: TargetState
    number: int
    pixels: np.ndarray


@dataclass
class _Batch:
    """Clips of one shape that wait for more.

    Attributes:
        number: how many clips had come, of any shape, when the first one of these did.
    """

    number: int
    items: list[_Item] = field(default_factory=list)


class Batcher:
    """Takes clips as they come, and gives their features to the states of their targets."""

    def __init__(
        self, network: Network, batch_sizes: Sequence[int], recipe: Recipe, timing: Timing
    ):
        """All that comes here is made by one recipe, with its network.

        Args:
            batch_sizes: to choose from for each shape, by the times of its first batches; the
                first is a guess. Of a device that computes beside us, such times say nothing:
                give one.
        """
        self._batch_sizes = list(batch_sizes)
        self._searches: dict[tuple[int, ...], BatchSizeSearch] = {}
        self._num_by_shape: Counter[tuple[int, ...]] = Counter()
        self._network = network
        self._recipe = recipe
        self._timing = timing
        self._most: float = math.inf
        self._num_clips = 0
        self._has_warned = False
        self._waiting: dict[tuple[int, ...], _Batch] = {}
        self._submitted: deque[tuple[list[_Item], Callable[[], np.ndarray]]] = deque()

    @property
    def batch_size(self) -> int:
        """The size found for the commonest shape; the guess, until one is found."""
        for shape, _ in self._num_by_shape.most_common(1):
            search = self._search(shape)
            if search.is_settled:
                return search.size
        return self._batch_sizes[0]

    def _search(self, shape: tuple[int, ...]) -> BatchSizeSearch:
        search = self._searches.get(shape)
        if search is None:
            sizes = sizes_for(shape, self._batch_sizes)
            search = self._searches[shape] = BatchSizeSearch(sizes)
        return search

    def add(self, state: TargetState, number: int, pixels: np.ndarray) -> Iterator[TargetState]:
        """Take clip `number` of a target; yield the targets of which something was computed."""
        shape = pixels.shape
        batch = self._waiting.setdefault(shape, _Batch(self._num_clips))
        batch.items.append(_Item(state, number, pixels))
        self._num_clips += 1
        self._num_by_shape[shape] += 1
        if len(batch.items) >= self._search(shape).size:
            yield from self._run(shape)
        oldest = next(iter(self._waiting), None)  # a dict keeps the order of insertion
        if oldest and self._is_overdue(oldest):
            yield from self._run(oldest)

    def _is_overdue(self, shape: tuple[int, ...]) -> bool:
        num_clips_since = self._num_clips - self._waiting[shape].number
        return num_clips_since >= MAX_BATCHES_WAITING * self._search(shape).size

    def flush(self) -> Iterator[TargetState]:
        """Compute all that holds the end of a video: call it when no clip is to be had."""
        for shape, batch in list(self._waiting.items()):
            if any(item.state.decoded is not None for item in batch.items):
                yield from self._run(shape)
        yield from self._compute([], max_submitted=0)

    def _run(self, shape: tuple[int, ...]) -> Iterator[TargetState]:
        items = [item for item in self._waiting.pop(shape).items if item.state.error is None]
        yield from self._compute(items, max_submitted=self._network.max_submitted - 1)

    def _compute(self, items: list[_Item], *, max_submitted: int) -> Iterator[TargetState]:
        if not items and not self._submitted:
            return
        before = self._timing.compute_seconds
        with self._timing.computing():
            states = self._submit(items) if items else []
            states += self._collect(max_submitted=max_submitted)
        for state in states:
            state.compute_seconds += (self._timing.compute_seconds - before) / len(states)
        yield from dict.fromkeys(states)

    def _submit(self, items: list[_Item]) -> list[TargetState]:
        """Give clips to the network, in halves if they are too many; return what failed."""
        if len(items) > self._most:  # they came before it was known
            return self._submit_halves(items)
        started = time.monotonic()
        try:
            wait = self._network.submit(np.stack([item.pixels for item in items]))
        except MemoryError as error:
            reason = str(error)
        else:
            search = self._search(items[0].pixels.shape)
            search.record(len(items), time.monotonic() - started)
            self._submitted.append((items, wait))
            return []
        if len(items) == 1:
            state = items[0].state
            state.error = MachineError(f"out of memory, even in a batch of one: {reason}")
            return [state]
        half = len(items) // 2
        if not self._has_warned:
            logger.warning(
                "out of memory with a batch of %d: it is halved until it fits (%s)",
                len(items),
                reason,
            )
            self._has_warned = True
        self._limit(half)
        return self._submit_halves(items)

    def _submit_halves(self, items: list[_Item]) -> list[TargetState]:
        half = len(items) // 2
        return self._submit(items[:half]) + self._submit(items[half:])

    def _limit(self, most: int) -> None:
        self._most = most
        self._batch_sizes = [size for size in self._batch_sizes if size <= most] or [most]
        for search in self._searches.values():
            search.limit(most)

    def _collect(self, *, max_submitted: int) -> list[TargetState]:
        """Take results until no more than `max_submitted` are awaited; return whose they are."""
        states = []
        while len(self._submitted) > max_submitted:
            items, wait = self._submitted.popleft()
            computed = wait()
            norms, features = norms_of(computed), computed
            if self._recipe.pool == "none":
                features = as_stored(
                    computed,
                    norms,
                    l2_normalize=self._recipe.l2_normalize,
                    half_precision=self._recipe.half_precision,
                )
            for item, feature, norm in zip(items, features, norms, strict=True):
                item.state.add_feature(item.number, feature, float(norm.mean()))
            self._timing.num_clips += len(items)
            states += [item.state for item in items]
        return states
