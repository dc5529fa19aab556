"""Checks of whether this machine is ready for a run: a finding for each thing that a run needs."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg import ffmpeg_path, ffmpeg_version, find_codecs
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.hwaccel import check_hwaccel, find_hwaccel
from videofeatures.errors import UserError, VideoError, describe_os_error
from videofeatures.extraction.fetching import files_below
from videofeatures.extraction.scratch import open_scratch
from videofeatures.files import replace_file
from videofeatures.networks import hub
from videofeatures.networks.classifier import find_classifier
from videofeatures.networks.devices import find_devices
from videofeatures.networks.network import Network, choose_device, choose_dtype, open_network
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import (
    SHARED_FOLDER,
    Weights,
    by_hand,
    check_content,
    missing_message,
    prepare_weights,
)
from videofeatures.planning.estimate import Estimate, estimate
from videofeatures.planning.plan import Plan, make_plan
from videofeatures.remote import open_store
from videofeatures.report.thumbnails import contact_sheet
from videofeatures.results import place_in, work_folder
from videofeatures.settings import Settings
from videofeatures.source import Source
from videofeatures.units import describe_bytes, describe_seconds
from videofeatures.urls import is_url, local_paths, scheme_of

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "wmv3")
"""Codecs of nearly all videos of the web and of cameras."""

CHECK_NAME = ".videofeatures-check"
MAX_FRAMES_SHOWN = 8
MAX_VIDEOS_TRIED = 20
MAX_FOLDERS_TRIED = 50
URL_TIMEOUT_SECONDS = 5
LITTLE_MEMORY_BYTES = 3e9
"""A job of the large networks takes up to 1.3 GB, and some 0.3 GB a decoder (measured)."""


class Finding(NamedTuple):
    """The result of one check, and, if a run would not do well, what to do."""

    is_ok: bool
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.is_ok else 'FIX':<5}{self.subject:<14}{self.text}"


def check_all(config: dict[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each thing that a run of this configuration needs, the quick first."""
    yield _guarded("ffmpeg", check_ffmpeg)
    try:
        plan = make_plan(config)
    except UserError as error:
        yield Finding(False, "input", str(error))
        return
    except OSError as error:
        yield Finding(False, "input", describe_os_error(error))
        return
    expected = estimate(plan.not_done, plan.config, plan.look)
    yield check_rows(plan, expected)
    if urls := [row.source.path for row in plan.rows if is_url(row.source.path)]:
        yield _guarded("elsewhere", lambda: check_elsewhere(urls, plan))
    paths = local_paths(path for row in plan.rows for path in row.feature_paths)
    folders = sorted({os.path.dirname(path) or "." for path in paths})
    results = plan.config.results
    yield _guarded("folders", lambda: check_folders([*folders, str(work_folder(results))]))
    if is_url(results):
        yield _guarded("results", lambda: check_bucket(results))
    yield _guarded("disk", lambda: check_disk(folders, plan.recipes, expected))
    yield _guarded("device", lambda: check_device(plan.config))
    if plan.config.hwaccel != "none":
        yield _guarded("decoding", lambda: check_decoding(plan.config.hwaccel))
    for weights in plan.weights:
        yield _guarded("weights", partial(check_weights, weights))
    for recipe in plan.recipes:
        if os.path.exists(recipe.weights_path):
            yield _guarded("a video", partial(check_video, plan, recipe))


def _guarded(subject: str, check: Callable[[], Finding]) -> Finding:
    """Return the finding of a check, also if it raises: it must not end the others."""
    try:
        return check()
    except UserError as error:
        return Finding(False, subject, str(error))
    except OSError as error:
        return Finding(False, subject, describe_os_error(error))
    except Exception as error:
        return Finding(False, subject, f"{type(error).__name__}: {error}")


def check_ffmpeg() -> Finding:
    """Check that ffmpeg runs, and decodes what videos are made of.

    Raises:
        UserError: there is none that runs.
    """
    text = f"{ffmpeg_version()} ({ffmpeg_path()})"
    decoded = find_codecs()
    if missing := [codec for codec in CODECS if codec not in decoded]:
        text += f" cannot decode {', '.join(missing)}. Name another one with IMAGEIO_FFMPEG_EXE"
        return Finding(False, "ffmpeg", text)
    return Finding(True, "ffmpeg", f"{text}; decodes {', '.join(CODECS)} and others")


def check_rows(plan: Plan, expected: Estimate) -> Finding:
    """Check that there are rows, and that their videos are there."""
    rows, pending = plan.rows, plan.not_done
    of_rows = f"{plan.num_files:,} feature files, " if len(plan.recipes) > 1 else ""
    num_done = plan.num_files - len(pending)
    text = f"{plan.config.videos}: {len(rows):,} rows, {of_rows}{num_done:,} done"
    if not rows:
        return Finding(False, "videos", f"{text}. Write rows, or make them with make_csv.py")
    if not pending:
        return Finding(True, "videos", text)
    text += f", {len(pending):,} pending: {expected}"
    if expected.num_seen and expected.num_missing == expected.num_seen:
        return Finding(False, "videos", f"{text}. Are the paths those of this machine?")
    return Finding(True, "videos", text)


def check_elsewhere(urls: Sequence[str], plan: Plan) -> Finding:
    """Check that a video that is not on a disk can be brought, and how fast it comes.

    Raises:
        OSError: there is no scratch folder.
    """
    url = next((url for url in urls if plan.look(url) is not None), None)
    if url is None:
        return Finding(False, "elsewhere", f"none of the {len(urls):,} URLs is there")
    started = time.monotonic()
    try:
        with _brought(Source(url), plan.config) as source:
            seconds = time.monotonic() - started
            num_bytes = os.path.getsize(source.path)
    except VideoError as error:
        return Finding(False, "elsewhere", f"{Source(url)}: {error.reason}")
    text = f"{Source(url)}: {describe_bytes(num_bytes)} came in {describe_seconds(seconds)}"
    return Finding(True, "elsewhere", f"{text} ({describe_bytes(num_bytes / seconds)}/s)")


@contextlib.contextmanager
def _brought(source: Source, settings: Settings) -> Iterator[Source]:
    """Yield a source whose video is on a disk.

    Raises:
        VideoError, OSError: it cannot be brought.
    """
    if not is_url(source.path):
        yield source
        return
    with open_scratch(settings.scratch) as folder:
        files = files_below(folder, settings, Counter([source.path]), threading.Event())
        yield source._replace(path=files.bring(source.path).path)


def check_folders(folders: Sequence[str]) -> Finding:
    """Check that files can be made where features, records and weights go."""
    problems = []
    existing = {_existing(folder) for folder in [*folders, str(SHARED_FOLDER)]}
    for folder in sorted(existing)[:MAX_FOLDERS_TRIED]:
        try:
            with replace_file(folder / CHECK_NAME) as file:
                file.write(b"x")
            (folder / CHECK_NAME).unlink()
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
    if problems:
        text = f"cannot be written: {'; '.join(problems)}. Allow it, or choose others"
        return Finding(False, "folders", text)
    shown = ", ".join(f"{folder}/" for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return Finding(True, "folders", f"{shown}{more} can be written")


def check_bucket(results: str) -> Finding:
    """Check that what a run leaves in a bucket can be written and read there, and how fast.

    Raises:
        UserError: the package for it is not installed.
    """
    url = place_in(results, CHECK_NAME)
    store = open_store(scheme_of(url))
    started = time.monotonic()
    try:
        store.put(url, b"x")
        is_same = store.read(url) == b"x"
    except VideoError as error:
        text = f"{url}: cannot be written and read: {error.reason}. Allow it, or choose another"
        return Finding(False, "results", text)
    seconds = time.monotonic() - started
    with contextlib.suppress(VideoError):  # runs need not remove anything there
        store.remove(url)
    if not is_same:
        text = f"{url}: other bytes came back than were written. Choose another storage for results"
        return Finding(False, "results", text)
    text = f"{results}: written and read in {seconds:.3f} s; each row that is done takes a write"
    return Finding(True, "results", text)


def check_disk(folders: Sequence[str], recipes: Sequence[Recipe], expected: Estimate) -> Finding:
    """Check that there is room for what is pending, on the disk of the first feature folder.

    Raises:
        OSError: the free space is not known.
    """
    folder = Path(folders[0] if folders else ".").absolute()
    free = shutil.disk_usage(_existing(folder)).free
    needed = sum(expected.feature_bytes(recipe) for recipe in recipes)
    text = f"{describe_bytes(free)} free for some {describe_bytes(needed)} of features ({folder})"
    if needed > free:
        text += ". Make room, or write them elsewhere"
    return Finding(needed < free, "disk", text)


def check_device(settings: Settings) -> Finding:
    """Check which device the network will run on, and that its memory is enough.

    Raises:
        UserError: the device cannot be used.
    """
    import torch

    device = choose_device(settings.device)
    dtype = str(choose_dtype(settings.precision, device)).removeprefix("torch.")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        name = torch.cuda.get_device_name(device)
        memory_text = f"{describe_bytes(free)} of {describe_bytes(total)} free"
        text = f"{len(find_devices())} GPUs, the first {name}: {memory_text}; {dtype}"
        return Finding(free > LITTLE_MEMORY_BYTES, "device", text)
    memory = psutil.virtual_memory().available
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpu_text = f"no GPU; the CPU of {platform.node()}, {num_cores} cores"
    text = f"{cpu_text}, {describe_bytes(memory)} free; {dtype}"
    if memory < LITTLE_MEMORY_BYTES:
        text += f". A job may need {describe_bytes(LITTLE_MEMORY_BYTES)}"
    return Finding(memory > LITTLE_MEMORY_BYTES, "device", text)


def check_decoding(hwaccel: str) -> Finding:
    """Check that the device decodes that is to decode.

    Raises:
        UserError: it cannot.
    """
    if hwaccel == "auto":
        kind = find_hwaccel()
        text = "no device decodes here: the CPU does" if kind == "none" else f"{kind}, and the CPU"
        return Finding(True, "decoding", text)
    check_hwaccel(hwaccel)
    return Finding(True, "decoding", f"{hwaccel} has decoded a frame")


def check_weights(weights: Weights) -> Finding:
    """Check that the weights are there, and fit, or can be downloaded.

    Copies what is there to its place.

    Raises:
        UserError, OSError: see `prepare_weights`, `check_content` and `hub.check_origin`.
    """
    if weights.identity is None:
        return Finding(False, "weights", missing_message(weights))
    is_prepared = weights.shared_path.exists()
    if hub.is_origin(weights.origin) and not is_prepared:
        hub.check_origin(weights.origin)
        return Finding(True, "weights", f"{weights.origin} will be fetched by the first run")
    if "://" in weights.origin and not is_prepared:
        request = urllib.request.Request(weights.origin, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS).close()
        except OSError as error:
            reason = getattr(error, "reason", error)
            text = f"{weights.origin}: cannot be reached from here ({reason}). "
            return Finding(False, "weights", text + by_hand(weights.backbone, weights.origin))
        return Finding(True, "weights", f"{weights.origin} will be downloaded by the first run")
    path = prepare_weights(weights)
    check_content(path)
    return Finding(True, "weights", f"{path}, which fits; SHA-256 {weights.identity}…")


def check_video(plan: Plan, recipe: Recipe) -> Finding:
    """Check that a video can be decoded, the first that can, and that its features are finite.

    Leaves `check.jpg` in the `work_folder` of the results, or `check-NAME.jpg` of one of several
    recipes: what its network saw.

    Raises:
        UserError: the device or the weights cannot be used.
        OSError: the picture cannot be written.
    """
    failures = []
    settings = plan.config
    decoder = FfmpegDecoder(settings)
    present = (row.source for row in plan.rows if plan.look(row.source.path) is not None)
    for source in islice(present, MAX_VIDEOS_TRIED):
        started = time.monotonic()
        try:
            with _brought(source, settings) as on_disk:
                decoding = Decoding(
                    decoder,
                    on_disk,
                    recipe.view,
                    truncated=settings.truncated,
                    damaged=settings.damaged,
                )
                with contextlib.closing(decoding.clips()) as clips:
                    pixels = list(islice(clips, MAX_FRAMES_SHOWN))
        except VideoError as error:
            failures.append(f"{source}: {error}")
            continue
        assert decoding.metadata is not None  # frames came of it
        seconds = time.monotonic() - started
        network = open_network(recipe, settings)
        features, rate = _measure(network, pixels)
        classifier = find_classifier(recipe)
        predictions = classifier.predict(features) if classifier else []
        captions = [best.name for (best,) in predictions]
        of_which = f"-{recipe.name}" if len(plan.recipes) > 1 else ""
        path = work_folder(settings.results) / f"check{of_which}.jpg"
        with replace_file(path) as file:
            contact_sheet(pixels, captions).save(file, "JPEG")
        class_text = f", {captions[0]} to the network" if captions else ""
        kind = "clips" if recipe.view.num_frames_per_clip else "frames"
        text = (
            f"{source}: {_describe(decoding.metadata)}{of_which.replace('-', ' for ', 1)}"
            f"{class_text}. {len(pixels)} {kind} "
            f"decoded in {seconds:.1f} s, the network does {rate:.3g} a second; see {path}"
        )
        return Finding(bool(np.isfinite(features).all()), "a video", text)
    return Finding(False, "a video", "; ".join(failures) or "none of the CSV is there")


def _measure(network: Network, pixels: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the features of frames or clips, and how many of these a second takes."""
    size = network.batch_sizes[0]
    network.features(np.stack(pixels[:size]))  # what is done once is no measure
    started = time.monotonic()
    parts = [pixels[k : k + size] for k in range(0, len(pixels), size)]
    features = np.concatenate([network.features(np.stack(part)) for part in parts])
    return features, len(pixels) / (time.monotonic() - started)


def _describe(metadata: VideoMetadata) -> str:
    seconds = metadata.duration_seconds
    length = describe_seconds(seconds) if seconds else "length unknown"
    fps = f", {metadata.average_fps:.4g} frames/s" if metadata.average_fps else ""
    return f"{metadata.width}×{metadata.height}, {metadata.codec}{fps}, {length}"


def _existing(folder: str | os.PathLike) -> Path:
    """Return a folder, or, if it is not there yet, the one that it will be made in."""
    path = Path(folder)
    return next(p for p in (path, *path.absolute().parents) if p.exists())
