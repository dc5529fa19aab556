"""One job: decoders feed a bounded queue, one network empties it, rows are written as they end.

    rows ─► decoder threads ─► queue ─► batches of one shape ─► network ─► gathered by row ─► files

Each decoder thread reads one video at a time from its own ffmpeg process. The thread
that calls `extract_rows` owns the network, the files and the records, so none of them
needs a lock.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from videofeatures import __version__
from videofeatures.clips import iter_clips, row_timestamps
from videofeatures.errors import VideoError
from videofeatures.network import Network, choose_device, choose_dtype
from videofeatures.plan import Job, PendingRow
from videofeatures.records import Recorder
from videofeatures.settings import Settings
from videofeatures.storage import write_features
from videofeatures.video import (
    VideoMetadata,
    ffmpeg_version,
    iter_frames,
    probe_video,
    resized_size,
)
from videofeatures.weights import identity_of

BATCH_SIZES = {"cpu": 4, "cuda": 64}
"""On a CPU small batches are the fastest (measured: DESIGN, section 3); on a GPU 64 as in
the original program."""

MAX_DECODERS = 16
QUEUED_BATCHES = 2
"""Batches that may wait for the network: enough for it never to wait, little memory."""

ROWS_PER_BLOCK = 256
"""Features in a block of a growing array: 1 MB of 2048 float16."""

logger = logging.getLogger(__name__)


class GrowingArray:
    """Rows that come one by one, in any order, kept in a few large blocks.

    One small array for each row would pin the memory between the frames that come and go
    around it: that cost 230 kB a row (measured).
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._num_rows = 0

    def put(self, index: int, row: np.ndarray) -> None:
        """Keep row `index`, once."""
        block, place = divmod(index, ROWS_PER_BLOCK)
        while len(self._blocks) <= block:
            self._blocks.append(np.empty((ROWS_PER_BLOCK, len(row)), row.dtype))
        self._blocks[block][place] = row
        self._num_rows += 1

    def take(self, num_rows: int) -> np.ndarray:
        """All rows in order, (num_rows, length). AssertionError if one is missing."""
        if num_rows != self._num_rows:
            raise AssertionError(f"{self._num_rows} features of {num_rows} clips")
        return np.concatenate(self._blocks)[:num_rows]


@dataclass(eq=False)
class Video:
    """A row on its way through the pipeline."""

    row: PendingRow
    file_size: int | None = None
    file_mtime_ns: int | None = None
    metadata: VideoMetadata | None = None
    num_frames: int = 0
    num_clips: int | None = None  # known when the video has ended
    error: Exception | None = None
    status: str = "failed"  # if there is an error; `blocked` if a stale file is still there
    features: GrowingArray = field(default_factory=lambda: GrowingArray())
    started: float = field(default_factory=time.monotonic)


@dataclass
class Clip:
    """One frame or clip: what one row of a feature file is computed from."""

    video: Video
    index: int
    pixels: np.ndarray


@dataclass
class End:
    """A video gives no more clips."""

    video: Video


def extract_rows(job: Job, *, num_threads: int) -> int:
    """Do a job's rows; a row that exists by now is kept.

    Args:
        num_threads: CPU threads for decoding and, without a GPU, for the network.

    Returns:
        How many rows failed. Each has a record and a line in the log.

    Raises:
        InputError: the weights do not fit the backbone.
    """
    rows = [row for row in job.rows if not _is_done(row)]
    if len(rows) < len(job.rows):
        logger.info("%d rows were done by others meanwhile", len(job.rows) - len(rows))
    if not rows:
        return 0
    settings, backbone = job.settings, job.settings.resolve_backbone()
    device = choose_device()
    dtype = choose_dtype(settings.precision, device)
    torch.set_num_threads(num_threads)
    network = Network(backbone, job.weights_path, device=device, dtype=dtype)
    made_with = {
        "program": f"videofeatures {__version__}",
        "settings": settings.numerics(),
        "digest": settings.digest(),
        "weights": identity_of(job.weights_path),
        "dtype": str(dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "host": platform.node(),
        "ffmpeg": ffmpeg_version(),
        "torch": torch.__version__,
    }
    batch_size = settings.batch_size or BATCH_SIZES[device.type]
    num_decoders = min(settings.decoders or min(num_threads, MAX_DECODERS), len(rows))
    num_failed = 0
    with Recorder(job.results, job.name, made_with) as recorder:
        writer = _Writer(job, made_with, recorder)
        decode = _Decoder(job, max(1, num_threads // num_decoders))
        events = _run_decoders(
            rows, decode, num_decoders, max_queued=QUEUED_BATCHES * batch_size, begin=writer.begin
        )
        for video in _compute(events, network, batch_size, settings):
            num_failed += not writer.finish(video)
    return num_failed


def _is_done(row: PendingRow) -> bool:
    # A stale file is replaced, also if Snakemake has not removed it.
    return not row.stale and os.path.exists(row.feature_path)


class _Decoder:
    """Turns a video into clips; runs in many threads at once."""

    def __init__(self, job: Job, num_threads: int):
        self.settings = job.settings
        self.backbone = job.settings.resolve_backbone()
        self.num_threads = num_threads

    def __call__(self, video: Video) -> Iterator[Clip]:
        """Yield a video's clips, filling in its facts.

        Raises:
            VideoError: see `probe_video` and `iter_frames`.
        """
        path = video.row.video_path
        video.metadata = probe_video(path)
        frames = iter_frames(
            path,
            resized_size(
                video.metadata,
                self.backbone.resize_size,
                square_pixels=self.settings.square_pixels,
            ),
            frame_rate=self.backbone.frame_rate,
            crop_size=self.backbone.crop_size,
            interpolation=self.settings.interpolation,
            num_threads=self.num_threads,
        )
        clips = iter_clips(frames, self.backbone.num_frames_per_clip)
        for index, (pixels, num_frames) in enumerate(clips):
            video.num_frames += num_frames
            yield Clip(video, index, pixels)


def _run_decoders(
    rows: Iterable[PendingRow],
    decode: Callable[[Video], Iterator[Clip]],
    num_decoders: int,
    *,
    max_queued: int,
    begin: Callable[[Video], None],
) -> Iterator[Clip | End]:
    """Decode rows in `num_decoders` threads and yield what comes, with one `End` a row.

    At most `max_queued` clips wait at a time. `begin` is called in the calling thread before
    a row is decoded.
    """
    waiting: queue.Queue[Clip | End] = queue.Queue(max_queued)
    todo: queue.SimpleQueue[Video | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def put(event: Clip | End) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(event, timeout=1)
            except queue.Full:
                pass

    def work() -> None:
        while (video := todo.get()) is not None and not stopped.is_set():
            if video.error is None:
                decode_one(video)
            put(End(video))

    def decode_one(video: Video) -> None:
        clips = decode(video)
        try:
            for index, clip in enumerate(clips, start=1):
                put(clip)
                video.num_clips = index
                if stopped.is_set():
                    return
        except Exception as error:  # whatever it is, it costs one row only
            video.error = error
        finally:
            clips.close()  # ends ffmpeg

    threads = [threading.Thread(target=work, daemon=True) for _ in range(num_decoders)]
    remaining = iter(rows)
    running = 0

    def hand_out() -> int:
        row = next(remaining, None)
        if row is None:
            return 0
        video = Video(row)
        begin(video)
        todo.put(video)
        return 1

    try:
        for thread in threads:
            running += hand_out()
            thread.start()
        while running:
            event = waiting.get()
            if isinstance(event, End):
                running += hand_out() - 1
            yield event
    finally:
        stopped.set()
        for _ in threads:
            todo.put(None)
        for thread in threads:
            thread.join()


def _compute(
    events: Iterable[Clip | End], network: Network, batch_size: int, settings: Settings
) -> Iterator[Video]:
    """Batch clips of one shape across videos, and yield each video when it is complete.

    A part-filled batch goes when all the videos in it have ended, so that a rare shape does
    not wait for the end of the job.
    """
    batches: dict[tuple[int, ...], list[Clip]] = {}
    ended: set[Video] = set()

    def run(shape: tuple[int, ...]) -> None:
        batch = batches.pop(shape)
        features = network.features(np.stack([clip.pixels for clip in batch]))
        features = finish_features(
            features,
            l2_normalize=settings.l2_normalize,
            half_precision=settings.half_precision,
        )
        for clip, feature in zip(batch, features, strict=True):
            clip.video.features.put(clip.index, feature)

    for event in events:
        video = event.video
        if isinstance(event, Clip):
            shape = event.pixels.shape
            batch = batches.setdefault(shape, [])
            batch.append(event)
            if len(batch) == batch_size:
                run(shape)
        else:
            ended.add(video)
            for shape in [s for s, b in batches.items() if all(c.video in ended for c in b)]:
                run(shape)
        if ended:
            waiting = {clip.video for clip in chain.from_iterable(batches.values())}
            yield from ended - waiting
            ended &= waiting


def finish_features(
    features: np.ndarray, *, l2_normalize: bool, half_precision: bool
) -> np.ndarray:
    """Features as they are stored: of length 1, and float16, if asked for.

    Args:
        features: (N, feature_dim), float32.
    """
    if l2_normalize:
        # The bound is that of torch.nn.functional.normalize, which the original used.
        norms = np.linalg.norm(features, axis=1, keepdims=True)
        features = features / np.maximum(norms, 1e-12)
    with np.errstate(over="ignore"):  # what does not fit is found when the video is complete
        return features.astype(np.float16 if half_precision else np.float32)


class _Writer:
    """Records a row's beginning and end, and writes its file in between."""

    def __init__(self, job: Job, made_with: dict[str, Any], recorder: Recorder):
        self.settings = job.settings
        self.backbone = job.settings.resolve_backbone()
        self.made_with = made_with
        self.recorder = recorder

    def begin(self, video: Video) -> None:
        """Remove a stale file, then record that the row is worked on.

        In this order, so that a file whose last record says `started` is never an old one.
        """
        path = video.row.feature_path
        if video.row.stale:
            try:
                Path(path).unlink(missing_ok=True)
            except OSError as error:
                video.error = error
                video.status = "blocked"
                return
        try:
            facts = os.stat(video.row.video_path)
            video.file_size, video.file_mtime_ns = facts.st_size, facts.st_mtime_ns
        except OSError:
            pass  # decoding will say what is wrong
        self.recorder.record("started", path, **self._identity(video))

    def finish(self, video: Video) -> bool:
        """Write a complete video's file, or record why there is none. True if written."""
        row = video.row
        seconds = time.monotonic() - video.started
        try:
            if video.error is not None:
                raise video.error
            features = self._features(video)
            timestamps = row_timestamps(
                video.num_frames, self.backbone.frame_rate, self.backbone.num_frames_per_clip
            )
            write_features(row.feature_path, features, timestamps, self._provenance(video))
        except (VideoError, OSError) as error:
            reason = str(error)
            lines = getattr(error, "ffmpeg_lines", [])
            self._record_failure(video, reason, seconds, lines)
            return False
        except Exception as error:
            self._record_failure(video, f"{type(error).__name__}: {error}", seconds, [])
            logger.exception("unexpected error in %s", row.video_path)
            return False
        self.recorder.record(
            "done",
            row.feature_path,
            **self._identity(video),
            num_features=features.shape[0],
            feature_dim=features.shape[1],
            num_frames=video.num_frames,
            duration_seconds=video.metadata.duration_seconds,
            average_fps=video.metadata.average_fps,
            seconds=round(seconds, 3),
        )
        logger.info("done    %s: %d x %d in %.1f s", row.video_path, *features.shape, seconds)
        return True

    def _record_failure(self, video: Video, reason: str, seconds: float, lines: list[str]) -> None:
        self.recorder.record(
            video.status,
            video.row.feature_path,
            **self._identity(video),
            reason=reason,
            ffmpeg_lines=lines,
            seconds=round(seconds, 3),
        )
        logger.error("FAILED  %s: %s", video.row.video_path, reason)

    def _identity(self, video: Video) -> dict[str, Any]:
        return {
            "video_path": video.row.video_path,
            "video_size": video.file_size,
            "video_mtime_ns": video.file_mtime_ns,
            "digest": self.made_with["digest"],
            "weights": self.made_with["weights"],
        }

    def _features(self, video: Video) -> np.ndarray:
        """(rows, feature_dim) in the order of time, whatever the order of computing."""
        features = video.features.take(video.num_clips)
        if not np.isfinite(features).all():
            hint = "" if self.settings.l2_normalize else ", or too large for float16"
            raise VideoError(f"the network gave a feature that is not a number{hint}")
        return features

    def _provenance(self, video: Video) -> dict[str, Any]:
        metadata = video.metadata
        facts = {
            "width": metadata.width,
            "height": metadata.height,
            "pixel_aspect_ratio": str(metadata.pixel_aspect_ratio),
            "duration_seconds": metadata.duration_seconds,
            "average_fps": metadata.average_fps,
            "codec": metadata.codec,
            "num_frames": video.num_frames,
        }
        return json.loads(json.dumps(self.made_with)) | self._identity(video) | facts
