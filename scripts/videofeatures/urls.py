"""Paths that are URLs: which may be read and written, and how they are shown to people.

A path is a URL if it begins with a scheme, `s3://` say. All others are those of a disk. What a CSV
from somebody else can reach is decided here, by the text alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs", "https": "aiohttp", "http": "aiohttp"}
"""Schemes that can be allowed, each with the package that fsspec reads it by. No others: fsspec
knows some that read local files (`file`, `local`, `reference`), or other URLs through them (`zip`,
`simplecache`)."""

WRITABLE = frozenset(("s3", "gs", "az"))
"""Schemes of storage in which an object comes to be as a whole, or not at all."""

LISTED = WRITABLE
"""Schemes of storage that can list what it has."""

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:://|::)")

SECRETS = re.compile(
    r"""(?P<name>\b(?:x-amz-[\w-]+|aws_?\w+|sig|signature|\w*token|password|secret\w*)=)[^\s&,;'"]+
      | (?P<kind>\bBearer\s+)[\w.~+/=-]+
      | \b(?:AKIA|ASIA)[A-Z0-9]{12,}\b  # ids of access keys of AWS
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What is secret in a message, and is no part of a URL."""

HIDDEN = "…"

URL_IN_TEXT = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]*)://([^\s/?'\"<>]*)([^\s?'\"<>]*)(\?[^\s'\"<>]*)?"
)


def is_url(path: str) -> bool:
    """Return whether a path is a URL, allowed or not; a chain of fsspec's (`a::b://c`), too."""
    return "://" in path and URL.match(path) is not None


def scheme_of(url: str) -> str:
    """Return what stands before `://`."""
    return url.partition("://")[0]


def parse_schemes(allowed: str | None) -> frozenset[str]:
    """Return the schemes in a value of the key `allowed_schemes`."""
    return frozenset(filter(None, (allowed or "").replace(",", " ").split()))


def url_problem(
    url: str, allowed: Collection[str], *, is_output: bool = False, is_folder: bool = False
) -> str | None:
    """Return why a URL in a CSV, or in the configuration, is not used, or None.

    Args:
        allowed: schemes that the user has allowed.
        is_output: it names a feature file.
        is_folder: it is none of a CSV, but what stands before the names of all that a run leaves.
    """
    shown = redact(url)
    scheme, _, rest = url.partition("://")
    if "::" in url:
        return f"{shown} chains URLs by `::`, which is refused. Name the file itself"
    if scheme not in PACKAGES:
        return (
            f"{shown} is a URL of the scheme {scheme!r}, which is none of {', '.join(PACKAGES)}. "
            f"Write ./{scheme}:/… for a folder of that name"
        )
    if scheme not in allowed:
        return (
            f"{shown} is not on a disk, and nothing else is read or written unless you say so: "
            f"`allowed_schemes: {','.join(sorted({*allowed, scheme}))}`"
            + ("" if is_folder else ", if you trust this CSV")
        )
    is_written, able = is_output or is_folder, WRITABLE & LISTED if is_folder else WRITABLE
    if is_written and scheme not in able:
        return f"{shown} cannot be written: only {', '.join(sorted(able))} can"
    host, _, name = rest.partition("/")
    if "@" in host:
        return (
            f"{shown} holds credentials, which do not belong into a CSV or a configuration. Put "
            "them where the library looks for them (of https, a file .netrc)"
        )
    if is_folder:
        name = name.rstrip("/")
    if not host or not name or name.endswith("/"):
        what, example = ("folder", "folder") if is_folder else ("file", "name")
        return f"{shown} names no {what}. Write {scheme}://bucket/{example}"
    if is_written and ("?" in name or "#" in name):
        return f"{shown} holds `?` or `#`, which the name of what is written must not. Rename it"
    if is_folder and "//" in name:
        return f"{shown} holds `//`, which the path of a folder cannot. Remove one of them"
    if any(part in (".", "..") for part in name.split("/")):
        return f"{shown} holds `.` or `..` as a folder. Write the path as it is in the bucket"
    return None


def redact(text: str) -> str:
    """Return a text in which nothing is secret: URLs without users, passwords and queries, which
    may be signed; no keys and tokens, as far as they can be told.

    Args:
        text: a URL, or a message in which some may stand.
    """
    text = URL_IN_TEXT.sub(_redact_url, text)
    return SECRETS.sub(lambda match: f"{match['name'] or match['kind'] or ''}{HIDDEN}", text)


def _redact_url(match: re.Match[str]) -> str:
    scheme, host, name, query = match.groups(default="")
    if query and (scheme.lower() in ("http", "https") or "=" in query):
        query = f"?{HIDDEN}"
    return f"{scheme}://{host.rpartition('@')[2]}{name}{query}"


def absolute(path: str) -> str:
    """Return the absolute path of a file; of a URL, the URL."""
    return path if is_url(path) else os.path.abspath(path)


def folder_of(path: str) -> str:
    """Return the folder of a path, as `os.path.dirname` does; of a URL, up to its last slash."""
    return path[: path.rfind("/") + 1] if is_url(path) else os.path.dirname(path)


def local_paths(paths: Iterable[str]) -> list[str]:
    """Return those that are no URLs."""
    return [path for path in paths if not is_url(path)]
