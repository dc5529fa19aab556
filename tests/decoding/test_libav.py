"""What libav says by a worker is what it says in this process."""

from __future__ import annotations

import pytest

from conftest import make_clip
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.packets import look_at_packets
from videofeatures.decoding.probe import probe_video, read_duration
from videofeatures.decoding.process import ReadTimeout
from videofeatures.decoding.worker_pool import LibavError


def test_answers_are_the_same_and_of_the_same_types(real_clips):
    with Libav(ReadTimeout(60)) as libav:
        for path in map(str, real_clips.values()):
            assert libav.probe_video(path) == probe_video(path)
            assert libav.read_duration(path) == read_duration(path)
            found = libav.look_at_packets(path, [1.0], end_seconds=2.0)
            assert found == look_at_packets(path, frame_rates=[1.0], end_seconds=2.0)


def test_a_path_is_one_of_the_folder_that_we_are_in_now(tmp_path, monkeypatch):
    with Libav(ReadTimeout(60)) as libav:
        for seconds in (1, 2):
            folder = tmp_path / str(seconds)
            make_clip(folder / "a.mp4", seconds=seconds)
            monkeypatch.chdir(folder)
            assert libav.read_duration("a.mp4") == seconds


def test_other_files_are_for_those_who_trust_them(tmp_path):
    make_clip(tmp_path / "part.ts")
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile part.ts\n")
    with Libav(ReadTimeout(60)) as libav, pytest.raises(LibavError):
        libav.probe_video(str(path))
    with Libav(ReadTimeout(60), local_files_only=False) as libav:
        assert libav.probe_video(str(path)).width == 320
