"""Claims on rows: processes of one or several machines share rows without a coordinator.

A claim is a small file beside the feature file, created with O_EXCL, so that only one process can
create it, on NFS, too. Its holder touches it at intervals, and removes it when the row is done or
has failed. A claim is abandoned if its holder's process no longer runs on this machine, or if
nobody has touched it for a given time, by the clock of the process that watches it. Its name ends
in a number: a process takes over an abandoned row by creating the claim of the next number, so
that only one of many can. Nothing else depends on claims: each process writes a feature file under
a temporary name of its own and renames it, so that a holder that resumes late computes a row
twice, but corrupts no file.

The claim of a feature file that is in a bucket stands in a folder of a disk, which all processes
share that have the same results and this disk: a bucket has neither an mtime that a holder can
renew without writing, nor names that are cheap to make and remove. Others may compute such a row at
the same time; which of them writes it is decided where it is written.

`SoftFileLease` of filelock 4.2.11 was tried instead (79 lines). It takes a claim over by exchanging
two names in one rename, which the NFS client of Linux refuses with EINVAL: with that answer
simulated, it never took over the row of a killed process, not even on the same machine. It waited
for ever for an empty claim, whose writer was killed before it wrote, and took a zombie for alive.
1,000 held claims cost it 1,000 threads and open files, here one thread; to take and release 1,000
took it 0.8 s, here 0.2 s.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from videofeatures.files import hidden_name, remove_temporary_files
from videofeatures.urls import is_url

CLAIM = re.compile(r"\.[0-9a-f]{16}\.\d+\.claim$")

TOUCHES_PER_TIMEOUT = 8
"""How often a holder touches its claims: NFS may show a change a minute late, and a busy machine
may run a thread late."""


class Claims:
    """Hold claims on rows. Use as a context manager: leaving it releases all of them."""

    def __init__(self, timeout_seconds: float, folder: Path | None = None):
        """
        Args:
            timeout_seconds: time after which a claim that nobody touches is abandoned. Must be
                the same in all processes that share rows.
            folder: for claims on feature files that are URLs.
        """
        self._folder = folder
        self._timeout_seconds = timeout_seconds
        self._held: dict[str, list[Path]] = {}
        # The modification time of a claim of another process, and when it was first seen, by our
        # own clock: clocks of two machines are never compared.
        self._seen: dict[Path, tuple[int, float]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._touch_claims, daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for feature_path in list(self._held):
            self.release(feature_path)

    def take(self, feature_path: str) -> bool:
        """Claim a row. Return False if another process works on it.

        Raises:
            OSError: the claim cannot be written beside the feature file; none is left.
        """
        path = Path(feature_path)
        folder, prefix = path.parent, hidden_name(path)
        if is_url(feature_path):
            assert self._folder is not None  # who claims URLs names one
            folder, prefix = self._folder, hidden_name(Path(quote(feature_path, safe="")))
        folder.mkdir(parents=True, exist_ok=True)
        claims = self.acquire(folder, prefix)
        if claims is None:
            return False
        with self._lock:
            self._held[feature_path] = claims
        return True

    def acquire(self, folder: Path, prefix: str) -> list[Path] | None:
        """Create the claim of a row, or return None if another process works on it.

        Args:
            folder: the feature file's.
            prefix: the feature file's `hidden_name`.

        Returns:
            The abandoned claims of the row, in order of their numbers, and last the new one.
        """
        claims: list[Path] = []
        while True:
            claim = folder / f"{prefix}.{len(claims)}.claim"
            claims.append(claim)
            try:
                file = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if not self._is_abandoned(claim):
                    return None
                continue
            try:
                with contextlib.suppress(OSError):  # of a disk that has no permissions
                    os.fchmod(file, 0o644)  # whatever the user's mask: others have to read it
                os.write(file, json.dumps(_describe_this_process()).encode())
            except OSError:
                claim.unlink(missing_ok=True)
                raise
            finally:
                os.close(file)
            if len(claims) > 1:
                # Look again: if the row was released meanwhile, the first number is free.
                if not all(self._is_abandoned(before) for before in claims[:-1]):
                    claim.unlink(missing_ok=True)
                    return None
                remove_temporary_files(folder, prefix)  # those of the last holder
            return claims

    def release(self, feature_path: str) -> None:
        """Remove the claim of a row, if it is held, and the abandoned ones before it."""
        with self._lock:
            claims = self._held.pop(feature_path, [])
        # In order of their numbers: another process finds the first one free, or the next one
        # taken.
        for claim in claims:
            with contextlib.suppress(OSError):
                claim.unlink()

    def _touch_claims(self) -> None:
        while not self._stopped.wait(self._timeout_seconds / TOUCHES_PER_TIMEOUT):
            with self._lock:
                claims = [claims[-1] for claims in self._held.values()]
            for claim in claims:
                with contextlib.suppress(OSError):
                    os.utime(claim)

    def _is_abandoned(self, claim: Path) -> bool:
        try:
            modified = claim.stat().st_mtime_ns
        except OSError:
            return False  # probably just released: the next attempt will tell
        try:
            text = claim.read_bytes()
        except OSError:
            text = b""  # another user's: only the timeout tells
        if _has_ended(text):
            return True
        now = time.monotonic()
        last_modified, seen = self._seen.get(claim, (None, now))
        if modified != last_modified:
            self._seen[claim] = modified, now
            return False
        return now - seen >= self._timeout_seconds


def remove_abandoned_claims(feature_paths: Iterable[str], folder: Path | None = None) -> None:
    """Remove the claims that killed processes of this machine left beside feature files.

    A process that is killed after its row is done and before it releases it leaves a claim that
    nobody takes over. This lists whole folders: call it once a run.

    Args:
        folder: see `Claims`.
    """
    folders = {folder if is_url(path) else Path(path).parent for path in feature_paths}
    for each in filter(None, folders):
        remove_abandoned_claims_in(each)


def remove_abandoned_claims_in(folder: Path) -> None:
    """Remove the claims that killed processes of this machine left in a folder."""
    claims = Claims(math.inf)
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if CLAIM.match(entry.name)]
        for prefix in {name.rsplit(".", 2)[0] for name in names}:
            # Only the holder of a row may remove its files.
            for claim in claims.acquire(folder, prefix) or []:
                claim.unlink()


@cache
def _machine() -> str | None:
    """Return what identifies the boot and the namespace of process ids, or None if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since boot, or None if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a program's name may contain anything
    return None if fields[0] in "ZX" else fields[19]  # a zombie has ended


def _describe_this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"machine": _machine(), "pid": pid, "started": _start_time(pid)}


def _has_ended(text: bytes) -> bool:
    """Return whether the process that wrote a claim is known to have ended."""
    try:
        holder = json.loads(text)
        machine, pid, started = (holder[name] for name in ("machine", "pid", "started"))
    except (ValueError, TypeError, KeyError, RecursionError):
        # Being written now, or its writer was killed, or none of ours: only the timeout tells.
        return False
    if machine is None or machine != _machine():
        return False
    return _start_time(pid) != started
