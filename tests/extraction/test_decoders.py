"""Decoder threads say what becomes of targets, in order, and leave to others what is theirs."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from conftest import make_clip, make_recipe, make_target
from videofeatures.decoding.decoder import StartAnew
from videofeatures.decoding.ffmpeg_decoder import FfmpegDecoder
from videofeatures.errors import VideoError
from videofeatures.extraction import decoders as decoders_module
from videofeatures.extraction.claims import Claims
from videofeatures.extraction.decoders import Decoders, SharedTargets, Taken
from videofeatures.extraction.events import Begun, Clip, Ended, Event, Failed, Repeated
from videofeatures.planning.plan import Target
from videofeatures.settings import Settings

SETTINGS = Settings(backbone="efficientnet_lite0")
FRAME_BYTES = 224 * 224 * 3


def start(targets: Iterable[Target], claims: Claims, *, num_decoders: int = 1) -> Decoders:
    stopped = threading.Event()
    return Decoders(
        SharedTargets(targets, claims),
        [make_recipe(SETTINGS)],
        FfmpegDecoder(SETTINGS, stopped=stopped),
        num_decoders=num_decoders,
        stopped=stopped,
    )


def take_all(decoders: Decoders) -> list[Event]:
    events = []
    while not decoders.has_ended:
        event = decoders.get(timeout_seconds=60)
        if event is not None:
            events.append(event)
    return events


@pytest.fixture
def claims():
    with Claims(100) as claims:
        yield claims


def test_each_target_begins_gives_its_clips_and_ends(tmp_path, claims):
    targets = [
        make_target(make_clip(tmp_path / f"{k}.mp4", seconds=k + 1), tmp_path / f"{k}.npy")
        for k in range(3)
    ]
    with start(targets, claims, num_decoders=2) as decoders:
        events = take_all(decoders)
    for k, target in enumerate(targets):
        mine = [event for event in events if event.target == target]
        kinds = [type(event) for event in mine]
        assert kinds == [Begun, *[Clip] * (k + 1), Ended]
        assert [event.number for event in mine[1:-1]] == list(range(k + 1))
        begun, ended = mine[0], mine[-1]
        assert begun.video_size == Path(target.source.path).stat().st_size
        assert (ended.decoded.num_clips, ended.decoded.num_frames) == (k + 1, k + 1)
        assert ended.decoded.metadata.width == 320
        assert ended.decoded.seconds > 0


def test_a_video_that_is_decoded_once_more_says_so_before_its_clips_come_again(
    tmp_path, claims, complains_late
):
    path = make_clip(tmp_path / "a.mp4", seconds=14)
    with start([make_target(path, tmp_path / "a.npy")], claims) as decoders:
        events = take_all(decoders)
    kinds = [type(event) for event in events]
    assert kinds == [Begun, *[Clip] * 3, Repeated, *[Clip] * 14, Ended]
    for clips in (events[1:4], events[5:-1]):
        assert [clip.number for clip in clips] == list(range(len(clips)))
    decoded = events[-1].decoded
    assert (decoded.num_clips, decoded.num_frames, decoded.is_repeated) == (14, 14, True)
    assert decoded.messages == ()


class Undecided(FfmpegDecoder):
    """Has it decoded once more, every time."""

    def frames(self, *arguments, **options):
        yield from itertools.islice(super().frames(*arguments, **options), 1)
        raise StartAnew("once more")


def test_a_video_is_decoded_twice_at_most(tmp_path, claims):
    target = make_target(make_clip(tmp_path / "a.mp4"), tmp_path / "a.npy")
    decoders = start([target], claims)
    decoders._decoder = Undecided(SETTINGS)
    with decoders:
        events = take_all(decoders)
    assert [type(event) for event in events] == [Begun, Clip, Repeated, Clip, Failed]
    assert events[-1].error.reason == "once more"


def test_what_cannot_be_decoded_fails_with_its_reason(tmp_path, claims):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    targets = [
        make_target(text, tmp_path / "text.npy"),
        make_target(tmp_path / "gone.mp4", tmp_path / "gone.npy"),
        make_target(make_clip(tmp_path / "good.mp4"), tmp_path / "good.npy"),
    ]
    with start(targets, claims) as decoders:
        events = take_all(decoders)
    failed = {event.target: event for event in events if isinstance(event, Failed)}
    assert set(failed) == set(targets[:2])
    assert all(isinstance(event.error, VideoError) for event in failed.values())
    assert str(failed[targets[1]].error) == "no such file"
    begun = {event.target: event for event in events if isinstance(event, Begun)}
    assert begun[targets[1]].video_size is None
    assert isinstance(events[-1], Ended)


def test_what_cannot_be_claimed_fails_without_having_begun(tmp_path, claims):
    (tmp_path / "file").touch()
    target = make_target(make_clip(tmp_path / "a.mp4"), tmp_path / "file" / "a.npy")
    with start([target], claims) as decoders:
        (event,) = take_all(decoders)
    assert isinstance(event, Failed)
    assert isinstance(event.error, OSError)


def test_what_others_have_done_is_counted_and_says_nothing(tmp_path, claims):
    targets = [make_target(tmp_path / "gone.mp4", tmp_path / f"{k}.npy") for k in range(3)]
    for target in targets:
        Path(target.feature_path).touch()
    shared = SharedTargets(targets, claims)
    assert shared.take(threading.Event()) is None
    assert shared.num_elsewhere == 3


def test_what_others_work_on_is_waited_for(tmp_path, claims, monkeypatch):
    monkeypatch.setattr(decoders_module, "POLL_SECONDS", 0.05)
    done, given_up, free = (
        make_target(tmp_path / "gone.mp4", tmp_path / f"{k}.npy") for k in range(3)
    )
    with Claims(100) as others:
        assert others.take(done.feature_path)
        assert others.take(given_up.feature_path)
        shared = SharedTargets([done, given_up, free], claims)
        assert shared.take(threading.Event()) == Taken((free,))

        def finish() -> None:
            time.sleep(0.2)
            Path(done.feature_path).touch()
            others.release(done.feature_path)
            others.release(given_up.feature_path)

        thread = threading.Thread(target=finish)
        thread.start()
        assert shared.take(threading.Event()) == Taken((given_up,))
        thread.join()
        assert shared.take(threading.Event()) is None
        assert shared.num_elsewhere == 1


def test_a_target_that_is_given_up_gives_no_more_clips(tmp_path, claims, monkeypatch):
    monkeypatch.setattr(decoders_module, "MAX_QUEUED_BYTES", 2.5 * FRAME_BYTES)
    target = make_target(make_clip(tmp_path / "a.mp4", seconds=20), tmp_path / "a.npy")
    with start([target], claims) as decoders:
        assert isinstance(decoders.get(timeout_seconds=60), Begun)
        assert isinstance(decoders.get(timeout_seconds=60), Clip)
        decoders.give_up(target)
        kinds = Counter(type(event) for event in take_all(decoders))
    assert kinds[Ended] == 1
    assert kinds[Clip] <= 4  # those that were waiting


def test_decoders_stop_when_enough_is_waiting(tmp_path, claims, monkeypatch):
    videos = [make_clip(tmp_path / f"{k}.mp4", seconds=8, size="64x64") for k in range(2)]
    monkeypatch.setattr(decoders_module, "MAX_QUEUED_BYTES", 2.5 * FRAME_BYTES)
    decoded: Counter[str] = Counter()
    real_frames = FfmpegDecoder.frames

    def frames(self, source, *args, **options):
        for frame in real_frames(self, source, *args, **options):
            decoded[source.path] += 1
            yield frame

    monkeypatch.setattr(FfmpegDecoder, "frames", frames)
    targets = [make_target(video, f"{video}.npy") for video in videos]
    num_taken, is_first = 0, True
    with start(targets, claims, num_decoders=2) as decoders:
        while not decoders.has_ended:
            # Three frames pass the bound; one more waits in each of the two threads.
            assert decoded.total() - num_taken <= 3 + 2
            num_taken += isinstance(decoders.get(timeout_seconds=60), Clip)
            if num_taken and is_first:
                is_first = False
                time.sleep(1)  # they could do all of it in that time
    assert num_taken == 16


def test_a_short_video_does_not_wait_for_all_that_a_long_one_has_waiting(tmp_path, claims):
    long, short = (
        make_target(
            make_clip(tmp_path / f"{k}.mp4", seconds=k, size="64x64"), tmp_path / f"{k}.npy"
        )
        for k in (300, 3)
    )
    with start([long, short], claims, num_decoders=2) as decoders:
        time.sleep(3)  # what can be decoded is waiting
        events = take_all(decoders)
    end = next(k for k, event in enumerate(events) if isinstance(event, Ended))
    assert events[end].target == short
    assert end < 150


def test_an_error_of_a_decoder_thread_is_raised_where_events_are_taken(
    tmp_path, claims, monkeypatch
):
    def broken(self, stopped):
        raise RuntimeError("not the fault of any video")

    monkeypatch.setattr(SharedTargets, "take", broken)
    target = make_target(tmp_path / "a.mp4", tmp_path / "a.npy")
    with (
        start([target], claims) as decoders,
        pytest.raises(RuntimeError, match="not the fault of any video"),
    ):
        take_all(decoders)


def test_leaving_early_ends_all_threads(tmp_path, claims):
    targets = [
        make_target(make_clip(tmp_path / f"{k}.mp4", seconds=30), tmp_path / f"{k}.npy")
        for k in range(2)
    ]
    before = threading.active_count()
    with start(targets, claims, num_decoders=2) as decoders:
        assert decoders.get(timeout_seconds=60) is not None
    assert threading.active_count() == before


def make_both(tmp_path: Path, name: str, *, seconds: float = 3) -> list[Target]:
    """The targets of a video for two recipes."""
    video = make_clip(tmp_path / f"{name}.mp4", seconds=seconds)
    return [make_target(video, tmp_path / f"{name}{k}.npy", recipe=k) for k in range(2)]


def start_both(targets: Iterable[Target], claims: Claims) -> Decoders:
    stopped = threading.Event()
    recipes = [make_recipe(SETTINGS), make_recipe(Settings(frame_rate=2.0, crop_size=112))]
    decoder = FfmpegDecoder(SETTINGS, stopped=stopped)
    return Decoders(
        SharedTargets(targets, claims), recipes, decoder, num_decoders=1, stopped=stopped
    )


def test_a_video_is_decoded_once_for_its_targets(tmp_path, claims):
    targets = make_both(tmp_path, "a")
    with start_both(targets, claims) as decoders:
        events = take_all(decoders)
    assert [type(event) for event in events[:2]] == [Begun] * 2
    assert [type(event) for event in events[-2:]] == [Ended] * 2
    for target, num_clips in zip(targets, (3, 6), strict=True):
        clips = [e.number for e in events if isinstance(e, Clip) and e.target == target]
        assert clips == list(range(num_clips))
        (ended,) = (e for e in events if isinstance(e, Ended) and e.target == target)
        assert (ended.decoded.num_clips, ended.decoded.num_together) == (num_clips, 2)
    assert len({event.decoded.seconds for event in events[-2:]}) == 1


def test_of_a_video_others_may_make_a_part(tmp_path, claims):
    first, second = make_both(tmp_path, "a")
    with Claims(100) as others:
        assert others.take(first.feature_path)
        shared = SharedTargets([first, second], claims)
        assert shared.take(threading.Event()) == Taken((second,))
        others.release(first.feature_path)
        assert shared.take(threading.Event()) == Taken((first,))
        assert shared.take(threading.Event()) is None
    assert shared.num_elsewhere == 0


def test_a_target_that_cannot_be_claimed_costs_no_other_of_its_video(tmp_path, claims):
    (tmp_path / "file").touch()
    video = make_clip(tmp_path / "a.mp4", seconds=2)
    wrong = make_target(video, tmp_path / "file" / "a.npy")
    right = make_target(video, tmp_path / "a.npy", recipe=1)
    with start_both([wrong, right], claims) as decoders:
        events = take_all(decoders)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert failed.target == wrong
    (ended,) = (event for event in events if isinstance(event, Ended))
    assert (ended.target, ended.decoded.num_together) == (right, 1)


def test_a_target_that_is_given_up_costs_no_other_of_its_video(tmp_path, claims, monkeypatch):
    monkeypatch.setattr(decoders_module, "MAX_QUEUED_EACH", 1)
    first, second = make_both(tmp_path, "a", seconds=10)
    with start_both([first, second], claims) as decoders:
        decoders.give_up(first)
        kinds = Counter((type(event), event.target.recipe) for event in take_all(decoders))
    assert kinds[Clip, 0] <= 1
    assert kinds[Clip, 1] == 20
    assert (kinds[Ended, 0], kinds[Ended, 1]) == (1, 1)
