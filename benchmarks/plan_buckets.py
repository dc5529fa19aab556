"""What planning takes where videos and features are in a bucket: a dry-run, against moto's server.

none, 99 %, all   of the rows are done, with records as jobs write them

Videos and features have a folder for each 1,000, in two buckets. The server runs in this process,
in Python: `server_seconds` is what its answers took, added up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

from plan import CONFIG, RECIPE, ROOT, SNAKEMAKE, VIDEOS_PER_JOB, copy_project, describe_machine
from process import run

sys.path.insert(0, str(ROOT / "tests"))

from moto.s3.models import s3_backends

from s3_server import REGION, Request, S3Server
from videofeatures.records import ProcessLine, Recorder, RowLine

ACCOUNT = "123456789012"


def fill(bucket: str, keys: list[str]) -> dict[str, Any]:
    """Make a bucket of small objects, past the server's door; return them by key."""
    backend = s3_backends[ACCOUNT]["aws"]
    backend.create_bucket(bucket, REGION)
    return {key: backend.put_object(bucket, key, b"video") for key in keys}


def write_records(folder: Path, rows: list[tuple[str, str, Any]]) -> None:
    """Record that rows are done: of each its video's key, its feature's, and the video."""
    common = {"digest": RECIPE.digest, "weights": RECIPE.weights_id}
    for begin in range(0, len(rows), VIDEOS_PER_JOB):
        with Recorder(folder / "results", "extract") as recorder:
            process = {"time": time.time(), "status": "process", "settings": RECIPE.numerics}
            recorder.write(cast(ProcessLine, process | common))
            for video, feature, found in rows[begin : begin + VIDEOS_PER_JOB]:
                line = common | {
                    "feature_path": f"s3://features/{feature}",
                    "video_path": f"s3://videos/{video}",
                    "video_size": found.size,
                    "video_mtime_ns": int(found.last_modified.timestamp() * 1e9),
                    "video_etag": found.etag.strip('"'),
                }
                for status in ("started", "done", "placed"):
                    recorder.write(cast(RowLine, line | {"time": time.time(), "status": status}))


def measure(server: S3Server, num_rows: int, num_done: int) -> str:
    """Return the figures of a dry-run over a new collection."""
    s3_backends[ACCOUNT]["aws"].reset()
    names = [f"{k // 1000:04d}/video{k:07d}" for k in range(num_rows)]
    videos = fill("videos", [f"{name}.mp4" for name in names])
    every = num_rows / max(1, num_rows - num_done)
    left = {int(k * every) for k in range(num_rows - num_done)}
    done = [name for k, name in enumerate(names) if k not in left]
    fill("features", [f"{name}.npy" for name in done])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy_project(folder)
        lines = "".join(f"s3://videos/{n}.mp4,s3://features/{n}.npy\n" for n in names)
        (folder / "videos.csv").write_text(f"video_path,feature_path\n{lines}")
        write_records(folder, [(f"{n}.mp4", f"{n}.npy", videos[f"{n}.mp4"]) for n in done])
        server.forget()
        seconds = 0.0

        def clock(request: Request) -> list[bytes]:
            nonlocal seconds
            started = time.monotonic()
            try:
                return request.pass_on()
            finally:
                seconds += time.monotonic() - started

        server.fault = clock
        command = [*SNAKEMAKE, "-n", "--resources", "gpu=1", *CONFIG, "allowed_schemes=s3"]
        environment = os.environ | server.environment
        result = run(command, folder, environment=environment)
        told = next(line for line in result.stderr.splitlines() if " pending in " in line)
        return (
            f"{told}: {result.wall_seconds:.1f} s, of which CPU {result.cpu_seconds:.1f} s; "
            f"{dict(server.counts)} requests, server_seconds {seconds:.1f}; "
            f"{result.peak_mb:.0f} MB"
        )


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--shares", type=float, nargs="*", default=[0, 0.99, 1], help="done")
    args = parser.parse_args()
    print(describe_machine(), flush=True)
    with S3Server().running() as server:
        for share in args.shares:
            print(measure(server, args.rows, round(args.rows * share)), flush=True)


if __name__ == "__main__":
    main()
