"""Features on their way to a file: normalised, rounded, and kept until the video is complete."""

from __future__ import annotations

import numpy as np

from videofeatures.networks.recipe import Recipe

MAX_ROWS_PER_BLOCK = 256
MAX_BLOCK_BYTES = 1 << 20
"""Of a growing array: 256 features of 2048 float16, or fewer that are larger."""


def norms_of(features: np.ndarray) -> np.ndarray:
    """Return the norm of each feature, or of each token of it: (N,) or (N, tokens)."""
    return np.linalg.norm(features, axis=-1)


def normalize(features: np.ndarray, norms: np.ndarray | None = None) -> np.ndarray:
    """Return features divided by their norms.

    Args:
        features: (N, feature_dim), or (N, tokens, feature_dim).
        norms: of `norms_of`, if they are known.
    """
    if norms is None:
        norms = norms_of(features)
    # The bound is that of torch.nn.functional.normalize, which the original used.
    return features / np.maximum(norms, 1e-12)[..., None]


def as_stored(
    features: np.ndarray, norms: np.ndarray, *, l2_normalize: bool, half_precision: bool
) -> np.ndarray:
    """Return features as they are stored: of norm 1, and float16, if asked for.

    Args:
        features: (N, feature_dim), or (N, tokens, feature_dim), float32.
        norms: of `norms_of`.
    """
    if l2_normalize:
        features = normalize(features, norms)
    with np.errstate(over="ignore"):  # what does not fit is found when the video is complete
        return features.astype(np.float16 if half_precision else np.float32)


def pool_features(features: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, float]:
    """Return one feature for all of a video's, as it is stored, and the norm that it had.

    Args:
        features: (N, feature_dim), or (N, tokens, feature_dim), float32, as the network gave them.
        recipe: whose `pool` is `mean` or `max`.

    Returns:
        (pooled, norm): (1, feature_dim), or (1, tokens, feature_dim).
    """
    pooled = features.max(axis=0) if recipe.pool == "max" else features.mean(0, dtype=np.float64)
    pooled = pooled[None].astype(np.float32)
    norms = norms_of(pooled)
    stored = as_stored(
        pooled,
        norms,
        l2_normalize=recipe.l2_normalize,
        half_precision=recipe.half_precision,
    )
    return stored, float(norms.mean())


class GrowingArray:
    """Rows that come one by one, in any order, kept in a few large blocks.

    One small array for each row would pin the memory between the frames that come and go
    around it: that cost 230 kB a row (measured).
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._num_rows = 0

    def put(self, index: int, row: np.ndarray) -> None:
        """Keep row `index`, once. All rows have one shape."""
        size = max(1, min(MAX_ROWS_PER_BLOCK, MAX_BLOCK_BYTES // row.nbytes))
        block, place = divmod(index, size)
        while len(self._blocks) <= block:
            self._blocks.append(np.empty((size, *row.shape), row.dtype))
        self._blocks[block][place] = row
        self._num_rows += 1

    @property
    def num_rows(self) -> int:
        """Rows that are kept so far."""
        return self._num_rows

    def take(self, num_rows: int) -> np.ndarray:
        """Return all rows in order, (num_rows, …), and empty this.

        Raises:
            AssertionError: a row is missing.
        """
        if num_rows != self._num_rows:
            raise AssertionError(f"{self._num_rows} features of {num_rows} clips")
        size, *shape = self._blocks[0].shape
        rows = np.empty((num_rows, *shape), self._blocks[0].dtype)
        for start in range(0, num_rows, size):
            # Each block is freed when it is copied, so that the rows are there only once.
            rows[start : start + size] = self._blocks.pop(0)[: num_rows - start]
        self._num_rows = 0
        return rows
