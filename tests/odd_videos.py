"""Broken and odd videos, made on the spot: `ODD` says how, and what becomes of each.

The table in config/README.md says the same for users; tests/test_odd_videos.py holds both to it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from conftest import run_ffmpeg

SECONDS = 6
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "25")
AAC = ("-c:a", "aac")


def video(
    path: Path,
    *options: object,
    size: str = "160x96",
    rate: object = 25,
    seconds: float = SECONDS,
    sound: float | None = None,
    late: float = 0,
    codec: tuple[object, ...] = X264,
    filters: str = "null",
) -> Path:
    """A moving picture that begins late, with sound of some seconds, if asked for."""
    inputs = [
        "-itsoffset",
        late,
        "-f",
        "lavfi",
        "-i",
        f"testsrc2=s={size}:r={rate}:d={seconds},{filters}",
    ]
    if sound is not None:
        inputs += ["-f", "lavfi", "-i", f"sine=d={sound}", *AAC]
    run_ffmpeg(*inputs, *codec, *options, path)
    return path


def cut(path: Path, part: float = 0.5) -> Path:
    """Only the first part of a file's bytes is left."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    return path


def damage(path: Path, *, begin: float = 0.3, end: float = 0.6) -> Path:
    """Every 200th byte of the middle is another."""
    content = bytearray(path.read_bytes())
    for place in range(int(len(content) * begin), int(len(content) * end), 200):
        content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def joined(path: Path, *sizes: str) -> Path:
    """One stream whose pictures change their size."""
    parts = [video(path.with_name(f"{size}.ts"), size=size, seconds=3) for size in sizes]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def rotated(path: Path, degrees: int) -> Path:
    plain = video(path.with_name(f"plain{degrees}.mp4"))
    run_ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", path)
    return path


def wrong_duration(path: Path, factor: float) -> Path:
    """The header promises so many times what is there (the duration in Matroska is a float64)."""
    content = bytearray(video(path).read_bytes())
    place = content.index(b"\x44\x89\x88") + 3
    (duration,) = struct.unpack_from(">d", content, place)
    struct.pack_into(">d", content, place, factor * duration)
    path.write_bytes(content)
    return path


def with_cover(path: Path, *, only: bool) -> Path:
    """Sound with cover art, and a film beside it or not."""
    cover, sound = path.with_name("cover.png"), path.with_name("sound.m4a")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64", "-frames:v", 1, cover)
    run_ffmpeg("-f", "lavfi", "-i", f"sine=d={SECONDS}", *AAC, sound)
    inputs, maps = ["-i", sound, "-i", cover], ["-map", "0:a", "-map", "1:v"]
    disposition = ["-disposition:v:0", "attached_pic"]
    if not only:
        film = video(path.with_name("film.mp4"))
        inputs, maps = [*inputs, "-i", film], [*maps, "-map", "2:v"]
    run_ffmpeg(*inputs, *maps, "-c", "copy", *disposition, path)
    return path


def subtitled(path: Path, codec: str) -> Path:
    """Subtitles that last much longer than the pictures."""
    lines = path.with_suffix(".srt")
    lines.write_text("1\n00:00:15,000 --> 00:00:20,000\nx\n")
    film = video(path.with_name(f"film_{path.name}"))
    run_ffmpeg("-i", film, "-i", lines, "-map", 0, "-map", 1, "-c", "copy", "-c:s", codec, path)
    return path


def late_fragments(path: Path) -> Path:
    """The end of a stream in fragments, with what tells how to decode it."""
    folder = path.with_suffix("")
    folder.mkdir()
    video(folder / "a.mpd", "-f", "dash", "-seg_duration", 1)
    parts = ("init-stream0.m4s", "chunk-stream0-00005.m4s", "chunk-stream0-00006.m4s")
    path.write_bytes(b"".join((folder / part).read_bytes() for part in parts))
    return path


def segment(path: Path) -> Path:
    late_fragments(path)
    path.write_bytes((path.with_suffix("") / "chunk-stream0-00005.m4s").read_bytes())
    return path


def unknown_codec(path: Path) -> Path:
    path.write_bytes(video(path).read_bytes().replace(b"avc1", b"zzz9"))
    return path


def unreadable(path: Path) -> Path:
    video(path).chmod(0)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def raw(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def dangling(path: Path) -> Path:
    path.symlink_to("nothing-here.mp4")
    return path


def two_films(path: Path) -> Path:
    first, second = video(path.with_name("first.mp4")), path.with_name("second.mp4")
    video(second, seconds=2, size="96x160")
    run_ffmpeg("-i", first, "-i", second, "-map", "0:v", "-map", "1:v", "-c", "copy", path)
    return path


VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none")
AV1 = ("-c:v", "libsvtav1", "-preset", "13")
FASTSTART = ("-movflags", "+faststart")
HDR = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
VARIABLE = "select='lt(mod(n,25),3)+gt(mod(n,50),40)'"
Make = Callable[[Path], Path]

# name: (maker, rows at one frame a second, or the reason of the failure)
ODD: dict[str, tuple[Make, int | str]] = {
    # Broken.
    "zero_bytes.mp4": (raw, "an empty file: Invalid data found when processing input"),
    "text.mp4": (
        lambda p: text(p, "no video at all\n" * 100),
        "text, not a video: Invalid data found",
    ),
    "web_page.mp4": (
        lambda p: text(p, "<!DOCTYPE html><html>404</html>"),
        "a web page, not a video",
    ),
    "message.mp4": (lambda p: text(p, '{"error": 404}'), "JSON, not a video"),
    "lfs.mp4": (
        lambda p: text(p, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"),
        "a Git LFS pointer, not a video: run `git lfs pull`",
    ),
    "segment.mp4": (segment, "a segment of a stream without the init segment"),
    "cut_index_first.mp4": (lambda p: cut(video(p, *FASTSTART)), "ends at 3 s of 6 s: truncated"),
    "cut_index_last.mp4": (lambda p: cut(video(p)), "moov atom not found"),
    "cut.mkv": (lambda p: cut(video(p)), "ends at 3 s of 6 s: truncated"),
    "cut.avi": (lambda p: cut(video(p, codec=("-c:v", "mpeg4"))), "truncated"),
    "cut.webm": (lambda p: cut(video(p, codec=VP9)), "truncated"),
    "cut_with_sound.mp4": (lambda p: cut(video(p, *FASTSTART, sound=6)), "truncated"),
    "cut.ts": (lambda p: cut(video(p)), 3),  # promises nothing
    "damaged.mp4": (lambda p: damage(video(p, *FASTSTART)), 6),
    "damaged.mkv": (lambda p: damage(video(p)), 6),
    "long_duration.mkv": (lambda p: wrong_duration(p, 10), "ends at 6 s of 60 s: truncated"),
    "short_duration.mkv": (lambda p: wrong_duration(p, 0.1), 6),
    "sound_only.mp4": (
        lambda p: run_ffmpeg("-f", "lavfi", "-i", "sine=d=3", *AAC, p) or p,
        "no video stream",
    ),
    "sound.mp4": (
        lambda p: run_ffmpeg("-f", "lavfi", "-i", "sine=d=3", "-f", "mp3", p) or p,
        "no video stream",
    ),
    "subtitles_only.mp4": (
        lambda p: text(p, "1\n00:00:01,000 --> 00:00:02,000\nx\n"),
        "no video stream",
    ),
    "drawing.mp4": (
        lambda p: text(p, '<svg xmlns="http://www.w3.org/2000/svg"/>'),
        "no video stream",
    ),
    "unknown_codec.mp4": (unknown_codec, "no decoder for the codec 'zzz9'"),
    "cover_only.m4a": (lambda p: with_cover(p, only=True), "no video stream but cover art"),
    "pipe.mp4": (pipe, "is not a file but a pipe or a device"),
    "folder.mp4": (folder, "is a folder"),
    "dangling.mp4": (dangling, "a link to a file that is not there"),
    "unreadable.mp4": (unreadable, "Permission denied"),
    "playlist.mp4": (
        lambda p: text(p, "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.ts\n"),
        "a playlist",
    ),
    "playlist.m3u8": (
        lambda p: text(p, "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.ts\n"),
        "a playlist",
    ),
    "concatenation.mp4": (
        lambda p: text(p, "ffconcat version 1.0\nfile secret.ts\n"),
        "a playlist",
    ),
    # Odd.
    "cover_too.m4a": (lambda p: with_cover(p, only=False), 6),
    "image.png": (lambda p: run_ffmpeg("-f", "lavfi", "-i", "testsrc2", "-frames:v", 1, p) or p, 1),
    "image.jpg": (lambda p: run_ffmpeg("-f", "lavfi", "-i", "testsrc2", "-frames:v", 1, p) or p, 1),
    "one_frame.mp4": (lambda p: video(p, seconds=0.04), 1),
    "third_of_a_second.mp4": (lambda p: video(p, seconds=0.3), 1),
    "variable_rate.mp4": (lambda p: video(p, "-fps_mode", "vfr", filters=VARIABLE), 6),
    "long_last_frame.mp4": (
        lambda p: video(p, "-fps_mode", "vfr", filters="select='lt(n,50)+eq(n,149)'"),
        6,
    ),
    "late_pictures.mp4": (lambda p: video(p, late=2, sound=8), 8),
    "late_pictures.mkv": (lambda p: video(p, late=2, sound=8), 8),
    "late_pictures_alone.mkv": (lambda p: video(p, "-output_ts_offset", 2), 6),
    "late_as_a_whole.mkv": (lambda p: video(p, "-output_ts_offset", 2, sound=8), 6),
    "short_sound.mp4": (lambda p: video(p, sound=2), 6),
    "long_sound.mp4": (lambda p: video(p, sound=12), 6),
    "subtitles.mkv": (lambda p: subtitled(p, "srt"), 6),
    "subtitles.mp4": (lambda p: subtitled(p, "mov_text"), 6),
    "late_fragments.mp4": (late_fragments, 2),
    "rotated_90.mp4": (lambda p: rotated(p, 90), 6),
    "rotated_180.mp4": (lambda p: rotated(p, 180), 6),
    "rotated_270.mp4": (lambda p: rotated(p, 270), 6),
    "not_square.mp4": (lambda p: video(p, filters="setsar=4/3"), 6),
    "odd_size.mkv": (lambda p: video(p, size="161x97", codec=("-c:v", "ffv1")), 6),
    "16x16.mp4": (lambda p: video(p, size="16x16"), 6),
    "4k.mp4": (lambda p: video(p, size="3840x2160", rate=5, seconds=2), 2),
    "10_bit.mkv": (lambda p: video(p, "-pix_fmt", "yuv420p10le", codec=X265), 6),
    "hdr.mp4": (lambda p: video(p, *HDR, "-pix_fmt", "yuv420p10le", codec=X265), 6),
    "interlaced.mp4": (lambda p: video(p, "-flags", "+ildct+ilme", "-x264-params", "tff=1"), 6),
    "grey.mp4": (lambda p: video(p, "-pix_fmt", "gray"), 6),
    "alpha.mov": (lambda p: video(p, codec=("-c:v", "qtrle", "-pix_fmt", "argb")), 6),
    "alpha.webm": (lambda p: video(p, "-pix_fmt", "yuva420p", codec=VP9), 6),
    "1_fps.mp4": (lambda p: video(p, rate=1), 6),
    "240_fps.mp4": (lambda p: video(p, rate=240), 6),
    "hevc.mp4": (lambda p: video(p, codec=X265), 6),
    "vp9.webm": (lambda p: video(p, codec=VP9), 6),
    "av1.mkv": (lambda p: video(p, codec=AV1), 6),
    "mpeg4.avi": (lambda p: video(p, codec=("-c:v", "mpeg4")), 6),
    "mjpeg.avi": (lambda p: video(p, codec=("-c:v", "mjpeg")), 6),
    "animation.gif": (lambda p: video(p, rate=10, codec=()), 6),
    "mpeg2.ts": (lambda p: video(p, codec=("-c:v", "mpeg2video")), 6),
    "prores.mov": (lambda p: video(p, codec=("-c:v", "prores")), 6),
    "windows.wmv": (lambda p: video(p, codec=("-c:v", "wmv2")), 6),
    "flash.flv": (lambda p: video(p, codec=("-c:v", "flv1")), 6),
    "two_films.mkv": (two_films, 6),
    "other_size_in_between.ts": (lambda p: joined(p, "160x96", "96x160", "320x180"), 9),
    f"{'long_name_' * 24}12345.mp4": (video, 6),
}
