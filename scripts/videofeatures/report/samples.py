"""A look at the features themselves, and at the videos, for a sample of the rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import av
import numpy as np
import pandas as pd

from videofeatures.decoding.times import FrameTimes, RowTimes, row_times
from videofeatures.decoding.view import USUAL_FPS, View
from videofeatures.errors import VideoError
from videofeatures.extraction.features import normalize
from videofeatures.extraction.storage import read_features, read_row_times
from videofeatures.networks.classifier import Classifier, Prediction
from videofeatures.report.thumbnails import data_url, frames_at
from videofeatures.source import Source
from videofeatures.threaded import NUM_THREADS, threaded_map_until

NUM_DECODED = max(2, min(8, os.cpu_count() or 2))
"""Videos that pictures are taken from at a time."""

MAX_ROWS_SHOWN = 150
"""Rows of a similarity matrix: of a longer video, every n-th."""

SAME_COSINE = 0.95
"""From which on two videos are called nearly the same: the cosine of their mean features, after
the mean of all of them is subtracted."""

MIN_CENTRED = 10
"""Videos from which on their mean says something of the collection."""

SAME_SECONDS = 0.05
"""Two copies of a video that were cut or encoded apart may differ in length by a frame."""

SHOWN_SECONDS = 0.01
"""After a frame's beginning, it is shown for sure: that is written with rounding."""

MIN_MAPPED = 5
MAX_PERPLEXITY = 30
NUM_COMPONENTS = 50
"""scikit-learn's advice for t-SNE: reduce to 50 dimensions first."""


class Features(NamedTuple):
    """Mean features of some videos.

    Attributes:
        paths: of the feature files.
        means: (videos, feature_dim), float32.
    """

    paths: list[str]
    means: np.ndarray


class Pair(NamedTuple):
    """Two feature files, the cosine of their mean features, and how many more are like them."""

    first: str
    second: str
    cosine: float
    num_more: int


class Sample(NamedTuple):
    """One video in detail.

    Attributes:
        times: (rows,), float64, in seconds, of the rows of its feature file that are shown.
        similarity: (rows, rows), float32, cosines between them.
        num_rows: of the whole feature file.
        picture_times: (pictures,), float64, in seconds, of some of the rows that are shown.
        pictures: data URLs, "" where there is none.
        predictions: of each picture's row, the most probable classes; empty without a classifier.
    """

    source: Source
    feature_path: str
    times: np.ndarray
    similarity: np.ndarray
    num_rows: int
    picture_times: np.ndarray
    pictures: list[str]
    predictions: list[list[Prediction]]


def read_means(paths: Iterable[str], *, max_seconds: float) -> Features:
    """Return the mean features of feature files, those that can be read in time.

    Files whose `feature_dim` is not that of most are left out.
    """

    def mean_of(path: str) -> np.ndarray | None:
        try:
            features, _ = read_features(path)
            mean = _as_rows(features).astype(np.float32).mean(axis=0)
        except (OSError, ValueError, VideoError):
            return None  # not one of ours, or gone
        return mean if mean.ndim == 1 and np.isfinite(mean).all() else None

    pairs = threaded_map_until(mean_of, paths, max_seconds=max_seconds, num_threads=NUM_THREADS)
    means = {path: mean for path, mean in pairs if mean is not None}
    # Of other settings, another network even, may be what somebody else has made.
    dims = pd.Series([len(mean) for mean in means.values()])
    usual = dims.mode().iloc[0] if len(dims) else 0
    kept = sorted(path for path, mean in means.items() if len(mean) == usual)
    return Features(kept, np.array([means[path] for path in kept]).reshape(len(kept), usual))


def _as_rows(features: np.ndarray) -> np.ndarray:
    """Return features, (rows, feature_dim); of those with several tokens a row, their mean."""
    return features.mean(axis=1, dtype=np.float32) if features.ndim == 3 else features


def centre(means: np.ndarray) -> np.ndarray:
    """Return unit vectors of what is special about each video: without the mean of all."""
    if len(means) >= MIN_CENTRED:
        means = means - means.mean(axis=0)
    return normalize(means)


def find_candidates(done: pd.DataFrame, max_candidates: int) -> list[str]:
    """Return feature paths of videos that are as long as others: only these can be copies.

    The smallest groups of one length come first.

    Args:
        done: of the whole collection, see `Collected.done`.
    """
    known = done[done["duration_seconds"].notna() & (done["duration_seconds"] > 1)]
    seconds = known["duration_seconds"].sort_values(kind="stable")
    near = seconds.diff() <= SAME_SECONDS
    groups = (~near).cumsum()
    sizes = groups.map(groups.value_counts())
    paired = sizes[sizes > 1].sort_values(kind="stable").index
    return list(paired[:max_candidates])


def find_pairs(features: Features, max_pairs: int) -> list[Pair]:
    """Return pairs of videos that are nearly the same, the most alike first, each video once."""
    if len(features.paths) < 2:
        return []
    unit = centre(features.means)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, 0)
    is_same = cosines >= SAME_COSINE
    first, second = np.nonzero(np.triu(is_same))
    pairs: list[Pair] = []
    is_shown = np.zeros(len(unit), bool)
    for k in np.argsort(-cosines[first, second], kind="stable"):
        i, j = first[k], second[k]
        if is_shown[i] or is_shown[j]:
            continue
        alike = is_same[i] | is_same[j]
        is_shown |= alike
        pairs.append(
            Pair(
                features.paths[i],
                features.paths[j],
                min(float(cosines[i, j]), 1.0),
                int(alike.sum()) - 2,
            )
        )
        if len(pairs) == max_pairs:
            break
    return pairs


def make_map(means: np.ndarray) -> np.ndarray:
    """Return points, (videos, 2), that are near each other where mean features are alike.

    t-SNE (van der Maaten and Hinton, 2008); of fewer than five videos, their first two principal
    components.

    Args:
        means: (videos, feature_dim), of two videos or more.
    """
    unit = centre(means)
    if len(unit) < MIN_MAPPED:
        unit = unit - unit.mean(axis=0)
        rotated, sizes, _ = np.linalg.svd(unit, full_matrices=False)
        return np.pad(rotated * sizes, ((0, 0), (0, 2)))[:, :2]

    # A second to import, which small collections do without.
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    num_components = min(NUM_COMPONENTS, *unit.shape)
    reduced = PCA(num_components, random_state=0).fit_transform(unit)
    perplexity = min(MAX_PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)


def take_pictures(
    wanted: Mapping[str, tuple[Source, Sequence[float]]],
    *,
    height: int,
    max_seconds: float,
    local_files_only: bool,
) -> dict[str, list[str]]:
    """Return pictures of videos at some times, as data URLs, "" where there is none.

    Args:
        wanted: by feature path, what it is made of, and rising times in seconds from the
            container's zero.

    Returns:
        By feature path, of those videos that could be read in time.
    """

    def pictures_of(feature_path: str) -> list[str] | None:
        source, times = wanted[feature_path]
        try:
            pictures = frames_at(
                source.path, times, height=height, local_files_only=local_files_only
            )
        except (VideoError, av.FFmpegError, OSError):
            return None
        return [data_url(picture) if picture else "" for picture in pictures]

    pairs = threaded_map_until(
        pictures_of, wanted, max_seconds=max_seconds, num_threads=NUM_DECODED
    )
    return {path: pictures for path, pictures in pairs if pictures is not None}


def times_of_rows(
    num_rows: int,
    view: View,
    *,
    duration_seconds: float | None = None,
    average_fps: float | None = None,
) -> RowTimes:
    """Return times for the rows of a file that does not hold them, as if the last clip were full.

    They are a guess where frames have times of their own: those are taken to be evenly spread.

    Args:
        duration_seconds, average_fps: of the video; None if they are not known.
    """
    windows = view.windows
    num_frames = (num_rows - 1) * windows.stride + windows.span
    if view.constant_rate is not None:
        frames = FrameTimes.at_rate(num_frames, view)
    else:
        fps = average_fps or USUAL_FPS
        frames = FrameTimes.spaced(num_frames, duration_seconds or num_frames / fps)
    return row_times(frames, view)


def _read_times(
    feature_path: str,
    features: np.ndarray,
    timestamps: np.ndarray | None,
    view: View,
    offset_seconds: float,
    **of_video: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a time for each row, and one at which its video shows what it saw.

    They are the same, the middle, but for key frames, which stand for the time until the next one.
    """
    guess = None
    if timestamps is None:
        guess = times_of_rows(len(features), view, **of_video).shifted(offset_seconds)
        timestamps = guess.timestamps
    if not view.keyframes_only or view.num_frames_per_clip is not None:
        return timestamps, timestamps
    times = guess or read_row_times(feature_path)
    assert times is not None  # it has timestamps
    return timestamps, np.minimum(times.start_seconds + SHOWN_SECONDS, timestamps)


def read_sample(
    source: Source,
    feature_path: str,
    view: View,
    *,
    num_pictures: int,
    classifier: Classifier | None,
    mean_norm: float,
    duration_seconds: float | None = None,
    average_fps: float | None = None,
) -> Sample:
    """Return what a feature file says of its video, without pictures, which take longer.

    Args:
        mean_norm: of the features before they were divided by their norms; 1 if they were
            not. With it, the classifier sees nearly what it would have seen.
        duration_seconds, average_fps: of the video; None if they are not known.

    Raises:
        OSError, ValueError: the file is gone, or is no feature file.
    """
    features, timestamps = read_features(feature_path)
    features = _as_rows(features)
    times, seen = _read_times(
        feature_path,
        features,
        timestamps,
        view,
        source.offset_seconds,
        duration_seconds=duration_seconds,
        average_fps=average_fps,
    )
    step = -(-len(features) // MAX_ROWS_SHOWN)
    shown, times, seen = features[::step].astype(np.float32), times[::step], seen[::step]
    unit = normalize(shown)
    num_pictures = min(num_pictures, len(shown))
    pictured = np.linspace(0, len(shown) - 1, num_pictures).round().astype(int)
    predictions = []
    if classifier is not None:
        predictions = classifier.predict(shown[pictured] * mean_norm, num_classes=3)
    return Sample(
        source=source,
        feature_path=feature_path,
        times=times,
        similarity=unit @ unit.T,
        num_rows=len(features),
        picture_times=seen[pictured],
        pictures=[],
        predictions=predictions,
    )
