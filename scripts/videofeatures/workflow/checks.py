"""Whether this machine is ready for a run: one finding for each thing that a run needs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import imageio_ffmpeg
import numpy as np
import psutil

from videofeatures.decoding.frames import ffmpeg_version
from videofeatures.errors import UserError, VideoError
from videofeatures.extraction.decoders import decode_video
from videofeatures.extraction.row_state import RowState
from videofeatures.files import replace_file
from videofeatures.monitoring.progress import describe_bytes, describe_seconds
from videofeatures.networks.classifier import find_classifier
from videofeatures.networks.devices import find_devices
from videofeatures.networks.network import Network, choose_batch_size, choose_device, choose_dtype
from videofeatures.networks.weights import (
    SHARED_FOLDER,
    Weights,
    by_hand,
    find_weights,
    missing_message,
    prepare_weights,
)
from videofeatures.planning.estimate import Estimate, estimate
from videofeatures.planning.plan import PendingRow, find_pending, read_inputs
from videofeatures.planning.rows import Row
from videofeatures.records import read_records
from videofeatures.report.thumbnails import contact_sheet
from videofeatures.settings import Settings

CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "wmv3")
"""What nearly all videos of the web and of cameras are."""

MAX_FRAMES_SHOWN = 8
MAX_VIDEOS_TRIED = 20
MAX_FOLDERS_TRIED = 50
URL_TIMEOUT_SECONDS = 5
LITTLE_MEMORY_BYTES = 3e9
"""A job of the large networks takes up to 1.3 GB, and some 0.3 GB a decoder (measured)."""


class Finding(NamedTuple):
    """What was found of one thing, and, if a run would not do well with it, what to do."""

    is_ok: bool
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{'ok' if self.is_ok else 'FIX':<5}{self.subject:<14}{self.text}"


def check_all(config: dict[str, Any]) -> Iterator[Finding]:
    """Look at everything that a run of this configuration needs, from the quick to the slow."""
    yield _guarded("ffmpeg", check_ffmpeg)
    try:
        settings, rows = read_inputs(config)
        weights = find_weights(config["backbone"], config["weights"])
        pending = find_pending(rows, read_records(config["results"]), settings, weights)
    except UserError as error:
        yield Finding(False, "input", str(error))
        return
    expected = estimate(pending, local_files_only=settings.local_files_only)
    yield check_rows(config["videos"], rows, pending, expected)
    folders = sorted({os.path.dirname(row.feature_path) or "." for row in rows})
    yield _guarded("folders", lambda: check_folders([*folders, config["results"]]))
    yield _guarded("disk", lambda: check_disk(folders, settings, expected))
    yield _guarded("device", lambda: check_device(settings))
    yield _guarded("weights", lambda: check_weights(weights))
    if weights.shared_path.exists():
        yield _guarded("a video", lambda: check_video(config["results"], settings, weights, rows))


def _guarded(subject: str, check: Callable[[], Finding]) -> Finding:
    """One check that cannot end the others."""
    try:
        return check()
    except UserError as error:
        return Finding(False, subject, str(error))
    except Exception as error:
        return Finding(False, subject, f"{type(error).__name__}: {error}")


def check_ffmpeg() -> Finding:
    """ffmpeg runs, and decodes what videos are made of."""
    executable = imageio_ffmpeg.get_ffmpeg_exe()
    command = [executable, "-hide_banner", "-codecs"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    decoded = set(re.findall(r"^ D\S+ (\S+)", told, re.MULTILINE))
    text = f"{ffmpeg_version()} ({executable})"
    if missing := [codec for codec in CODECS if codec not in decoded]:
        text += f" cannot decode {', '.join(missing)}. Name another one with IMAGEIO_FFMPEG_EXE"
        return Finding(False, "ffmpeg", text)
    return Finding(True, "ffmpeg", f"{text}; decodes {', '.join(CODECS)} and others")


def check_rows(
    csv_path: str, rows: Sequence[Row], pending: Sequence[PendingRow], expected: Estimate
) -> Finding:
    """There are rows, and their videos are there."""
    text = f"{csv_path}: {len(rows):,} rows, {len(rows) - len(pending):,} done"
    if not rows:
        return Finding(False, "videos", f"{text}. Write rows, or make them with make_csv.py")
    if not pending:
        return Finding(True, "videos", text)
    text += f", {len(pending):,} pending: {expected}"
    if expected.num_seen and expected.num_missing == expected.num_seen:
        return Finding(False, "videos", f"{text}. Are the paths those of this machine?")
    return Finding(True, "videos", text)


def check_folders(folders: Sequence[str]) -> Finding:
    """Files can be made where features, records and weights go."""
    problems = []
    existing = {_existing(folder) for folder in [*folders, str(SHARED_FOLDER)]}
    for folder in sorted(existing)[:MAX_FOLDERS_TRIED]:
        try:
            with replace_file(folder / ".videofeatures-check") as file:
                file.write(b"x")
            (folder / ".videofeatures-check").unlink()
        except OSError as error:
            problems.append(f"{folder}: {error.strerror}")
    if problems:
        text = f"cannot be written: {'; '.join(problems)}. Allow it, or choose others"
        return Finding(False, "folders", text)
    shown = ", ".join(f"{folder}/" for folder in folders[:3])
    more = f" and {len(folders) - 3} more" if len(folders) > 3 else ""
    return Finding(True, "folders", f"{shown}{more} can be written")


def check_disk(folders: Sequence[str], settings: Settings, expected: Estimate) -> Finding:
    """There is room for what is pending, on the disk of the first feature folder."""
    folder = Path(folders[0] if folders else ".").absolute()
    free = shutil.disk_usage(_existing(folder)).free
    needed = expected.feature_bytes(settings)
    text = f"{describe_bytes(free)} free for some {describe_bytes(needed)} of features ({folder})"
    if needed > free:
        text += ". Make room, or write them elsewhere"
    return Finding(needed < free, "disk", text)


def check_device(settings: Settings) -> Finding:
    """What the network will run on."""
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
    where = f"no GPU; the CPU of {platform.node()}, {num_cores} cores"
    text = f"{where}, {describe_bytes(memory)} free; {dtype}"
    if memory < LITTLE_MEMORY_BYTES:
        text += f". A job may need {describe_bytes(LITTLE_MEMORY_BYTES)}"
    return Finding(memory > LITTLE_MEMORY_BYTES, "device", text)


def check_weights(weights: Weights) -> Finding:
    """The weights are there, and fit; or can be downloaded. Copies what is there to its place."""
    if weights.identity is None:
        return Finding(False, "weights", missing_message(weights))
    if "://" in weights.origin and not weights.shared_path.exists():
        request = urllib.request.Request(weights.origin, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS).close()
        except OSError as error:
            reason = getattr(error, "reason", error)
            text = f"{weights.origin}: cannot be reached from here ({reason}). "
            return Finding(False, "weights", text + by_hand(weights.backbone, weights.origin))
        return Finding(True, "weights", f"{weights.origin} will be downloaded by the first run")
    path = prepare_weights(weights)
    return Finding(True, "weights", f"{path}, which fits; SHA-256 {weights.identity}…")


def check_video(results: str, settings: Settings, weights: Weights, rows: Sequence[Row]) -> Finding:
    """The first video that can be decoded is, and the network sees something in it.

    Leaves `<results>/check.jpg`: what the network saw.
    """
    tried = []
    for row in [row for row in rows if os.path.exists(row.video_path)][:MAX_VIDEOS_TRIED]:
        video = RowState(PendingRow(*row, stale=False, reason=""))
        started = time.monotonic()
        clips = decode_video(video, settings, num_threads=1)
        try:
            pixels = [clip.pixels for clip in islice(clips, MAX_FRAMES_SHOWN)]
        except VideoError as error:
            tried.append(f"{row.video_path}: {error}")
            continue
        finally:
            clips.close()
        decode_seconds = time.monotonic() - started
        return _describe_video(results, settings, weights, video, pixels, decode_seconds)
    return Finding(False, "a video", "; ".join(tried) or "none of the CSV is there")


def _describe_video(
    results: str,
    settings: Settings,
    weights: Weights,
    video: RowState,
    pixels: list[np.ndarray],
    decode_seconds: float,
) -> Finding:
    backbone = settings.resolve_backbone()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.precision, device)
    network = Network(backbone, weights.shared_path, device=device, dtype=dtype)
    size = settings.batch_size or choose_batch_size(device, dtype)
    network.features(np.stack(pixels[:size]))  # what is done once is no measure
    started = time.monotonic()
    parts = [pixels[k : k + size] for k in range(0, len(pixels), size)]
    features = np.concatenate([network.features(np.stack(part)) for part in parts])
    rate = len(pixels) / (time.monotonic() - started)
    path = Path(results) / "check.jpg"
    classifier = find_classifier(backbone, weights)
    guesses = [best.name for (best,) in classifier.guess(features)] if classifier else []
    with replace_file(path) as file:
        contact_sheet(pixels, guesses).save(file, "JPEG")
    facts = video.metadata
    assert facts is not None  # frames came of it
    length = (
        describe_seconds(facts.duration_seconds) if facts.duration_seconds else "length unknown"
    )
    fps = f", {facts.average_fps:.4g} frames/s" if facts.average_fps else ""
    seen = f", {guesses[0]} to the network" if guesses else ""
    what = "clips" if backbone.num_frames_per_clip else "frames"
    text = (
        f"{video.row.video_path}: {facts.width}×{facts.height}, {facts.codec}{fps}, {length}"
        f"{seen}. {len(pixels)} {what} decoded in {decode_seconds:.1f} s, the network does "
        f"{rate:.3g} a second; see {path}"
    )
    return Finding(bool(np.isfinite(features).all()), "a video", text)


def _existing(folder: str | os.PathLike) -> Path:
    """A folder, or, where it is not there yet, the one that it will be made in."""
    path = Path(folder)
    return next(p for p in (path, *path.absolute().parents) if p.exists())
