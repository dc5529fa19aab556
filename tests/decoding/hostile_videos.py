"""Videos that ask for more than there is. Each tells the truth but for one thing."""

from __future__ import annotations

import struct
from pathlib import Path

from conftest import make_clip, run_ffmpeg

X264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "0")


def make_still(path: Path, seconds: float, *, num_frames: int = 100) -> Path:
    """Frames at 25 a second, in the middle of which one stands for so long."""
    half = num_frames // 2
    source = f"testsrc2=s=64x48:r=25:d={num_frames / 25}"
    times = f"setpts=if(lt(N\\,{half})\\,N/25/TB\\,({seconds}+(N-1)/25)/TB)"
    options = ("-vf", times, "-fps_mode", "passthrough", *X264)
    run_ffmpeg("-f", "lavfi", "-i", source, *options, path)
    return path


def make_avi_of_slow_frames(path: Path, seconds_per_frame: int) -> Path:
    """An AVI of 4 s whose header says that each frame lasts so long."""
    content = make_clip(path, seconds=4, codec=("-c:v", "mpeg4")).read_bytes()
    place = content.index(b"strh") + 8 + 20  # dwScale, dwRate
    path.write_bytes(
        content[:place] + struct.pack("<II", seconds_per_frame, 1) + content[place + 8 :]
    )
    return path


def make_edits(path: Path, num_edits: int) -> Path:
    """An MP4 of 4 s, as its header says, that is to be shown again and again."""
    run_ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=320x240:r=25:d=4"),
        *X264,
        *("-use_editlist", "0", path),
    )
    content = path.read_bytes()
    moov = content.index(b"moov") - 4
    trak = content.index(b"trak", moov) - 4
    edit = struct.pack(">IiI", 4000, 0, 1 << 16)  # of the movie's 1,000 ticks a second; all of it
    elst = _box(b"elst", struct.pack(">II", 0, num_edits) + edit * num_edits)
    edts = _box(b"edts", elst)
    place = trak + 8 + struct.unpack(">I", content[trak + 8 : trak + 12])[0]  # after tkhd
    for start in (moov, trak):
        size = struct.unpack(">I", content[start : start + 4])[0] + len(edts)
        content = content[:start] + struct.pack(">I", size) + content[start + 4 :]
    path.write_bytes(content[:place] + edts + content[place:])
    return path


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + name + content


def make_late_tag(path: Path, seconds: int) -> Path:
    """An FLV of 4 s whose last pictures say that they come so late."""
    content = bytearray(make_clip(path, seconds=4, codec=("-c:v", "flv1")).read_bytes())
    place, tags = 13, []
    while place + 11 < len(content):
        size = int.from_bytes(content[place + 1 : place + 4], "big")
        if content[place] == 9:
            tags.append(place)
        place += 11 + size + 4
    for tag in tags[-10:]:
        time = int.from_bytes(content[tag + 4 : tag + 7], "big") + 1000 * seconds
        content[tag + 4 : tag + 8] = (time & 0xFFFFFF).to_bytes(3, "big") + bytes([time >> 24])
    path.write_bytes(content)
    return path


def make_late_pts(path: Path, seconds: float, *, only_pts: bool = True) -> Path:
    """An MPEG-TS of 4 s, one of whose pictures is said to be shown so late."""
    codec = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", "2", "-g", "25")
    content = bytearray(make_clip(path, seconds=4, codec=codec).read_bytes())
    place, found = 0, []
    while (place := content.find(b"\0\0\1\xe0", place + 1)) > 0:
        if content[place + 7] >> 6 == 3:  # PTS and DTS
            found.append(place + 9)
    start = found[len(found) // 2]
    content[start : start + 5] = _shifted(content[start : start + 5], round(seconds * 90000))
    if not only_pts:
        start += 5
        content[start : start + 5] = _shifted(content[start : start + 5], round(seconds * 90000))
    path.write_bytes(content)
    return path


def _shifted(field: bytes, ticks: int) -> bytes:
    """Return a time of ISO/IEC 13818-1, 2.4.3.7, so many ticks later."""
    time = (field[0] >> 1 & 7) << 30 | field[1] << 22 | field[2] >> 1 << 15
    time = (time | field[3] << 7 | field[4] >> 1) + ticks & (1 << 33) - 1
    high = field[0] & 0xF0 | time >> 30 << 1 | 1
    middle = (time >> 15 & 0x7FFF) << 1 | 1
    low = (time & 0x7FFF) << 1 | 1
    return bytes([high]) + middle.to_bytes(2, "big") + low.to_bytes(2, "big")
