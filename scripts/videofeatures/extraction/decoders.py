"""Targets to clips: decoder threads, each with one video at a time, feed one queue.

Threads, because all that they do is to wait for ffmpeg and to copy its frames. What they find out
they say in events; what becomes of a target is the business of who takes these.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from videofeatures.decoding.decoder import Decoder, StartAnew
from videofeatures.decoding.decoding import Decoding
from videofeatures.errors import VideoError
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.events import Begun, Clip, Decoded, Ended, Event, Failed, Repeated
from videofeatures.extraction.shared_queue import SharedQueue
from videofeatures.extraction.shares import Shares
from videofeatures.files import stat_or_none
from videofeatures.listing import FileStat
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.jobs import Video, group_by_video
from videofeatures.planning.plan import Target
from videofeatures.remote import RemoteStat
from videofeatures.urls import is_url

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


class Brought(NamedTuple):
    """A video from elsewhere, on a disk for a while.

    Attributes:
        path: of the file.
        seen: what it is where it comes from.
        release: is called once, when nobody needs the file any more.
    """

    path: str
    seen: RemoteStat
    release: Callable[[], None]


class Taken(NamedTuple):
    """What is to be made of one video, and is ours.

    Attributes:
        targets: of one source; none where all have failed.
        failed: what cannot be ours, with the reason.
        brought: the video, if it is not on a disk by itself.
    """

    targets: tuple[Target, ...]
    failed: tuple[Failed, ...] = ()
    brought: Brought | None = None


class Targets(Protocol):
    """What hands out a job's targets to threads."""

    def take(self, stopped: threading.Event) -> Taken | None:
        """Return what is ours of a video, or None if there is no more."""


class SharedTargets:
    """Hands out a job's targets, each once, while other processes may do some of them: those of one
    video together."""

    def __init__(self, targets: Iterable[Target], claims: Claims):
        self._videos = group_by_video(targets)
        self._claims = claims
        self._later: list[Video] = []
        self._num_elsewhere = 0
        self._has_said_so = False
        self._lock = threading.Lock()

    @property
    def num_elsewhere(self) -> int:
        """Targets that others have done, by now."""
        return self._num_elsewhere

    def take(self, stopped: threading.Event) -> Taken | None:
        """Return what is ours of a video, or None if there is no more.

        Targets that others work on come last: they are waited for, and are ours if they are
        given up.
        """
        with self._lock:
            for video in self._videos:
                taken, left = self._claim(video)
                if left:
                    self._later.append(left)
                if taken is not None:
                    return taken
            if self._later and not self._has_said_so:
                self._has_said_so = True
                num_left = sum(map(len, self._later))
                logger.info("waiting for %d rows that others work on", num_left)
            while self._later and not stopped.is_set():
                for video in list(self._later):
                    taken, left = self._claim(video)
                    self._later.remove(video)
                    if left:
                        self._later.append(left)
                    if taken is not None:
                        return taken
                if self._later:
                    stopped.wait(POLL_SECONDS)
        return None

    def _claim(self, video: Video) -> tuple[Taken | None, Video]:
        """Claim what is not done of a video; return what is ours, and what others work on."""
        targets, failed, left = [], [], []
        for target in video:
            # To look elsewhere takes longer than to claim.
            if not is_url(target.feature_path) and target.is_done:
                self._num_elsewhere += 1
                continue
            try:
                if not self._claims.take(target.feature_path):
                    left.append(target)
                    continue
                is_done = target.is_done  # by now
            except (OSError, VideoError) as error:
                failed.append(Failed(target, Decoded(), error))
                continue
            if is_done:
                self._claims.release(target.feature_path)
                self._num_elsewhere += 1
            else:
                targets.append(target)
        taken = Taken(tuple(targets), tuple(failed)) if targets or failed else None
        return taken, tuple(left)


class _ThreadEnded:
    """A decoder thread has nothing more to say."""


class Decoders:
    """Decodes targets in threads, and hands out what these say.

    Use as a context manager: decoding starts when it is entered; when it is left, all
    threads and all that they have started have ended.
    """

    def __init__(
        self,
        targets: Targets,
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

    def end_processes(self) -> None:
        """End the decoder's processes, once no thread decodes any more: the kernel counts what they
        took when they have ended."""
        self._decoder.close()

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
                ends = self._decode(taken.targets, taken.brought) if taken.targets else []
                for event in (*taken.failed, *ends):
                    self._say(event)
            self._say(_ThreadEnded())
        except Exception as error:  # nobody must wait for a thread that is gone
            self._say(error)

    def _decode(
        self, targets: Sequence[Target], brought: Brought | None = None
    ) -> list[Ended | Failed]:
        """Say that the targets of a video begin, and their clips; return their ends."""
        source = targets[0].source
        file: FileStat | None
        if brought is None:
            file = stat_or_none(source.path)  # if there is none, probing says what is wrong
        else:
            source, file = source._replace(path=brought.path), brought.seen
        for target in targets:
            begun = Begun(
                target,
                file and file.st_size,
                file and file.st_mtime_ns,
                brought.seen.etag if brought else "",
            )
            self._begin(begun)
            self._say(begun)
        decoding = Decoding(
            self._decoder,
            source,
            *(self._recipes[target.recipe].view for target in targets),
            truncated=self._truncated,
            damaged=self._damaged,
            num_threads=self._num_threads_of(targets),
        )
        error: Exception | None = None
        has_repeated = False
        seconds = 0.0
        unwanted: set[int] = set()  # their features are given up
        clips = decoding.clips_of_views()
        try:
            while len(unwanted) < len(targets):
                started = time.monotonic()
                try:
                    clip = next(clips, None)
                except StartAnew:
                    if has_repeated:
                        raise
                    has_repeated = True
                    clips = decoding.clips_of_views()
                    for target in targets:
                        self._say(Repeated(target))
                    continue
                finally:
                    seconds += time.monotonic() - started
                if clip is None:
                    break
                number, pixels = clip
                if number in unwanted:
                    continue
                place = decoding.views[number].num_clips - 1
                if not self._say(Clip(targets[number], place, pixels, decoding.share)):
                    unwanted.add(number)
        except Exception as caught:  # whatever it is, it costs one video only
            error = caught
        finally:
            clips.close()  # ends ffmpeg
            if brought is not None:
                brought.release()
            for target in targets:
                self._shares.end(target)
        ends: list[Ended | Failed] = []
        for target, view in zip(targets, decoding.views, strict=True):
            decoded = Decoded(
                decoding.metadata,
                view.num_frames,
                view.num_clips,
                tuple(view.told.messages),
                view.warning,
                view.told.damage.share,
                seconds / len(targets),
                view.times,
                len(targets),
                view.told.damage.decoded_on,
                view.told.damage.fallback,
                decoding.is_repeated,
            )
            why = error or view.error
            ends.append(Failed(target, decoded, why) if why else Ended(target, decoded))
        return ends

    def _num_threads_of(self, targets: Iterable[Target]) -> int:
        part = round(self._num_threads * sum(map(self._shares.of, targets)))
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
