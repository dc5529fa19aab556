"""Videos on their way to a disk: each once, within bounds, and gone when nobody needs them."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto")

from conftest import make_target, wait_for
from videofeatures import remote
from videofeatures.errors import VideoError
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.decoders import SharedTargets
from videofeatures.extraction.fetching import Fetcher, Files, count_uses, needs_fetching


@pytest.fixture
def make_files(s3_server, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "WAIT_SECONDS", 0.01)
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def make(urls, max_bytes=1000, allowed=("s3",)):
        return Files(
            scratch,
            max_bytes=max_bytes,
            uses=Counter(urls),
            allowed_schemes=allowed,
            stopped=threading.Event(),
        )

    return make


def on_disk(tmp_path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "scratch").iterdir())


def test_a_video_stays_until_it_is_used_for_the_last_time(s3_server, make_files, tmp_path):
    url = s3_server.put("a.mp4", b"x" * 100)
    files = make_files([url, url])
    first = files.bring(url)
    assert first.path.endswith(".mp4")
    assert first.seen.st_size == 100
    first.release()
    assert on_disk(tmp_path) == 100
    second = files.bring(url)
    second.release()
    assert on_disk(tmp_path) == 0
    assert s3_server.keys["GET", "a.mp4"] == 1


def test_several_who_need_a_video_at_a_time_bring_it_once(s3_server, make_files):
    url = s3_server.put("a.mp4", b"x" * 100)
    files = make_files([url] * 8)
    brought = []
    threads = [threading.Thread(target=lambda: brought.append(files.bring(url))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one.path for one in brought}) == 1
    assert s3_server.keys["GET", "a.mp4"] == 1


def test_a_video_waits_for_room(s3_server, make_files, tmp_path):
    urls = [s3_server.put(f"{k}.mp4", b"x" * 400) for k in range(3)]
    files = make_files(urls)
    first, second = files.bring(urls[0]), files.bring(urls[1])
    third = []
    thread = threading.Thread(target=lambda: third.append(files.bring(urls[2])))
    thread.start()
    time.sleep(0.2)
    assert not third
    assert on_disk(tmp_path) == 800
    first.release()
    thread.join()
    assert on_disk(tmp_path) == 800
    second.release()


def test_what_is_used_once_more_makes_room(s3_server, make_files, tmp_path):
    urls = [s3_server.put(f"{k}.mp4", b"x" * 600) for k in range(2)]
    files = make_files([*urls, *urls])
    for url in (*urls, *urls):
        files.bring(url).release()
        assert on_disk(tmp_path) <= 1000
    assert s3_server.counts["GET"] == 4


@pytest.mark.parametrize(
    ("key", "size", "allowed", "reason"),
    [
        ("a.mp4", 1001, ("s3",), "allows 1 kB: raise it"),
        ("none.mp4", 10, ("s3",), "no such file"),
        ("a.mp4", 10, ("https",), "unless you say so"),
    ],
)
def test_what_cannot_be_brought_leaves_nothing(
    s3_server, make_files, tmp_path, key, size, allowed, reason
):
    s3_server.put("a.mp4", b"x" * size)
    url = f"s3://bucket/{key}"
    files = make_files([url], allowed=allowed)
    with pytest.raises(VideoError, match=reason):
        files.bring(url)
    assert on_disk(tmp_path) == 0
    s3_server.put(key, b"x")
    if "s3" in allowed:
        assert files.bring(url).seen.st_size == 1


def test_videos_wait_for_those_who_decode_them_and_no_more_than_that(
    s3_server, make_files, tmp_path
):
    urls = [s3_server.put(f"{k}.mp4", b"x") for k in range(30)]
    here = tmp_path / "here.mp4"
    targets = [make_target(url, tmp_path / f"{k}.npy") for k, url in enumerate(urls)]
    targets.append(make_target(here, tmp_path / "here.npy"))
    targets.append(make_target("s3://bucket/none.mp4", tmp_path / "none.npy"))
    assert needs_fetching(targets)
    assert not needs_fetching(targets[-2:-1])
    stopped = threading.Event()
    with Claims(60) as claims:
        shared = SharedTargets(targets, claims)
        files = make_files(count_uses(targets))
        with Fetcher(shared, files, num_ahead=2, stopped=stopped) as fetcher:
            wait_for(lambda: files.num_brought >= 10)
            time.sleep(0.2)
            assert files.num_brought == 10  # two that wait, and one of each thread
            done, failed = [], []
            while (taken := fetcher.take(stopped)) is not None:
                failed += taken.failed
                done += taken.targets
                if taken.brought:
                    taken.brought.release()
            assert fetcher.take(stopped) is None
    assert {target.source.path for target in done} == {*urls, str(here)}
    assert [str(one.error) for one in failed] == ["no such file"]
    assert on_disk(tmp_path) == 0
