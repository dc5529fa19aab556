"""One job: decoders feed a bounded queue, one network empties it, rows are written as they end.

    rows ─► decoder threads ─► queue ─► batches of one shape ─► network ─► gathered by row ─► files

Each decoder thread reads one video at a time from its own ffmpeg process. The thread
that calls `extract_rows` owns the network, the files and the records, so none of them
needs a lock.
"""

from __future__ import annotations

import logging
import os
import platform
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from videofeatures import __version__
from videofeatures.clips import iter_clips
from videofeatures.gather import Video
from videofeatures.jobs import Job
from videofeatures.network import Network, choose_device, choose_dtype
from videofeatures.plan import PendingRow
from videofeatures.records import Recorder
from videofeatures.settings import Settings
from videofeatures.video import (
    ffmpeg_version,
    iter_frames,
    probe_video,
    resized_size,
)
from videofeatures.weights import identity_of
from videofeatures.writer import Writer, finish_features

BATCH_SIZES = {"cpu": 4, "cuda": 64}
"""On a CPU small batches are the fastest (ResNet-152 on two cores: a batch of 32 is a fifth
slower than one of 4, measured); on a GPU 64, as in the original program."""

MAX_DECODERS = 16
QUEUED_BATCHES = 2
"""Batches that may wait for the network: enough for it never to wait, little memory."""

logger = logging.getLogger(__name__)


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
        writer = Writer(job, made_with, recorder)
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
            video.num_clips += 1
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
            for clip in clips:
                put(clip)
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
