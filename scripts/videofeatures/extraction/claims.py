"""Who works on a row: processes of one or several machines share rows without a coordinator.

A claim is a small file beside the feature file, made so that only one can make it (O_EXCL,
which NFS keeps, too). Its holder touches it as long as it lives, and removes it when the row is
done or has failed. A claim is abandoned if its holder's process is gone from this machine, or if
it was not touched for a stated time, by the clock of who watches it. Its name ends in a number:
to take an abandoned row over is to make the claim of the next number, so that only one of many
can. Nothing else depends on claims: a feature file is written under a name that no other process
has, and renamed, so that a holder who wakes up late does a row twice, but tears no file.
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
from typing import Any, NamedTuple

from videofeatures.files import hidden_name, remove_temporary_files

CLAIM = re.compile(r"\.[0-9a-f]{16}\.\d+\.claim$")

BEATS = 8
"""How many times a claim is touched in the time after which it counts as abandoned: NFS may show
a change a minute late, and a busy machine runs a thread late."""


class _Sight(NamedTuple):
    """A claim as it was seen, and when, by this process's own clock."""

    file: tuple[int, int]
    time: float


class Claims:
    """The claims that this process holds. Use as a context manager: at its end, none is left."""

    def __init__(self, timeout_seconds: float):
        """
        Args:
            timeout_seconds: after which a claim that nobody touches is abandoned. The same for
                all processes that share rows.
        """
        self._timeout_seconds = timeout_seconds
        self._held: dict[str, list[Path]] = {}
        self._seen: dict[Path, _Sight] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Claims:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for feature_path in list(self._held):
            self.release(feature_path)

    def take(self, feature_path: str) -> bool:
        """Claim a row. False if another process works on it.

        Raises:
            OSError: nothing can be written beside the feature file.
        """
        path = Path(feature_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        claims = self.acquire(path.parent, hidden_name(path))
        if claims is None:
            return False
        with self._lock:
            self._held[feature_path] = claims
        return True

    def acquire(self, folder: Path, start: str) -> list[Path] | None:
        """Make the claim of a row whose hidden files start so; gives it, after abandoned ones."""
        claims: list[Path] = []
        while True:
            claim = folder / f"{start}.{len(claims)}.claim"
            claims.append(claim)
            try:
                file = os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                if not self._is_abandoned(claim):
                    return None
                continue
            try:
                os.write(file, json.dumps(_this_process()).encode())
            except OSError:
                claim.unlink(missing_ok=True)
                raise
            finally:
                os.close(file)
            if len(claims) > 1:
                remove_temporary_files(folder, start)  # of the one who is gone
            return claims

    def release(self, feature_path: str) -> None:
        """Give up a claim, if it is held, and the abandoned ones that came before it."""
        with self._lock:
            claims = self._held.pop(feature_path, [])
        # The first number first: who comes now finds it free, or else the one after it taken.
        for claim in claims:
            with contextlib.suppress(OSError):
                claim.unlink()

    def _beat(self) -> None:
        while not self._stopped.wait(self._timeout_seconds / BEATS):
            with self._lock:
                claims = [claims[-1] for claims in self._held.values()]
            for claim in claims:
                with contextlib.suppress(OSError):
                    os.utime(claim)

    def _is_abandoned(self, claim: Path) -> bool:
        try:
            facts, text = claim.stat(), claim.read_bytes()
        except OSError:
            return False  # just released: whoever asks again will know more
        if _is_gone(text):
            return True
        now, file = time.monotonic(), (facts.st_ino, facts.st_mtime_ns)
        sight = self._seen.get(claim)
        if sight is None or sight.file != file:
            self._seen[claim] = _Sight(file, now)
            return False
        return now - sight.time >= self._timeout_seconds


def remove_abandoned_claims(feature_paths: Iterable[str]) -> None:
    """Remove what killed processes of this machine have left in the folders of feature files.

    A process that is killed between its last row and its own tidying leaves a claim that
    nobody takes over, since the row is done. This looks at whole folders: once a run.
    """
    claims = Claims(math.inf)
    for folder in {Path(path).parent for path in feature_paths}:
        with contextlib.suppress(OSError):
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if CLAIM.match(entry.name)]
            for start in {name.rsplit(".", 2)[0] for name in names}:
                # Only who holds a row may remove what belongs to it.
                for claim in claims.acquire(folder, start) or []:
                    claim.unlink()


@cache
def _machine() -> str | None:
    """What processes have in common that can see each other by number; None if nobody knows."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's own unit; None if it is not running any more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # a program's name may hold anything
    return None if fields[0] in "ZX" else fields[19]


def _this_process() -> dict[str, Any]:
    pid = os.getpid()
    return {"machine": _machine(), "pid": pid, "started": _started(pid)}


def _is_gone(text: bytes) -> bool:
    """The process that wrote this is known not to run any more."""
    try:
        holder = json.loads(text)
    except ValueError:
        return False  # it is just being written, or its writer was killed: the time will tell
    if holder["machine"] is None or holder["machine"] != _machine():
        return False
    return _started(holder["pid"]) != holder["started"]
