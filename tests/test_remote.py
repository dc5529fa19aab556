"""Objects against an S3 server that fails: what is tried again, and what is said."""

from __future__ import annotations

import hashlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from videofeatures import remote
from videofeatures.errors import MachineError, UserError, VideoError
from videofeatures.remote import ObjectExists, hash_object, open_file, open_store

CONTENT = bytes(range(256)) * 20_000  # several chunks


@pytest.fixture
def store(s3_server, monkeypatch):
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    return open_store("s3")


def bring(store, url, path, **options) -> bytes:
    store.download(url, path, store.stat(url), **options)
    return path.read_bytes()


def test_an_object_is_brought_whole(s3_server, store, tmp_path):
    url = s3_server.put("a b/ä?.mp4", CONTENT)
    seen = store.stat(url)
    assert seen.st_size == len(CONTENT)
    assert seen.etag == hashlib.md5(CONTENT).hexdigest()
    assert bring(store, url, tmp_path / "a") == CONTENT
    assert hash_object(url) == hashlib.sha256(CONTENT).hexdigest()[:16]


def test_what_is_not_there_is_none(s3_server, store):
    assert store.stat("s3://bucket/none.mp4") is None
    assert hash_object("s3://bucket/none.mp4") is None


def test_one_request_in_ten_may_fail(s3_server, store, tmp_path):
    url = s3_server.put("a.mp4", CONTENT)
    kinds = [
        lambda request: request.fail(503, "SlowDown"),
        lambda request: request.fail(500, "InternalError"),
        lambda request: request.cut(),
        lambda request: request.reset(),
    ]
    s3_server.fault = lambda r: kinds[r.number // 10 % 4](r) if r.number % 10 == 3 else None
    for number in range(40):
        assert bring(store, url, tmp_path / "a") == CONTENT
        (tmp_path / "b").write_bytes(b"%d" % number)
        store.upload(tmp_path / "b", f"s3://bucket/{number}.npy")
    assert s3_server.counts.total() > 100
    s3_server.fault = lambda request: None
    assert [s3_server.get(f"{number}.npy") for number in range(40)] == [
        b"%d" % n for n in range(40)
    ]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda request: request.fail(503, "SlowDown"), "busy each of 6 times"),
        (lambda request: request.reset(), "network failed each of 6 times"),
        (lambda request: request.cut() if request.method == "GET" else None, "network failed"),
    ],
)
def test_what_lasts_is_the_machine_s_fault(s3_server, store, tmp_path, fault, reason):
    url = s3_server.put("a.mp4", CONTENT)
    seen = store.stat(url)
    s3_server.forget()
    s3_server.fault = fault
    with pytest.raises(MachineError, match=reason):
        store.download(url, tmp_path / "a", seen)
    # aiohttp asks once more where a connection breaks that it had kept.
    assert 6 <= s3_server.counts.total() <= 12


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (403, "AccessDenied", VideoError, "no permission"),
        (404, "NoSuchKey", VideoError, "no such file"),
        (404, "NoSuchBucket", VideoError, "no such bucket"),
        (400, "ExpiredToken", MachineError, r"expired \(ExpiredToken\): renew them"),
        (403, "InvalidAccessKeyId", MachineError, "InvalidAccessKeyId"),
        (403, "SignatureDoesNotMatch", MachineError, "SignatureDoesNotMatch"),
    ],
)
def test_what_no_try_changes_is_not_tried_again(
    s3_server, store, tmp_path, status, code, kind, reason
):
    url = s3_server.put("a.mp4", CONTENT)
    seen = store.stat(url)
    s3_server.forget()
    s3_server.fault = lambda request: request.fail(status, code)
    with pytest.raises(kind, match=reason) as caught:
        store.download(url, tmp_path / "a", seen)
    assert type(caught.value) is kind
    assert s3_server.counts.total() == 1
    assert "AKIA" not in str(caught.value)


def test_a_head_without_a_body_is_explained(s3_server, store):
    url = s3_server.put("a.mp4", CONTENT)
    s3_server.fault = lambda request: request.fail(400, "ExpiredToken")
    with pytest.raises(MachineError, match="ExpiredToken"):
        store.stat(url)


def test_missing_credentials_are_named(s3_server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store.cache_clear()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(MachineError, match="credentials are missing"):
        open_store("s3").stat("s3://bucket/a.mp4")


def test_nobody_listens(s3_server, monkeypatch):
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    open_store.cache_clear()
    with pytest.raises(MachineError, match="network failed"):
        open_store("s3").stat("s3://bucket/a.mp4")


def test_an_object_that_changes_meanwhile_is_read_as_it_is_then(s3_server, store, tmp_path):
    url = s3_server.put("a.mp4", CONTENT)
    seen = store.stat(url)
    s3_server.put("a.mp4", b"another")
    assert store.download(url, tmp_path / "a", seen).st_size == 7
    assert (tmp_path / "a").read_bytes() == b"another"


def test_an_object_that_changes_all_the_time_is_given_up(s3_server, store, tmp_path):
    url = s3_server.put("a.mp4", CONTENT)

    def change(request):
        if request.method == "GET" and request.number < 100:
            client = s3_server.client
            client.put_object(Bucket="bucket", Key="a.mp4", Body=b"%d" % request.number)

    s3_server.fault = change
    with pytest.raises(MachineError, match="changed while it was read"):
        bring(store, url, tmp_path / "a")


def test_a_stopped_job_waits_for_nothing(s3_server, store, tmp_path):
    url = s3_server.put("a.mp4", CONTENT)
    seen = store.stat(url)
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(MachineError, match="stopped"):
        store.download(url, tmp_path / "a", seen, stopped=stopped)


def test_what_is_not_what_its_etag_says_is_brought_again(s3_server, store, tmp_path):
    url = s3_server.put("a.mp4", CONTENT)
    damaged = []

    def damage(request):
        if request.method != "GET" or damaged:
            return None
        damaged.append(request.number)
        body = b"".join(request._app(request.environ, request._start_response))
        return [b"x" + body[1:]]

    s3_server.fault = damage
    assert bring(store, url, tmp_path / "a") == CONTENT
    assert damaged


def test_only_one_of_two_writes_what_is_not_there(s3_server, store, tmp_path):
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"two")
    store.upload(tmp_path / "one", "s3://bucket/a.npy")
    with pytest.raises(ObjectExists):
        store.upload(tmp_path / "two", "s3://bucket/a.npy")
    store.upload(tmp_path / "one", "s3://bucket/a.npy")  # the same
    assert s3_server.get("a.npy") == b"one"


def test_only_what_was_seen_is_replaced(s3_server, store, tmp_path):
    url = s3_server.put("a.npy", b"old")
    seen = store.stat(url)
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"two")
    store.upload(tmp_path / "one", url, replaces=seen)
    with pytest.raises(ObjectExists):
        store.upload(tmp_path / "two", url, replaces=seen)
    assert s3_server.get("a.npy") == b"one"


def test_what_was_removed_meanwhile_is_written(s3_server, store, tmp_path):
    url = s3_server.put("a.npy", b"old")
    seen = store.stat(url)
    s3_server.client.delete_object(Bucket="bucket", Key="a.npy")
    (tmp_path / "one").write_bytes(b"one")
    store.upload(tmp_path / "one", url, replaces=seen)
    assert s3_server.get("a.npy") == b"one"


def test_a_write_whose_answer_is_lost_is_known_for_ours(s3_server, store, tmp_path):
    (tmp_path / "one").write_bytes(b"one")
    lost = []

    def lose(request):
        if request.method == "PUT" and not lost:
            lost.append(request.answer())
            return request.reset()
        return None

    s3_server.fault = lose
    store.upload(tmp_path / "one", "s3://bucket/a.npy")
    assert lost
    assert s3_server.get("a.npy") == b"one"


def test_a_storage_without_conditional_writes_is_written_to(s3_server, store, tmp_path):
    (tmp_path / "one").write_bytes(b"one")

    def refuse(request):
        is_conditional = "HTTP_IF_NONE_MATCH" in request.environ
        return request.fail(501, "NotImplemented") if is_conditional else None

    s3_server.fault = refuse
    store.upload(tmp_path / "one", "s3://bucket/a.npy")
    assert s3_server.get("a.npy") == b"one"


def test_a_listing_is_whole_though_pages_fail(s3_server, store, monkeypatch):
    monkeypatch.setattr(store, "_page_size", 3)
    keys = [f"p/{k}/{j}.mp4" for k in range(3) for j in range(7)]
    for key in keys:
        s3_server.put(key, b"x")
    s3_server.fault = lambda r: r.fail(503, "SlowDown") if r.number % 3 == 1 else None
    pages = list(store.list_pages("s3://bucket/p/", is_deep=True))
    assert sorted(url for page in pages for url, _ in page) == [f"s3://bucket/{k}" for k in keys]
    (in_folder,) = [page for page in store.list_pages("s3://bucket/p/1/", is_deep=False) if page][
        :1
    ]
    assert len(in_folder) == 3
    assert not any(store.list_pages("s3://bucket/p/", is_deep=False))


def test_a_storage_may_refuse_large_pages(s3_server, store):
    s3_server.put("p/a.mp4", b"x")
    s3_server.fault = lambda r: (
        r.fail(400, "InvalidArgument") if "max-keys" in r.environ["QUERY_STRING"] else None
    )
    assert [url for url, _ in next(store.list_pages("s3://bucket/p/", is_deep=True))]


@pytest.mark.parametrize(
    "time", ["2026-11-26T23:00:01.000Z", "2026-11-26T23:00:01Z", "Thu, 26 Nov 2026 23:00:01 GMT"]
)
def test_the_times_of_a_listing_may_have_any_form(s3_server, store, time):
    s3_server.put("p/a.mp4", b"x")
    s3_server.fault = lambda r: r.edit(partial(re.sub, rb"(?<=<LastModified>)[^<]+", time.encode()))
    ((_, seen),) = next(store.list_pages("s3://bucket/p/", is_deep=True))
    assert seen.st_mtime_ns == 1_795_734_001 * 1_000_000_000


@pytest.fixture
def web_server(tmp_path):
    """A server of files, which says their size and time and no ETag."""
    (tmp_path / "served").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", tmp_path / "served"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_comes_from_a_server(web_server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    url, folder = web_server
    (folder / "a b.mp4").write_bytes(CONTENT)
    store = open_store("http")
    seen = store.stat(f"{url}/a b.mp4?token=x")
    assert seen.st_size == len(CONTENT)
    assert seen.st_mtime_ns == int((folder / "a b.mp4").stat().st_mtime) * 1_000_000_000
    assert bring(store, f"{url}/a b.mp4?token=x", tmp_path / "a") == CONTENT
    assert store.stat(f"{url}/none.mp4") is None
    (folder / "a b.mp4").write_bytes(b"another")
    assert store.download(f"{url}/a b.mp4", tmp_path / "a", seen).st_size == 7


@pytest.fixture
def plain_store(tmp_path, monkeypatch):
    """What gs:// and az:// go by: fsspec's interface alone, here of its objects in memory."""
    import fsspec

    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield remote.Store(filesystem)
    filesystem.store.clear()


def test_other_storages_go_by_what_all_have(plain_store, tmp_path):
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"two!")
    url = "memory://bucket/deep/a.npy"
    assert plain_store.stat(url) is None
    plain_store.upload(tmp_path / "one", url)
    seen = plain_store.stat(url)
    assert (seen.st_size, seen.etag) == (3, "")
    assert seen.st_mtime_ns > 10**18
    assert plain_store.read(url) == b"one"
    plain_store.upload(tmp_path / "one", url)  # a try of ours that came through
    with pytest.raises(ObjectExists):
        plain_store.upload(tmp_path / "two", url)
    plain_store.upload(tmp_path / "two", url, replaces=seen)
    with pytest.raises(ObjectExists):
        plain_store.upload(tmp_path / "one", url, replaces=seen)
    now = plain_store.stat(url)
    assert plain_store.download(url, tmp_path / "a", seen) == now  # as it is then
    assert (tmp_path / "a").read_bytes() == b"two!"
    (page,) = plain_store.list_pages("memory://bucket/", is_deep=True)
    ((_, listed),) = page
    assert listed.st_size == 4
    assert listed.is_same_version(now)
    assert not listed.is_same_version(seen)
    assert list(plain_store.list_pages("memory://none/", is_deep=True)) == [[]]


def test_a_file_of_a_disk_is_opened_as_an_object_is(s3_server, tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    for path in (str(tmp_path / "a"), s3_server.put("a", b"abc")):
        with open_file(path) as file:
            assert file.read() == b"abc"
    with pytest.raises(FileNotFoundError):
        open_file(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("scheme", "what"),
    [
        ("s3", "s3fs.* Type make env-remote, or, .* envs/requirements-remote.txt"),
        ("https", "aiohttp.* Type make env-remote"),
        ("gs", r"Type \.venv/bin/python -m pip install --constraint \S+ gcsfs"),
    ],
)
def test_a_package_that_is_not_there_is_named_with_what_to_type(monkeypatch, scheme, what):
    def fail(*_, **options):
        raise ImportError("No module named 'x'")

    monkeypatch.setattr("fsspec.filesystem", fail)
    open_store.cache_clear()
    with pytest.raises(UserError, match=f"{scheme}:// needs the package .*{what}"):
        open_store(scheme)


def test_a_server_that_nobody_reaches_is_named_without_secrets(monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    with pytest.raises(MachineError, match="network failed") as caught:
        open_store("http").stat("http://127.0.0.1:9/a.mp4?X-Amz-Signature=word")
    assert "word" not in str(caught.value)


@pytest.fixture(params=["s3", "plain"])
def any_store(request):
    """A store, and the URL of a folder in it."""
    if request.param == "s3":
        return request.getfixturevalue("store"), "s3://bucket/run"
    return request.getfixturevalue("plain_store"), "memory://bucket/run"


def test_what_is_put_takes_the_place_of_what_was_there(any_store):
    store, folder = any_store
    for content in (b"", b"one", b"three"):
        assert store.put(f"{folder}/a", content) == 1
        assert store.read(f"{folder}/a") == content
    assert store.read(f"{folder}/a", 2) == b"ree"
    store.remove(f"{folder}/a")
    assert store.stat(f"{folder}/a") is None


def test_a_listing_may_be_of_names_that_start_alike(any_store):
    store, folder = any_store
    for name in ("ab-1", "ab-2", "abc", "b/ab-3"):
        store.put(f"{folder}/{name}", b"x")
    pages = store.list_pages(f"{folder}/", is_deep=False, start="ab-")
    assert [url.rpartition("/")[2] for page in pages for url, _ in page] == ["ab-1", "ab-2"]


def test_how_often_a_put_was_tried_is_told(s3_server, store):
    s3_server.fault = lambda r: r.fail(503, "SlowDown") if r.number < 2 else None
    assert store.put("s3://bucket/a", b"x") == 3
    s3_server.fault = lambda request: request.fail(403, "AccessDenied")
    s3_server.forget()
    with pytest.raises(VideoError, match="no permission"):
        store.put("s3://bucket/a", b"x")
    assert s3_server.counts.total() == 1
