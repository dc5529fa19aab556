"""What decoding takes of the processor: ours beside ffmpeg's command line and other libraries.

One frame a second of x264's defaults, with one thread each: a video of about a minute in 720p and
in 360p, and twenty clips of ten seconds. Frames of ours have to be those of ffmpeg's command line.
CPU time is of all processes, the least of some runs; processes that a job starts once are started
before.

torchcodec, PyAV and OpenCV decode the same at the same rate in this process, where they can be
imported: `pip install --target others --no-deps torchcodec opencv-python-headless`, and run this
with `PYTHONPATH=others`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from fetch_clips import fetch_clips
from videofeatures.decoding import short_videos
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.frames import resized_size
from videofeatures.decoding.view import View
from videofeatures.networks.backbones import BACKBONES
from videofeatures.settings import Settings
from videofeatures.source import Source

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SHAPES = {"720p": ("1280:720", 11), "360p": ("640:360", 16)}
"""Size, and how often the clip is repeated."""
NUM_SHORT = 20
SHORT_SECONDS = 10
FPS = 30

Size = tuple[int, int]
Way = Callable[[Path, Size], bytes | None]
"""Takes a video and the size of its frames; returns their bytes, or None where they are others."""


def make(folder: Path, clips: dict[str, Path]) -> dict[str, list[Path]]:
    """Return videos by what they are, by x264 as it is by default."""
    groups: dict[str, list[Path]] = {}
    for name, (size, num_loops) in SHAPES.items():
        groups[name] = [folder / f"{name}.mp4"]
        encode(clips["bigbuckbunny"], groups[name][0], f"scale={size}", num_loops)
    groups["short"] = [folder / f"{k}.mp4" for k in range(NUM_SHORT)]
    for k, path in enumerate(groups["short"]):
        clip = clips[("bigbuckbunny", "bikes")[k % 2]]
        filters = f"trim=start=0.{k // 2},fps={FPS},setpts=N/{FPS}/TB,scale=340:256,setsar=1"
        encode(clip, path, filters, 4, "-frames:v", SHORT_SECONDS * FPS)
    return groups


def encode(clip: Path, path: Path, filters: str, num_loops: int, *options: object) -> None:
    """Make a video of a clip that is repeated."""
    command = [FFMPEG, "-v", "error", "-nostdin", "-stream_loop", num_loops, "-i", clip, "-an"]
    command += ["-vf", filters, "-c:v", "libx264", *options, path]
    subprocess.run(list(map(str, command)), check=True)


def cpu_seconds() -> float:
    """Return what this process and its children took, also those that are still there."""
    process = psutil.Process()
    own = process.cpu_times()
    seconds = own.user + own.system + own.children_user + own.children_system
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = child.cpu_times()
            seconds += times.user + times.system
    return seconds


def ours(decoder: FfmpegDecoder, view: View, *, is_at_once: bool = True) -> Way:
    """Return the way of a decoder of ours; where no video is short, ffmpeg decodes all."""

    def decode(video: Path, size: Size) -> bytes:
        del size
        short_videos.MAX_FILE_BYTES = MAX_FILE_BYTES if is_at_once else -1
        return b"".join(c.tobytes() for c in Decoding(decoder, Source(str(video)), view).clips())

    return decode


MAX_FILE_BYTES = short_videos.MAX_FILE_BYTES


def bare(view: View) -> Way:
    """Return ffmpeg's command line, as people write it."""

    def decode(video: Path, size: Size) -> bytes:
        width, height = size
        command = [FFMPEG, "-v", "error", "-nostdin", "-threads", "1", "-i", str(video), "-vf"]
        command += [f"fps={view.frame_rate},scale={width}:{height}:flags={view.interpolation}"]
        command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:"]
        return subprocess.run(command, capture_output=True, check=True).stdout

    return decode


def others(rate: float) -> Iterator[tuple[str, Way]]:
    """Yield the ways of other libraries that are installed."""
    with contextlib.suppress(ImportError):
        import torch
        from torchcodec.decoders import VideoDecoder
        from torchcodec.transforms import Resize

        torch.set_num_threads(1)

        def by_torchcodec(video: Path, size: Size) -> None:
            resize = Resize(size[::-1])
            decoder = VideoDecoder(str(video), num_ffmpeg_threads=1, transforms=[resize])
            end = decoder.metadata.end_stream_seconds
            decoder.get_frames_played_at(np.arange(0, end, 1 / rate).tolist())

        yield "torchcodec", by_torchcodec
    with contextlib.suppress(ImportError):
        import av

        def by_pyav(video: Path, size: Size) -> None:
            with av.open(str(video)) as container:
                stream = container.streams.video[0]
                stream.codec_context.thread_count = 1
                num_frames = 0
                for frame in container.decode(stream):
                    if frame.time * rate >= num_frames:
                        num_frames += 1
                        frame.to_ndarray(format="rgb24", width=size[0], height=size[1])

        yield "PyAV", by_pyav
    with contextlib.suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)

        def by_opencv(video: Path, size: Size) -> None:
            capture = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
            step = round(capture.get(cv2.CAP_PROP_FPS) / rate)
            place = 0
            while capture.grab():
                if place % step == 0:
                    cv2.resize(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB), size)
                place += 1
            if not place:
                raise ValueError("decodes nothing of it")

        yield "OpenCV", by_opencv


def measure(name: str, videos: list[Path], view: View, num_runs: int, folder: Path) -> None:
    """Print what videos take, each.

    Args:
        folder: for names that no decoder has seen: ours know a file's packets once they have read
            them.
    """
    assert view.constant_rate is not None
    with FfmpegDecoder(Settings(skip_unused=False)) as plain, FfmpegDecoder(Settings()) as skipping:
        sizes = [resized_size(skipping.probe(Source(str(video))), view) for video in videos]
        ways = {
            "ffmpeg alone": bare(view),
            "all decoded": ours(plain, view, is_at_once=False),
            "skip_unused": ours(skipping, view, is_at_once=False),
            "skip_unused, short ones at once": ours(skipping, view),
        } | dict(others(view.constant_rate))
        for way_name, way in list(ways.items()):
            try:
                way(videos[0], sizes[0])
            except ValueError as error:
                print(f"{name}, {way_name}: {error}")
                del ways[way_name]
        least: dict[str, float] = {}
        digests = set()
        for run in range(num_runs):
            for place, (way_name, way) in enumerate(ways.items()):
                names = [folder / f"{run}-{place}-{video.name}" for video in videos]
                for new, video in zip(names, videos, strict=True):
                    new.symlink_to(video.resolve())
                digest = hashlib.blake2b()
                before = cpu_seconds()
                given = [way(new, size) for new, size in zip(names, sizes, strict=True)]
                seconds = (cpu_seconds() - before) / len(videos)
                least[way_name] = min(least.get(way_name, float("inf")), seconds)
                if frames := [one for one in given if one is not None]:
                    for one in frames:
                        digest.update(one)
                    digests.add(digest.hexdigest())
        assert len(digests) == 1, "the frames differ"
    for way_name, seconds in least.items():
        share = seconds / least["ffmpeg alone"]
        print(f"{name}, {way_name}: {1000 * seconds:.0f} ms of CPU, {share:.2f} of ffmpeg alone")


def main() -> None:
    """Measure videos that are given, or those that are made."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("videos", nargs="*", type=Path)
    parser.add_argument("--clips", type=Path, default=Path("demo/clips"), help="the real clips")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    view = BACKBONES["resnet152"].view
    with tempfile.TemporaryDirectory() as name:
        groups = {video.stem: [video] for video in args.videos}
        if not groups:
            groups = make(Path(name), {path.stem: path for path in fetch_clips(args.clips)})
        for group, videos in groups.items():
            measure(group, videos, view, args.runs, Path(name))


if __name__ == "__main__":
    main()
