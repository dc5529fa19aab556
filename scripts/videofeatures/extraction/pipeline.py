"""One job: decoders feed a bounded queue, one network empties it, rows are written as they end.

    rows ─► decoder threads ─► queue ─► batches of one shape ─► network ─► gathered by row ─► files

The thread that calls `extract_rows` owns the network, the files and the records, so none of
them needs a lock. torch is imported, and the network loaded, while the first videos are
decoded.
"""

from __future__ import annotations

import gc
import logging
import os
import platform
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from videofeatures import __version__
from videofeatures.decoding.frames import ffmpeg_version
from videofeatures.extraction.batching import Batcher
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.decoders import Clip, Decoders, SharedRows
from videofeatures.extraction.row_state import RowState
from videofeatures.extraction.timing import Timing
from videofeatures.extraction.writer import Writer
from videofeatures.monitoring.progress import Display, Progress
from videofeatures.networks.devices import Device, find_devices, hold_device
from videofeatures.networks.weights import identity_of
from videofeatures.planning.jobs import Job
from videofeatures.records import Recorder

if TYPE_CHECKING:
    from videofeatures.networks.network import Network

MAX_DECODERS = 16
DONE_BY_OTHERS = "%d rows were done by others meanwhile"

logger = logging.getLogger(__name__)


def extract_rows(job: Job, *, num_threads: int, display: Display | None = None) -> int:
    """Do a job's rows; a row that exists by now is kept.

    Args:
        num_threads: CPU threads for decoding and, without a GPU, for the network.
        display: where to show how far it is; the log by default.

    Returns:
        How many rows failed. Each has a record and a line in the log.

    Raises:
        UserError: the weights do not fit the backbone, or a disk is full.
    """
    rows = [row for row in job.rows if not row.is_done]
    num_elsewhere = len(job.rows) - len(rows)
    if not rows:
        logger.info(DONE_BY_OTHERS, num_elsewhere)
        return 0
    progress = Progress(len(job.rows))
    display = display or Display(logger.info)
    timing = Timing()
    num_decoders = min(job.settings.decoders or min(num_threads, MAX_DECODERS), len(rows))
    claims = Claims(job.settings.claim_timeout_seconds)
    decoders = Decoders(
        SharedRows(rows, claims),
        job.settings,
        num_decoders=num_decoders,
        num_threads=max(1, num_threads // num_decoders),
    )
    devices = [] if job.settings.device == "cpu" else find_devices()
    # The device first: who waits for one must not hold rows, which its holder may wait for.
    with hold_device(devices) as held, ThreadPoolExecutor(1) as background, claims, decoders:
        ffmpeg = background.submit(ffmpeg_version)
        network, batch_size = _load_network(job, held, num_threads)
        batcher = Batcher(network, batch_size, job.settings, timing)
        facts = _describe_process(job, network, held, ffmpeg.result())
        with Recorder(job.results, job.name, facts) as recorder:
            writer = Writer(job, facts, recorder)

            def leave_to_others(num_rows: int) -> None:
                recorder.note("elsewhere", num_rows=num_rows)
                progress.add(elsewhere=num_rows)

            if num_elsewhere:
                leave_to_others(num_elsewhere)
            while progress.num_ended < len(job.rows):
                for video in _step(decoders, batcher, writer, timing):
                    if video.done_by_others:
                        leave_to_others(1)
                        continue
                    if writer.finish(video):
                        progress.add(done=1, video_seconds=video.duration_seconds)
                    else:
                        progress.add(failed=1)
                    claims.release(video.row.feature_path)
                display.update(progress)
            timing.video_seconds = progress.video_seconds
            recorder.note("end", **timing.summary(), batch_size=batcher.batch_size)
    display.clear()
    if progress.num_elsewhere:
        logger.info(DONE_BY_OTHERS, progress.num_elsewhere)
    logger.info("%s", timing)
    return progress.num_failed


def _load_network(job: Job, held: Device | None, num_threads: int) -> tuple[Network, int]:
    gc.disable()  # looking for garbage is a fifth of the time of importing torch (measured)
    try:
        import torch

        from videofeatures.networks.network import (
            Network,
            choose_batch_size,
            choose_device,
            choose_dtype,
            is_slow,
        )

        torch.set_num_threads(num_threads)
        settings = job.settings
        device = choose_device(settings.device, held.index if held else 0)
        dtype = choose_dtype(settings.precision, device)
        if is_slow(dtype, device):
            logger.warning(
                "this CPU has no instructions for %s: it will be much slower than float32",
                settings.precision,
            )
        network = Network(settings.resolve_backbone(), job.weights_path, device=device, dtype=dtype)
        return network, settings.batch_size or choose_batch_size(device, dtype)
    finally:
        gc.enable()


def _describe_process(
    job: Job, network: Network, held: Device | None, ffmpeg: str
) -> dict[str, Any]:
    return {
        "program": f"videofeatures {__version__}",
        "settings": job.settings.numerics(),
        "digest": job.settings.digest(),
        "weights": identity_of(job.weights_path),
        "dtype": str(network.dtype).removeprefix("torch."),
        "device": network.device_name,
        "device_uuid": held.uuid if held else None,
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "host": platform.node(),
        "ffmpeg": ffmpeg,
        "torch": version("torch"),
    }


def _step(
    decoders: Decoders, batcher: Batcher, writer: Writer, timing: Timing
) -> Iterator[RowState]:
    """Take one thing from the decoders; yields the videos of which nothing more will come."""
    try:
        event = decoders.get(block=False)
    except queue.Empty:
        if videos := list(batcher.flush()):
            yield from videos
            return
        with timing.idle():
            event = decoders.get(block=True)
    writer.begin(event.video)
    if isinstance(event, Clip):
        yield from batcher.add(event)
    else:
        yield from batcher.end(event.video)
