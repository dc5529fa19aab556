"""Frames to clips, and the times of what each row saw; and one source to clips."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from conftest import make_clip
from videofeatures.decoding.clips import Decoding, iter_clips, row_timestamps
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.networks.backbones import BACKBONES
from videofeatures.settings import Settings
from videofeatures.source import Source


def frames(count: int) -> list[np.ndarray]:
    return [np.full((2, 3, 3), k + 1, np.uint8) for k in range(count)]


def test_frames_pass_through_without_clips():
    given = frames(3)
    assert [(frame is given[k], n) for k, (frame, n) in enumerate(iter_clips(given, None))] == [
        (True, 1)
    ] * 3


@pytest.mark.parametrize(
    ("num_frames", "sizes"),
    [(0, []), (1, [1]), (15, [15]), (16, [16]), (17, [16, 1]), (48, [16, 16, 16])],
)
def test_no_frame_is_lost_and_the_last_clip_is_filled_with_black(num_frames, sizes):
    clips = list(iter_clips(iter(frames(num_frames)), 16))
    assert [n for _, n in clips] == sizes
    assert all(clip.shape == (16, 2, 3, 3) and clip.dtype == np.uint8 for clip, _ in clips)
    values = np.concatenate([clip[:, 0, 0, 0] for clip, _ in clips] or [[]])
    padding = 16 * len(sizes) - num_frames
    assert values.tolist() == [*range(1, num_frames + 1), *[0] * padding]


@pytest.mark.parametrize(
    ("num_frames", "frame_rate", "num_frames_per_clip", "expected"),
    [
        (3, 1, None, [0.5, 1.5, 2.5]),
        (2, 4, None, [0.125, 0.375]),
        (32, 24, 16, [8 / 24, 24 / 24]),
        (20, 24, 16, [8 / 24, 18 / 24]),
        (1, 24, 16, [0.5 / 24]),
    ],
)
def test_timestamps_are_the_middle_of_what_a_row_saw(
    num_frames, frame_rate, num_frames_per_clip, expected
):
    view = View(
        frame_rate=frame_rate,
        resize_size=2,
        crop_size=0,
        num_frames_per_clip=num_frames_per_clip,
    )
    found = row_timestamps(num_frames, view)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    clips = list(iter_clips(iter(frames(num_frames)), num_frames_per_clip))
    assert len(clips) == len(found)


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
    assert len(row_timestamps(decoding.num_frames, BACKBONES[backbone].view)) == len(clips)


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
