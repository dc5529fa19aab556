"""Videos to clips: decoder threads, each with one ffmpeg process at a time, feed one queue.

Threads, because all that they do is to wait for ffmpeg and to copy its frames.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections.abc import Generator, Iterable
from dataclasses import dataclass

import numpy as np

from videofeatures.decoding.clips import iter_clips
from videofeatures.decoding.frames import iter_frames
from videofeatures.decoding.probe import probe_video, resized_size
from videofeatures.decoding.skipping import skip_filter
from videofeatures.decoding.truncation import find_truncation
from videofeatures.errors import VideoError
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.row_state import RowState
from videofeatures.planning.plan import PendingRow
from videofeatures.settings import Settings

MAX_QUEUED_BYTES = 256 << 20
"""Pixels that may wait for the network: about 1,000 frames of resnet152, or 450 clips of
resnext101. Decoding goes on while the network is being loaded, and the network while a
video is slow to give its next frame."""

POLL_SECONDS = 1
"""How often a process looks whether rows that others work on are done."""

logger = logging.getLogger(__name__)


@dataclass
class Clip:
    """One frame or clip: what one row of a feature file is computed from."""

    video: RowState
    index: int
    pixels: np.ndarray


@dataclass
class End:
    """A video gives no more clips."""

    video: RowState


class _PixelQueue(queue.Queue):
    """A queue whose size is bounded in bytes of pixels: frames differ in size."""

    def _init(self, maxsize: int) -> None:
        super()._init(maxsize)
        self._num_bytes = 0

    def _qsize(self) -> int:
        return self._num_bytes

    def _put(self, event: Clip | End) -> None:
        super()._put(event)
        self._num_bytes += _num_bytes(event)

    def _get(self) -> Clip | End:
        event = super()._get()
        self._num_bytes -= _num_bytes(event)
        return event


def _num_bytes(event: Clip | End) -> int:
    # Not 0 for an end: a queue of size 0 is an empty one.
    return event.pixels.nbytes if isinstance(event, Clip) else 1


class SharedRows:
    """Hands out a job's rows, each once, while other processes may do some of them."""

    def __init__(self, rows: Iterable[PendingRow], claims: Claims):
        self._rows = iter(rows)
        self._claims = claims
        self._later: list[PendingRow] = []
        self._has_told = False
        self._lock = threading.Lock()

    def take(self, stopped: threading.Event) -> RowState | None:
        """A row that is ours, or that others have done; None if there is no more.

        Rows that others work on come last: they are waited for, and are ours if they are
        given up.
        """
        with self._lock:
            for row in self._rows:
                if video := self._try(row):
                    return video
                self._later.append(row)
            if self._later and not self._has_told:
                self._has_told = True
                logger.info("waiting for %d rows that others work on", len(self._later))
            while self._later and not stopped.is_set():
                for row in self._later:
                    if video := self._try(row):
                        self._later.remove(row)
                        return video
                stopped.wait(POLL_SECONDS)
        return None

    def _try(self, row: PendingRow) -> RowState | None:
        if row.is_done:
            return RowState(row, done_by_others=True)
        try:
            if not self._claims.take(row.feature_path):
                return None
        except OSError as error:
            return RowState(row, error=error, has_begun=True)
        if row.is_done:  # by now
            self._claims.release(row.feature_path)
            return RowState(row, done_by_others=True)
        return RowState(row)


class Decoders:
    """Decodes rows in threads and hands out what comes, with one `End` a row.

    Use as a context manager: decoding starts when it is entered; when it is left, all
    threads and all ffmpeg processes have ended.
    """

    def __init__(
        self, rows: SharedRows, settings: Settings, *, num_decoders: int, num_threads: int
    ):
        """Nothing starts yet.

        Args:
            num_decoders: videos that are decoded at a time.
            num_threads: of each ffmpeg process.
        """
        self._settings = settings
        self._num_threads = num_threads
        self._rows = rows
        self._queue = _PixelQueue(MAX_QUEUED_BYTES)
        self._stopped = threading.Event()
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

    def get(self, *, block: bool) -> Clip | End:
        """What came next. `queue.Empty` if nothing is there and `block` is false."""
        event = self._queue.get(block)
        if isinstance(event, Exception):
            raise event
        return event

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                video = self._rows.take(self._stopped)
                if video is None:
                    return
                if not video.done_by_others and video.error is None:
                    self._decode(video)
                self._put(End(video))
        except Exception as error:  # nobody must wait for a thread that is gone
            self._put(error)

    def _decode(self, video: RowState) -> None:
        clips = decode_video(
            video, self._settings, num_threads=self._num_threads, stopped=self._stopped
        )
        try:
            while True:
                started = time.monotonic()
                clip = next(clips, None)
                video.decode_seconds += time.monotonic() - started
                if clip is None or not self._put(clip):
                    break
        except Exception as error:  # whatever it is, it costs one row only
            video.error = error
        finally:
            clips.close()  # ends ffmpeg

    def _put(self, event: Clip | End | Exception) -> bool:
        """Wait for room. False if nobody will take it."""
        while not self._stopped.is_set():
            if isinstance(event, Clip) and event.video.error is not None:
                return False
            try:
                self._queue.put(event, timeout=1)
                return True
            except queue.Full:
                pass
        return False


def decode_video(
    video: RowState, settings: Settings, *, num_threads: int, stopped: threading.Event | None = None
) -> Generator[Clip, None, None]:
    """Yield a video's clips, filling in its facts.

    Raises:
        VideoError: see `probe_video` and `iter_frames`; or the video is truncated.
    """
    backbone = settings.resolve_backbone()
    path = video.row.video_path
    try:
        facts = os.stat(path)
        video.file_size, video.file_mtime_ns = facts.st_size, facts.st_mtime_ns
    except OSError:
        pass  # probing says what is wrong
    video.metadata = probe_video(path, local_files_only=settings.local_files_only)
    size = resized_size(video.metadata, backbone.resize_size, square_pixels=settings.square_pixels)
    packet_filter = None
    if settings.skip_unused:
        packet_filter = skip_filter(
            path, backbone.frame_rate, local_files_only=settings.local_files_only
        )
    frames = iter_frames(
        path,
        size,
        frame_rate=backbone.frame_rate,
        crop_size=backbone.crop_size,
        interpolation=settings.interpolation,
        hwaccel=settings.hwaccel,
        packet_filter=packet_filter,
        num_threads=num_threads,
        timeout_seconds=settings.decode_timeout_seconds,
        local_files_only=settings.local_files_only,
        stderr_lines=video.ffmpeg_lines,
        stopped=stopped,
    )
    for index, (pixels, num_frames) in enumerate(iter_clips(frames, backbone.num_frames_per_clip)):
        video.num_frames += num_frames
        video.num_clips += 1
        yield Clip(video, index, pixels)
    video.warning = find_truncation(
        path,
        video.metadata,
        video.num_frames,
        backbone.frame_rate,
        local_files_only=settings.local_files_only,
    )
    if video.warning and settings.truncated == "fail":
        raise VideoError(video.warning, video.ffmpeg_lines)
