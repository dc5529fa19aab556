"""Videos that are not on a disk: brought to one before it is their turn.

Threads take targets as decoder threads do, with the claims on them, and bring their videos; those
on a disk pass. So the network, decoding and the CNN are busy at the same time. What waits is
bounded, in bytes and in videos.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from videofeatures.errors import MachineError, VideoError
from videofeatures.extraction.decoders import Brought, Taken, Targets
from videofeatures.extraction.events import Decoded, Failed
from videofeatures.planning.jobs import group_by_video
from videofeatures.planning.plan import Target
from videofeatures.remote import RemoteStat, open_store
from videofeatures.settings import Settings
from videofeatures.units import describe_bytes, describe_seconds
from videofeatures.urls import is_url, parse_schemes, scheme_of, url_problem

NUM_THREADS = 8
"""Videos that are brought at a time: one connection alone seldom fills a network."""

POLL_SECONDS = 1

SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}$")

logger = logging.getLogger(__name__)


@dataclass
class _File:
    """A video in the scratch folder.

    Attributes:
        seen: None while it is being brought.
        num_users: who decode it, or are about to.
    """

    path: Path
    num_bytes: int = 0
    seen: RemoteStat | None = None
    num_users: int = 0


class Files:
    """Videos in a folder, each brought once for all who need it by then; for several threads."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        uses: Counter[str],
        allowed_schemes: Collection[str],
        stopped: threading.Event,
    ):
        """
        Args:
            max_bytes: of all of them.
            uses: how often each URL may be asked for; after the last time, it is removed.
            allowed_schemes: of URLs.
        """
        self._folder = folder
        self._max_bytes = max_bytes
        self._uses = uses
        self._allowed_schemes = allowed_schemes
        self._stopped = stopped
        self._files: dict[str, _File] = {}
        self._num_bytes = 0
        self._num_files = 0
        self._changed = threading.Condition()
        self.num_brought = 0
        self.num_bytes_brought = 0
        self.seconds = 0.0

    def bring(self, url: str) -> Brought:
        """Return a video that is there until it is released.

        Raises:
            VideoError, OSError: it cannot be brought.
        """
        with self._changed:
            while (file := self._files.get(url)) is not None:
                if file.seen is not None:
                    file.num_users += 1
                    return self._brought(url, file, file.seen)
                self._wait()  # another thread brings it
            self._num_files += 1
            suffix = SUFFIX.search(url.partition("?")[0])
            name = f"{self._num_files}{suffix[0] if suffix else ''}"
            file = self._files[url] = _File(self._folder / name)
        try:
            seen = self._download(url, file)
        except BaseException:
            with self._changed:
                self._remove(url)
            raise
        with self._changed:
            file.seen, file.num_users = seen, 1
            self._changed.notify_all()
            return self._brought(url, file, seen)

    def _brought(self, url: str, file: _File, seen: RemoteStat) -> Brought:
        return Brought(str(file.path), seen, lambda: self._release(url))

    def _download(self, url: str, file: _File) -> RemoteStat:
        if problem := url_problem(url, self._allowed_schemes):
            raise VideoError(problem)
        store = open_store(scheme_of(url))
        seen = store.stat(url)
        if seen is None:
            raise VideoError("no such file")
        self._reserve(file, seen.st_size)
        started = time.monotonic()
        now = store.download(url, file.path, seen, stopped=self._stopped)
        with self._changed:
            self._num_bytes += now.st_size - file.num_bytes
            file.num_bytes = now.st_size
            self.num_brought += 1
            self.num_bytes_brought += now.st_size
            self.seconds += time.monotonic() - started
        return now

    def _reserve(self, file: _File, num_bytes: int) -> None:
        """Wait for room."""
        if num_bytes > self._max_bytes:
            raise VideoError(
                f"has {describe_bytes(num_bytes)}, and `scratch_mb` allows "
                f"{describe_bytes(self._max_bytes)}: raise it"
            )
        with self._changed:
            while self._num_bytes + num_bytes > self._max_bytes:
                idle = next((u for u, f in self._files.items() if f.seen and not f.num_users), None)
                if idle is None:
                    self._wait()
                else:
                    self._remove(idle)
            self._num_bytes += num_bytes
            file.num_bytes = num_bytes

    def _release(self, url: str) -> None:
        with self._changed:
            file = self._files[url]
            file.num_users -= 1
            self._uses[url] -= 1
            if not file.num_users and self._uses[url] <= 0:
                self._remove(url)
            self._changed.notify_all()

    def _remove(self, url: str) -> None:
        file = self._files.pop(url)
        self._num_bytes -= file.num_bytes
        file.path.unlink(missing_ok=True)
        self._changed.notify_all()

    def _wait(self) -> None:
        self._changed.wait(POLL_SECONDS)
        if self._stopped.is_set():
            raise MachineError("the job was stopped")


class Fetcher:
    """Hands out targets as `SharedTargets` does, with their videos on a disk.

    Use as a context manager: bringing starts when it is entered; when it is left, all threads have
    ended.
    """

    def __init__(self, targets: Targets, files: Files, *, num_ahead: int, stopped: threading.Event):
        """
        Args:
            num_ahead: videos that may wait to be decoded.
            stopped: is set before it is left.
        """
        self._targets = targets
        self._files = files
        self._stopped = stopped
        self._ready: queue.Queue[Taken | Exception | None] = queue.Queue(num_ahead)
        self._num_running = NUM_THREADS
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(NUM_THREADS)
        ]

    def __enter__(self) -> Fetcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        files = self._files
        if files.num_brought:
            logger.info(
                "%d videos were brought, %s, in %s of %d connections",
                files.num_brought,
                describe_bytes(files.num_bytes_brought),
                describe_seconds(files.seconds),
                NUM_THREADS,
            )

    def take(self, stopped: threading.Event) -> Taken | None:
        """Return what is ours of a video that is on a disk, or None if there is no more."""
        while not stopped.is_set():
            try:
                taken = self._ready.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(taken, Exception):
                raise taken
            if taken is None:
                self._put(None)  # for the other threads
            return taken
        return None

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                taken = self._targets.take(self._stopped)
                if taken is None:
                    break
                self._put(self._with_video(taken))
        except Exception as error:  # nobody must wait for a thread that is gone
            self._put(error)
        with self._lock:
            self._num_running -= 1
            is_last = not self._num_running
        if is_last:
            self._put(None)

    def _with_video(self, taken: Taken) -> Taken:
        if not taken.targets or not is_url(taken.targets[0].source.path):
            return taken
        try:
            return taken._replace(brought=self._files.bring(taken.targets[0].source.path))
        except Exception as error:  # whatever it is, it costs one video only
            failed = tuple(Failed(target, Decoded(), error) for target in taken.targets)
            return Taken((), (*taken.failed, *failed))

    def _put(self, item: Taken | Exception | None) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=POLL_SECONDS)
            except queue.Full:
                continue
            return


def files_below(
    folder: Path, settings: Settings, uses: Counter[str], stopped: threading.Event
) -> Files:
    """Return what brings videos to a folder, as much of them as the settings allow: see `Files`."""
    return Files(
        folder,
        max_bytes=settings.scratch_mb * 1_000_000,
        uses=uses,
        allowed_schemes=parse_schemes(settings.allowed_schemes),
        stopped=stopped,
    )


def needs_fetching(targets: Iterable[Target]) -> bool:
    """Return whether some of the videos, or of the features, are not on a disk."""
    return any(is_url(target.source.path) or is_url(target.feature_path) for target in targets)


def count_uses(targets: Iterable[Target]) -> Counter[str]:
    """Return how often each URL is decoded."""
    return Counter(
        video[0].source.path for video in group_by_video(targets) if is_url(video[0].source.path)
    )
