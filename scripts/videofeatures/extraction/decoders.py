"""Targets to clips: decoder threads, each with one video at a time, feed one queue.

Threads, because all that they do is to wait for ffmpeg and to copy its frames. What they find out
they say in events; what becomes of a target is the business of who takes these.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence

from videofeatures.decoding.clips import Decoding
from videofeatures.decoding.decoder import Decoder
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.events import Begun, Clip, Decoded, Ended, Event, Failed
from videofeatures.extraction.shared_queue import SharedQueue
from videofeatures.extraction.shares import Shares
from videofeatures.files import stat_or_none
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.plan import Target

MAX_QUEUED_BYTES = 256 << 20
"""Pixels that may wait for the network: about 1,000 frames of resnet152, or 450 clips of
resnext101. Decoding goes on while the network is being loaded, and the network while a
video is slow to give its next frame."""

MAX_QUEUED_EACH = 128
"""Frames or clips of one video that may wait: two batches on a GPU. One that is decoded quickly,
for it is small or its times are damaged, does not hold up those behind it by more."""

POLL_SECONDS = 1
"""How often a process looks whether rows that others work on are done."""

logger = logging.getLogger(__name__)


class SharedTargets:
    """Hands out a job's targets, each once, while other processes may do some of them."""

    def __init__(self, targets: Iterable[Target], claims: Claims):
        self._targets = iter(targets)
        self._claims = claims
        self._later: list[Target] = []
        self._num_elsewhere = 0
        self._has_said_so = False
        self._lock = threading.Lock()

    @property
    def num_elsewhere(self) -> int:
        """Targets that others have done, by now."""
        return self._num_elsewhere

    def take(self, stopped: threading.Event) -> Target | Failed | None:
        """Return a target that is ours; one that cannot be, with the reason; None if there is
        no more.

        Targets that others work on come last: they are waited for, and are ours if they are
        given up.
        """
        with self._lock:
            for target in self._targets:
                if self._is_done(target):
                    continue
                if taken := self._claim(target):
                    return taken
                if not self._is_done(target):  # by now
                    self._later.append(target)
            if self._later and not self._has_said_so:
                self._has_said_so = True
                logger.info("waiting for %d rows that others work on", len(self._later))
            while self._later and not stopped.is_set():
                for target in list(self._later):
                    taken = None if (is_done := self._is_done(target)) else self._claim(target)
                    if is_done or taken:
                        self._later.remove(target)
                    if taken:
                        return taken
                if self._later:
                    stopped.wait(POLL_SECONDS)
        return None

    def _is_done(self, target: Target) -> bool:
        if not target.is_done:
            return False
        self._num_elsewhere += 1
        return True

    def _claim(self, target: Target) -> Target | Failed | None:
        """Claim a target that is not done; None if another process works on it."""
        try:
            if not self._claims.take(target.feature_path):
                return None
        except OSError as error:
            return Failed(target, Decoded(), error)
        if target.is_done:  # whoever asks again finds it so
            self._claims.release(target.feature_path)
            return None
        return target


class _ThreadEnded:
    """A decoder thread has nothing more to say."""


class Decoders:
    """Decodes targets in threads, and hands out what these say.

    Use as a context manager: decoding starts when it is entered; when it is left, all
    threads and all that they have started have ended.
    """

    def __init__(
        self,
        targets: SharedTargets,
        recipes: Sequence[Recipe],
        decoder: Decoder,
        *,
        num_decoders: int,
        num_threads: int = 1,
        shares: Shares | None = None,
        truncated: str = "fail",
        damaged: str = "fail",
        begin: Callable[[Begun], None] = lambda begun: None,
        stopped: threading.Event | None = None,
    ):
        """Nothing starts yet.

        Args:
            recipes: that the targets name.
            num_decoders: videos that are decoded at a time.
            num_threads: of all of them together. A video that is most of what is left, which
                goes on when the others have ended, has more than its part of these.
            shares: of the targets in what is left; all the same by default.
            truncated, damaged: see `Decoding`.
            begin: is called with each target, by the thread that decodes it, before it does.
            stopped: is set when it is left, for the decoder to stop, too.
        """
        self._targets = targets
        self._recipes = recipes
        self._decoder = decoder
        self._num_threads = num_threads
        self._num_threads_each = max(1, num_threads // num_decoders)
        self._shares = shares or Shares(())
        self._truncated = truncated
        self._damaged = damaged
        self._begin = begin
        self._queue: SharedQueue[Event | _ThreadEnded | Exception] = SharedQueue(
            MAX_QUEUED_BYTES, MAX_QUEUED_EACH
        )
        self._stopped = stopped or threading.Event()
        # Only the thread that takes events changes these two.
        self._given_up: set[str] = set()
        self._num_running = num_decoders
        self._threads = [
            threading.Thread(target=self._work, daemon=True) for _ in range(num_decoders)
        ]

    def __enter__(self) -> Decoders:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    @property
    def has_ended(self) -> bool:
        """All has been said, and taken."""
        return not self._num_running and self._queue.is_empty

    def get(self, *, timeout_seconds: float = 0) -> Event | None:
        """Return what was said next, or None if nothing is, in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.has_ended:
            event = self._queue.get(timeout_seconds=max(deadline - time.monotonic(), 0))
            if event is None:
                return None
            if isinstance(event, Exception):
                raise event
            if not isinstance(event, _ThreadEnded):
                return event
            self._num_running -= 1
        return None

    def give_up(self, target: Target) -> None:
        """Take no more clips of a target. Its end is said all the same."""
        self._given_up.add(target.feature_path)

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                taken = self._targets.take(self._stopped)
                if taken is None:
                    break
                self._say(taken if isinstance(taken, Failed) else self._decode(taken))
            self._say(_ThreadEnded())
        except Exception as error:  # nobody must wait for a thread that is gone
            self._say(error)

    def _decode(self, target: Target) -> Ended | Failed:
        """Say that a target begins, and its clips; return its end."""
        file = stat_or_none(target.source.path)  # if there is none, probing says what is wrong
        begun = Begun(target, file and file.st_size, file and file.st_mtime_ns)
        self._begin(begun)
        self._say(begun)
        decoding = Decoding(
            self._decoder,
            target.source,
            self._recipes[target.recipe].view,
            truncated=self._truncated,
            damaged=self._damaged,
            num_threads=self._num_threads_of(target),
        )
        clips = decoding.clips()
        error: Exception | None = None
        seconds = 0.0
        try:
            while True:
                started = time.monotonic()
                try:
                    pixels = next(clips, None)
                finally:
                    seconds += time.monotonic() - started
                if pixels is None:
                    break
                if not self._say(Clip(target, decoding.num_clips - 1, pixels, decoding.share)):
                    break
        except Exception as caught:  # whatever it is, it costs one row only
            error = caught
        finally:
            clips.close()  # ends ffmpeg
            self._shares.end(target)
        decoded = Decoded(
            decoding.metadata,
            decoding.num_frames,
            decoding.num_clips,
            tuple(decoding.messages),
            decoding.warning,
            decoding.damage.share,
            seconds,
            decoding.times,
        )
        return Failed(target, decoded, error) if error else Ended(target, decoded)

    def _num_threads_of(self, target: Target) -> int:
        part = round(self._num_threads * self._shares.of(target))
        return max(self._num_threads_each, part)

    def _say(self, event: Event | _ThreadEnded | Exception) -> bool:
        """Wait for room. False if nobody will take it."""
        owner = None if isinstance(event, _ThreadEnded | Exception) else event.target.feature_path
        num_bytes = event.pixels.nbytes if isinstance(event, Clip) else 0
        while not self._stopped.is_set():
            if isinstance(event, Clip) and owner in self._given_up:
                return False
            if self._queue.put(owner, event, num_bytes, timeout_seconds=1):
                return True
        return False
