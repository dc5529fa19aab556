"""What ffmpeg may open, how it is told, and what it says of a file that it cannot read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable

import imageio_ffmpeg

FFMPEG_LINES = 20
"""Lines of ffmpeg's messages that are kept for the user."""

TIMEOUT_SECONDS = 5
"""How long ffmpeg may take to say what is wrong with a file."""

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "mpegvideo", "m4v", "flv",
    "live_flv", "asf", "asf_o", "ogg", "gif", "mxf", "nut", "rm", "dv", "ivf", "wtv", "gxf", "h261",
    "h263", "h264", "hevc", "vvc", "av1", "obu", "vc1", "cavsvideo", "dirac", "dnxhd", "mjpeg",
    "dhav", "nsv", "nuv", "pva", "swf", "ty", "vivo", "bink", "smk", "roq", "flic", "yuv4mpegpipe",
    "webp_anim", "apng", "jpegxl_anim", "image2", "bmp_pipe", "dpx_pipe", "exr_pipe", "gif_pipe",
    "hdr_pipe", "j2k_pipe", "jpeg_pipe", "jpegxl_pipe", "pgm_pipe", "png_pipe", "ppm_pipe",
    "qoi_pipe", "tiff_pipe", "webp_pipe",
)  # fmt: skip
"""ffmpeg's names of the formats that hold pictures themselves. Playlists and the like (hls, concat,
dash, imf, sdp, …) tell ffmpeg to open other files, or the network, whatever they are named."""

PLAYLIST = (
    "a playlist, or a format that makes ffmpeg open other files. If you trust it, set "
    "`local_files_only: false`"
)


def file_url(path: str) -> str:
    """The path as ffmpeg takes it literally, whatever is in it (`-`, `:`, `%d`)."""
    return f"file:{path}"


def restrictions(local_files_only: bool) -> dict[str, str]:
    """Options of ffmpeg, and of PyAV, that keep a file from making them open any other."""
    # A protocol whitelist alone would let a playlist name files beside it.
    if not local_files_only:
        return {}
    return {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}


def read_stderr_lines(path: str, *, local_files_only: bool) -> list[str]:
    """What ffmpeg itself says about a file that PyAV could not read."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-loglevel", "error"]
    for key, value in restrictions(local_files_only).items():
        command += [f"-{key}", value]
    command += ["-i", file_url(path), "-map", "0:v:0", "-frames:v", "1", "-f", "null", "-"]
    try:
        told = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=TIMEOUT_SECONDS
        ).stderr
    except subprocess.TimeoutExpired as error:
        told = error.stderr or b""
    return told.decode(errors="replace").splitlines()[:FFMPEG_LINES]


def reason_in(lines: Iterable[str]) -> str | None:
    """The first thing that ffmpeg says of a cause, without the addresses of its parts."""
    for line in lines:
        text = re.sub(r"^(\[[^]]*\] ?)+", "", line).strip()
        if "not on whitelist" in text or "Not detecting m3u8/hls" in text:
            return PLAYLIST
        if text and not text.startswith(("Error opening input", "Conversion failed")):
            return text
    return None
