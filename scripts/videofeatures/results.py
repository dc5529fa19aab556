"""Where the results of runs are: in a folder of a disk, or in a bucket.

In a bucket are the records, and copies of the manifest and the report. What Snakemake and the jobs
of one run work with (end marks, claims, logs) is on a disk in any case, in the *work folder*, and
so is what those are copies of: nothing in there is needed to know what was done.
"""

from __future__ import annotations

import os
from pathlib import Path

from videofeatures.errors import UserError, VideoError
from videofeatures.remote import open_store
from videofeatures.urls import is_url, scheme_of


def work_folder(results: str | os.PathLike) -> Path:
    """Return the folder of a disk that belongs to results: themselves, or, of those in a bucket,
    `results/<scheme>/<bucket>/<key>` below the working directory."""
    if not is_url(str(results)):
        return Path(results)
    scheme, _, place = str(results).partition("://")
    return Path("results", scheme, place.strip("/"))


def place_in(results: str | os.PathLike, name: str) -> str:
    """Return the path, or the URL, of what has this name in results."""
    if is_url(str(results)):
        return f"{str(results).rstrip('/')}/{name}"
    return os.path.join(results, name)


def leave_copy(results: str | os.PathLike, path: Path) -> str:
    """Put a copy of a file of the work folder into the bucket, where results are in one; return
    where people find it, also if it could not be put there, and then why."""
    if not is_url(str(results)):
        return str(path)
    url = place_in(results, path.name)
    try:
        open_store(scheme_of(url)).put(url, path.read_bytes())
    except (VideoError, UserError, OSError) as error:
        return f"{path} ({url} could not be written: {error})"
    return url
