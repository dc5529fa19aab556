"""Reading features in a random order: single files, HDF5 and WebDataset; and what packing takes.

.npy, .npz     one file after another
hdf5           one sample after another, of one file
webdataset     all samples as they come, of its shards in a random order: it has no other. That
               they are mixed among each other takes `shuffle`, in memory, which costs no reading

From the disk: without any content of the files in memory (what the system knows of their names
and places stays there). From memory: again, at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
from process import run

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from videofeatures.decoding.times import RowTimes
from videofeatures.files import hash_file
from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import find_weights
from videofeatures.records import ProcessLine, Recorder, RowLine
from videofeatures.settings import Settings

ROOT = Path(__file__).parents[1]
BACKBONE = "efficientnet_lite0"
WEIGHTS = find_weights(BACKBONE, "random")
RECIPE = Recipe.from_settings(Settings(backbone=BACKBONE), str(WEIGHTS.shared_path))
CONFIG = ["--configfile", os.devnull, "videos=videos.csv"]
CONFIG += [f"backbone={BACKBONE}", "weights=random"]
OUTPUTS = {"hdf5": "features.h5", "webdataset": "shards/%06d.tar"}


def make_collection(folder: Path, num_videos: int, num_rows: int) -> None:
    """Write feature files, and a CSV and records as a run leaves them."""
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(num_rows, RECIPE.feature_dim)).astype(np.float16)
    starts = np.arange(num_rows, dtype=np.float64)
    times = RowTimes(starts, starts + 0.5, starts + 1)
    common = {"digest": RECIPE.digest, "weights": RECIPE.weights_id}
    lines = ["video_path,feature_path"]
    for name in ("npy", "npz", "videos"):
        (folder / name).mkdir(parents=True)
    with Recorder(folder / "results", "extract") as recorder:
        process = {"time": time.time(), "status": "process", "settings": RECIPE.numerics}
        recorder.write(cast(ProcessLine, process | common))
        for k in range(num_videos):
            video, feature = f"videos/{k:07d}.mp4", f"npy/{k:07d}.npy"
            lines.append(f"{video},{feature}")
            (folder / video).touch()
            stat = (folder / video).stat()
            numbers[0, 0] = k % 1000  # no two files are the same
            # As a job writes them, but for the wait until each is on the disk.
            np.save(folder / feature, numbers)
            np.savez(folder / f"npz/{k:07d}.npz", features=numbers, **times._asdict())
            line = {
                **{"time": time.time(), "status": "done", "feature_path": feature},
                **{"video_path": video, "num_features": num_rows, "reason": ""},
                **{"feature_dim": RECIPE.feature_dim, "ffmpeg_lines": []},
                **{"video_size": stat.st_size, "video_mtime_ns": stat.st_mtime_ns},
                "file_hash": hash_file(folder / feature),
            }
            recorder.write(cast(RowLine, line | common))
    (folder / "videos.csv").write_text("\n".join(lines) + "\n")


def read_files(folder: Path, suffix: str, order: list[int]) -> Iterator[np.ndarray]:
    """Yield the features of single files."""
    for k in order:
        loaded = np.load(folder / suffix / f"{k:07d}.{suffix}")
        yield loaded if suffix == "npy" else loaded["features"]


def read_hdf5(folder: Path, order: list[int]) -> Iterator[np.ndarray]:
    """Yield the features of a pack, by h5py."""
    import h5py

    with h5py.File(folder / OUTPUTS["hdf5"]) as pack:
        for k in order:
            yield pack[f"videos/{k:07d}.mp4/features"][()]


def read_webdataset(folder: Path, order: list[int]) -> Iterator[np.ndarray]:
    """Yield the features of a pack, by webdataset, shards in a random order."""
    import webdataset

    shards = sorted(map(str, (folder / "shards").glob("*.tar")))
    random.Random(len(order)).shuffle(shards)
    for sample in webdataset.WebDataset(shards, shardshuffle=False).decode():
        yield sample["features.npy"]


READERS: dict[str, Callable[[Path, list[int]], Iterator[np.ndarray]]] = {
    ".npy": lambda folder, order: read_files(folder, "npy", order),
    ".npz": lambda folder, order: read_files(folder, "npz", order),
    "hdf5": read_hdf5,
    "webdataset": read_webdataset,
}


def forget(folder: Path) -> None:
    """Have the system drop all content of files that it holds in memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def time_reading(folder: Path, what: str, num_videos: int) -> tuple[float, float]:
    """Return how long it takes to read all features once, and what of the CPU, in seconds."""
    order = list(range(num_videos))
    random.Random(0).shuffle(order)
    started, cpu_started = time.perf_counter(), time.process_time()
    num_found = sum(features.size > 0 for features in READERS[what](folder, order))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    assert num_found == num_videos
    return seconds, cpu_seconds


def measure(folder: Path, num_videos: int, num_rows: int, *, is_read: bool) -> list[dict[str, Any]]:
    """Return what was measured: a row for each."""
    make_collection(folder, num_videos, num_rows)
    rows: list[dict[str, Any]] = []
    for name, output in OUTPUTS.items():
        script = [sys.executable, ROOT / "scripts" / "pack.py", *CONFIG]
        for what in ("all", "nothing new"):
            took = run([*script, f"format={name}", f"output={output}"], folder)
            rows.append(
                {
                    "what": f"packing, {name}, {what}",
                    "seconds": took.wall_seconds,
                    "cpu_seconds": took.cpu_seconds,
                    "peak_mb": took.peak_mb,
                }
            )
    for what in READERS if is_read else ():
        list(READERS[what](folder, [0]))  # its library is imported
        forget(folder)
        from_disk, _ = time_reading(folder, what, num_videos)
        from_memory, cpu_seconds = time_reading(folder, what, num_videos)
        row = {"what": f"reading, {what}", "disk": from_disk, "memory": from_memory}
        rows.append(row | {"memory_cpu": cpu_seconds})
    return rows


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return what was measured, in Markdown."""
    lines = ["| reading | from the disk, s | from memory, s | s of CPU |", "|---|---|---|---|"]
    for row in rows:
        if "disk" in row:
            what = row["what"].removeprefix("reading, ")
            numbers = f"{row['disk']:.1f} | {row['memory']:.1f} | {row['memory_cpu']:.1f}"
            lines.append(f"| {what} | {numbers} |")
    lines += ["", "| packing | s | s of CPU | MB at most |", "|---|---|---|---|"]
    for row in rows:
        if "peak_mb" in row:
            what = row["what"].removeprefix("packing, ")
            numbers = f"{row['seconds']:.1f} | {row['cpu_seconds']:.1f} | {row['peak_mb']:.0f}"
            lines.append(f"| {what} | {numbers} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, and save what they are made of."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=20, help="features of each (default: 20)")
    parser.add_argument("--folder", type=Path, help="to work in; a temporary one by default")
    parser.add_argument("--only_packing", action="store_true", help="read nothing")
    parser.add_argument("--output", type=Path, default=Path("bench"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        rows = measure(folder, args.videos, args.rows, is_read=not args.only_packing)
    finally:
        shutil.rmtree(folder)
    result = {"videos": args.videos, "rows_of_each": args.rows, "rows": rows}
    (args.output / "pack.json").write_text(json.dumps(result, indent=1))
    print(as_table(rows))


if __name__ == "__main__":
    main()
