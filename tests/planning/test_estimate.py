"""What is said of the pending videos before a run."""

from __future__ import annotations

import os
import threading
from dataclasses import replace

import pytest

from conftest import make_clip, make_recipe, make_target
from videofeatures.networks.backbones import BACKBONES
from videofeatures.planning.estimate import Estimate, estimate
from videofeatures.planning.plan import Target
from videofeatures.settings import Settings
from videofeatures.source import Source
from videofeatures.threaded import threaded_map_until


def pending(*paths: object) -> list[Target]:
    return [make_target(path, f"{k}.npy") for k, path in enumerate(paths)]


def test_a_few_videos_are_all_looked_at(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", seconds=3)
    (tmp_path / "broken.mp4").write_text("nothing")
    os.mkfifo(tmp_path / "pipe.mp4")
    rows = pending(clip, tmp_path / "broken.mp4", tmp_path / "pipe.mp4", tmp_path / "gone.mp4")
    found = estimate(rows, Settings(), max_seconds=60)
    assert str(found) == "3.0 s of video; 1 missing; 2 unreadable"
    assert found.is_whole
    bytes_of_rows = found.feature_bytes(make_recipe())
    assert bytes_of_rows == pytest.approx(3 * 2048 * 2)


def test_each_token_of_a_row_is_counted(monkeypatch):
    of_tokens = replace(
        BACKBONES["efficientnet_lite0"], poolings={"mean": 8, "tokens": 8}, num_tokens=50
    )
    monkeypatch.setitem(BACKBONES, "small", of_tokens)
    found = Estimate(1, 1, 0, 0, (3.0,))
    assert found.feature_bytes(make_recipe(Settings(backbone="small"))) == 3 * 8 * 2
    recipe = make_recipe(Settings(backbone="small", pooling="tokens"))
    assert found.feature_bytes(recipe) == 3 * 50 * 8 * 2


def test_a_part_is_as_long_as_the_csv_says(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", seconds=3)
    ends = [(0.5, 2.0), (None, 1.5), (2.5, None), (5.0, None)]
    rows = [
        row._replace(source=Source(str(clip), *of))
        for row, of in zip(pending(*[clip] * 4), ends, strict=True)
    ]
    found = estimate(rows, Settings(), max_seconds=60)
    assert sorted(found.durations) == pytest.approx([0.0, 0.5, 1.5, 1.5])
    gone = [row._replace(source=row.source._replace(path="gone.mp4")) for row in rows]
    assert estimate(gone, Settings(), max_seconds=60).num_missing == 4


def test_of_many_a_sample_is_the_same_each_time(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", seconds=2)
    rows = pending(*[clip] * 50, *[tmp_path / "gone.mp4"] * 50)
    found = [estimate(rows, Settings(), num_sampled=20, max_seconds=60) for _ in range(2)]
    assert found[0].num_missing == found[1].num_missing
    assert (found[0].num_pending, found[0].num_seen) == (100, 20)
    assert found[0].video_seconds == pytest.approx((20 - found[0].num_missing) * 2 * 5)
    assert str(found[0]).startswith("about ")
    assert str(found[0]).endswith(", from a sample of 20")


def test_nothing_seen_is_said():
    found = Estimate(5, 0, 0, 0, ())
    assert str(found) == "the pending videos could not be looked at in time"
    assert found.feature_bytes(make_recipe()) == 0


def test_what_does_not_answer_is_left_behind():
    never = threading.Event()

    def look(item: int) -> int:
        if item == 1:
            never.wait()
        return item * 10

    seen = dict(threaded_map_until(look, range(4), max_seconds=1, num_threads=2))
    assert seen == {0: 0, 2: 20, 3: 30}
    never.set()


def test_looking_at_nothing_ends_at_once():
    assert list(threaded_map_until(len, [], max_seconds=60, num_threads=4)) == []


def test_a_video_is_counted_once_whatever_is_made_of_it(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", seconds=2)
    rows = [make_target(clip, tmp_path / f"{k}.npy", recipe=k % 2) for k in range(4)]
    found = estimate(rows, Settings())
    assert (found.num_pending, found.num_seen, found.video_seconds) == (2, 2, 4)
