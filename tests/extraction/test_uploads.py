"""A few uploads at a time, each with its own outcome."""

from __future__ import annotations

import threading

import pytest

from conftest import wait_for
from videofeatures.errors import MachineError, VideoError
from videofeatures.extraction import uploads as uploads_module
from videofeatures.extraction.uploads import MAX_UPLOADS, Uploads
from videofeatures.remote import ObjectExists


@pytest.fixture
def uploads(tmp_path, s3_server, monkeypatch):
    monkeypatch.setattr("videofeatures.remote.WAIT_SECONDS", 0.01)
    with Uploads(tmp_path) as uploads:
        yield uploads


def start(uploads: Uploads, name: str) -> None:
    path = uploads.folder / name
    path.write_text(name)
    uploads.start(name, path, f"s3://bucket/{name}.npy", None)


def test_each_comes_back_with_its_own_outcome(uploads, s3_server):
    s3_server.put("theirs.npy", b"something else")

    def fault(request):
        if request.key == "slow.npy" and s3_server.keys["PUT", request.key] < 3:
            return request.fail(503, "SlowDown")
        return request.fail(403, "AccessDenied") if request.key == "refused.npy" else None

    s3_server.fault = fault
    for name in ("a", "refused", "slow", "theirs", "b"):
        start(uploads, name)
    found = dict(uploads.take(all_of_them=True))
    assert {name for name, error in found.items() if error is None} == {"a", "slow", "b"}
    assert isinstance(found["refused"], VideoError)
    assert isinstance(found["theirs"], ObjectExists)
    assert list(uploads.take(all_of_them=True)) == []
    assert list(uploads.folder.iterdir()) == []
    assert [s3_server.get(f"{name}.npy") for name in ("a", "b")] == [b"a", b"b"]


def test_more_than_a_few_are_waited_for(uploads, s3_server):
    may_end = threading.Event()

    def fault(request):
        if request.method == "PUT":
            may_end.wait(60)

    s3_server.fault = fault
    for number in range(MAX_UPLOADS):
        start(uploads, str(number))  # and none of them has ended
    assert list(uploads.take()) == []
    thread = threading.Thread(target=start, args=[uploads, "another"])
    thread.start()
    wait_for(lambda: s3_server.counts["PUT"] == MAX_UPLOADS)
    thread.join(0.3)
    assert thread.is_alive()
    assert s3_server.counts["PUT"] == MAX_UPLOADS
    may_end.set()
    thread.join()
    assert len(list(uploads.take(all_of_them=True))) == MAX_UPLOADS + 1


def test_a_stopped_job_tries_nothing_again(tmp_path, s3_server, monkeypatch):
    monkeypatch.setattr("videofeatures.remote.WAIT_SECONDS", 1000)
    s3_server.fault = lambda request: request.fail(503, "SlowDown")
    with Uploads(tmp_path) as uploads:
        start(uploads, "a")
        wait_for(lambda: s3_server.counts["PUT"] == 1)
    ((_, error),) = uploads.take()
    assert isinstance(error, MachineError)
    assert s3_server.counts["PUT"] == 1


def test_a_stopped_job_does_not_wait_for_ever(tmp_path, s3_server, monkeypatch):
    monkeypatch.setattr(uploads_module, "STOP_SECONDS", 0.1)
    may_end = threading.Event()
    s3_server.fault = lambda request: may_end.wait(60) and None
    with Uploads(tmp_path) as uploads:
        start(uploads, "a")
        wait_for(lambda: s3_server.counts["PUT"] == 1)
    assert list(uploads.take()) == []
    may_end.set()
    assert list(uploads.take(all_of_them=True)) == [("a", None)]
