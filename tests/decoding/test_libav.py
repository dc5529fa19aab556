"""What libav says by a worker is what it says in this process."""

from __future__ import annotations

import pytest

from conftest import make_clip
from videofeatures.decoding.libav import Libav
from videofeatures.decoding.probe import probe_video, read_duration
from videofeatures.decoding.process import ReadTimeout
from videofeatures.decoding.skipping import skip_filter
from videofeatures.decoding.truncation import find_truncation
from videofeatures.decoding.worker_pool import LibavError


def test_answers_are_the_same_and_of_the_same_types(real_clips):
    with Libav(ReadTimeout(60)) as libav:
        for path in map(str, real_clips.values()):
            metadata = probe_video(path)
            assert libav.probe_video(path) == metadata
            assert libav.read_duration(path) == read_duration(path)
            assert libav.skip_filter(path, 1) == skip_filter(path, 1)
            expected = find_truncation(path, metadata.duration_seconds, 1.0)
            assert expected is not None
            assert libav.find_truncation(path, metadata, 1.0) == expected


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
