"""Many looks at the disk, at the same time and in order."""

from __future__ import annotations

import threading

import pytest

from videofeatures import disk
from videofeatures.disk import find_file, look_at


@pytest.mark.parametrize("count", [0, 1, disk.NUM_THREADS + 1, 2 * disk.CHUNK_SIZE + 3])
def test_what_was_seen_comes_in_the_order_of_the_items(count):
    assert list(look_at(lambda k: 2 * k, range(count))) == [2 * k for k in range(count)]


def test_as_many_looks_wait_for_the_disk_as_there_are_threads():
    together = threading.Barrier(disk.NUM_THREADS)
    # Each waits for all others: with fewer threads, none would ever be done.
    seen = look_at(lambda _: together.wait(timeout=60), range(4 * disk.NUM_THREADS))
    assert sorted(seen) == sorted(list(range(disk.NUM_THREADS)) * 4)


def test_items_are_taken_a_chunk_at_a_time(monkeypatch):
    monkeypatch.setattr(disk, "CHUNK_SIZE", 10)
    taken = []
    seen = look_at(lambda k: k, (taken.append(k) or k for k in range(100)))
    assert next(seen) == 0
    assert len(taken) == 10


def test_a_file_is_found_or_not(tmp_path):
    (tmp_path / "a").write_text("12345")
    (tmp_path / "link").symlink_to("nowhere")
    assert find_file(str(tmp_path / "a")).st_size == 5
    for name in ("b", "link", "a/b", "x" * 300):
        assert find_file(str(tmp_path / name)) is None
