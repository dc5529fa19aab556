"""From a complete target to its file, its records and its line in the log."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.errors import MachineError, UserError, VideoError
from videofeatures.extraction.events import Begun, Decoded
from videofeatures.extraction.features import pool_features
from videofeatures.extraction.storage import write_features
from videofeatures.extraction.target_state import TargetState
from videofeatures.files import hash_content
from videofeatures.networks.recipe import Recipe
from videofeatures.records import (
    DeviceLine,
    ProcessLine,
    Recorder,
    RowFacts,
    RowLine,
    RowStatus,
)

logger = logging.getLogger(__name__)


class Writer:
    """Records a target's beginning and end, and writes its file in between."""

    def __init__(
        self, recipes: Sequence[Recipe], made_with: Sequence[ProcessLine], recorder: Recorder
    ):
        """
        Args:
            recipes: that the targets name.
            made_with: what the process works with, for each recipe.
        """
        self._recipes = recipes
        self._made_with = made_with
        self._recorder = recorder
        self._device: DeviceLine | None = None

    def begin(self, begun: Begun) -> None:
        """Record that a target is worked on. Any thread may call this, before all else."""
        line = self._line("started", begun)
        line["stale"] = begun.target.stale
        self._recorder.write(line)

    def compute_on(self, device: DeviceLine) -> None:
        """Record what the features are computed on, before the first is written."""
        self._recorder.write(device)
        self._device = device

    def finish(self, state: TargetState) -> bool:
        """Write a complete target's file, or record why there is no new one. True if written.

        Raises:
            UserError: a disk is full: there is no use in going on.
        """
        target = state.target
        seconds = time.monotonic() - state.started
        try:
            if state.error is not None:
                raise state.error
            num_features, feature_dim = self._write(state, seconds)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"{target.feature_path}: {error.strerror}. The job ends here; what is done is "
                    "kept. Make room, and run again"
                ) from None
            reason = f"{target.feature_path}: {error.strerror or error}"
            self._record_failure(state, MachineError(reason), seconds)
            return False
        except VideoError as error:
            self._record_failure(state, error, seconds)
            return False
        except UserError:  # the records cannot be written
            raise
        except MemoryError as error:
            self._record_failure(state, MachineError(f"out of memory: {error}"), seconds)
            return False
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._record_failure(state, VideoError(reason), seconds)
            logger.exception("unexpected error in %s", target.source)
            return False
        source, decoded = target.source, _decoded(state)
        logger.info("done    %s: %d x %d in %.1f s", source, num_features, feature_dim, seconds)
        if decoded.warning:
            logger.warning("  but   %s: %s", source, decoded.warning)
        elif decoded.messages:
            logger.warning("  but   %s: ffmpeg says: %s", source, decoded.messages[0])
        return True

    def _write(self, state: TargetState, seconds: float) -> tuple[int, int]:
        """Write the file, and say that it is done just before it is: see `records`."""
        recipe, decoded = self._recipes[state.target.recipe], _decoded(state)
        features = state.features.take(decoded.num_clips)
        assert decoded.times is not None  # it was decoded to the end
        mean_norm, times = state.norm_sum / features.shape[0], decoded.times
        if recipe.pool != "none":
            features, mean_norm = pool_features(features, recipe)
            times = times.whole()
        _check_finite(features, recipe)

        def record(file_hash: str) -> None:
            line = self._line("done", _begun(state)) | _facts(state)
            self._recorder.write(
                line
                | RowFacts(
                    file_hash=file_hash,
                    num_features=features.shape[0],
                    feature_dim=features.shape[-1],
                    mean_norm=round(mean_norm, 6),
                    seconds=round(seconds, 3),
                    decode_seconds=round(decoded.seconds, 3),
                    compute_seconds=round(state.compute_seconds, 3),
                    reason=decoded.warning or "",
                    ffmpeg_lines=list(decoded.messages),
                )
            )

        write_features(
            state.target.feature_path,
            features,
            times,
            self._provenance(state),
            before=lambda file: record(hash_content(file)),
        )
        return features.shape[0], features.shape[-1]

    def _record_failure(self, state: TargetState, error: VideoError, seconds: float) -> None:
        metadata = state.decoded.metadata if state.decoded else None
        self._recorder.write(
            self._line("failed", _begun(state))
            | RowFacts(
                stale=state.target.stale,
                reason=error.reason,
                is_machine=isinstance(error, MachineError),
                ffmpeg_lines=error.ffmpeg_lines,
                damaged_share=state.decoded.damaged_share if state.decoded else None,
                duration_seconds=_duration_seconds(state, metadata) if metadata else None,
                seconds=round(seconds, 3),
            )
        )
        logger.error("FAILED  %s: %s", state.target.source, error.reason)

    def _line(self, status: RowStatus, begun: Begun) -> RowLine:
        """Start the line of a target: which it is, of which file, and what it is made with."""
        target, made_with = begun.target, self._made_with[begun.target.recipe]
        line = RowLine(
            time=time.time(),
            status=status,
            feature_path=target.feature_path,
            video_path=target.source.path,
            video_size=begun.video_size,
            video_mtime_ns=begun.video_mtime_ns,
            digest=made_with["digest"],
            weights=made_with.get("weights"),
        )
        start, end = target.source.part
        if start is not None:
            line["start_seconds"] = start
        if end is not None:
            line["end_seconds"] = end
        return line

    def _provenance(self, state: TargetState) -> dict[str, Any]:
        made_with = dict(self._made_with[state.target.recipe]) | dict(self._device or {})
        line = dict(self._line("done", _begun(state)))
        for key in ("time", "status", "feature_path"):
            made_with.pop(key, None)
            line.pop(key, None)
        decoded = _decoded(state)
        assert decoded.metadata is not None
        aspect = str(decoded.metadata.sample_aspect_ratio)
        return made_with | line | dict(_facts(state)) | {"sample_aspect_ratio": aspect}


def _begun(state: TargetState) -> Begun:
    return state.begun or Begun(state.target, None, None)


def _decoded(state: TargetState) -> Decoded:
    assert state.decoded is not None  # it is complete
    return state.decoded


def _duration_seconds(state: TargetState, metadata: VideoMetadata) -> float | None:
    """Return the length of a source, which may be a part, as far as the video's header tells."""
    return state.target.source.seconds_of(metadata.duration_seconds)


def _facts(state: TargetState) -> RowFacts:
    """Return what is known of a source that was decoded, as records have it."""
    decoded = _decoded(state)
    metadata = decoded.metadata
    assert metadata is not None
    return RowFacts(
        num_frames=decoded.num_frames,
        damaged_share=decoded.damaged_share,
        duration_seconds=_duration_seconds(state, metadata),
        average_fps=metadata.average_fps,
        width=metadata.width,
        height=metadata.height,
        codec=metadata.codec,
    )


def _check_finite(features: np.ndarray, recipe: Recipe) -> None:
    # Of sums, since for ten hours of video `isfinite` of each number would be 100 MB.
    if not np.isfinite(features.sum(axis=-1, dtype=np.float64)).all():
        is_cast = recipe.half_precision and not recipe.l2_normalize
        hint = " or `half_precision: false`" if is_cast else ""
        raise VideoError(f"a feature is not a finite number: try `precision: float32`{hint}")
