"""Whatever a source does to ffmpeg or to libav, it costs one row."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, make_clip, run_ffmpeg
from decoding import one_view
from decoding.faulty_videos import make_faulty_videos, workers
from decoding.hostile_videos import (
    make_avi_of_slow_frames,
    make_edits,
    make_late_pts,
    make_late_tag,
    make_still,
)
from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.process import MemoryLimitError, ReadTimeout
from videofeatures.decoding.view import View
from videofeatures.errors import MachineError, VideoError
from videofeatures.report.thumbnails import frames_at
from videofeatures.settings import Settings
from videofeatures.source import Source

VIEW = View(frame_rate=1, resize_size=32, crop_size=0)
METADATA = VideoMetadata(64, 48, Fraction(1), 100.0, 25.0, "h264", container="mov")


@pytest.fixture
def videos(tmp_path, monkeypatch) -> dict[str, str]:
    return make_faulty_videos(tmp_path, monkeypatch)


QUESTIONS = {
    "probe": lambda decoder, source: decoder.probe(source),
    "frames": lambda decoder, source: list(one_view.decode(decoder, source, METADATA, VIEW)),
    "find_truncation": lambda decoder, source: decoder.find_truncation(source, METADATA, VIEW, 1),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_crash_costs_one_row(videos, question):
    with FfmpegDecoder(Settings(skip_unused=True)) as decoder:
        with pytest.raises(VideoError) as error:
            QUESTIONS[question](decoder, Source(videos["crash"]))
        assert error.value.reason == f"the decoder crashed (signal {int(signal.SIGSEGV)})"
        assert error.value.ffmpeg_lines == ["last words"]
        assert workers() == []
        assert decoder.probe(Source(videos["good"])).width == 64


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("killed", "the decoder was killed (signal 9): out of memory, it may be"),
        ("disk", "Stale file handle"),
    ],
)
def test_what_the_machine_does_is_not_the_video_s_fault(videos, question, name, reason):
    with FfmpegDecoder(Settings(skip_unused=True)) as decoder:
        with pytest.raises(MachineError) as error:
            QUESTIONS[question](decoder, Source(videos[name]))
        assert error.value.reason == reason
        assert decoder.probe(Source(videos["good"])).width == 64


@pytest.mark.parametrize("question", QUESTIONS)
def test_memory_that_a_file_asks_for_is_bounded(videos, question):
    with FfmpegDecoder(Settings(skip_unused=True, decoder_memory_mb=300)) as decoder:
        with pytest.raises(MemoryLimitError, match=r"more than 300 MB .*`decoder_memory_mb`$"):
            QUESTIONS[question](decoder, Source(videos["greedy"]))
        assert workers() == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_hang_costs_one_row(videos, question):
    with FfmpegDecoder(Settings(skip_unused=True, decode_timeout_seconds=1)) as decoder:
        with pytest.raises(VideoError) as error:
            QUESTIONS[question](decoder, Source(videos["hang"]))
        assert error.value.reason == "the decoder stopped answering for 1 s"
        assert workers() == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_stop_ends_the_wait(videos, question):
    stopped = threading.Event()
    with FfmpegDecoder(Settings(skip_unused=True), stopped=stopped) as decoder:
        threading.Timer(0.5, stopped.set).start()
        started = time.monotonic()
        with pytest.raises(MachineError, match=r"^stopped$"):
            QUESTIONS[question](decoder, Source(videos["hang"]))
        assert time.monotonic() - started < 20
        assert workers() == []


@pytest.fixture(scope="module")
def sparse_videos(tmp_path_factory) -> list[Path]:
    """The beginning of some videos, and 40 GB of nothing, which libav looks through for more."""
    folder = tmp_path_factory.mktemp("sparse")
    film = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=10")
    paths = []
    for kind, num_bytes in itertools.product(("mkv", "mpg", "ts", "flv", "avi"), (700, 60_000)):
        path = folder / f"{num_bytes}.{kind}"
        run_ffmpeg(*film, path)
        os.truncate(path, num_bytes)
        os.truncate(path, 40_000_000_000)
        paths.append(path)
    return paths


LONG = pytest.mark.parametrize("question", ["probe", "find_truncation", "look_at_packets"])


def ask(question: str, decoder: FfmpegDecoder, libav: Libav, path: Path) -> object:
    """The answer, or the reason that there is none."""
    try:
        if question == "look_at_packets":
            return libav.look_at_packets(str(path), [1.0])
        return QUESTIONS[question](decoder, Source(str(path)))
    except VideoError as error:
        return error.reason


@LONG
def test_a_file_that_libav_looks_through_for_long_is_left_in_time(sparse_videos, question):
    timeout = 1
    with (
        FfmpegDecoder(Settings(decode_timeout_seconds=timeout)) as decoder,
        Libav(ReadTimeout(timeout)) as libav,
    ):
        answers = [ask(question, decoder, libav, path) for path in sparse_videos]
    assert workers() == []
    assert answers.count("the decoder stopped answering for 1 s") >= 4


@LONG
def test_a_stop_ends_looking_through_a_file(sparse_videos, question):
    stopped = threading.Event()
    with (
        FfmpegDecoder(Settings(), stopped=stopped) as decoder,
        Libav(ReadTimeout(None, stopped)) as libav,
    ):
        threading.Timer(0.5, stopped.set).start()
        assert ask(question, decoder, libav, sparse_videos[0]) == "stopped"
    assert workers() == []


def test_libav_is_loaded_where_it_is_used_and_nothing_else_is(tmp_path):
    script = """
        import sys
        from videofeatures.decoding.decoding import Decoding
        from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
        from videofeatures.decoding.view import View
        from videofeatures.settings import Settings
        from videofeatures.source import Source
        view = View(frame_rate=1, resize_size=32, crop_size=0)
        decoder = FfmpegDecoder(Settings(skip_unused=True))
        print(len(list(Decoding(decoder, Source(sys.argv[1]), view).clips())))
        print(*sorted({"av", "torch", "pandas"} & set(sys.modules)))
    """
    path = make_clip(tmp_path / "a.mp4")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["2"]
    with FfmpegDecoder(Settings()) as decoder:
        decoder.probe(Source(str(path)))
        (worker,) = workers()
        maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libavcodec" in maps
    assert not [name for name in ("torch", "numpy", "pandas") if f"/{name}/" in maps]


NAMES = [
    *("pic%03d.png", "pic%d.jpg", "%d%%.jpg", "f%d/a.png", "f%03d/pic%d.jpeg", "100%.jpg"),
    *("p*.png", "p?.jpg", "p{1,2}.png", "p%*.png", "p%?.png", "p[1].jpg", "p%[1].jpg"),
    *("a|b.mp4", "concat:a.mp4|b.mp4", "subfile,,start,0,end,0,,:a.mp4", "pipe:0", "http:/a.mp4"),
    *("-i.mp4", "-f", "file:a.mp4", "a\nb.mp4", "a,b\\c'd\"e.mp4", "%d.m3u8", "\udcff%d.jpg"),
]


def colour(frame: np.ndarray) -> str:
    return "RGB"[int(frame.mean(axis=(0, 1)).argmax())]


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """A folder of two films: blue.mp4, of 6 s, and red.mp4, which is smaller."""
    folder = tmp_path_factory.mktemp("films")
    for name, size, seconds in (("red", "32x32", 4), ("blue", "64x48", 6)):
        film = f"color={name}:s={size}:r=25:d={seconds}"
        run_ffmpeg("-f", "lavfi", "-i", film, "-c:v", "libx264", folder / f"{name}.mp4")
    return folder


@pytest.mark.parametrize(
    ("name", "local_files_only"),
    [*((name, True) for name in NAMES), *((name, False) for name in NAMES[::5])],
)
def test_a_name_is_that_of_one_file(films, tmp_path, monkeypatch, name, local_files_only):
    """What its name might mean otherwise is there, and red."""
    monkeypatch.chdir(tmp_path)
    others = [name.replace("%03d", "001").replace("%d", "1"), name.replace("?", "1")]
    others += [name.replace("*", "1"), name.replace("{1,2}", "1"), "a.mp4", "p1.jpg", "p1.png"]
    for other in [*others, name]:
        Path(other).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(films / ("blue.mp4" if other == name else "red.mp4"), other)
    source = Source(name)
    settings = Settings(skip_unused=True, local_files_only=local_files_only)
    with FfmpegDecoder(settings) as decoder:
        metadata = decoder.probe(source)
        assert (metadata.width, metadata.duration_seconds) == (64, 6)
        frames = list(one_view.decode(decoder, source, metadata, VIEW))
        assert [colour(frame) for frame in frames] == ["B"] * 6
        assert decoder.find_truncation(source, metadata, VIEW, 6) is None
        assert decoder.find_truncation(source, metadata, VIEW, 2) is not None
    with Libav(ReadTimeout(), local_files_only=local_files_only) as libav:
        assert libav.read_duration(name) == 6
        assert libav.look_at_packets(name, [1.0]).packet_filter is not None
    (picture,) = frames_at(name, [1.0], height=48, local_files_only=local_files_only)
    assert colour(np.array(picture)) == "B"
    # What is said of a file is not said of another, either.
    Path(name).write_bytes(b"\1\2\3")
    with FfmpegDecoder(settings) as decoder:
        with pytest.raises(VideoError, match=r"^(Invalid data found|no frame of the)"):
            decoder.probe(source)
        Path(name).unlink()
        with pytest.raises(VideoError, match=r"^no such file$"):
            decoder.probe(source)


@pytest.mark.parametrize("name", ["pic%03d.png", "p?.jpg", "f%d/a.webp", "%d.bmp", "a.mp4", "a"])
def test_a_picture_is_what_its_content_shows(tmp_path, name):
    kind = Path(name).suffix if name.count(".") and "mp4" not in name else ".png"
    path = tmp_path / name
    for folder in (path.parent, tmp_path / "f1"):
        folder.mkdir(exist_ok=True)
    for colour_name, to in (
        ("red", name.replace("%03d", "001").replace("%d", "1")),
        ("blue", name),
    ):
        picture = tmp_path / f"{colour_name}{kind}"
        run_ffmpeg("-f", "lavfi", "-i", f"color={colour_name}:s=64x48", "-frames:v", 1, picture)
        shutil.copy(picture, tmp_path / to)
    with FfmpegDecoder(Settings()) as decoder:
        metadata = decoder.probe(Source(str(path)))
        (frame,) = one_view.decode(decoder, Source(str(path)), metadata, VIEW)
        assert colour(frame) == "B"


def test_what_a_playlist_names_is_looked_for_beside_it(tmp_path):
    folder = tmp_path / "100%d"
    folder.mkdir()
    make_clip(folder / "part.ts", size="64x48")
    path = folder / "a.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\npart.ts\n#EXT-X-ENDLIST\n")
    with FfmpegDecoder(Settings(local_files_only=False)) as decoder:
        assert decoder.probe(Source(str(path))).width == 64


def test_a_file_that_goes_while_it_is_read_costs_one_row(tmp_path):
    source = Source(str(tmp_path / "%d.jpg"))
    gone = r"^the file was removed while it was read: No such file"
    with FfmpegDecoder(Settings()) as decoder, pytest.raises(VideoError, match=gone):
        list(one_view.decode(decoder, source, METADATA, VIEW))


CHANGES = {
    "emptied": (lambda path: os.truncate(path, 0), "the file was changed while it was read: "),
    "overwritten": (
        lambda path: path.write_bytes(b"x" * 100),
        "the file was changed while it was read: ",
    ),
    "removed and emptied": (
        lambda path: (os.truncate(path, 0), path.unlink()),
        "the file was removed while it was read: No such file or directory",
    ),
    "cut off": (
        lambda path: os.truncate(path, path.stat().st_size // 2),
        "ends at [0-9] s of 10 s: truncated",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_it_is_read_costs_one_row(tmp_path, change):
    path = make_clip(tmp_path / "a.mkv", seconds=10, codec=("-c:v", "rawvideo"))
    view = View(frame_rate=25, resize_size=480, crop_size=0)  # more than a pipe holds
    with FfmpegDecoder(Settings()) as decoder:
        clips = Decoding(decoder, Source(str(path)), view).clips()
        next(clips)
        make_change, expected = CHANGES[change]
        make_change(path)
        with pytest.raises(VideoError, match=rf"^{expected}"):
            list(clips)


def test_a_codec_without_a_decoder_is_named(tmp_path):
    path = make_clip(tmp_path / "a.mp4", size="64x48")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    other = tmp_path / "b.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=1", "-c:v", "ffv1", other)
    other.write_bytes(other.read_bytes().replace(b"V_FFV1", b"V_XXV1"))
    expected = {path: "the codec 'zzz9'", other: "its codec, which has no name"}
    with FfmpegDecoder(Settings()) as decoder:
        for name, codec in expected.items():
            with pytest.raises(VideoError, match=rf"^no decoder for {codec}$"):
                decoder.probe(Source(str(name)))
    assert frames_at(str(path), [1.0], height=48) == [None]
    with Libav(ReadTimeout()) as libav:
        assert libav.look_at_packets(str(path), [1.0]).packet_filter is None


@pytest.mark.parametrize("late", [2, 60])
@pytest.mark.parametrize("kind", ["mkv", "mp4", "flv", "ts"])
def test_pictures_that_start_late_count_from_the_sound_but_in_a_ts(tmp_path, kind, late):
    path = tmp_path / f"a.{kind}"
    film = ("-itsoffset", late, "-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=4")
    sound = ("-f", "lavfi", "-i", f"sine=d={late + 4}")
    run_ffmpeg(*film, *sound, "-c:v", "libx264", "-c:a", "aac", path)
    source = Source(str(path))
    with FfmpegDecoder(Settings()) as decoder:
        frames = list(one_view.decode(decoder, source, decoder.probe(source), VIEW))
        num_before = 0 if kind == "ts" else late
        assert len(frames) == num_before + 4
        # The first picture stands for the time before.
        assert all(np.array_equal(frame, frames[0]) for frame in frames[:num_before])
        assert not np.array_equal(frames[-1], frames[0])
    if late == 2:  # else libav does not know where the pictures of a TS start
        first, third = frames_at(str(path), [num_before, num_before + 2.5], height=48)
        assert first.tobytes() != third.tobytes()


def decode(path: Path, frame_rate: float = 1, **options: object) -> Decoding:
    """Decode all of a video, whole frames, and return what was found."""
    view = View(frame_rate=frame_rate, resize_size=32, crop_size=0)
    with FfmpegDecoder(Settings(**options)) as decoder:
        decoding = Decoding(decoder, Source(str(path)), view)
        deque(decoding.clips(), maxlen=0)
    return decoding


def test_frames_that_nothing_justifies_are_damaged_times(tmp_path):
    hostile = {
        "header": make_avi_of_slow_frames(tmp_path / "a.avi", 20),
        "edits": make_edits(tmp_path / "b.mp4", 5000),
        "late tag": make_late_tag(tmp_path / "c.flv", 62),
        "late picture": make_late_pts(tmp_path / "d.ts", 62),
        "very late picture": make_late_pts(tmp_path / "e.ts", 90_000),
    }
    reasons = {}
    for name, path in hostile.items():
        with pytest.raises(VideoError) as error:
            decode(path)
        reasons[name] = error.value.reason
    header = "2,000 s by its times, 2,000 s by its header, 4 s by its 100 packets: damaged times"
    assert reasons["header"] == header
    for name in ("edits", "late tag", "late picture", "very late picture"):
        seconds, told = reasons[name].split(" s by its times, 4 s by its header, ")
        assert 9 < int(seconds) <= 66
        assert re.fullmatch(r"[4-6] s by its 1\d\d packets: damaged times", told)


@pytest.mark.parametrize("frame_rate", [1, 24])  # the second one asks for more memory than it gets
def test_a_picture_stands_for_no_longer_than_allowed(tmp_path, frame_rate):
    path = make_avi_of_slow_frames(tmp_path / "a.avi", 10**6)
    with pytest.raises(VideoError, match=r"^one picture stands for 1,000,000 s .*still_seconds`"):
        decode(path, frame_rate, decoder_memory_mb=300)
    still = make_still(tmp_path / "b.mkv", 60)
    with pytest.raises(VideoError, match=r"stands for 60 s by its times: .* \(now 30\)$"):
        decode(still, max_still_seconds=30)
    assert decode(still, max_still_seconds=61).num_frames == 64


def test_pictures_that_stand_still_or_come_late_are_taken(tmp_path):
    for name in ("a.mkv", "a.mp4", "a.flv"):
        assert decode(make_still(tmp_path / name, 1200)).num_frames == 1204
    live = tmp_path / "live.mkv"  # whose header does not say how long it is
    run_ffmpeg("-i", tmp_path / "a.mkv", "-c", "copy", "-live", "1", live)
    assert decode(live).num_frames == 1204
    late = tmp_path / "late.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=70")
    video = make_clip(tmp_path / "b.mp4", seconds=4)
    run_ffmpeg(*sound, "-itsoffset", "60", "-i", video, "-map", "0", "-map", "1", late)
    assert decode(late).num_frames == 64


def test_a_video_without_a_true_header_is_taken_whole(tmp_path):
    for name, codec in (("a.h264", "libx264"), ("a.ts", "mpeg2video"), ("a.mpg", "mpeg2video")):
        path = make_clip(tmp_path / name, seconds=30, codec=("-c:v", codec), size="64x48")
        assert decode(path).num_frames == 30
    short = make_clip(tmp_path / "short.flv", seconds=30, codec=("-c:v", "flv1"))
    content = short.read_bytes()
    place = content.index(b"duration") + len("duration") + 1
    short.write_bytes(content[:place] + struct.pack(">d", 4.0) + content[place + 8 :])
    found = decode(short)
    assert (found.metadata.duration_seconds, found.num_frames) == (4, 30)


@pytest.fixture
def looked_at(monkeypatch, by_program) -> list[str]:
    """The names of the files whose packets were read, in order, for ffmpeg's program."""
    names, look = [], Libav.look_at_packets

    def note(self: Libav, path: str, *arguments: object, **options: object) -> PacketFacts:
        names.append(Path(path).name)
        return look(self, path, *arguments, **options)

    monkeypatch.setattr(Libav, "look_at_packets", note)
    return names


def test_the_packets_of_an_ordinary_video_are_read_once_and_where_that_saves_something(
    tmp_path, looked_at
):
    for name in ("a.mp4", "a.mkv", "a.avi", "a.ts"):
        path = make_clip(tmp_path / name, seconds=4)
        for rate in (1, 24):
            assert decode(path, rate).num_frames >= 4 * rate
        decode(path, 1, skip_unused=False)
    assert looked_at == ["a.mp4", "a.mkv"]
    # A part of a long video is not what its packets are read for.
    source = Source(str(tmp_path / "a.mp4"), 1.0, 2.0)
    with FfmpegDecoder(Settings()) as decoder:
        assert len(list(Decoding(decoder, source, VIEW).clips())) == 1
    assert looked_at == ["a.mp4", "a.mkv"]


def test_one_look_serves_all_that_ask(tmp_path, looked_at):
    path = make_clip(tmp_path / "a.mkv", seconds=10)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r": truncated$"):
        decode(path)
    assert looked_at == ["a.mkv"]


@pytest.mark.parametrize(
    ("size", "pixels", "told"),
    [
        ("320x240", 500, "320 × 240 with pixels of 100:1 would be 4266 × 32"),
        ("4096x32", 1, "4096 × 32 would be 4096 × 32"),
        ("32x4096", 1, "32 × 4096 would be 32 × 4096"),
    ],
)
def test_the_shape_that_a_network_is_given_is_bounded(tmp_path, size, pixels, told):
    codec = ("-vf", f"setsar={pixels}", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    path = make_clip(tmp_path / "a.mp4", size=size, codec=codec)
    with pytest.raises(VideoError) as error:
        decode(path)
    assert error.value.reason == (
        f"{told} for the network: longer than `max_aspect_ratio` (now 10) times its breadth"
    )
    assert decode(path, max_aspect_ratio=500).num_frames == 2
    with FfmpegDecoder(Settings()) as decoder:  # of a crop, only the crop counts
        view = View(frame_rate=1, resize_size=32, crop_size=32)
        decoding = Decoding(decoder, Source(str(path)), view)
        assert [clip.shape for clip in decoding.clips()] == [(32, 32, 3)] * 2


# What comes of bits that mean nothing is chance: with the last four keys it is no frame at all, for
# four reasons of ffmpeg.
@pytest.mark.parametrize("key", [0, 1, 15, 24, 85, 97])
def test_a_video_that_is_encrypted_fails_whatever_is_kept(tmp_path, key):
    plain = make_clip(tmp_path / "plain.mp4", seconds=4)
    path = tmp_path / "a.mp4"
    scheme = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_kid", "a7e61c373e219033" * 2)
    same = ("-fflags", "+bitexact")  # no number is drawn
    run_ffmpeg("-i", plain, "-c", "copy", *same, *scheme, "-encryption_key", f"{key:032x}", path)
    with pytest.raises(VideoError, match=r"^encrypted: "):
        decode(path, damaged="keep", truncated="keep")
    assert decode(plain).damage.num_damaged_frames == 0


def test_a_stream_that_appears_in_the_middle_is_no_crash(tmp_path):
    path = tmp_path / "a.flv"
    film = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=100")
    sound = ("-itsoffset", "60", "-f", "lavfi", "-i", "sine=d=60")
    run_ffmpeg(*film, *sound, "-c:v", "flv1", "-c:a", "mp3", path)
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\x01" + content[5:])  # there is sound, and it does not say so
    # The sound, which goes on after the pictures, is none of its streams.
    assert decode(path).num_frames == 100
    with Libav(ReadTimeout()) as libav:
        assert libav.look_at_packets(str(path)).num_packets == 2500
