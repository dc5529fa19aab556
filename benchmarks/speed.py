"""How fast a collection is done, beside what was before and beside what limits it.

For each set of clips and each kind of features, side by side in one run:

    before   the flow of the original program (baseline.py), float32
    ours     scripts/extract.py, in each precision asked for
    decode   the limit: ffmpeg alone, the same filters, as many at a time, into nothing
    network  the limit: the network alone, the same number of frames, from memory

Work is what a process takes after its start-up, which ends with the loaded network (before)
or with the first batch (ours, which decodes while it loads). The limit is what the work
cannot be shorter than: on a CPU, the CPU time of both limits over the cores; with CUDA, the
longer of the two. The last word on a network is what one large convolution reaches on the same
device (`peak GFLOP/s`): where `GFLOP/s` comes near it, nothing is left to be won, and `at most`
is how many times faster than before a job would be that did nothing but compute at that peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from precision import cosines
from precision import measure as measure_precisions
from process import Run, run
from resizing import measure as measure_resizers
from shapes import measure as measure_shapes

from fetch_clips import fetch_clips
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.frames import resized_size
from videofeatures.networks.backbones import BACKBONES, Backbone
from videofeatures.networks.fused import FusedConv, is_onednn_supported
from videofeatures.networks.network import (
    DTYPES,
    Network,
    choose_device,
    choose_dtype,
    is_slow,
)
from videofeatures.networks.weights import find_weights, prepare_weights
from videofeatures.planning.rows import read_rows
from videofeatures.settings import Settings
from videofeatures.source import Source

ROOT = Path(__file__).parents[1]
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
KINDS = {"2d": "resnet152", "3d": "resnext101"}
CPU_INFO = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""


# --- clips


def _encode(source: Path, target: Path, *options: str, seconds: float, start: float = 0) -> Path:
    command = [FFMPEG, "-v", "error", "-nostdin", "-ss", str(start), "-i", source]
    command += ["-t", str(seconds), "-an", *options, target]
    subprocess.run(list(map(str, command)), check=True)
    return target


def _tiny(folder: Path, real: list[Path]) -> list[Path]:
    """Return one clip of a second: to see that all of this works."""
    return [_encode(real[0], folder / "tiny.mp4", seconds=1)]


def _short(folder: Path, real: list[Path]) -> list[Path]:
    """Return thirty clips of 3 s, 640×272."""
    source = next(path for path in real if path.stem == "bikes")
    return [_encode(source, folder / f"{k}.mp4", seconds=3, start=0.2 * k) for k in range(30)]


def _long(folder: Path, real: list[Path]) -> list[Path]:
    """Return 63 s of 1280×720, H.264 as it was downloaded, one piece after the other."""
    source = next(path for path in real if path.stem == "bigbuckbunny")
    target = folder / "long.mp4"
    command = [FFMPEG, "-v", "error", "-nostdin", "-stream_loop", "11", "-i", source]
    subprocess.run([*map(str, command), "-c", "copy", str(target)], check=True)
    return [target]


def _mix(folder: Path, real: list[Path]) -> list[Path]:
    """Return other shapes, lengths, rates and codecs of the same pictures, and the real clips."""
    source = next(path for path in real if path.stem == "bigbuckbunny")
    h264 = ("-c:v", "libx264", "-preset", "veryfast")
    vp9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
    variants = [
        ("portrait.mp4", "scale=360:640", 5, h264),
        ("full-hd.mp4", "scale=1920:1080", 5, h264),
        ("standard.avi", "scale=640:480,fps=30", 4, ("-c:v", "mpeg4", "-q:v", "4")),
        ("square.webm", "scale=400:400", 3, vp9),
        (
            "wide.mkv",
            "scale=960:400,fps=50",
            5,
            ("-c:v", "libx265", "-x265-params", "log-level=none"),
        ),
        ("small.mp4", "scale=320:180", 2, h264),
    ]
    encoded = [
        _encode(source, folder / name, "-vf", filters, *codec, seconds=seconds)
        for name, filters, seconds, codec in variants
    ]
    return [*encoded, *real]


SETS = {"tiny": _tiny, "short": _short, "long": _long, "mix": _mix, "real": lambda _, real: real}


# --- processes


def run_before(csv: Path, backbone: str, weights: Path, num_threads: int) -> dict:
    """Return the figures of the original's flow."""
    command = [sys.executable, ROOT / "benchmarks" / "baseline.py", "--csv", csv]
    command += ["--backbone", backbone, "--weights", weights, "--workers", num_threads]
    result = run(command, csv.parent)
    facts = json.loads(result.stdout)
    return _row(result, facts["loaded_time"], facts["num_features"])


def run_ours(csv: Path, backbone: str, num_threads: int, precision: str) -> dict:
    """Return the figures of our program, with those that it recorded itself."""
    results = csv.parent / f"{csv.stem}-results"
    command = [sys.executable, ROOT / "scripts" / "extract.py", "--csv", csv, "--results", results]
    command += ["--backbone", backbone, "--weights", "random", "--threads", num_threads]
    result = run([*command, "--precision", precision], csv.parent)
    (records,) = (results / "records").iterdir()
    end = json.loads(records.read_text().splitlines()[-1])
    row = _row(result, end["first_batch_time"], end["num_clips"])
    names = ("decode_cpu_seconds", "compute_seconds", "idle_seconds")
    row |= {name: end[name] for name in names}
    return row | {"video_seconds_per_second": end["video_seconds"] / row["work_seconds"]}


def _row(result: Run, ready_time: float, num_features: int) -> dict:
    startup = ready_time - result.started_time
    work = result.wall_seconds - startup
    return {
        "seconds": result.wall_seconds,
        "startup_seconds": startup,
        "work_seconds": work,
        "features_per_second": num_features / work,
        "cpu_seconds": result.cpu_seconds,
        "peak_mb": result.peak_mb,
    }


def run_decode(videos: list[Path], backbone: Backbone, num_threads: int) -> dict:
    """Return the figures of the limit of decoding: ffmpeg and nothing else."""
    view = backbone.view
    side = view.crop_size
    decoder = FfmpegDecoder(Settings())

    def decode(video: Path) -> None:
        size = resized_size(decoder.probe(Source(str(video))), view)
        filters = f"fps={view.frame_rate},scale={size[0]}:{size[1]}:flags=bilinear"
        filters += f",crop={side}:{side}" if side else ""
        command = [FFMPEG, "-v", "error", "-nostdin", "-threads", "1", "-i", video]
        command += ["-an", "-vf", filters, "-pix_fmt", "rgb24", "-f", "rawvideo", "-y", os.devnull]
        subprocess.run(command, check=True)

    before, started = os.times(), time.monotonic()
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(decode, videos))
    after = os.times()
    cpu = after.children_user - before.children_user
    cpu += after.children_system - before.children_system
    return {"work_seconds": time.monotonic() - started, "cpu_seconds": cpu}


def run_network(shapes: Counter, backbone: Backbone, weights: Path, precision: str) -> dict:
    """Return the figures of the limit of the network: it alone, on as many inputs, from memory.

    Args:
        shapes: of frames or clips, see `count_shapes`.
    """
    device = choose_device()
    network = Network(backbone, weights, device=device, dtype=choose_dtype(precision, device))
    batch_size = network.batch_sizes[0]
    for shape in shapes:
        network.features(np.zeros((batch_size, *shape), np.uint8))  # not counted: set-up
    rng = np.random.default_rng(0)
    batches = [
        rng.integers(0, 256, (min(batch_size, count - start), *shape), np.uint8)
        for shape, count in shapes.items()
        for start in range(0, count, batch_size)
    ]
    before, started = os.times(), time.monotonic()
    submitted: deque[Callable[[], np.ndarray]] = deque()
    for batch in batches:
        submitted.append(network.submit(batch))
        while len(submitted) >= network.max_submitted:
            submitted.popleft()()
    while submitted:
        submitted.popleft()()
    seconds, after = time.monotonic() - started, os.times()
    cpu = after.user - before.user + after.system - before.system
    return {
        "work_seconds": seconds,
        "features_per_second": shapes.total() / seconds,
        "cpu_seconds": cpu,
        "peak_gflops": peak_gflops(network),
    }


def count_gflop(shapes: Counter, backbone: Backbone) -> float:
    """Return the 10⁹ floating-point operations that a network takes; a multiply-add is two."""
    with torch.device("meta"):
        network = backbone.build().eval()
        total = 0
        for shape, count in shapes.items():
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(1, *shape).movedim(-1, 1))
            total += counter.get_total_flops() * count
    return total / 1e9


def peak_gflops(network: Network) -> float:
    """Return the GFLOP/s of the device at best: a 3×3 convolution of 512 channels, same dtype."""
    channels, side = 512, 64
    convolution = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    placement = (network.device, network.dtype)
    convolution = convolution.to(*placement).to(memory_format=torch.channels_last)
    layer: torch.nn.Module = convolution
    if network.device.type == "cpu" and is_onednn_supported(network.dtype):
        layer = FusedConv(convolution, "none")
    x = torch.rand(1, channels, side, side).to(*placement, memory_format=torch.channels_last)
    rates = []
    with torch.inference_mode():
        for _ in range(20):
            started = time.monotonic()
            layer(x)[0, 0, 0, 0].item()
            rates.append(2 * 9 * channels**2 * side**2 / (time.monotonic() - started) / 1e9)
    return max(rates)


def count_shapes(csv: Path, backbone: Backbone) -> Counter:
    """Return the shapes of the network's inputs for a CSV that is done, and how many of each."""
    shapes: Counter[tuple[int, ...]] = Counter()
    decoder = FfmpegDecoder(Settings())
    for row in read_rows(csv):
        width, height = resized_size(decoder.probe(row.source), backbone.view)
        side, length = backbone.view.crop_size, backbone.view.num_frames_per_clip
        frame = (side, side, 3) if side else (height, width, 3)
        shapes[(length, *frame) if length else frame] += len(np.load(row.feature_paths[0]))
    return shapes


def worst_cosine(csv_before: Path, csv: Path) -> float:
    """Return the worst cosine of a feature and the same one before: the same work was done."""
    pairs = zip(read_rows(csv_before), read_rows(csv), strict=True)
    return min(
        cosines(*(np.load(row.feature_paths[0]).astype(np.float64) for row in pair)).min()
        for pair in pairs
    )


# --- the tables


def compare(
    name: str, videos: list[Path], kind: str, folder: Path, precisions: list[str], num_threads: int
) -> list[dict]:
    """Return all rows of the table for one set of clips and one kind of features."""
    backbone = BACKBONES[KINDS[kind]]
    weights = prepare_weights(find_weights(KINDS[kind], "random")).resolve()

    def csv_for(case: str) -> Path:
        path = folder / f"{name}-{kind}-{case}.csv"
        lines = [f"{video},{folder}/{path.stem}/{k}.npy\n" for k, video in enumerate(videos)]
        path.write_text("video_path,feature_path\n" + "".join(lines))
        return path

    def row(case: str, precision: str, figures: dict) -> dict:
        print(f"{name} {kind} {case} {precision}: {figures['work_seconds']:.1f} s", flush=True)
        return {"set": name, "kind": kind, "what": case, "precision": precision} | figures

    csv_before = csv_for("before")
    before = run_before(csv_before, KINDS[kind], weights, num_threads)
    shapes = count_shapes(csv_before, backbone)
    gflop = count_gflop(shapes, backbone)
    before["gflops"] = gflop / before["work_seconds"]
    rows = [row("before", "float32", before)]
    for precision in precisions:
        csv = csv_for(precision)
        ours = run_ours(csv, KINDS[kind], num_threads, precision)
        network = run_network(shapes, backbone, weights, precision)
        network["gflops"] = gflop / network["work_seconds"]
        decode = run_decode(videos, backbone, num_threads)
        if choose_device().type == "cuda":
            limits = {"decode": decode["work_seconds"], "network": network["work_seconds"]}
            limit = max(limits.values())
        else:
            limits = {"decode": decode["cpu_seconds"], "network": network["cpu_seconds"]}
            limit = sum(limits.values()) / num_threads
        ours |= {
            "gflops": gflop / ours["work_seconds"],
            "times_before": before["work_seconds"] / ours["work_seconds"],
            "times_before_at_most": before["work_seconds"] * network["peak_gflops"] / gflop,
            "times_before_with_startup": before["seconds"] / ours["seconds"],
            "times_limit": ours["work_seconds"] / limit,
            "limited_by": max(limits, key=limits.__getitem__),
            "worst_cosine": f"{worst_cosine(csv_before, csv):.6f}",
        }
        rows.append(row("ours", precision, ours))
        rows.append(row("network", precision, network))
        rows.append(row("decode", precision, decode))
    return rows


WHICH = {"set": "clips", "kind": "kind", "precision": "precision"}
RATIOS = {
    "times_before": "times before",
    "times_before_at_most": "at most",
    "times_before_with_startup": "with start-up",
    "times_limit": "times limit",
    "limited_by": "limited by",
    "worst_cosine": "worst cosine",
}
FIGURES = {
    "what": "what",
    "seconds": "seconds",
    "startup_seconds": "start-up",
    "work_seconds": "work",
    "features_per_second": "features/s",
    "video_seconds_per_second": "video s/s",
    "cpu_seconds": "CPU s",
    "gflops": "GFLOP/s",
    "peak_gflops": "peak GFLOP/s",
    "decode_cpu_seconds": "decode CPU s",
    "compute_seconds": "compute s",
    "idle_seconds": "idle s",
    "peak_mb": "peak MB",
}


def as_markdown(rows: list[dict], columns: dict[str, str]) -> str:
    """Return a table, in Markdown, of some of the figures.

    Args:
        columns: heads by the names of the figures.
    """

    def cell(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:.0f}" if value >= 100 else f"{value:.2f}"

    lines = [list(columns.values()), ["---"] * len(columns)]
    lines += [[cell(row.get(key, "")) for key in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def machine() -> str:
    """Return the facts without which the figures say nothing."""
    model = next(
        (line.split(": ")[1] for line in CPU_INFO.splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    device = choose_device()
    cuda = f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ""
    return (
        f"{model}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
        f"{cuda}; {platform.platform()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, ffmpeg "
        f"{imageio_ffmpeg.get_ffmpeg_version()}"
    )


def default_precisions() -> list[str]:
    """Return float32, and the precision that this device computes faster, if there is one."""
    device = choose_device()
    if device.type == "cuda":
        return ["float32", "float16"]
    return ["float32"] if is_slow(DTYPES["bfloat16"], device) else ["float32", "bfloat16"]


def main() -> None:
    """Print the tables, and save them with all figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["long", "mix", "short", "real"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--precisions", nargs="+", default=default_precisions())
    parser.add_argument(
        "--cosines",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of precisions and resizers",
    )
    parser.add_argument(
        "--shapes",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="of batches, in a lucky and an unlucky order",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clips", type=Path, default=Path("demo/clips"), help="the real clips")
    parser.add_argument("--output", type=Path, default=Path("bench"), help="folder for the tables")
    args = parser.parse_args()
    real = [path.resolve() for path in fetch_clips(args.clips)]
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.threads)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)  # weights are prepared and read here
        for set_name in args.sets:
            (folder / set_name).mkdir()
            videos = SETS[set_name](folder / set_name, real)
            for kind in args.kinds:
                rows += compare(set_name, videos, kind, folder, args.precisions, args.threads)
        measures = (measure_precisions, measure_resizers) if args.cosines else ()
        tables = [measure(real[0].parent) for measure in measures]
        tables += [measure_shapes(args.precisions)] if args.shapes else []
        table = "\n\n".join(tables)
    facts = f"{machine()}, {args.threads} threads"
    ratios = as_markdown([row for row in rows if row["what"] == "ours"], WHICH | RATIOS)
    report = f"{facts}\n\n{ratios}\n{as_markdown(rows, WHICH | FIGURES)}\n{table}\n"
    (output / "speed.md").write_text(report)
    (output / "speed.json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1))
    print(f"\n{report}\nSaved in {output}")


if __name__ == "__main__":
    main()
