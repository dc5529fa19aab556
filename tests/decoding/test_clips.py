"""Frames to clips, and the times of what each row saw; and one source to clips."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import make_clip
from videofeatures.decoding.clips import ClipCutter
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.view import View
from videofeatures.decoding.windows import Windows
from videofeatures.errors import VideoError
from videofeatures.networks.backbones import BACKBONES
from videofeatures.settings import Settings
from videofeatures.source import Source


def iter_clips(frames: Iterable[np.ndarray], view: View) -> Iterator[np.ndarray]:
    """What becomes of the frames of a whole video."""
    cutter = ClipCutter(view)
    for frame in frames:
        if (clip := cutter.add(frame)) is not None:
            yield clip
    yield from cutter.end()


def frames(count: int) -> list[np.ndarray]:
    return [np.full((2, 3, 3), k + 1, np.uint8) for k in range(count)]


def view(**options: object) -> View:
    return View(**{"frame_rate": 1, "resize_size": 2, "crop_size": 0} | options)


def values(clips: Iterable[np.ndarray]) -> list[list[int]]:
    """What each frame of clips is filled with: its number from 1, or 0."""
    return [clip[:, 0, 0, 0].tolist() for clip in clips]


def test_frames_pass_through_without_clips():
    given = frames(3)
    assert [frame is given[k] for k, frame in enumerate(iter_clips(given, view()))] == [True] * 3


@pytest.mark.parametrize(
    ("num_frames", "sizes"),
    [(0, []), (1, [1]), (15, [15]), (16, [16]), (17, [16, 1]), (48, [16, 16, 16])],
)
def test_no_frame_is_lost_and_the_last_clip_is_filled_with_black(num_frames, sizes):
    clips = list(iter_clips(iter(frames(num_frames)), view(num_frames_per_clip=16)))
    assert len(clips) == len(sizes)
    assert all(clip.shape == (16, 2, 3, 3) and clip.dtype == np.uint8 for clip in clips)
    found = [value for clip in values(clips) for value in clip]
    padding = 16 * len(sizes) - num_frames
    assert found == [*range(1, num_frames + 1), *[0] * padding]


@pytest.mark.parametrize(
    ("last_clip", "expected"),
    [
        ("zeros", [[1, 3, 5], [5, 7, 9], [9, 0, 0]]),
        ("repeat", [[1, 3, 5], [5, 7, 9], [9, 9, 9]]),
        ("drop", [[1, 3, 5], [5, 7, 9]]),
        ("shift", [[1, 3, 5], [5, 7, 9], [6, 8, 10]]),
    ],
)
def test_what_becomes_of_the_frames_that_are_left(last_clip, expected):
    options = {"num_frames_per_clip": 3, "frame_interval": 2, "clip_stride": 4}
    windowed = view(**options, last_clip=last_clip)
    assert values(iter_clips(iter(frames(10)), windowed)) == expected


@pytest.mark.parametrize(
    ("last_clip", "expected"),
    [("zeros", [1, 2, 0]), ("repeat", [1, 2, 2]), ("shift", [1, 2, 2])],
)
def test_a_video_that_is_shorter_than_a_clip_has_one(last_clip, expected):
    short = view(num_frames_per_clip=3, last_clip=last_clip)
    assert values(iter_clips(iter(frames(2)), short)) == [expected]


def test_a_video_that_is_shorter_than_a_clip_has_none_if_it_is_dropped():
    short = view(num_frames_per_clip=16, last_clip="drop")
    with pytest.raises(VideoError, match=r"shorter than one clip: 15 frames of 16.*`last_clip`"):
        list(iter_clips(iter(frames(15)), short))


def clips_by_the_rule(given: list[np.ndarray], windows: Windows, filling: str) -> list[list[int]]:
    """Clips as they are cut of all frames, in memory."""
    found = []
    for start in windows.starts(len(given)):
        places = range(start, start + windows.span, windows.interval)
        real = [place + 1 for place in places if place < len(given)]
        fill = 0 if filling == "zeros" else real[-1]
        found.append(real + [fill] * (windows.length - len(real)))
    return found


@pytest.mark.parametrize("last_clip", ["zeros", "repeat", "drop", "shift"])
def test_clips_of_a_stream_are_those_of_the_whole_video(last_clip):
    for length, interval, stride in itertools.product([2, 3, 5], [1, 2, 3], [None, 1, 2, 5, 9, 12]):
        windowed = view(
            num_frames_per_clip=length,
            frame_interval=interval,
            clip_stride=stride,
            last_clip=last_clip,
        )
        whole = Windows(length, interval, stride or length * interval, last_clip)
        for num_frames in range(1, 40):
            given = frames(num_frames)
            if not whole.starts(num_frames):
                continue
            # What the decoder leaves out, no clip lacks.
            taken = given[:: windowed.frame_step]
            expected = clips_by_the_rule(given, whole, last_clip)
            assert values(iter_clips(iter(taken), windowed)) == expected


def test_no_more_frames_are_kept_than_a_clip_spans():
    alive: list[weakref.ref[np.ndarray]] = []
    counts = []

    def stream() -> Iterator[np.ndarray]:
        for k in range(200):
            counts.append(sum(frame() is not None for frame in alive))
            frame = np.full((2, 3, 3), k, np.uint8)
            alive.append(weakref.ref(frame))
            yield frame

    overlapping = view(num_frames_per_clip=8, clip_stride=2, last_clip="shift")
    assert len(list(iter_clips(stream(), overlapping))) == 97
    assert 8 <= max(counts) <= 9  # the one that has come last is in other hands, too


def test_single_frames_of_a_spread_may_be_fewer():
    few = view(num_frames=7, frame_interval=3)
    assert [int(frame[0, 0, 0]) for frame in iter_clips(iter(frames(7)), few)] == [1, 4, 7]


@pytest.fixture
def decoder():
    with FfmpegDecoder(Settings()) as decoder:
        yield decoder


@pytest.mark.parametrize(
    ("backbone", "num_frames", "shapes"),
    [
        ("resnet152", 3, [(224, 298, 3)] * 3),
        ("resnext101", 72, [(16, 112, 112, 3)] * 5),  # 4.5 clips
    ],
)
def test_a_source_is_decoded_for_a_view(tmp_path, decoder, backbone, num_frames, shapes):
    path = make_clip(tmp_path / "a.mp4", seconds=3)
    decoding = Decoding(decoder, Source(str(path)), BACKBONES[backbone].view)
    assert (decoding.metadata, decoding.num_frames, decoding.num_clips) == (None, 0, 0)
    counts = []
    clips = []
    for pixels in decoding.clips():
        clips.append(pixels)
        counts.append(decoding.num_clips)
    assert [(pixels.shape, pixels.dtype) for pixels in clips] == [(s, np.uint8) for s in shapes]
    assert counts == list(range(1, len(shapes) + 1))  # when a clip comes, it is counted
    assert decoding.num_frames == num_frames
    assert (decoding.metadata.width, decoding.metadata.duration_seconds) == (320, 3)
    assert (list(decoding.messages), decoding.warning) == ([], None)
    assert [len(times) for times in decoding.times] == [len(clips)] * 3
    assert decoding.times.end_seconds[-1] == decoding.views[0].decoded_seconds == 3
    assert decoding.share == 1


def cut_off(path: Path) -> Source:
    """A video that ends half way."""
    content = make_clip(path, seconds=6).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return Source(str(path))


def test_a_truncated_source_fails_after_its_clips_or_is_kept_with_a_warning(tmp_path, decoder):
    source = cut_off(tmp_path / "cut.mkv")
    view = BACKBONES["resnet152"].view
    decoding = Decoding(decoder, source, view)
    clips = decoding.clips()
    assert [next(clips).shape for _ in range(3)] == [(224, 298, 3)] * 3
    with pytest.raises(VideoError, match=r"^ends at 3 s of 6 s: truncated$"):
        next(clips)
    kept = Decoding(decoder, source, view, truncated="keep")
    assert len(list(kept.clips())) == kept.num_clips == kept.num_frames == 3
    assert kept.warning == decoding.warning == "ends at 3 s of 6 s: truncated"


def damaged(path: Path, share: float) -> Source:
    """A video of 6 s, of which so much has flipped bits."""
    content = bytearray(make_clip(path, seconds=6).read_bytes())
    for place in range(len(content) // 10, round(len(content) * (0.1 + share)), 200):
        content[place] ^= 0xFF
    path.write_bytes(content)
    return Source(str(path))


def test_what_the_decoder_says_of_frames_that_come_is_kept(tmp_path, decoder):
    source = damaged(tmp_path / "a.mkv", 0.01)
    decoding = Decoding(decoder, source, BACKBONES["resnet152"].view, damaged="keep")
    assert len(list(decoding.clips())) == 6
    assert 0 < len(decoding.messages) <= 20
    assert not any("[error]" in line for line in decoding.messages)


def test_a_source_of_which_much_is_damaged_fails_or_is_kept_with_a_warning(tmp_path, decoder):
    view = BACKBONES["resnet152"].view
    source = damaged(tmp_path / "a.mkv", 0.85)
    decoding = Decoding(decoder, source, view)
    with pytest.raises(VideoError, match=r"^\d\d % of its frames are damaged$") as error:
        list(decoding.clips())
    assert 0.5 < decoding.damage.share < 1
    assert error.value.reason.startswith(f"{100 * decoding.damage.share:.0f} %")
    kept = Decoding(decoder, source, view, damaged="keep")
    assert len(list(kept.clips())) == 6
    assert kept.warning == error.value.reason


def test_a_source_may_be_truncated_and_damaged(tmp_path, decoder):
    source = damaged(tmp_path / "a.mkv", 0.85)
    content = Path(source.path).read_bytes()
    Path(source.path).write_bytes(content[: len(content) * 6 // 10])
    view = BACKBONES["resnet152"].view
    for choices in ({"truncated": "keep"}, {"damaged": "keep"}):
        with pytest.raises(VideoError, match=r"truncated; \d\d % of its frames are damaged$"):
            list(Decoding(decoder, source, view, **choices).clips())
    kept = Decoding(decoder, source, view, truncated="keep", damaged="keep")
    assert list(kept.clips())


def test_a_whole_source_has_no_damage(tmp_path, decoder):
    path = make_clip(tmp_path / "a.mkv", seconds=2)
    decoding = Decoding(decoder, Source(str(path)), BACKBONES["resnet152"].view)
    list(decoding.clips())
    assert (decoding.damage.num_damaged_frames, decoding.damage.num_frames) == (0, 50)


def test_a_source_that_cannot_be_read_has_no_metadata(tmp_path, decoder):
    decoding = Decoding(decoder, Source(str(tmp_path)), BACKBONES["resnet152"].view)
    with pytest.raises(VideoError, match="is a folder"):
        list(decoding.clips())
    assert (decoding.metadata, decoding.num_clips) == (None, 0)


def test_one_that_is_left_in_the_middle_leaves_no_process(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=60)
    with FfmpegDecoder(Settings(frame_rate=25)) as decoder:
        view = View(frame_rate=25, resize_size=240, crop_size=0)
        clips = Decoding(decoder, Source(str(path)), view).clips()
        next(clips)
        clips.close()
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    assert children.read_text().split() == []


def test_a_stop_ends_decoding(tmp_path):
    path = make_clip(tmp_path / "a.mp4", seconds=60)
    stopped = threading.Event()
    with FfmpegDecoder(Settings(), stopped=stopped) as decoder:
        decoding = Decoding(decoder, Source(str(path)), BACKBONES["resnet152"].view)
        clips = decoding.clips()
        next(clips)
        stopped.set()
        with pytest.raises(VideoError, match=r"^stopped$"):
            deque(clips, maxlen=0)
        assert decoding.num_clips < 60
        with pytest.raises(VideoError, match=r"^stopped$"):
            decoder.probe(Source(str(path)))
