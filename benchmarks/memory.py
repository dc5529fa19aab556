"""Peak memory of an extraction, ffmpeg included: short and long, small and large videos."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
from process import run

ROOT = Path(__file__).parents[1]

# What a case shows, seconds of video, its size, its frames a second, options of the extraction.
CASES = [
    ("720p, 10 s", 10, "1280x720", 25, []),
    ("4K, 10 s", 10, "3840x2160", 25, []),
    # Small frames, so that 36,000 of them are computed in minutes.
    ("64x64, 10 hours", 36000, "64x64", 2, ["--resize_size", "32", "--crop_size", "32"]),
]


def make_clip(path: Path, seconds: int, size: str, rate: int) -> None:
    """Write a clip of 10 s, repeated without being encoded again."""
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y"]
    unit = path.with_name("unit.mp4")
    source = ["-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d=10"]
    subprocess.run([*ffmpeg, *source, "-c:v", "libx264", "-preset", "veryfast", unit], check=True)
    repeat = ["-stream_loop", str(seconds // 10 - 1), "-i", unit, "-c", "copy", path]
    subprocess.run([*ffmpeg, *map(str, repeat)], check=True)


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--videos", type=int, default=1, help="copies that one job decodes at once")
    args = parser.parse_args()
    for name, seconds, size, rate, options in CASES:
        with tempfile.TemporaryDirectory() as folder_name:
            folder = Path(folder_name)
            make_clip(folder / "a.mp4", seconds, size, rate)
            rows = "".join(f"a.mp4,{k}.npy\n" for k in range(args.videos))
            (folder / "a.csv").write_text(f"video_path,feature_path\n{rows}")
            command = [sys.executable, str(ROOT / "scripts" / "extract.py"), "--csv", "a.csv"]
            command += ["--backbone", args.backbone, "--weights", args.weights]
            command += ["--decoders", str(args.videos), *options]
            result = run(command, folder)
            figures = f"{result.peak_mb:6.0f} MB at most, {result.wall_seconds:.0f} s"
            print(f"{name:16} {figures}", flush=True)


if __name__ == "__main__":
    main()
