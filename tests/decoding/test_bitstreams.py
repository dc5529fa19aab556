"""Who may refer to a picture is what the encoder says, and nothing is said of what is damaged."""

from __future__ import annotations

import av
import pytest

from conftest import run_ffmpeg
from videofeatures.decoding.bitstreams import Av1Look, Role, look_of, nal_length_size

X264 = ("-c:v", "libx264", "-x264-params", "bframes=3:b-adapt=0:scenecut=0:keyint=24")
X265 = (
    "-c:v",
    "libx265",
    "-x265-params",
    "open-gop=0:bframes=3:b-adapt=0:scenecut=0:keyint=24:log-level=0",
)
SVT = ("-c:v", "libsvtav1", "-preset", "13", "-svtav1-params", "keyint=24:hierarchical-levels=3")


def roles(path: str) -> list[Role]:
    with av.open(path) as container:
        (stream,) = container.streams.video
        context = stream.codec_context
        look = look_of(context.codec.canonical_name, context.extradata or b"")
        return [look(memoryview(p), p.is_keyframe) for p in container.demux(stream) if p.size]


@pytest.fixture
def make(tmp_path):
    def make(name: str, *options: str) -> str:
        film = ("-f", "lavfi", "-i", "testsrc2=s=160x96:r=24:d=2")
        run_ffmpeg(*film, *options, tmp_path / name)
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", X264), ("a.mkv", X264), ("a.h264", X264), ("a.mp4", X265), ("a.mkv", X265)],
)
def test_leaves_of_a_pyramid_are_none_s_reference(make, name, options):
    found = roles(make(name, *options))
    assert len(found) == 48
    assert [k for k, role in enumerate(found) if role.starts_sequence] == [0, 24]
    assert found[0].is_reference
    # Of three B-frames, the one in the middle is a reference.
    num_leaves = sum(not role.is_reference for role in found)
    assert 20 <= num_leaves <= 26
    assert {role.layer for role in found} == {0}


def test_open_groups_of_hevc_are_told(make):
    found = roles(make("a.mkv", *X265[:-1], X265[-1].replace("open-gop=0", "open-gop=1")))
    (_, second) = (k for k, role in enumerate(found) if role.starts_sequence)
    leading = [k for k, role in enumerate(found) if role.refers_back]
    assert leading == list(range(second + 1, second + 1 + len(leading)))
    assert leading


def test_layers_of_hevc_are_told(make):
    found = roles(make("a.mp4", *X265[:-1], X265[-1] + ":temporal-layers=3"))
    assert {role.layer for role in found} == {0, 1, 2}
    assert found[0] == Role(0, True, True)
    highest = [role for role in found if role.layer == 2]
    assert len(highest) >= 20
    assert not any(role.is_reference for role in highest)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.webm"])
def test_frames_of_av1_that_refresh_nothing_are_none_s_reference(make, name):
    found = roles(make(name, *SVT))
    assert found[0] == Role(0, True, True)
    assert 8 <= sum(not role.is_reference for role in found) <= 24


def test_an_av1_packet_without_its_sequence_header_says_nothing(make):
    with av.open(make("a.mp4", *SVT)) as container:
        packets = [bytes(packet) for packet in container.demux() if packet.size]
    look = Av1Look(b"")
    with pytest.raises(ValueError, match="no sequence header"):
        look(memoryview(packets[1]), False)
    assert look(memoryview(packets[0]), True).is_reference  # it has one
    look(memoryview(packets[1]), False)


def test_damage_is_no_answer():
    h264 = look_of("h264", b"\x01\x64\x00\x1f\xff")
    assert nal_length_size("h264", b"\x01\x64\x00\x1f\xff") == 4
    assert h264(memoryview(b"\0\0\0\2\x01\x9a"), False) == Role(0, False, False)
    assert h264(memoryview(b"\0\0\0\2\x65\x9a"), True) == Role(0, True, True)
    assert h264(memoryview(b"\0\0\0\2\x09\x10"), False) == Role(0, True, False)  # no picture
    for damaged in (b"\0\0\0\3\x01\x9a", b"\0\0\0\2\x01\x9a\0", b"\0\0\0"):
        with pytest.raises((IndexError, ValueError)):
            h264(memoryview(damaged), False)
    hevc = look_of("hevc", b"")
    with pytest.raises(ValueError, match="several layers"):
        hevc(memoryview(b"\0\0\1\x02\x09\0\0\0"), False)
    with pytest.raises(ValueError, match="unpack"):  # one packet of two layers in time
        hevc(memoryview(b"\0\0\1\x02\x01\0\0\1\x02\x02\0\0\0"), False)
    with pytest.raises(ValueError, match="damaged"):
        Av1Look(b"")(memoryview(b"\x32\x40\x10"), False)


def test_of_other_codecs_only_key_frames_are_known():
    assert look_of("mpeg4", b"") is None
    vp9 = look_of("vp9", b"")
    assert vp9(memoryview(b"\x82"), True) == Role(0, True, True)
    assert vp9(memoryview(b"\x86"), False) == Role(0, True, False)
