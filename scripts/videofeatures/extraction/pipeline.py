"""One job: decoders feed a bounded queue, networks empty it, files are written as videos end.

    targets ─► decoder threads ─► events ─► batches of one shape ─► network ─► states ─► files

The thread that calls `run_job` owns the networks, the states, the files and the records, so none
of them needs a lock. torch is imported, and the network loaded, while the first videos are
decoded.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import platform
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from videofeatures import __version__
from videofeatures.decoding.decoder import Decoder
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.hwaccel import Accelerator, check_hwaccel, find_hwaccel
from videofeatures.errors import UserError, describe_os_error
from videofeatures.extraction.batching import Batcher
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.decoders import Decoders, SharedTargets, Targets
from videofeatures.extraction.events import Begun, Clip, Event, Failed, Repeated
from videofeatures.extraction.fetching import Fetcher, count_uses, files_below, needs_fetching
from videofeatures.extraction.scratch import open_scratch
from videofeatures.extraction.shares import Shares
from videofeatures.extraction.split import split_decoders
from videofeatures.extraction.target_state import TargetState
from videofeatures.extraction.timing import Timing
from videofeatures.extraction.uploads import Uploads
from videofeatures.extraction.writer import Outcome, Upload, Writer
from videofeatures.listing import look_at_all
from videofeatures.monitoring.progress import Display, Progress
from videofeatures.networks.devices import Device, find_devices, hold_device
from videofeatures.networks.recipe import Recipe
from videofeatures.planning.jobs import Job, plan_folder
from videofeatures.records import (
    DeviceLine,
    ElsewhereLine,
    EndLine,
    ProcessLine,
    Recorder,
    WorkingLine,
)
from videofeatures.settings import Settings

if TYPE_CHECKING:
    from videofeatures.networks.network import Network

WAIT_SECONDS = 1
"""For an event, before a look at what others have done meanwhile."""

WORKING_SECONDS = 60
WORKING_GROWTH = 1.1
"""A video in work is told of in the records after a minute, and then each time it has been in work
for a tenth longer: a hundred times in ten days."""

DONE_BY_OTHERS = "%d rows were done by others meanwhile"

logger = logging.getLogger(__name__)


def run_job(job: Job, *, num_threads: int, display: Display | None = None) -> int:
    """Make a job's feature files; one that is there by now is kept.

    Args:
        num_threads: CPU threads for decoding and, without a GPU, for the network.
        display: where to show how far it is; the log by default.

    Returns:
        How many rows failed. Each has a record and a line in the log.

    Raises:
        UserError: the weights do not fit the backbone, or a disk is full.
    """
    look = look_at_all(target.feature_path for target in job.targets)
    num_left = sum(not target.is_done_by(look) for target in job.targets)
    if not num_left:
        logger.info(DONE_BY_OTHERS, len(job.targets))
        return 0
    num_videos = min(num_left, job.num_videos)
    timing = Timing()
    settings = job.settings
    stopped = threading.Event()
    claims = Claims(settings.claim_timeout_seconds, plan_folder(job.results))
    targets = SharedTargets(job.targets, claims)
    shares = Shares(job.targets)
    devices = [] if settings.device == "cpu" else find_devices()
    # The device first: who waits for one must not hold rows, which its holder may wait for.
    with (
        hold_device(devices) as held,
        ThreadPoolExecutor(1) as background,
        claims,
        _open_decoder(settings, held, num_threads, num_videos, stopped) as (decoder, num_decoders),
        Recorder(job.results, job.name) as recorder,
        contextlib.ExitStack() as stack,
    ):
        scratch = None
        if needs_fetching(job.targets):
            scratch = stack.enter_context(_open_scratch(settings))
        ffmpeg = background.submit(decoder.version)
        made_with = [_describe_process(job, recipe) for recipe in job.recipes]
        for line in made_with:
            recorder.write(line)
        uploads: Uploads[Upload] | None = None
        on_disk: Targets = targets
        if scratch is not None:
            uploads = stack.enter_context(Uploads(scratch))
            files = files_below(scratch, settings, count_uses(job.targets), stopped)
            fetcher = Fetcher(targets, files, num_ahead=num_decoders, stopped=stopped)
            on_disk = stack.enter_context(fetcher)
        writer = Writer(job.recipes, made_with, recorder, uploads)
        decoders = Decoders(
            on_disk,
            job.recipes,
            decoder,
            num_decoders=num_decoders,
            num_threads=num_threads,
            shares=shares,
            truncated=settings.truncated,
            damaged=settings.damaged,
            begin=writer.begin,
            stopped=stopped,
        )
        with _stop_is_recorded(recorder), decoders:
            networks = _load_networks(job, held, num_threads)
            writer.compute_on(_describe_device(networks[0], held, ffmpeg.result()))
            run = _Extraction(
                job,
                targets,
                decoders,
                networks,
                writer,
                recorder,
                claims,
                shares,
                timing,
                display or Display(logger.info),
            )
            return run.run()


@contextlib.contextmanager
def _open_scratch(settings: Settings) -> Iterator[Path]:
    """Make a folder for what is on its way to or from a bucket.

    Raises:
        UserError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(open_scratch(settings.scratch))
        except OSError as error:
            raise UserError(
                f"{describe_os_error(error)}: nothing can be brought there. Name another folder "
                "with `scratch`"
            ) from None
        yield folder


@contextlib.contextmanager
def _open_decoder(
    settings: Settings,
    held: Device | None,
    num_threads: int,
    num_videos: int,
    stopped: threading.Event,
) -> Iterator[tuple[Decoder, int]]:
    """Open the decoder; yield it, and how many videos it decodes at a time.

    Raises:
        UserError: a device is to decode that cannot.
    """
    kind: str = settings.hwaccel
    index = held.index if held else None
    if kind == "auto":
        kind = find_hwaccel(stopped)
    elif kind != "none":
        check_hwaccel(kind, index)
    split = split_decoders(
        settings, has_device=kind != "none", num_threads=num_threads, num_videos=num_videos
    )
    if split.num_on_device:
        logger.info("%s decodes up to %d videos at a time, of %d", kind, *reversed(split))
    accelerator = Accelerator(
        kind,
        index=index,
        num_videos=split.num_on_device,
        is_shared=settings.hwaccel == "auto",
        stopped=stopped,
    )
    with FfmpegDecoder(settings, stopped=stopped, accelerator=accelerator) as decoder:
        yield decoder, split.num_decoders


@contextlib.contextmanager
def _stop_is_recorded(recorder: Recorder) -> Iterator[None]:
    """Record that this process ends with an error that it knows of: no row has brought it down."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(UserError):  # records are what cannot be written, it may be
            recorder.write({"time": time.time(), "status": "stopped"})
        raise


class _Extraction:
    """The loop of one job: it takes events, and owns all that becomes of them."""

    def __init__(
        self,
        job: Job,
        targets: SharedTargets,
        decoders: Decoders,
        networks: Sequence[Network],
        writer: Writer,
        recorder: Recorder,
        claims: Claims,
        shares: Shares,
        timing: Timing,
        display: Display,
    ):
        self._targets = targets
        self._decoders = decoders
        self._writer = writer
        self._recorder = recorder
        self._claims = claims
        self._display = display
        self._progress = Progress(len(job.targets), unit=job.progress_unit)
        self._shares = shares
        self._progress.total_bytes = shares.num_bytes
        self._next_look = 0.0
        self._timing = timing
        self._batchers = [
            Batcher(network, network.batch_sizes, recipe, self._timing)
            for recipe, network in zip(job.recipes, networks, strict=True)
        ]
        self._states: dict[str, TargetState] = {}
        self._num_written_by_others = 0

    def run(self) -> int:
        """Do all targets; return how many failed."""
        while not self._decoders.has_ended:
            event = self._decoders.get()
            if event is None and not self._finish(self._flush()):
                with self._timing.idle():
                    event = self._decoders.get(timeout_seconds=WAIT_SECONDS)
            self._take_uploaded()
            self._count_elsewhere()
            if event is not None:
                self._finish(self._take(event))
            self._tell_shares()
            self._display.update(self._progress)
        self._finish(self._flush())
        self._take_uploaded(all_of_them=True)
        self._decoders.end_processes()
        progress, timing = self._progress, self._timing
        timing.video_seconds = progress.video_seconds
        end = EndLine(
            time=time.time(),
            status="end",
            batch_size=self._batchers[0].batch_size,
            **timing.summary(),
        )
        self._recorder.write(end)
        self._display.clear()
        if progress.num_elsewhere:
            logger.info(DONE_BY_OTHERS, progress.num_elsewhere)
        if progress.num_fallbacks:
            logger.warning(
                "%d videos were decoded on the CPU, not on the device: the column `fallback` of "
                "the manifest says why",
                progress.num_fallbacks,
            )
        logger.info("%s", timing)
        return progress.num_failed

    def _take(self, event: Event) -> Iterator[TargetState]:
        """Take an event; yield the states that it changed."""
        state = self._states.get(event.target.feature_path)
        if state is None:
            state = self._states[event.target.feature_path] = TargetState(event.target)
        if isinstance(event, Begun):
            state.begun = event
        elif isinstance(event, Clip):
            state.share = event.share
            yield from self._batchers[event.target.recipe].add(state, event.number, event.pixels)
        elif isinstance(event, Repeated):
            self._states[event.target.feature_path] = state.anew()
        else:
            state.decoded = event.decoded
            self._timing.num_repeated += event.decoded.is_repeated
            if isinstance(event, Failed):
                state.error = state.error or event.error
            yield state

    def _flush(self) -> Iterator[TargetState]:
        for batcher in self._batchers:
            yield from batcher.flush()

    def _finish(self, states: Iterable[TargetState]) -> bool:
        """Write what is complete of these states; True if there were any."""
        is_any = False
        for state in states:
            is_any = True
            target = state.target
            if self._states.get(target.feature_path) is not state:  # written, or begun anew
                continue
            if state.error is not None and state.decoded is None:
                self._decoders.give_up(target)
            if not state.is_complete:
                continue
            del self._states[target.feature_path]
            self._conclude(state, self._writer.finish(state))
        return is_any

    def _take_uploaded(self, *, all_of_them: bool = False) -> None:
        for state, outcome in self._writer.take_uploaded(all_of_them=all_of_them):
            self._conclude(state, outcome)

    def _conclude(self, state: TargetState, outcome: Outcome) -> None:
        """Count a target, and release its claim, when nothing of it is on its way."""
        if outcome is Outcome.UPLOADING:
            return
        num_bytes = self._shares.num_bytes_of(state.target)
        if outcome is Outcome.ELSEWHERE:
            self._num_written_by_others += 1
            self._progress.add(elsewhere=1)  # its record tells of it
        elif outcome is Outcome.DONE:
            self._progress.add(
                done=1,
                complained=int(state.has_complaints),
                fell_back=int(state.fell_back),
                video_seconds=state.video_seconds,
                num_bytes=num_bytes,
            )
        else:
            self._progress.add(failed=1, num_bytes=num_bytes)
        self._claims.release(state.target.feature_path)

    def _tell_shares(self) -> None:
        """Tell how far the videos in work are; in the records, at growing intervals."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + WAIT_SECONDS
        self._progress.set_working(
            sum(
                state.share * self._shares.num_bytes_of(state.target)
                for state in self._states.values()
            )
        )
        for state in self._states.values():
            elapsed = now - state.started
            if state.share and elapsed >= max(WORKING_SECONDS, WORKING_GROWTH * state.told_seconds):
                state.told_seconds = elapsed
                line: WorkingLine = {
                    "time": time.time(),
                    "status": "working",
                    "feature_path": state.target.feature_path,
                    "share": round(state.share, 4),
                }
                self._recorder.write(line)

    def _count_elsewhere(self) -> None:
        num_new = self._targets.num_elsewhere + self._num_written_by_others
        num_new -= self._progress.num_elsewhere
        if num_new:
            line: ElsewhereLine = {"time": time.time(), "status": "elsewhere", "num_rows": num_new}
            self._recorder.write(line)
            self._progress.add(elsewhere=num_new)


def _load_networks(job: Job, held: Device | None, num_threads: int) -> list[Network]:
    gc.disable()  # looking for garbage is a fifth of the time of importing torch (measured)
    try:
        import torch

        from videofeatures.networks.network import open_network

        torch.set_num_threads(num_threads)
        index = held.index if held else 0
        return [open_network(recipe, job.settings, device_index=index) for recipe in job.recipes]
    finally:
        gc.enable()


def _describe_process(job: Job, recipe: Recipe) -> ProcessLine:
    return {
        "time": time.time(),
        "status": "process",
        "run_number": job.run_number,
        "program": f"videofeatures {__version__}",
        "settings": recipe.numerics,
        "digest": recipe.digest,
        "weights": recipe.weights_id,
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "host": platform.node(),
        "torch": version("torch"),
    }


def _describe_device(network: Network, held: Device | None, ffmpeg: str) -> DeviceLine:
    """Return what a process computes on: all its networks share the device, and the settings."""
    return {
        "time": time.time(),
        "status": "device",
        "dtype": str(network.dtype).removeprefix("torch."),
        "device": network.device_name,
        "device_uuid": held.uuid if held else None,
        "ffmpeg": ffmpeg,
    }
