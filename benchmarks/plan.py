"""What planning takes: a dry-run over a thousand to a million rows; what a job's start takes.

none, 99 %, all   of the rows are done, with records as jobs write them
slow disk         each look at a file takes 0.3 ms more, as on a disk on a network
job               what a process that Snakemake starts for one job takes before the job:
                  the same command, without the job, against Snakemake on one empty rule
run               the whole run, with a scheduler that refuses each job at once: what is left is
                  planning, both manifests, and Snakemake's own work for each job
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from process import Run, run

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from videofeatures.networks.recipe import Recipe
from videofeatures.networks.weights import find_weights
from videofeatures.planning.jobs import cut_into_jobs, write_job
from videofeatures.planning.plan import find_pending
from videofeatures.planning.rows import read_rows
from videofeatures.records import ProcessLine, Recorder, RowLine, read_records
from videofeatures.settings import Settings

ROOT = Path(__file__).parents[1]
PROJECT = ("Snakefile", "rules", "scripts", "config", "profiles")
SETTINGS = Settings(backbone="efficientnet_lite0")
WEIGHTS = find_weights("efficientnet_lite0", "random")
RECIPE = Recipe.from_settings(SETTINGS, str(WEIGHTS.shared_path))
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
CONFIG = ["--config", "videos=videos.csv", "backbone=efficientnet_lite0", "weights=random"]
VIDEOS_PER_JOB = 256
NUM_VIDEOS = 1000  # files that all rows share

SLOW_DISK = """\
import os, time
fast = os.stat
def stat(*arguments, **options):
    time.sleep(0.0003)
    return fast(*arguments, **options)
os.stat = stat
"""


FEATURE_BYTES = 128 + 390 * 1280 * 2
"""Of the feature files that are there: as their records say."""


def copy_project(folder: Path) -> None:
    """Copy what Snakemake needs of the project to a folder."""
    for name in PROJECT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)


class Collection:
    """A folder with the workflow and a CSV, of whose rows some are done."""

    def __init__(self, folder: Path, num_rows: int, num_done: int):
        self.folder = folder
        copy_project(folder)
        (folder / "videos").mkdir()
        for k in range(NUM_VIDEOS):
            (folder / "videos" / f"{k:03d}.mp4").touch()
        rows = [
            (f"videos/{k % NUM_VIDEOS:03d}.mp4", f"features/{k // 1000:04d}/video{k:07d}.npy")
            for k in range(num_rows)
        ]
        lines = "".join(f"{video},{feature}\n" for video, feature in rows)
        (folder / "videos.csv").write_text(f"video_path,feature_path\n{lines}")
        # Not at one end: what is left is spread over the collection.
        every = num_rows / max(1, num_rows - num_done)
        left = {int(k * every) for k in range(num_rows - num_done)}
        self._finish([row for k, row in enumerate(rows) if k not in left])

    def _finish(self, rows: list[tuple[str, str]]) -> None:
        for folder in {os.path.dirname(feature) for _, feature in rows}:
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        # What a job writes of each row, in the same words.
        common = {
            "digest": RECIPE.digest,
            "weights": RECIPE.weights_id,
        }
        done = {
            "num_features": 390,
            "feature_dim": 1280,
            "num_frames": 390,
            "duration_seconds": 390.0,
            "average_fps": 29.97,
            "seconds": 12.345,
            "decode_seconds": 10.123,
            "compute_seconds": 4.567,
            "reason": "",
            "ffmpeg_lines": [],
        }
        process = common | {"settings": RECIPE.numerics}
        for begin in range(0, len(rows), VIDEOS_PER_JOB):
            with Recorder(self.folder / "results", "extract") as recorder:
                line = {"time": time.time(), "status": "process", **process}
                recorder.write(cast(ProcessLine, line))
                for video, feature in rows[begin : begin + VIDEOS_PER_JOB]:
                    with open(self.folder / feature, "wb") as file:
                        file.truncate(FEATURE_BYTES)  # which takes no room
                    video_stat = (self.folder / video).stat()
                    identity = common | {
                        "video_path": video,
                        "video_size": video_stat.st_size,
                        "video_mtime_ns": video_stat.st_mtime_ns,
                    }
                    for status, facts in (("started", {}), ("done", done)):
                        line = {"time": time.time(), "status": status, "feature_path": feature}
                        recorder.write(cast(RowLine, line | identity | facts))

    def snakemake(self, *arguments: str, **options: Any) -> Run:
        """Run Snakemake here."""
        return run([*SNAKEMAKE, *arguments, *CONFIG], self.folder, **options)

    def measure(self, *arguments: str, **options: Any) -> tuple[Run, dict]:
        """Run Snakemake here; return the run, how long it took, and the files that it left."""
        before = self._files()
        result = self.snakemake(*arguments, **options)
        new = {k: v for k, v in self._files().items() if k not in before}
        own = sum(size for path, size in new.items() if path.startswith(".snakemake"))
        files = {"files": len(new), "snakemake_mb": own / 1e6}
        return result, {"seconds": result.wall_seconds, **files}

    def _files(self) -> dict[str, int]:
        paths = (p for p in self.folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in paths}


def measure_dry_run(collection: Collection, environment: dict[str, str] | None = None) -> dict:
    """Return the seconds, memory and files of a dry-run."""
    result, facts = collection.measure("-n", "--resources", "gpu=1", environment=environment)
    match = re.search(r"(\d+) pending in", result.stderr)
    pending = {"num_pending": int(match[1]) if match else 0}
    return pending | facts | {"cpu_seconds": result.cpu_seconds, "peak_mb": result.peak_mb}


def measure_job(collection: Collection) -> dict:
    """Return the CPU seconds of a process before its job, and of Snakemake's own start."""
    before = Path.cwd()
    os.chdir(collection.folder)
    try:
        pending = find_pending(read_rows("videos.csv"), [RECIPE], read_records("results"))
        recipes = (RECIPE,)
        job = cut_into_jobs(pending, SETTINGS, recipes, "results", videos_per_job=VIDEOS_PER_JOB)[0]
        write_job(job)
        Path(RECIPE.weights_path).parent.mkdir(parents=True, exist_ok=True)
        Path(RECIPE.weights_path).touch()
        Path("empty").write_text("rule empty:\n    shell: 'true'\n")
    finally:
        os.chdir(before)
    # As the executors start it, but dry.
    options = ["--cores", "all", "--force", "--max-inventory-time", "0", "--nolock", "-n"]
    options += ["--ignore-incomplete", "--mode", "remote", "--workflow-profile", "none"]
    ours = ["--target-jobs", f"extract:job={job.name}", "--allowed-rules", "extract"]
    empty = ["--snakefile", "empty", "--target-jobs", "empty:", "--allowed-rules", "empty"]
    command = [*options, "--executor", "local"]
    return {
        "rows_of_job": len(job.targets),
        "cpu_seconds": collection.snakemake(*ours, *command).cpu_seconds,
        "snakemake_cpu_seconds": collection.snakemake(*empty, *command).cpu_seconds,
    }


def measure_run(collection: Collection) -> dict:
    """Return the seconds of a run whose jobs are all refused, and how many there were."""
    refuse = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", "false"]
    limits = ["--jobs", "1000", "--max-jobs-per-timespan", "1000/1s"]
    result, facts = collection.measure(*refuse, *limits, check=False)
    return facts | {"jobs": (result.stdout + result.stderr).count("Error in rule extract:")}


def describe_machine() -> str:
    """Return the machine and the versions that the figures belong to."""
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"Snakemake {version('snakemake')}, jobs of {VIDEOS_PER_JOB} rows"
    )


def main() -> None:
    """Print a line for each case; save them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 10**4, 10**5, 10**6])
    parser.add_argument("--slow", type=int, default=10**5, help="rows on a slow disk; 0 for none")
    parser.add_argument("--jobs", type=int, default=10**5, help="rows for job and run; 0 for none")
    parser.add_argument("--output", type=Path, default=ROOT / "bench")
    args = parser.parse_args()
    results = []

    def report(case: str, num_rows: int, facts: dict) -> None:
        results.append({"what": case, "rows": num_rows, **facts})
        figures = ", ".join(
            f"{k} {v:.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in facts.items()
        )
        print(f"{case:16} {num_rows:>8} rows: {figures}", flush=True)

    print(describe_machine(), flush=True)
    for num_rows in args.sizes:
        for case, num_done in (
            ("none done", 0),
            ("99 % done", num_rows - num_rows // 100),
            ("all done", num_rows),
        ):
            with tempfile.TemporaryDirectory() as folder:
                collection = Collection(Path(folder), num_rows, num_done)
                report(case, num_rows, measure_dry_run(collection))
    if args.slow:
        for case, num_done in (("none done", 0), ("all done", args.slow)):
            with tempfile.TemporaryDirectory() as folder:
                collection = Collection(Path(folder), args.slow, num_done)
                (collection.folder / "sitecustomize.py").write_text(SLOW_DISK)
                environment = os.environ | {"PYTHONPATH": folder}
                report(f"{case}, slow", args.slow, measure_dry_run(collection, environment))
    if args.jobs:
        with tempfile.TemporaryDirectory() as folder:
            collection = Collection(Path(folder), args.jobs, 0)
            report("job", args.jobs, measure_job(collection))
            report("run", args.jobs, measure_run(collection))
    args.output.mkdir(parents=True, exist_ok=True)
    saved = {"machine": describe_machine(), "time": time.time(), "rows": results}
    (args.output / "plan.json").write_text(json.dumps(saved, indent=1))


if __name__ == "__main__":
    main()
