"""The files of a run's jobs: kept while it lives, and removed by the next one if it was killed."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from videofeatures.extraction.claims import Claims, remove_abandoned_claims_in
from videofeatures.files import hidden_name
from videofeatures.planning.jobs import plan_folder

FILE_OF_RUN = re.compile(r"(extract_[0-9a-f]{8})_\d+\.")

FORGOTTEN_SECONDS = 86400
"""Age of the claim of a run on another machine at which that run is taken to be gone: a run
touches its claim several times a minute."""


@contextlib.contextmanager
def hold_run(results: str | os.PathLike, run_name: str, timeout_seconds: float) -> Iterator[None]:
    """Claim the name of a run, so that its files are known to be needed.

    Args:
        timeout_seconds: see `Claims`.

    Raises:
        OSError: the claim cannot be written.
    """
    with Claims(timeout_seconds) as claims:
        claims.take(str(plan_folder(results) / run_name))
        yield


def remove_files_of_killed_runs(results: str | os.PathLike) -> None:
    """Remove what the jobs of runs needed that were killed, as far as it can be removed."""
    folder = plan_folder(results)
    names: dict[str, list[Path]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := FILE_OF_RUN.match(entry.name):
                names.setdefault(match[1], []).append(Path(entry.path))
    looker = Claims(math.inf)
    for run_name, paths in names.items():
        with contextlib.suppress(OSError):
            prefix = hidden_name(folder / run_name)
            claims = looker.acquire(folder, prefix) or _old_claims(folder, prefix)
            # The claims last: what is left by a kill now is found again.
            for path in [*paths, *claims] if claims else ():
                path.unlink(missing_ok=True)
    # Of runs that were killed before they wrote anything else.
    remove_abandoned_claims_in(folder)


def _old_claims(folder: Path, prefix: str) -> list[Path]:
    """Return a run's claims if nobody has touched them for long, by the clock of the disk."""
    claims = sorted(folder.glob(f"{prefix}.*.claim"))
    probe = folder / f"{prefix}.now"
    probe.touch()
    now = probe.stat().st_mtime
    probe.unlink()
    is_old = all(now - claim.stat().st_mtime > FORGOTTEN_SECONDS for claim in claims)
    return claims if is_old else []
