"""A device that decodes, made of software: a stand-in for ffmpeg that does as if it had one.

It takes the command that is meant for a device, decodes on the CPU, and goes on with frames in the
layout of a device: in memory, or truly on a device of Vulkan's, where one is there. Mesa's
`lavapipe`, which is one on the CPU, is enough: it holds frames, and decodes none.
"""

from __future__ import annotations

import stat
import subprocess
import sys
from functools import cache
from pathlib import Path

import imageio_ffmpeg

SCRIPT = '''#!{python}
"""See tests/software_device.py."""
import os, re, subprocess, sys

REAL, IS_VULKAN = {real!r}, {is_vulkan!r}
arguments = sys.argv[1:]
if "-hwaccel" in arguments:
    with open({log!r}, "a") as file:
        print(*arguments, file=file)
    path = arguments[arguments.index("-i") + 1]
    if "undecodable" in path:
        sys.exit("[h264 @ 0x1] [error] the device does not know this profile")
    for option in ("-hwaccel", "-hwaccel_device", "-hwaccel_output_format", "-extra_hw_frames"):
        if option in arguments:
            place = arguments.index(option)
            del arguments[place : place + 2]
    layout = re.search(r"\\]format=(\\w+)", " ".join(arguments))[1]
    to_device = f"[0:V:0]format={{layout}}," + ("hwupload," if IS_VULKAN else "")
    for place, argument in enumerate(arguments):
        if "hwdownload" in argument and not IS_VULKAN:
            argument = argument.replace("hwdownload", "null")
        if "filter_complex" in arguments[place - 1]:
            arguments[place] = argument.replace("[0:V:0]", to_device)
    if IS_VULKAN:
        arguments[:0] = ["-init_hw_device", "vulkan=stand_in", "-filter_hw_device", "stand_in"]
    if "midway" in path:
        frames = subprocess.run([REAL, *arguments], stdout=subprocess.PIPE).stdout
        os.write(1, frames[: len(frames) // 2])
        sys.exit("[error] the device was lost")
    if "longer" in path:
        frames = subprocess.run([REAL, *arguments], stdout=subprocess.PIPE).stdout
        sys.stdout.buffer.write(frames + frames)
        sys.stdout.flush()
        sys.exit("[error] the device was lost")
os.execv(REAL, [REAL, *arguments])
'''


def make_software_device(folder: Path, *, is_vulkan: bool = False) -> Path:
    """Make the stand-in, `ffmpeg`, in a folder; what it was asked for is in `asked` there.

    It fails where the path of a video has `undecodable` in it, at half of its bytes for `midway`,
    and after twice of them for `longer`.
    """
    path = folder / "ffmpeg"
    path.write_text(
        SCRIPT.format(
            python=sys.executable,
            real=imageio_ffmpeg.get_ffmpeg_exe(),
            is_vulkan=is_vulkan,
            log=str(folder / "asked"),
        )
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@cache
def has_vulkan() -> bool:
    """Whether ffmpeg opens a device of Vulkan's, and frames go there and come back."""
    chain = "format=nv12,hwupload,hwdownload,format=nv12"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-init_hw_device", "vulkan"]
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.04", "-vf", chain, "-f", "null", "-"]
    try:
        return subprocess.run([*command, *source], capture_output=True, timeout=60).returncode == 0
    except subprocess.TimeoutExpired:
        return False
