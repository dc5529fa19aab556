"""What may be opened."""

from __future__ import annotations

import av

from videofeatures.decoding.formats import CONTAINERS, file_url, input_options

PLAYLISTS = {"hls", "concat", "dash", "imf", "sdp", "rtsp", "webm_dash_manifest"}


def test_a_path_is_a_file_whatever_it_is_named():
    assert file_url("http://a") == "file:http://a"


def test_formats_that_open_other_files_are_for_those_who_trust_them():
    assert input_options(local_files_only=False) == {}
    options = input_options(local_files_only=True)
    assert options["protocol_whitelist"] == "file"
    allowed = set(options["format_whitelist"].split(","))
    assert not allowed & PLAYLISTS
    # Formats are known by these names: a wrong one would refuse good files.
    known = {name for format in av.formats_available for name in format.split(",")}
    assert {"mov", "matroska", "avi", "mpegts", "png_pipe"} <= allowed & known
    assert set(",".join(CONTAINERS).split(",")) == allowed
