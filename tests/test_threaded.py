"""Many looks at the disk, at the same time and in order."""

from __future__ import annotations

import threading
import time

import pytest

from videofeatures import threaded
from videofeatures.files import stat_or_none
from videofeatures.threaded import map_in_threads, threaded_map


@pytest.mark.parametrize("count", [0, 1, threaded.NUM_THREADS + 1, 2 * threaded.CHUNK_SIZE + 3])
def test_what_was_seen_comes_in_the_order_of_the_items(count):
    assert list(threaded_map(lambda k: 2 * k, range(count))) == [2 * k for k in range(count)]


def test_as_many_looks_wait_for_the_disk_as_there_are_threads():
    together = threading.Barrier(threaded.NUM_THREADS)

    def look(k: int) -> int:
        if k < threaded.NUM_ALONE:
            time.sleep(2 * threaded.QUICK_SECONDS)  # the first one finds the disk slow
            return 0
        # Each waits for all others: with fewer threads, none would ever be done.
        return together.wait(timeout=60)

    seen = threaded_map(look, range(threaded.NUM_ALONE + 4 * threaded.NUM_THREADS))
    expected = [*[0] * threaded.NUM_ALONE, *list(range(threaded.NUM_THREADS)) * 4]
    assert sorted(seen) == sorted(expected)


def test_of_what_is_known_to_be_slow_all_wait_together():
    together = threading.Barrier(threaded.NUM_THREADS)
    items = range(2 * threaded.NUM_THREADS)
    seen = map_in_threads(lambda k: (k, together.wait(timeout=60)), items)
    assert [k for k, _ in seen] == list(items)
    assert map_in_threads(str, []) == []


def test_a_quick_disk_needs_no_threads():
    threads = set(threaded_map(lambda _: threading.get_ident(), range(threaded.NUM_ALONE)))
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("bad", [3, threaded.NUM_ALONE + 3])
def test_what_a_look_raises_is_raised_whoever_looks(bad):
    def look(k: int) -> int:
        time.sleep(2 * threaded.QUICK_SECONDS)
        return 1 // (k - bad)

    with pytest.raises(ZeroDivisionError):
        list(threaded_map(look, range(50)))


def test_items_are_taken_a_chunk_at_a_time(monkeypatch):
    monkeypatch.setattr(threaded, "CHUNK_SIZE", 10)
    taken = []
    seen = threaded_map(lambda k: k, (taken.append(k) or k for k in range(100)))
    assert next(seen) == 0
    assert len(taken) == 10


def test_a_file_is_found_or_not(tmp_path):
    (tmp_path / "a").write_text("12345")
    (tmp_path / "link").symlink_to("nowhere")
    assert stat_or_none(str(tmp_path / "a")).st_size == 5
    for name in ("b", "link", "a/b", "x" * 300):
        assert stat_or_none(str(tmp_path / name)) is None
