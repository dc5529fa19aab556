"""Another decoder can stand in for ffmpeg."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from fractions import Fraction

import numpy as np
import pytest

from videofeatures.decoding.decoder import Damage, Decoder, VideoMetadata
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.told import Told
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.source import Source


class GreyDecoder(Decoder):
    """Sees three grey frames in whatever it is given."""

    def version(self) -> str:
        return "1"

    def probe(self, source: Source) -> VideoMetadata:
        return VideoMetadata(4, 3, Fraction(1), 4.0, 1.0, "grey")

    def frames(
        self,
        source: Source,
        metadata: VideoMetadata,
        views: Sequence[View],
        told: Sequence[Told],
        *,
        num_threads: int = 1,
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        for each in told:
            each.messages.append(f"grey, as {source.path} is")
        for frame in np.full((3, 3, 4, 3), 128, np.uint8):
            yield from ((number, frame) for number in range(len(views)))

    def find_truncation(
        self, source: Source, metadata: VideoMetadata, view: View, decoded_seconds: float
    ) -> str | None:
        return f"{decoded_seconds:g} of {metadata.duration_seconds:g} s"


def test_another_decoder_is_used_as_it_is():
    view = View(frame_rate=1, resize_size=3, crop_size=0, num_frames_per_clip=2)
    decoding = Decoding(GreyDecoder(), Source("a"), view, truncated="keep")
    assert [clip.mean(axis=(1, 2, 3)).tolist() for clip in decoding.clips()] == [
        [128, 128],
        [128, 0],
    ]
    assert (decoding.num_frames, decoding.num_clips, decoding.share) == (3, 2, 0.75)
    assert decoding.times.end_seconds.tolist() == [2, 3]
    assert list(decoding.messages) == ["grey, as a is"]
    assert decoding.warning == "3 of 4 s"
    with pytest.raises(VideoError, match="3 of 4 s") as error:
        list(Decoding(GreyDecoder(), Source("a"), view).clips())
    assert error.value.ffmpeg_lines == ["grey, as a is"]


@pytest.mark.parametrize("method", ["version", "probe", "frames", "find_truncation"])
def test_one_that_lacks_something_is_none(method):
    lacking = type("Lacking", (GreyDecoder,), {method: getattr(Decoder, method)})
    with pytest.raises(TypeError, match=method):
        lacking()


@pytest.mark.parametrize(
    ("damage", "share"),
    [
        (Damage(), None),
        (Damage(3), None),
        (Damage(0, 10), 0),
        (Damage(3, 12), 0.25),
        (Damage(20, 10), 1),
        (Damage(1, 0), 1),
    ],
)
def test_the_share_of_damaged_frames(damage, share):
    assert damage.share == share
