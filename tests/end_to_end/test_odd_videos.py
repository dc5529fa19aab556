"""Each broken or odd video ends as documented, all in one job, and costs no other one."""

from __future__ import annotations

import csv
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, make_job, make_recipe, make_target, write_csv
from odd_videos import ODD, text, video
from videofeatures.decoding.decoder import StartAnew
from videofeatures.decoding.decoding import Decoding
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.decoding.probe import probe_video
from videofeatures.errors import VideoError
from videofeatures.extraction.pipeline import run_job
from videofeatures.planning.plan import make_plan
from videofeatures.report.manifest import write_manifest
from videofeatures.settings import Settings
from videofeatures.source import Source

SMALL = {"backbone": "efficientnet_lite0", "resize_size": 32, "crop_size": 32}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, real_weights) -> dict[str, dict[str, str]]:
    """By name, a video's line in the manifest after one job with all of them."""
    folder = tmp_path_factory.mktemp("odd")
    names = {name: f"{k}.npy" for k, name in enumerate(ODD)}
    rows = []
    for name, (make, _) in ODD.items():
        make(folder / name)
        rows.append((str(folder / name), str(folder / "features" / names[name])))
    write_csv(folder / "videos.csv", rows)
    targets = [make_target(*row) for row in rows]
    job = make_job(Settings(**SMALL), real_weights, folder / "results", targets)
    before = Path.cwd()
    os.chdir(folder)
    try:
        run_job(job, num_threads=2)
        config = {"weights": "auto", "videos": "videos.csv", "results": "results", **SMALL}
        write_manifest(make_plan(config))
    finally:
        os.chdir(before)
    with open(folder / "results" / "manifest.csv", newline="") as file:
        lines = {Path(line["video_path"]).name: line for line in csv.DictReader(file)}
    assert list(lines) == list(ODD)
    return lines


def decode(path: Path, **options: object) -> tuple[int, Decoding]:
    """Decode a video; gives how many clips came of it, and what is known of it."""
    settings = Settings(**SMALL, **options)
    view = make_recipe(settings).view
    decoding = Decoding(
        FfmpegDecoder(settings), Source(str(path)), view, truncated=settings.truncated
    )
    try:
        return len(list(decoding.clips())), decoding
    except StartAnew:
        return len(list(decoding.clips())), decoding


@pytest.mark.parametrize("name", ODD)
def test_what_becomes_of_it(outcome, name):
    if name == "unreadable.mp4" and os.geteuid() == 0:
        pytest.skip("root can read any file; see test_a_file_that_may_not_be_read")
    found, expected = outcome[name], ODD[name][1]
    if isinstance(expected, int):
        assert (found["state"], found["num_features"]) == ("done", str(expected)), found
        features = np.load(found["feature_path"])
        assert features.shape == (expected, 1280)
        assert np.isfinite(features).all()
    else:
        state = "missing" if name == "dangling.mp4" else "failed"
        assert found["state"] == state
        assert not Path(found["feature_path"]).exists()
        if state == "failed":
            assert expected in found["reason"]
            assert "\n" not in found["reason"]


@pytest.mark.parametrize("name", ["damaged.mp4", "damaged.mkv", "cut.ts", "cut_index_first.mp4"])
def test_what_ffmpeg_complains_of_is_kept(outcome, name):
    assert outcome[name]["ffmpeg_lines"]


def test_a_truncated_video_can_be_kept(tmp_path):
    path = tmp_path / "cut.mkv"
    ODD["cut.mkv"][0](path)
    num_clips, decoding = decode(path, truncated="keep")
    assert num_clips == 3
    assert decoding.warning == "ends at 3 s of 6 s: truncated"


@pytest.mark.parametrize(("missing", "is_told"), [(0.0, False), (0.08, False), (0.3, True)])
def test_what_is_missing_within_the_tolerance_is_not_told(tmp_path, missing, is_told):
    path = video(tmp_path / "a.mkv", seconds=10)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * (1 - missing))])
    _, decoding = decode(path, truncated="keep", frame_rate=5)
    assert (decoding.warning is not None) == is_told


@pytest.mark.parametrize(
    ("num_frames", "expected"),
    [(10, None), (9, None), (8, "decoding stops at 8 s of 10 s: damaged")],
)
def test_a_decoder_that_gives_up_before_the_last_packet_is_told(tmp_path, num_frames, expected):
    source = Source(str(video(tmp_path / "a.mp4", seconds=10)))
    view = make_recipe(Settings(**SMALL)).view
    with FfmpegDecoder(Settings()) as decoder:
        metadata = decoder.probe(source)
        assert decoder.find_truncation(source, metadata, view, num_frames) == expected


def test_a_file_that_may_not_be_read():
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        path = video(Path(name) / "a.mp4")
        path.chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)  # nobody
        try:
            with pytest.raises(VideoError, match="Permission denied"):
                probe_video(str(path))
        finally:
            os.seteuid(os.getuid())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hls.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:6,\nsecret.ts\n#EXT-X-ENDLIST\n"),
        ("hls.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:6,\nsecret.ts\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", "ffconcat version 1.0\nfile secret.ts\n"),
        (
            "dash.mp4",
            '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            "<Period><AdaptationSet><Representation id='0' bandwidth='1' mimeType='video/mp2t'>"
            "<BaseURL>secret.ts</BaseURL></Representation></AdaptationSet></Period></MPD>",
        ),
        ("sdp.mp4", "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 33\n"),
        ("smil.mp4", "http://127.0.0.1:9/x.mp4\n"),
    ],
)
def test_a_playlist_makes_ffmpeg_open_nothing_else(tmp_path, name, content):
    video(tmp_path / "secret.ts")
    path = text(tmp_path / name, content)
    times = (tmp_path / "secret.ts").stat().st_atime_ns
    with pytest.raises(VideoError), FfmpegDecoder(Settings()) as decoder:
        decoder.probe(Source(str(path)))
    with pytest.raises(VideoError):
        decode(path)
    assert (tmp_path / "secret.ts").stat().st_atime_ns == times


def test_a_playlist_is_read_by_those_who_trust_it(tmp_path):
    video(tmp_path / "part.ts")
    path = text(tmp_path / "list.mp4", "ffconcat version 1.0\nfile part.ts\nfile part.ts\n")
    assert decode(path, local_files_only=False)[0] == 12


def test_the_table_for_users_names_each_kind():
    document = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    reasons = {out.split(":")[0] for _, out in ODD.values() if isinstance(out, str)}
    general = {"ends at 3 s of 6 s", "ends at 6 s of 60 s", "Invalid data found", "truncated"}
    assert [reason for reason in reasons - general if reason not in document] == []
