"""Features on their way into buckets, beside the next videos: a slow storage does not hold the
network up."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Generic, TypeVar

from videofeatures.remote import RemoteStat, open_store
from videofeatures.urls import scheme_of

MAX_UPLOADS = 2
"""On their way at a time: one while the network computes the next, and one more where that is
quicker."""

STOP_SECONDS = 10
"""How long the end of a stopped job waits for those that are on their way: what a storage still
takes after that is as whole, and known by its hash."""

Item = TypeVar("Item")


class Uploads(Generic[Item]):
    """Uploads files, a few at a time, each of something that comes back with its outcome.

    Use as a context manager, by one thread: when it is left, none is begun any more.
    """

    def __init__(self, folder: Path):
        """
        Args:
            folder: for the files.
        """
        self.folder = folder
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(MAX_UPLOADS)
        self._items: dict[Future[None], Item] = {}

    def __enter__(self) -> Uploads[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        wait([one for one in self._items if not one.cancelled()], timeout=STOP_SECONDS)

    def start(self, item: Item, path: Path, url: str, replaces: RemoteStat | None) -> None:
        """Start to upload a file, which is removed at the end; wait while there are many.

        Args:
            item: what it is of.
            replaces: see `Store.upload`.
        """
        on_their_way = [future for future in self._items if not future.done()]
        if len(on_their_way) >= MAX_UPLOADS:
            wait(on_their_way, return_when=FIRST_COMPLETED)
        self._items[self._pool.submit(self._upload, path, url, replaces)] = item

    def take(self, *, all_of_them: bool = False) -> Iterator[tuple[Item, Exception | None]]:
        """Yield those that have ended, each with the error that ended it, or None.

        Args:
            all_of_them: wait for their ends.
        """
        if all_of_them:
            wait(self._items)
        for future in [future for future in self._items if future.done()]:
            item = self._items.pop(future)
            error = future.exception()
            if error is not None and not isinstance(error, Exception):
                raise error
            yield item, error

    def _upload(self, path: Path, url: str, replaces: RemoteStat | None) -> None:
        try:
            store = open_store(scheme_of(url))
            store.upload(path, url, replaces=replaces, stopped=self._stopped)
        finally:
            path.unlink(missing_ok=True)
