"""What is known of a file is asked once, as long as it is the same file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.looks import MAX_KEPT, Looks
from videofeatures.source import Source


class Asked:
    """Stands for `Libav`: its facts say how often it was asked."""

    def __init__(self):
        self.calls = []

    def look_at_packets(self, path, frame_rates, *, end_seconds):
        self.calls.append((Path(path).name, frame_rates, end_seconds))
        return PacketFacts(len(self.calls), 0, 0, 0, 0, False, None, False)


@pytest.fixture
def source(tmp_path) -> Source:
    (tmp_path / "a").write_text("a")
    return Source(str(tmp_path / "a"))


def test_the_same_file_is_looked_at_once(source):
    looks = Looks(asked := Asked())
    assert [looks.at(source, rates).num_packets for rates in ((1.0,), (), (1.0,))] == [1, 1, 1]
    assert asked.calls == [("a", (1.0,), None)]


def test_what_was_not_asked_for_is_asked(source):
    looks = Looks(asked := Asked())
    for rates in ((), (1.0,), (1.0, 2.0)):
        looks.at(source, rates)
    looks.at(source._replace(end_seconds=3.0))
    expected = [((), None), ((1.0,), None), ((1.0, 2.0), None), ((), 3.0)]
    assert asked.calls == [("a", *each) for each in expected]


def test_a_file_that_has_changed_is_another_one(source):
    looks = Looks(Asked())
    looks.at(source)
    looks.note_complaint(source)
    assert looks.has_complained(source)
    Path(source.path).write_text("ab")
    assert looks.at(source).num_packets == 2
    assert not looks.has_complained(source)
    os.utime(source.path, ns=(0, 0))
    assert looks.at(source).num_packets == 3


def test_files_that_are_long_done_are_forgotten(source):
    looks = Looks(asked := Asked())
    for path in (source.path, *map(str, range(MAX_KEPT - 1)), source.path):
        looks.at(Source(path))
    assert len(asked.calls) == MAX_KEPT
    looks.at(Source("one more"))
    looks.at(source)  # the one that was asked for last of all
    looks.at(Source("0"))
    assert [name for name, *_ in asked.calls[MAX_KEPT:]] == ["one more", "0"]
