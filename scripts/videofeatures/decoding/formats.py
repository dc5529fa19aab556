"""What ffmpeg and libav may open, and how a path is given to them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

PATTERN_CHARACTERS = frozenset("%*?{")
"""What makes a path a pattern to libavformat's image2 (`is_glob` and `av_get_frame_filename`)."""

CONTAINERS = (
    "4xm", "alias_pix", "anm", "apng", "apv", "asf", "asf_o", "av1", "avi", "avs", "avs2", "avs3",
    "bethsoftvid", "bfi", "bink", "bitpacked", "bmp_pipe", "bmv", "brender_pix", "c93",
    "cavsvideo", "cdg", "cdxl", "cine", "cri_pipe", "dds_pipe", "dfa", "dhav", "dirac", "dnxhd",
    "dpx_pipe", "dsicin", "dv", "dxa", "ea", "evc", "exr_pipe", "film_cpk", "filmstrip", "fits",
    "flic", "flv", "frm", "gdv", "gem_pipe", "gif", "gif_pipe", "gxf", "h261", "h263", "h264",
    "hdr_pipe", "hevc", "hnm", "hxvs", "ico", "idcin", "iff", "ifv", "image2", "image2pipe",
    "ingenient", "ipmovie", "ipu", "iv8", "ivf", "ivr", "j2k_pipe", "jpeg_pipe", "jpegls_pipe",
    "jpegxl_anim", "jpegxl_pipe", "jpegxs_pipe", "jv", "kux", "live_flv", "lmlm4", "luodat",
    "lvf", "lxf", "m4v", "matroska,webm", "mgsts", "mjpeg", "mjpeg_2000", "mm", "mods", "moflex",
    "mov,mp4,m4a,3gp,3g2,mj2", "mpeg", "mpegts", "mpegtsraw", "mpegvideo", "mpjpeg", "msnwctcp",
    "msp", "mtv", "mv", "mvi", "mxf", "mxg", "nc", "nsv", "nut", "nuv", "obu", "ogg", "paf",
    "pam_pipe", "pbm_pipe", "pcx_pipe", "pdv", "pfm_pipe", "pgm_pipe", "pgmyuv_pipe", "pgx_pipe",
    "phm_pipe", "photocd_pipe", "pictor_pipe", "pmp", "png_pipe", "ppm_pipe", "psd_pipe",
    "psxstr", "pva", "qdraw_pipe", "qoi_pipe", "r3d", "rawvideo", "rl2", "rm", "roq", "rpl",
    "sdr2", "ser", "sga", "sgi_pipe", "siff", "simbiosis_imx", "smjpeg", "smk", "smush",
    "sunrast_pipe", "swf", "thp", "tiertexseq", "tiff_pipe", "tmv", "txd", "ty", "usm", "v210",
    "v210x", "vbn_pipe", "vc1", "vc1test", "vividas", "vivo", "vmd", "vvc", "wc3movie",
    "webp_anim", "webp_pipe", "wsvqa", "wtv", "xbm_pipe", "xmv", "xpm_pipe", "xwd_pipe", "yop",
    "yuv4mpegpipe",
)  # fmt: skip
"""ffmpeg's names of the formats that may hold pictures, and hold them themselves."""

SOUND = (
    "3dostr", "aa", "aac", "aax", "ac3", "ac4", "ace", "acm", "act", "adp", "ads", "adx", "aea",
    "afc", "aiff", "aix", "alaw", "alp", "amr", "amrnb", "amrwb", "apac", "apc", "ape", "apm",
    "aptx", "aptx_hd", "argo_asf", "argo_brp", "argo_cvg", "ast", "au", "avr", "bfstm", "binka",
    "bit", "boa", "bonk", "brstm", "caf", "codec2", "codec2raw", "daud", "dcstr", "derf", "dfpwm",
    "dsf", "dss", "dts", "dtshd", "ea_cdata", "eac3", "epaf", "f32be", "f32le", "f64be", "f64le",
    "flac", "fsb", "fwse", "g722", "g723_1", "g726", "g726le", "g728", "g729", "genh", "gsm",
    "hca", "hcom", "iamf", "ilbc", "ircam", "iss", "kvag", "laf", "lc3", "libgme", "libopenmpt",
    "loas", "mca", "mlp", "mmf", "mp3", "mpc", "mpc8", "msf", "mtaf", "mulaw", "musx",
    "nistsphere", "nsp", "oma", "osq", "pp_bnk", "pvf", "qcp", "qoa", "redspark", "rka", "rsd",
    "rso", "s16be", "s16le", "s24be", "s24le", "s32be", "s32le", "s337m", "s8", "sbc", "scd",
    "sdns", "sds", "sdx", "shn", "sln", "sol", "sox", "spdif", "svag", "svs", "tak", "truehd",
    "tta", "u16be", "u16le", "u24be", "u24le", "u32be", "u32le", "u8", "vag", "vidc", "voc",
    "vpk", "vqf", "w64", "wady", "wav", "wavarc", "wsaud", "wsd", "wv", "wve", "xa", "xmd",
    "xvag", "xwma",
)  # fmt: skip
SUBTITLES = (
    "aqtitle", "ass", "dvbsub", "dvbtxt", "ffmetadata", "jacosub", "lrc", "mcc", "microdvd",
    "mpl2", "mpsub", "pjs", "rcwt", "realtext", "sami", "sbg", "scc", "srt", "stl", "subviewer",
    "subviewer1", "sup", "tedcaptions", "vplayer", "webvtt",
)  # fmt: skip
"""These, too, may be opened, to see that there are no pictures."""

OTHER_FILES = "opens other files, whatever they are named, or the network"
DEVICE = "is a device of this machine"
DRAWN_TEXT = "draws any text, or any file with its ending, as pictures"

REFUSED = {
    **dict.fromkeys(
        ("avisynth", "concat", "dash", "hls", "imf", "mlv", "rtp", "rtsp", "sap", "sdp", "vobsub"),
        OTHER_FILES,
    ),
    "webm_dash_manifest": "is a part of a manifest",
    "svg_pipe": "is a drawing, which may name other files",
    **dict.fromkeys(("adf", "bin", "idf", "tty", "xbin"), DRAWN_TEXT),
    "data": "is no format",
    **dict.fromkeys(
        ("alsa", "fbdev", "kmsgrab", "lavfi", "openal", "oss", "pulse", "video4linux2,v4l2",
         "x11grab", "dvdvideo"),
        DEVICE,
    ),
}  # fmt: skip
"""Formats that nothing may make ffmpeg open, and why, as libavformat's sources show (mlv reads the
parts beside it, vobsub the .sub). All others were looked through: they read what they are given.
Any that is in none of these lists, as a newer ffmpeg may have, is refused, too."""

PLAYLIST_SUFFIXES = (".m3u8", ".m3u", ".mpd", ".ffconcat", ".sdp", ".xml", ".txt")
"""No images. What they name is looked for beside them, by those who trust them."""


def file_url(path: str) -> str:
    """Return the URL of a path of `literal_path`, whatever is in it (`-`, `:`, `|`)."""
    return f"file:{path}"


@contextlib.contextmanager
def literal_path(path: str) -> Iterator[str]:
    """Yield a path that means this file, and no other, to ffmpeg and libav while it lasts.

    Where a name has an image's ending, libavformat takes `%d` and the like in it, or in its
    folders, for a pattern of other names, before it looks into the file. Nothing quotes them; so
    such a file goes by the number of a descriptor, and what it is shows in its content.

    Raises:
        OSError: it cannot be opened.
    """
    if not PATTERN_CHARACTERS.intersection(path) or path.lower().endswith(PLAYLIST_SUFFIXES):
        yield path
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield f"/proc/{os.getpid()}/fd/{descriptor}"
    finally:
        os.close(descriptor)


def input_options(*, local_files_only: bool) -> dict[str, str]:
    """Return the options of ffmpeg, and of PyAV, that keep a file from making them open others."""
    # A protocol whitelist alone would let a playlist name files beside it.
    if not local_files_only:
        return {}
    allowed = ",".join(CONTAINERS + SOUND + SUBTITLES)
    return {"format_whitelist": allowed, "protocol_whitelist": "file"}
