"""How fast one GPU is, with the limits side by side: what a job waits for, and how to feed it.

    network   the network alone, from memory: eager as jobs run it, by torch.compile, in CUDA graphs
    decode    ffmpeg alone, by the CPU and by the device (NVDEC), so many videos at a time
    jobs      whole jobs: decoded by the CPU, by the device, by both

and what follows from these: how many cores keep the GPU busy, how many videos the device decodes
best at a time, and whether a compiled network pays for its start-up in a job.

Weights are random, videos are made here: it needs neither a network connection nor Snakemake.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import imageio_ffmpeg
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.hwaccel import Accelerator, find_problem
from videofeatures.decoding.told import Told
from videofeatures.extraction.pipeline import run_job
from videofeatures.networks.backbones import BACKBONES
from videofeatures.networks.network import Network, choose_dtype
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import find_weights, prepare_weights
from videofeatures.planning.jobs import Job
from videofeatures.planning.plan import MISSING, Target
from videofeatures.records import read_records
from videofeatures.settings import Settings
from videofeatures.source import Source

Row = dict[str, Any]

NO_GPU = "No GPU: torch finds no CUDA device here, and there is nothing to measure."


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        shapes: of a frame or clip, by backbone.
        seconds: that each rate is measured for, at least.
        batch_size: of the network; None for that of a job.
        video: its size, and its length in seconds.
        num_videos: of a job.
        at_a_time: numbers of videos that a device decodes at a time.
        compiler: of `torch.compile`.
    """

    shapes: dict[str, tuple[int, ...]]
    seconds: float
    batch_size: int | None
    video: tuple[str, int]
    num_videos: int
    at_a_time: tuple[int, ...]
    compiler: str = "inductor"


WHOLE = Size(
    {"resnet152": (224, 398, 3), "resnext101": (16, 112, 112, 3)},
    10,
    None,
    ("1280x720", 60),
    64,
    (1, 2, 4, 7, 8, 14, 20, 28),
)
TINY = Size({"efficientnet_lite0": (224, 224, 3)}, 0.1, 2, ("320x240", 2), 2, (1, 2), "eager")
"""To see that all of this works; what really compiles takes a minute on a CPU."""


# --- the network alone


def _graphed(
    module: torch.nn.Module, batch: torch.Tensor, size: Size
) -> Callable[[torch.Tensor], Any]:
    """Return a network as a graph of kernels, which is started at one go, for one shape."""
    given = batch.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # what is done once must not be in the graph
        for _ in range(3):
            module(given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = module(given)

    def run(new: torch.Tensor) -> torch.Tensor:
        given.copy_(new)
        graph.replay()
        return result

    return run


Mode = Callable[[torch.nn.Module, torch.Tensor, Size], Callable[[torch.Tensor], Any]]

MODES: dict[str, Mode] = {
    "eager": lambda module, _, __: module,
    "torch.compile": lambda module, _, size: torch.compile(module, backend=size.compiler),
    "CUDA graphs": _graphed,
}


@torch.inference_mode()
def measure_network(name: str, mode: str, device: torch.device, size: Size) -> Row:
    """Return the rate of a network on what is on the device by then, in frames or clips a
    second."""
    dtype = choose_dtype("auto", device)
    weights = prepare_weights(find_weights(name, "random"))
    network = Network(BACKBONES[name], weights, device=device, dtype=dtype)
    number = size.batch_size or network.batch_sizes[0]
    batch = torch.zeros((number, *size.shapes[name]), device=device, dtype=dtype).movedim(-1, 1)
    row: Row = {"backbone": name, "what": mode, "dtype": str(dtype).removeprefix("torch.")}
    row |= {"batch_size": number, "rate": 0.0, "startup_seconds": 0.0, "problem": ""}
    started = time.monotonic()
    try:
        forward = MODES[mode](network.module, batch, size)
        forward(batch)
        _synchronize(device)
        row["startup_seconds"] = time.monotonic() - started
        count, started = 0, time.monotonic()
        while (seconds := time.monotonic() - started) < size.seconds or not count:
            for _ in range(4):
                forward(batch)
            _synchronize(device)
            count += 4 * number
        row["rate"] = count / seconds if seconds else 0.0
    except Exception as error:  # a compiler is missing, say: the others are measured all the same
        row["problem"] = f"{type(error).__name__}: {error}".splitlines()[0][:80]
    return row


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --- decoding alone


def make_videos(folder: Path, size: Size) -> list[Path]:
    """Return videos of x264's defaults, moving all over: the same picture, in files of their own.

    Raises:
        subprocess.CalledProcessError: ffmpeg cannot make them.
    """
    pixels, seconds = size.video
    first = folder / "0.mp4"
    source = f"testsrc2=s={pixels}:r=30:d={seconds}"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-f", "lavfi"]
    # Noise, since a drawn picture is decoded too easily.
    command += ["-i", source, "-vf", "noise=alls=12:allf=t", "-c:v", "libx264", "-preset", "fast"]
    command += ["-pix_fmt", "yuv420p", str(first)]
    subprocess.run(command, check=True)
    others = [folder / f"{k}.mp4" for k in range(1, size.num_videos)]
    for path in others:
        os.link(first, path)
    return [first, *others]


def measure_decoding(
    videos: list[Path], name: str, kind: str, at_a_time: int, seconds: float
) -> Row:
    """Return how much video is decoded for a backbone in a second, and what it takes of the CPU."""
    settings = Settings(backbone=name)
    view = BACKBONES[name].view
    failures: list[str] = []

    def decode(path: Path) -> None:
        source, told = Source(str(path)), Told()
        metadata = decoder.probe(source)
        deque(decoder.frames(source, metadata, [view], [told]), maxlen=0)
        if told.damage.fallback:
            failures.append(told.damage.fallback)

    number = 0
    before, started = os.times(), time.monotonic()
    with (
        FfmpegDecoder(settings, accelerator=Accelerator(kind, index=_index(kind))) as decoder,
        ThreadPoolExecutor(at_a_time) as pool,
    ):
        length = decoder.probe(Source(str(videos[0]))).duration_seconds or 0.0
        while (elapsed := time.monotonic() - started) < seconds or not number:
            # Each gets two, so that the last one of a round waits for few.
            several = [videos[k % len(videos)] for k in range(2 * at_a_time)]
            deque(pool.map(decode, several), maxlen=0)
            number += len(several)
        elapsed = time.monotonic() - started
    after = os.times()  # with its workers, that have ended
    cpu_seconds = sum(after[:4]) - sum(before[:4])
    return {
        "backbone": name,
        "where": "CPU" if kind == "none" else "device",
        "at_a_time": at_a_time,
        "video_seconds_per_second": number * length / elapsed,
        "cores": cpu_seconds / elapsed,
        "fallbacks": len(failures),
    }


def _index(kind: str) -> int | None:
    return torch.cuda.current_device() if kind == "cuda" and torch.cuda.is_available() else None


# --- both


def measure_job(
    videos: list[Path],
    name: str,
    hwaccel: str,
    device: torch.device,
    num_threads: int,
    folder: Path,
) -> Row:
    """Return what a whole job does in a second: decoding, the network, and all beside."""
    settings = Settings.model_validate(
        {"backbone": name, "hwaccel": hwaccel, "device": device.type, "decoders": None}
    )
    weights = prepare_weights(find_weights(name, "random"))
    recipe = Recipe.from_settings(settings, str(weights))
    targets = tuple(
        Target(Source(str(path)), str(folder / hwaccel / f"{path.stem}.npy"), False, MISSING)
        for path in videos
    )
    results = folder / f"results-{hwaccel}"
    job = Job(f"gpu_{hwaccel}", settings, (recipe,), str(results), targets)
    before, started = os.times(), time.monotonic()
    num_failed = run_job(job, num_threads=num_threads)
    elapsed, after = time.monotonic() - started, os.times()
    done = [r for r in read_records(results).last.values() if r.status == "done"]
    return {
        "backbone": name,
        "hwaccel": hwaccel,
        "video_seconds_per_second": sum(r.duration_seconds or 0.0 for r in done) / elapsed,
        "features_per_second": sum(r.num_features or 0 for r in done) / elapsed,
        "cores": (sum(after[:4]) - sum(before[:4])) / elapsed,
        "fallbacks": sum(bool(r.fallback) for r in done),
        "failed": num_failed,
    }


# --- all of it


def measure(size: Size, device: torch.device, num_threads: int) -> dict[str, list[Row]]:
    """Return all figures: the rows of each table. Works in the working directory."""
    kind = "cuda"
    problem = find_problem(kind, _index(kind))
    found: dict[str, list[Row]] = {"network": [], "decode": [], "jobs": []}
    with tempfile.TemporaryDirectory(prefix="gpu-", dir=".") as temporary:
        folder = Path(temporary).resolve()
        videos = make_videos(folder, size)
        for name in size.shapes:
            found["network"] += [measure_network(name, mode, device, size) for mode in MODES]
            runs = [("none", num_threads)]
            runs += [] if problem else [(kind, number) for number in size.at_a_time]
            for where, at_a_time in runs:
                row = measure_decoding(videos, name, where, at_a_time, size.seconds)
                found["decode"].append(row)
            for hwaccel in ("none",) if problem else ("none", kind, "auto"):
                jobs_folder = folder / name
                row = measure_job(videos, name, hwaccel, device, num_threads, jobs_folder)
                found["jobs"].append(row)
    if problem:
        found["decode"].append({"where": "device", "problem": problem})
    return found


def describe(found: dict[str, list[Row]]) -> str:
    """Return the tables in Markdown, and what follows from them."""
    lines = [
        "| backbone | network alone | dtype | batch | a second | start-up, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["network"]:
        rate = row["problem"] or f"{row['rate']:.1f}"
        lines.append(
            f"| {row['backbone']} | {row['what']} | {row['dtype']} | {row['batch_size']} | {rate} "
            f"| {row['startup_seconds']:.1f} |"
        )
    lines += [
        "",
        "| backbone | decoding alone | at a time | video-seconds a second | cores | fell back |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['backbone']} | {row['where']} | {row['at_a_time']} "
        f"| {row['video_seconds_per_second']:.1f} | {row['cores']:.2f} | {row['fallbacks']} |"
        for row in found["decode"]
        if "problem" not in row
    ]
    lines += [
        "",
        "| backbone | job, `hwaccel` | video-seconds a second | features a second | cores "
        "| fell back | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['backbone']} | {row['hwaccel']} | {row['video_seconds_per_second']:.1f} "
        f"| {row['features_per_second']:.1f} | {row['cores']:.2f} | {row['fallbacks']} "
        f"| {row['failed']} |"
        for row in found["jobs"]
    ]
    return "\n".join([*lines, "", *_conclusions(found), ""])


def _conclusions(found: dict[str, list[Row]]) -> list[str]:
    said = [
        f"The device decodes nothing: {row['problem']}."
        for row in found["decode"]
        if "problem" in row
    ]
    for name in dict.fromkeys(row["backbone"] for row in found["network"]):
        modes = [row for row in found["network"] if row["backbone"] == name and row["rate"]]
        decoded = [row for row in found["decode"] if row.get("backbone") == name]
        view = BACKBONES[name].view
        seconds_each = view.windows.stride / (view.constant_rate or 1)
        needed = modes[0]["rate"] * seconds_each
        on_cpu = next(row for row in decoded if row["where"] == "CPU")
        each_core = on_cpu["video_seconds_per_second"] / max(on_cpu["cores"], 1e-9)
        said.append(
            f"{name}: the network alone takes {needed:,.0f} video-seconds a second, and one core "
            f"decodes {each_core:.1f}: {needed / each_core:.1f} cores keep it busy."
        )
        on_device = [row for row in decoded if row["where"] == "device"]
        if on_device:
            best = max(on_device, key=lambda row: row["video_seconds_per_second"])
            said.append(
                f"{name}: the device decodes best with {best['at_a_time']} videos at a time: "
                f"{best['video_seconds_per_second']:.0f} video-seconds a second, "
                f"{best['video_seconds_per_second'] / needed:.0%} of what the network takes."
            )
        said += [_pays(name, modes[0], row) for row in modes[1:]]
    return said


def _pays(name: str, eager: Row, other: Row) -> str:
    """Return after how many frames or clips another mode has made up for its start-up."""
    text = f"{name}: {other['what']} is {other['rate'] / eager['rate']:.2f} times as fast as eager"
    saved = 1 / eager["rate"] - 1 / other["rate"]
    if saved <= 0:
        return f"{text}."
    more = max(other["startup_seconds"] - eager["startup_seconds"], 0)
    return f"{text}, and has made up for its start-up after {more / saved:,.0f} of each shape."


def main() -> None:
    """Print the tables and leave them in a folder; say so where there is no GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder for results")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    # To run all of it where there is no GPU.
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU)
        return
    device = torch.device(args.device)
    found = measure(TINY if args.tiny else WHOLE, device, args.threads)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    text = f"{name}, {args.threads} cores, torch {torch.__version__}\n\n{describe(found)}"
    args.output.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        (args.output / "gpu.json").write_text(json.dumps(found, indent=1))
        (args.output / "gpu.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
