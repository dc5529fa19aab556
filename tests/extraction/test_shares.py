"""A video's share is that of its bytes among those that are left."""

from __future__ import annotations

import pytest

from conftest import make_target
from videofeatures.extraction import shares as shares_module
from videofeatures.extraction.shares import Shares


@pytest.fixture
def targets(tmp_path):
    """Of videos of 1, 2, 3 and 10 bytes, and one that is not there."""
    targets = []
    for size in (1, 2, 3, 10):
        (tmp_path / f"{size}.mp4").write_bytes(b"x" * size)
        targets.append(make_target(tmp_path / f"{size}.mp4", tmp_path / f"{size}.npy"))
    return [*targets, make_target(tmp_path / "gone.mp4", tmp_path / "gone.npy")]


def test_a_share_is_that_of_what_is_left(targets):
    shares = Shares(targets)
    assert [shares.of(target) for target in targets] == [k / 16 for k in (1, 2, 3, 10, 0)]
    shares.end(targets[2])
    shares.end(targets[2])
    assert shares.of(targets[3]) == 10 / 13
    for target in targets[:2]:
        shares.end(target)
    assert shares.of(targets[3]) == 1
    shares.end(targets[3])
    assert shares.of(targets[3]) == shares.of(targets[4]) == 0
    assert [shares.num_bytes_of(target) for target in targets] == [1, 2, 3, 10, 0]
    assert shares.num_bytes == 0


def test_of_too_many_videos_none_is_looked_at(targets, monkeypatch):
    monkeypatch.setattr(shares_module, "MAX_TARGETS", 4)
    shares = Shares(targets)
    assert shares.of(targets[3]) == 0
    shares.end(targets[3])
