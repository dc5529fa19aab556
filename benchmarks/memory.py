"""Peak memory of an extraction, ffmpeg included, for a video of 10 s and one of an hour."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg
import psutil

ROOT = Path(__file__).parents[1]
SECONDS = (10, 3600)
SAMPLING_SECONDS = 0.05


def make_clip(path: Path, seconds: int) -> None:
    """A 1280×720 clip of 10 s, repeated without being encoded again."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    unit = path.with_name("unit.mp4")
    source = ["-f", "lavfi", "-i", "testsrc2=s=1280x720:r=25:d=10"]
    subprocess.run([*ffmpeg, *source, "-c:v", "libx264", "-preset", "veryfast", unit], check=True)
    repeat = ["-stream_loop", str(seconds // 10 - 1), "-i", unit, "-c", "copy", path]
    subprocess.run([*ffmpeg, *map(str, repeat)], check=True)


def peak_memory_mb(command: list[str], folder: Path) -> tuple[float, float]:
    """(MB, seconds): largest sum of the resident memory of a process and its children.

    Pages that processes share are counted once for each, so the true peak is lower.
    """
    started = time.monotonic()
    process = psutil.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            family = [process, *process.children(recursive=True)]
            peak = max(peak, sum(member.memory_info().rss for member in family))
        except psutil.NoSuchProcess:
            pass
        time.sleep(SAMPLING_SECONDS)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return peak / 1e6, time.monotonic() - started


def main() -> None:
    """Print a line for each length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seconds in SECONDS:
            make_clip(folder / f"{seconds}.mp4", seconds)
            text = f"video_path,feature_path\n{seconds}.mp4,{seconds}.npy\n"
            (folder / f"{seconds}.csv").write_text(text)
            command = [sys.executable, str(ROOT / "scripts" / "extract.py")]
            command += ["--csv", f"{seconds}.csv", "--backbone", args.backbone]
            peak_mb, took = peak_memory_mb([*command, "--weights", args.weights], folder)
            print(f"{seconds:5} s of 1280x720: {peak_mb:6.0f} MB at most, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
