"""What a file that is no video seems to be, for people: ffmpeg knows no formats but its own.

It is asked only where ffmpeg has refused a file, and looks at its first bytes.
"""

from __future__ import annotations

import re

HEAD_BYTES = 4096

PLAYLIST = "a playlist"

PROLOG = re.compile(
    rb"\s+|<\?.*?\?>|<!--.*?-->|<!DOCTYPE\s+(?!html)[^>\[]*(\[.*?\]\s*)?>", re.I | re.S
)
"""What may stand before the first element of XML."""

MARKS: tuple[tuple[bytes, str], ...] = (
    (rb"#EXTM3U|ffconcat version|# VobSub|v=0\r?\n", PLAYLIST),
    (rb"<(MPD|CompositionPlaylist|\w+:CompositionPlaylist)\b", PLAYLIST),
    (
        rb"version https://git-lfs\.github\.com/",
        "a Git LFS pointer, not a video: run `git lfs pull`",
    ),
    (rb"(\.\./|\.git)*/annex/objects/", "a git-annex pointer, not a video: run `git annex get`"),
    (rb"<(\w+:)?svg\b", "no video stream"),
    (rb"<!DOCTYPE\s+html|<(html|head|body)\b", "a web page, not a video"),
    (rb"<\w[^<>]*>", "XML, not a video"),
    (rb"[{\[]\s*([\"{}\[\]]|-?\d|(true|false|null)\b)", "JSON, not a video"),
)
"""Regular expressions of how texts begin, in any case, and what they are. The first one counts."""

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF file, not a video"),
    (b"PK\x03\x04", "a ZIP archive, not a video"),
    (b"\x1f\x8b", "a gzip archive, not a video"),
    (b"BZh", "a bzip2 archive, not a video"),
    (b"\xfd7zXZ\0", "an xz archive, not a video"),
    (b"(\xb5/\xfd", "a Zstandard archive, not a video"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive, not a video"),
    (b"Rar!\x1a\x07", "a RAR archive, not a video"),
    (b"\x93NUMPY", "a NumPy array, not a video"),
    (b"\x7fELF", "a program, not a video"),
    (b"SQLite format 3\0", "a database, not a video"),
)
"""First bytes (as in `file`'s database, https://github.com/file/file), and whose they are."""

SEGMENT = "a segment of a stream without the init segment that tells how to decode it"
SEGMENT_BOXES = (b"styp", b"sidx", b"moof", b"emsg", b"prft")
"""Boxes that such a segment begins with (ISO/IEC 23000-19, 7.3.2.3)."""


def describe_content(path: str) -> str | None:
    """Return what a file seems to be that is no video; None if there is no telling.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return "an empty file"
    if not any(head):
        return "zeros where a header should be: a copy that was not finished"
    for signature, what in SIGNATURES:
        if head.startswith(signature):
            return what
    if head[4:8] in SEGMENT_BOXES:
        return SEGMENT
    return _describe_text(head)


def _describe_text(head: bytes) -> str | None:
    text = _decode(head)
    if text is None:
        return None
    start = text.encode()
    is_xml = start.lstrip().startswith(b"<?xml")
    while match := PROLOG.match(start):
        start = start[match.end() :]
    for mark, what in MARKS:
        if re.match(mark, start, re.I):
            return what
    return "XML, not a video" if is_xml else "text, not a video"


def _decode(head: bytes) -> str | None:
    """Return the text that bytes are the beginning of, or None if they are none."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = head.decode(encoding, errors="replace").rstrip("\ufffd")  # the last is cut off
    has_controls = any(ord(c) < 32 and c not in "\t\n\v\f\r\x1b" for c in text)
    return None if has_controls or "\ufffd" in text else text
