"""What may be opened, and by which name."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from glob import glob

import av
import pytest

from videofeatures.decoding.ffmpeg import ffmpeg_path
from videofeatures.decoding.formats import (
    CONTAINERS,
    REFUSED,
    SOUND,
    SUBTITLES,
    file_url,
    input_options,
    literal_path,
)

ALLOWED = CONTAINERS + SOUND + SUBTITLES


def test_a_path_is_a_file_whatever_it_is_named():
    assert file_url("http://a") == "file:http://a"


@pytest.mark.parametrize("name", ["a.mp4", "a[1].mp4", "a%.m3u8", "-i.mp4", "a|b"])
def test_a_path_that_is_no_pattern_is_given_as_it_is(name):
    with literal_path(name) as path:  # there is no such file
        assert path == name


@pytest.mark.parametrize("name", ["a%d.png", "a*.mp4", "a?", "{a", "%/a.png"])
def test_a_path_that_may_be_a_pattern_is_opened(tmp_path, name):
    file = tmp_path / name
    with pytest.raises(FileNotFoundError), literal_path(str(file)):
        pass
    file.parent.mkdir(exist_ok=True)
    file.write_text("its own")
    with literal_path(str(file)) as path:
        assert subprocess.run(["cat", path], capture_output=True, check=True).stdout == b"its own"
        assert not set("%*?{") & set(path)
    assert str(file) not in [os.path.realpath(opened) for opened in glob("/proc/self/fd/*")]


def test_formats_that_open_other_files_are_for_those_who_trust_them():
    assert input_options(local_files_only=False) == {}
    options = input_options(local_files_only=True)
    assert options["protocol_whitelist"] == "file"
    assert options["format_whitelist"].split(",") == ",".join(ALLOWED).split(",")


def test_nothing_is_both_allowed_and_refused():
    assert len({*ALLOWED, *REFUSED}) == len(ALLOWED) + len(REFUSED)
    assert not names(ALLOWED) & names(REFUSED)  # libavformat compares each of them


def demuxers_of_ffmpeg() -> set[str]:
    command = [ffmpeg_path(), "-hide_banner", "-demuxers"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    listed = said.partition("---\n")[2]
    return set(re.findall(r"^ D.[ d]? +(\S+) ", listed, re.MULTILINE))


def demuxers_of_libav() -> set[str]:
    found = set()
    for name in av.formats_available:
        try:
            found.add(av.ContainerFormat(name, "r").name)
        except ValueError:  # only to write
            continue
    return found


def names(formats: Iterable[str]) -> set[str]:
    """Of formats, some of which have several."""
    return set(",".join(formats).split(","))


def test_every_format_was_looked_at():
    """A newer version may have new ones: do they open other files? Say so in `formats`."""
    found = names(demuxers_of_ffmpeg() | demuxers_of_libav())
    assert len(found) > 300
    assert found - names([*ALLOWED, *REFUSED]) == set()


def test_formats_are_known_by_these_names():
    """A wrong one would refuse good files."""
    found = names(demuxers_of_ffmpeg() | demuxers_of_libav())
    assert names([*ALLOWED, *REFUSED]) - found == set()
