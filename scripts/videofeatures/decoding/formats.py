"""What ffmpeg and libav may open, and how a path is given to them."""

from __future__ import annotations

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


def file_url(path: str) -> str:
    """Return the path as ffmpeg takes it literally, whatever is in it (`-`, `:`, `%d`)."""
    return f"file:{path}"


def input_options(*, local_files_only: bool) -> dict[str, str]:
    """Return the options of ffmpeg, and of PyAV, that keep a file from making them open others."""
    # A protocol whitelist alone would let a playlist name files beside it.
    if not local_files_only:
        return {}
    return {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
