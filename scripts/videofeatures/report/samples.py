"""A look at the features themselves, and at the videos, for a sample of the rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import av
import numpy as np
import pandas as pd

from videofeatures.decoding.clips import row_timestamps
from videofeatures.decoding.view import View
from videofeatures.errors import VideoError
from videofeatures.extraction.features import normalize
from videofeatures.extraction.storage import read_features
from videofeatures.networks.classifier import Classifier, Prediction
from videofeatures.report.thumbnails import data_url, frames_at
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

    video_path: str
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
            mean = features.astype(np.float32).mean(axis=0)
        except (OSError, ValueError):
            return None  # not one of ours, or gone
        return mean if features.ndim == 2 and np.isfinite(mean).all() else None

    pairs = threaded_map_until(mean_of, paths, max_seconds=max_seconds, num_threads=NUM_THREADS)
    means = {path: mean for path, mean in pairs if mean is not None}
    # Of other settings, another network even, may be what somebody else has made.
    dims = pd.Series([len(mean) for mean in means.values()])
    usual = dims.mode().iloc[0] if len(dims) else 0
    kept = sorted(path for path, mean in means.items() if len(mean) == usual)
    return Features(kept, np.array([means[path] for path in kept]).reshape(len(kept), usual))


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
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    unit = centre(means)
    num_components = min(NUM_COMPONENTS, *unit.shape)
    reduced = PCA(num_components, random_state=0).fit_transform(unit)
    if len(unit) < MIN_MAPPED:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(MAX_PERPLEXITY, (len(unit) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(reduced)


def take_pictures(
    wanted: Mapping[str, tuple[str, Sequence[float]]],
    *,
    height: int,
    max_seconds: float,
    local_files_only: bool,
) -> dict[str, list[str]]:
    """Return pictures of videos at some times, as data URLs, "" where there is none.

    Args:
        wanted: by feature path, the video's path, and rising times in seconds.

    Returns:
        By feature path, of those videos that could be read in time.
    """

    def pictures_of(feature_path: str) -> list[str] | None:
        path, times = wanted[feature_path]
        try:
            pictures = frames_at(path, times, height=height, local_files_only=local_files_only)
        except (VideoError, av.FFmpegError, OSError):
            return None
        return [data_url(picture) if picture else "" for picture in pictures]

    pairs = threaded_map_until(
        pictures_of, wanted, max_seconds=max_seconds, num_threads=NUM_DECODED
    )
    return {path: pictures for path, pictures in pairs if pictures is not None}


def times_of_rows(num_rows: int, view: View) -> np.ndarray:
    """Return times for the rows of a file that does not hold them, as if the last clip were full.

    Returns:
        (num_rows,), float64, in seconds.
    """
    return row_timestamps(num_rows * (view.num_frames_per_clip or 1), view)


def read_sample(
    video_path: str,
    feature_path: str,
    view: View,
    *,
    num_pictures: int,
    classifier: Classifier | None,
    mean_norm: float,
) -> Sample:
    """Return what a feature file says of its video, without pictures, which take longer.

    Args:
        mean_norm: of the features before they were divided by their norms; 1 if they were
            not. With it, the classifier sees nearly what it would have seen.

    Raises:
        OSError, ValueError: the file is gone, or is no feature file.
    """
    features, timestamps = read_features(feature_path)
    if timestamps is None:
        timestamps = times_of_rows(len(features), view)
    step = -(-len(features) // MAX_ROWS_SHOWN)
    shown, times = features[::step].astype(np.float32), timestamps[::step]
    unit = normalize(shown)
    num_pictures = min(num_pictures, len(shown))
    pictured = np.linspace(0, len(shown) - 1, num_pictures).round().astype(int)
    predictions = []
    if classifier is not None:
        predictions = classifier.predict(shown[pictured] * mean_norm, num_classes=3)
    return Sample(
        video_path=video_path,
        feature_path=feature_path,
        times=times,
        similarity=unit @ unit.T,
        num_rows=len(features),
        picture_times=times[pictured],
        pictures=[],
        predictions=predictions,
    )
