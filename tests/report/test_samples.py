"""A look at features and videos: copies, a map, and some in detail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from conftest import make_clip
from videofeatures.decoding.times import RowTimes
from videofeatures.decoding.view import View
from videofeatures.extraction.storage import write_features
from videofeatures.networks.backbones import BACKBONES
from videofeatures.report import samples
from videofeatures.source import Source

LITE = BACKBONES["efficientnet_lite0"].view


def test_copies_are_found_and_each_is_shown_once():
    random = np.random.default_rng(0)
    means = random.normal(size=(40, 64)).astype(np.float32)
    means[1] = means[0] * 3  # a copy, at another length
    means[30] = means[0] + 0.001
    means[21] = means[20]
    features = samples.Features([f"{k}.npy" for k in range(40)], means)
    pairs = samples.find_pairs(features, 10)
    found = {frozenset((pair.first, pair.second)): pair for pair in pairs}
    assert frozenset(("20.npy", "21.npy")) in found
    (other,) = (pair for pair in pairs if "20.npy" not in (pair.first, pair.second))
    assert {other.first, other.second} < {"0.npy", "1.npy", "30.npy"}
    assert (other.num_more, len(pairs)) == (1, 2)
    assert samples.find_pairs(features, 1) == pairs[:1]


def test_candidates_are_videos_of_one_length():
    seconds = pd.Series(
        {"a": 10.0, "b": 300.02, "c": 10.04, "d": 300.0, "e": 77.0, "f": None, "g": 0.5, "h": 0.5}
    )
    done = pd.DataFrame({"duration_seconds": seconds})
    assert sorted(samples.find_candidates(done, 100)) == ["a", "b", "c", "d"]
    assert len(samples.find_candidates(done, 2)) == 2


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_a_map_of_three_videos_is_as_wide_as_their_features_are_apart():
    means = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)
    points = samples.make_map(means)
    np.testing.assert_allclose(distances(points), distances(samples.centre(means)), atol=1e-5)


def test_videos_that_are_the_same_have_one_place():
    assert not distances(samples.make_map(np.ones((4, 32), np.float32))).any()


@pytest.mark.parametrize("num_videos", [2, 3, 5, 50])
def test_a_map_has_a_place_for_each_video_near_those_that_are_alike(num_videos):
    random = np.random.default_rng(0)
    centres = random.normal(size=(2, 32)) * 10
    group = np.arange(num_videos) % 2
    means = (centres[group] + random.normal(size=(num_videos, 32))).astype(np.float32)
    points = samples.make_map(means)
    assert points.shape == (num_videos, 2)
    assert np.isfinite(points).all()
    if num_videos == 50:
        distance = distances(points)
        np.fill_diagonal(distance, np.inf)
        assert (group[distance.argmin(axis=1)] == group).all()


def test_rows_without_times_are_given_those_of_the_backbone():
    np.testing.assert_allclose(samples.times_of_rows(3, LITE).timestamps, [0.5, 1.5, 2.5])
    times = samples.times_of_rows(2, BACKBONES["resnext101"].view).timestamps
    np.testing.assert_allclose(times, [8 / 24, 24 / 24])


def view(**options: object) -> View:
    return replace(LITE, **options)


@pytest.mark.parametrize(
    ("seen", "of_video", "expected"),
    [
        (view(frame_interval=10), {}, [0.5, 10.5, 20.5]),
        (view(num_frames_per_clip=4, clip_stride=2), {}, [2, 4, 6]),
        (view(num_frames_per_clip=4, clip_stride=2, last_clip="shift"), {}, [2, 4, 6]),
        (view(frame_rate="native"), {"average_fps": 10}, [0.05, 0.15, 0.25]),
        (view(frame_rate="native"), {}, [1 / 60, 3 / 60, 5 / 60]),
        (view(num_frames=3), {"duration_seconds": 6, "average_fps": 10}, [1, 3, 5]),
        (view(keyframes_only=True), {"duration_seconds": 30}, [5, 15, 25]),
    ],
)
def test_rows_without_times_are_given_those_of_the_sampling(seen, of_video, expected):
    found = samples.times_of_rows(3, seen, **of_video)
    np.testing.assert_allclose(found.timestamps, expected)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("keyframes_only", [False, True])
def test_pictures_are_of_what_a_row_saw(tmp_path, suffix, keyframes_only):
    path = tmp_path / f"a{suffix}"
    times = RowTimes(np.array([0.0, 10.0]), np.array([5.0, 15.0]), np.array([10.0, 20.0]))
    write_features(path, np.ones((2, 4), np.float16), times, {})
    sample = samples.read_sample(
        Source("a.mp4"),
        str(path),
        view(frame_rate="native", keyframes_only=keyframes_only),
        num_pictures=2,
        classifier=None,
        mean_norm=1,
        duration_seconds=20,
        average_fps=0.1,
    )
    assert sample.times.tolist() == [5, 15]
    # A key frame is seen when it comes, and stands for the time after it.
    expected = [0, 10] if keyframes_only else [5, 15]
    np.testing.assert_allclose(sample.picture_times, expected, atol=0.02)


def test_a_long_video_is_shown_by_some_of_its_rows(tmp_path):
    features = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float16)
    np.save(tmp_path / "a.npy", features)
    sample = samples.read_sample(
        Source("a.mp4"),
        str(tmp_path / "a.npy"),
        LITE,
        num_pictures=10,
        classifier=None,
        mean_norm=1,
    )
    assert sample.num_rows == 1000
    assert len(sample.times) <= samples.MAX_ROWS_SHOWN
    assert len(sample.picture_times) == 10
    assert (sample.times[0], sample.picture_times[0]) == (0.5, 0.5)
    unit = features[::7].astype(float)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    np.testing.assert_allclose(sample.similarity, unit @ unit.T, atol=1e-5)


def test_a_row_of_a_part_without_times_has_those_of_its_video(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 16), np.float16))
    sample = samples.read_sample(
        Source("a.mp4", 20.0, 23.0),
        str(tmp_path / "a.npy"),
        LITE,
        num_pictures=3,
        classifier=None,
        mean_norm=1,
    )
    np.testing.assert_allclose(sample.picture_times, [20.5, 21.5, 22.5])


def test_means_are_read_of_what_is_like_most_files(tmp_path):
    arrays = {
        "b": np.array([[1, 2], [3, 4]], np.float16),
        "a": np.array([[5, 6]], np.float32),
        "another network": np.ones((2, 3), np.float16),
        "not finite": np.array([[np.nan, 1]], np.float16),
        "no rows of numbers": np.ones(2, np.float16),
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    (tmp_path / "none.npy").write_text("not NumPy's")
    paths = [str(tmp_path / f"{name}.npy") for name in (*arrays, "none", "gone")]
    features = samples.read_means(paths, max_seconds=60)
    assert features.paths == [str(tmp_path / "a.npy"), str(tmp_path / "b.npy")]
    np.testing.assert_array_equal(features.means, [[5, 6], [2, 3]])


def test_what_many_videos_have_in_common_makes_none_of_them_alike():
    random = np.random.default_rng(0)
    means = 100 + random.normal(size=(samples.MIN_CENTRED, 64)).astype(np.float32)
    unit = samples.centre(means)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    assert (unit @ unit.T - np.eye(len(unit))).max() < 0.5
    few = samples.centre(means[:-1])  # whose mean says nothing
    assert (few @ few.T).min() > 0.99


def test_pictures_are_taken_of_videos_that_can_be_read(tmp_path):
    clip = make_clip(tmp_path / "a.mp4")
    (tmp_path / "broken.mp4").write_text("not a video")
    wanted = {
        "a.npy": (Source(str(clip)), [0.5, 1.5]),
        "broken.npy": (Source(str(tmp_path / "broken.mp4")), [0.5]),
        "gone.npy": (Source(str(tmp_path / "gone.mp4")), [0.5]),
    }
    options = {"height": 20, "max_seconds": 60, "local_files_only": True}
    (found,) = samples.take_pictures(wanted, **options).items()
    assert found[0] == "a.npy"
    assert [url[:16] for url in found[1]] == ["data:image/jpeg;"] * 2


def test_nothing_that_can_be_read_is_nothing(tmp_path):
    (tmp_path / "empty.npy").touch()
    features = samples.read_means([str(tmp_path / "empty.npy")], max_seconds=60)
    assert (features.paths, len(features.means)) == ([], 0)
