"""Features on their way to a file: normalised, rounded, and kept until the video is complete."""

from __future__ import annotations

import numpy as np

ROWS_PER_BLOCK = 256
"""Features in a block of a growing array: 1 MB of 2048 float16."""


def normalize(features: np.ndarray, norms: np.ndarray | None = None) -> np.ndarray:
    """Return features divided by their norms.

    Args:
        features: (N, feature_dim).
        norms: (N,), if they are known.
    """
    if norms is None:
        norms = np.linalg.norm(features, axis=1)
    # The bound is that of torch.nn.functional.normalize, which the original used.
    return features / np.maximum(norms, 1e-12)[:, None]


def as_stored(
    features: np.ndarray, norms: np.ndarray, *, l2_normalize: bool, half_precision: bool
) -> np.ndarray:
    """Return features as they are stored: of norm 1, and float16, if asked for.

    Args:
        features: (N, feature_dim), float32.
        norms: (N,), of these.
    """
    if l2_normalize:
        features = normalize(features, norms)
    with np.errstate(over="ignore"):  # what does not fit is found when the video is complete
        return features.astype(np.float16 if half_precision else np.float32)


class GrowingArray:
    """Rows that come one by one, in any order, kept in a few large blocks.

    One small array for each row would pin the memory between the frames that come and go
    around it: that cost 230 kB a row (measured).
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []
        self._num_rows = 0

    def put(self, index: int, row: np.ndarray) -> None:
        """Keep row `index`, once."""
        block, place = divmod(index, ROWS_PER_BLOCK)
        while len(self._blocks) <= block:
            self._blocks.append(np.empty((ROWS_PER_BLOCK, len(row)), row.dtype))
        self._blocks[block][place] = row
        self._num_rows += 1

    @property
    def num_rows(self) -> int:
        """Rows that are kept so far."""
        return self._num_rows

    def take(self, num_rows: int) -> np.ndarray:
        """Return all rows in order, (num_rows, length), and empty this.

        Raises:
            AssertionError: a row is missing.
        """
        if num_rows != self._num_rows:
            raise AssertionError(f"{self._num_rows} features of {num_rows} clips")
        rows = np.empty((num_rows, self._blocks[0].shape[1]), self._blocks[0].dtype)
        for start in range(0, num_rows, ROWS_PER_BLOCK):
            # Each block is freed when it is copied, so that the rows are there only once.
            rows[start : start + ROWS_PER_BLOCK] = self._blocks.pop(0)[: num_rows - start]
        self._num_rows = 0
        return rows
