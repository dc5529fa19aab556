"""What is no video is named for people."""

from __future__ import annotations

import gzip
import io
import json
import zipfile

import numpy as np
import pytest

from videofeatures.decoding.content import PLAYLIST, describe_content

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
COMMENTS = "<!-- a --> <!-- b\n -->" * 50
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'
DOCTYPE = '<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://a/b" [<!ENTITY x "y">]>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<!DOCTYPE html>\n<html>", "a web page"),
        ("\n\n  <!-- hi --><HTML lang=de><body>", "a web page"),
        ('<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "x"><html>', "a web page"),
        ('<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "XML"),
        ("<Error><Code>NoSuchKey</Code></Error>", "XML"),
        ('{"error": "not found"}', "JSON"),
        ("[\n  {", "JSON"),
        (json.dumps([1, 2]), "JSON"),
        ("{}", "JSON"),
        (LFS, "a Git LFS pointer, not a video: run `git lfs pull`"),
        ("/annex/objects/SHA256E-s1--a.mp4\n", "a git-annex pointer"),
        ("404: Not Found", "text"),
        ("Zugriff verweigert: für Ihr Konto", "text"),
        ("[not a list", "text"),
        (SVG, "no video stream"),
        (f'<?xml version="1.0"?>{COMMENTS}{DOCTYPE}{SVG}', "no video stream"),
        ("#EXTM3U\n#EXTINF:5,\na.ts\n", PLAYLIST),
        ("ffconcat version 1.0\nfile a.ts\n", PLAYLIST),
        ('<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011">', PLAYLIST),
        ("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", PLAYLIST),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts(tmp_path, text, expected, encoding):
    path = tmp_path / "a.mp4"
    path.write_text(text, encoding=encoding)
    assert describe_content(str(path)).startswith(expected)


def test_a_long_text_is_one_though_its_beginning_ends_in_a_letter(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("x" + "ä" * 5000)
    assert describe_content(str(path)) == "text, not a video"


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("a.mp4", b"x")
    return file.getvalue()


def array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "an empty file"),
        (bytes(5000), "zeros where a header should be: a copy that was not finished"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF file, not a video"),
        (gzip.compress(b"x", mtime=0), "a gzip archive, not a video"),
        (archive(), "a ZIP archive, not a video"),
        (array(), "a NumPy array, not a video"),
        (b"\0\0\0\x18stypmsdh" + bytes(20), "a segment of a stream without the init segment"),
        (b"\0\0\0\x18moof" + bytes(20), "a segment of a stream without the init segment"),
    ],
)
def test_other_files(tmp_path, content, expected):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert describe_content(str(path)).startswith(expected)


@pytest.mark.parametrize("content", [b"\0\0\0\x18ftypisom", b"\x1aE\xdf\xa3", b"RIFF\0\1\2\3AVI "])
def test_of_others_nothing_is_said(tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert describe_content(str(path)) is None


def test_what_looks_like_no_end_of_comments_takes_no_time(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_text("<!---->" * 600)
    assert describe_content(str(path)) == "text, not a video"
