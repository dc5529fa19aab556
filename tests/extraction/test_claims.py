"""A row is worked on by one process at a time, and by another when that one is gone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from conftest import ROOT, wait_for
from videofeatures.extraction import claims as claims_module
from videofeatures.extraction.claims import Claims, remove_abandoned_claims
from videofeatures.files import replace_file

LONG = 1000.0
"""Seconds that no test waits for."""


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def elsewhere(monkeypatch) -> None:
    """From now on this process takes itself for one of another machine."""
    monkeypatch.setattr(claims_module, "_machine", lambda: "another machine")


def test_a_row_has_one_holder(tmp_path):
    path = str(tmp_path / "new" / "a.npy")
    with Claims(LONG) as ours, Claims(LONG) as theirs:
        assert ours.take(path)
        assert not theirs.take(path)
        assert theirs.take(str(tmp_path / "new" / "b.npy"))
        ours.release(path)
        assert theirs.take(path)
        assert len(hidden(tmp_path / "new")) == 2
    assert hidden(tmp_path / "new") == []


@pytest.mark.parametrize("name", ["a" * 251 + ".npy", "日本" * 40 + ".npz", "a b\\c*?.npy"])
def test_any_name_can_be_claimed(tmp_path, name):
    with Claims(LONG) as ours, Claims(LONG) as theirs:
        assert ours.take(str(tmp_path / name))
        assert not theirs.take(str(tmp_path / name))


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with Claims(LONG) as claims, pytest.raises(OSError, match=r"Not a directory|File exists"):
        claims.take(str(tmp_path / "file" / "a.npy"))


HOLD = """
import sys, time
from videofeatures.extraction.claims import Claims
with Claims(float(sys.argv[2])) as claims:
    print(claims.take(sys.argv[1]), flush=True)
    time.sleep(1000)
"""


def start_holder(path: Path, timeout_seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(timeout_seconds)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "True\n"
    process.stdout.close()
    return process


def test_a_killed_holder_on_this_machine_is_known_to_be_gone(tmp_path):
    path = tmp_path / "a.npy"
    holder = start_holder(path, LONG)
    with Claims(LONG) as claims:
        assert not claims.take(str(path))
        holder.kill()
        # Gone as soon as it is a zombie: nobody has waited for it yet.
        deadline = time.monotonic() + 30
        while not claims.take(str(path)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    holder.wait()
    assert hidden(tmp_path) == []


def test_another_process_with_the_number_of_the_holder_is_not_the_holder(tmp_path):
    path = tmp_path / "a.npy"
    with Claims(LONG) as claims:
        assert claims.take(str(path))
        (claim,) = tmp_path.iterdir()
        holder = json.loads(claim.read_text())
        claim.write_text(json.dumps(holder | {"started": "1"}))
        with Claims(LONG) as others:
            assert others.take(str(path))


def test_a_holder_elsewhere_is_watched_by_our_own_clock(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    holder = start_holder(path, 1.6)
    elsewhere(monkeypatch)
    try:
        with Claims(1.6) as claims:
            (claim,) = tmp_path.iterdir()
            started = time.monotonic()
            while time.monotonic() - started < 4:  # it is touched all the time
                assert not claims.take(str(path))
                time.sleep(0.1)
            holder.send_signal(signal.SIGSTOP)
            os.utime(claim, (1e9, 1e9))  # a clock that is wrong by decades
            assert not claims.take(str(path))
            started = time.monotonic()
            while not claims.take(str(path)):
                assert time.monotonic() - started < 30
                time.sleep(0.05)
            assert time.monotonic() - started > 1.2
    finally:
        holder.kill()
        holder.wait()


def test_a_claim_whose_text_is_not_there_yet_is_a_claim(tmp_path):
    path = tmp_path / "a.npy"
    with Claims(LONG) as claims:
        assert claims.take(str(path))
        (claim,) = tmp_path.iterdir()
        claim.write_text("")
        with Claims(LONG) as others:
            assert not others.take(str(path))


def test_what_a_killed_writer_left_goes_when_its_row_is_taken_over(tmp_path):
    path, other = tmp_path / "a.npy", tmp_path / "b.npy"
    holder = start_holder(path, LONG)
    holder.kill()
    holder.wait()
    parts = []
    for target in (path, other):
        with replace_file(target) as file:
            parts.append(Path(file.name))
        target.rename(parts[-1])
    with Claims(LONG) as claims:
        assert claims.take(str(path))
        assert not parts[0].exists()
        assert parts[1].exists()  # another row's, of somebody who may be alive


def test_what_killed_processes_left_beside_done_rows_is_tidied_up(tmp_path):
    """And nothing of those who are alive."""
    done, held = tmp_path / "done.npy", tmp_path / "held.npy"
    for _ in range(2):  # also one who had taken over
        holder = start_holder(done, LONG)
        holder.kill()
        holder.wait()
    holder = start_holder(held, LONG)
    try:
        done.touch()
        with Claims(LONG) as ours:
            assert ours.take(str(tmp_path / "ours.npy"))
            remove_abandoned_claims([str(done), str(tmp_path / "nowhere" / "x.npy")])
            assert len(hidden(tmp_path)) == 2
            assert not ours.take(str(held))
        remove_abandoned_claims([str(done)])
        assert len(hidden(tmp_path)) == 1
    finally:
        holder.kill()
        holder.wait()


WORK = """
import os, random, sys, time
from pathlib import Path
from videofeatures.extraction.claims import Claims
folder, rng = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
left = [str(folder / f"{k}.npy") for k in range(60)]
with Claims(15) as claims:  # one killed before its claim says whose it is is waited for
    while left:
        for row in list(left):
            if not os.path.exists(row):
                if not claims.take(row):
                    continue
                if not os.path.exists(row):
                    with open(row + ".log", "a") as log:
                        log.write(f"{os.getpid()}\\n")
                    time.sleep(rng.random() * 0.01)
                    Path(row).touch()
                claims.release(row)
            left.remove(row)
"""


@pytest.mark.parametrize("seed", range(3))
def test_many_processes_killed_at_random_never_share_a_row(tmp_path, seed):
    rng = random.Random(seed)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}

    def start() -> subprocess.Popen:
        command = [sys.executable, "-c", WORK, str(tmp_path), str(rng.randrange(10**6))]
        return subprocess.Popen(command, env=environment)

    processes, killed = [start() for _ in range(8)], set()
    for _ in range(10):  # several at once: those who are left see the same claims abandoned
        time.sleep(rng.random() * 0.2)
        for victim in rng.sample(processes, 3):
            victim.kill()
            if victim.wait() == -signal.SIGKILL:
                killed.add(str(victim.pid))
        processes = [process for process in processes if process.poll() is None]
        processes += [start() for _ in range(8 - len(processes))]
    assert all(process.wait(120) == 0 for process in processes)
    assert len(list(tmp_path.glob("*.npy"))) == 60
    assert killed
    remove_abandoned_claims(
        [str(tmp_path / "any.npy")]
    )  # of one killed between its row and its release
    assert not any(claim.read_text() for claim in tmp_path.glob(".*"))  # in spite of no one's name
    for log in tmp_path.glob("*.log"):
        *before, _ = log.read_text().split()
        assert set(before) <= killed  # who began a row and was not killed has done it


def test_a_row_that_is_released_while_it_is_taken_over_has_one_holder(tmp_path, monkeypatch):
    path = tmp_path / "a.npy"
    holder = start_holder(path, LONG)
    holder.kill()
    holder.wait()
    with Claims(LONG) as first, Claims(LONG) as second, Claims(LONG) as third:
        assert first.take(str(path))
        is_abandoned = second._is_abandoned

        def release_meanwhile(claim: Path) -> bool:
            result = is_abandoned(claim)
            first.release(str(path))
            return result

        monkeypatch.setattr(second, "_is_abandoned", release_meanwhile)
        assert [second.take(str(path)), third.take(str(path))] in ([True, False], [False, True])
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", "7", "null", '{"machine": 1}', "[" * 100_000])
def test_a_claim_that_says_nothing_is_abandoned_when_nobody_touches_it(tmp_path, text):
    path = str(tmp_path / "a.npy")
    with Claims(LONG) as claims:
        assert claims.take(path)
        (claim,) = tmp_path.iterdir()
        claim.write_text(text)
        with Claims(0.2) as others:
            assert not others.take(path)
            wait_for(lambda: others.take(path))


def test_anybody_can_read_a_claim_whatever_the_mask_of_its_holder(tmp_path):
    before = os.umask(0o077)
    try:
        with Claims(LONG) as claims:
            assert claims.take(str(tmp_path / "a.npy"))
            (claim,) = tmp_path.iterdir()
            assert claim.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_claim_that_cannot_be_read_is_abandoned_when_nobody_touches_it():
    with tempfile.TemporaryDirectory() as folder, Claims(LONG) as claims:
        os.chmod(folder, 0o777)
        path = os.path.join(folder, "a.npy")
        assert claims.take(path)
        (claim,) = Path(folder).iterdir()
        claim.chmod(0o600)
        os.seteuid(65534)
        try:
            with Claims(0.2) as others:
                assert not others.take(path)
                wait_for(lambda: others.take(path))
        finally:
            os.seteuid(0)


def test_the_claim_of_an_object_stands_in_the_folder_that_is_shared(tmp_path):
    folder = tmp_path / "plan"
    urls = ["s3://bucket/a.npy", "s3://bucket/deep/a.npy", "s3://other/a.npy"]
    with Claims(LONG, folder) as ours, Claims(LONG, folder) as theirs:
        assert all(map(ours.take, urls))
        assert len(hidden(folder)) == 3
        assert not any(map(theirs.take, urls))
        ours.release(urls[0])
        assert theirs.take(urls[0])
    assert hidden(folder) == []
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_claims_of_objects_are_left_by_killed_processes_and_tidied_up(tmp_path):
    folder, url = tmp_path / "plan", "s3://bucket/a.npy"
    script = HOLD.replace("Claims(float(sys.argv[2]))", "Claims(1000.0, Path(sys.argv[2]))")
    holder = subprocess.Popen(
        [sys.executable, "-c", f"from pathlib import Path\n{script}", url, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdout=subprocess.PIPE,
    )
    assert holder.stdout.readline() == b"True\n"
    holder.stdout.close()
    try:
        with Claims(LONG, folder) as claims:
            assert not claims.take(url)
    finally:
        holder.kill()
        holder.wait()
    remove_abandoned_claims([str(tmp_path / "a.npy")], folder)  # of no object
    assert len(hidden(folder)) == 1
    remove_abandoned_claims([url], folder)
    assert hidden(folder) == []
