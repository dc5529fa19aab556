"""From a complete target to its file, its records and its line in the log."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto
from functools import partial
from io import BufferedRandom
from typing import Any, NamedTuple

import numpy as np

from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.errors import MachineError, UserError, VideoError
from videofeatures.extraction.events import Begun, Decoded
from videofeatures.extraction.features import pool_features
from videofeatures.extraction.storage import prepare_object, write_features
from videofeatures.extraction.target_state import TargetState
from videofeatures.extraction.uploads import Uploads
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
from videofeatures.remote import ObjectExists
from videofeatures.urls import is_url

logger = logging.getLogger(__name__)


class Outcome(Enum):
    """What has become of a target."""

    DONE = auto()
    FAILED = auto()
    ELSEWHERE = auto()
    """Others have written it meanwhile."""
    UPLOADING = auto()
    """It is on its way: `Writer.take_uploaded` says how that ends."""


class Upload(NamedTuple):
    """A target whose features are on their way.

    Attributes:
        seconds: that it took until then.
        shape: of the features.
    """

    state: TargetState
    seconds: float
    shape: tuple[int, ...]


class Writer:
    """Records a target's beginning and end, and writes its file in between."""

    def __init__(
        self,
        recipes: Sequence[Recipe],
        made_with: Sequence[ProcessLine],
        recorder: Recorder,
        uploads: Uploads[Upload] | None = None,
    ):
        """
        Args:
            recipes: that the targets name.
            made_with: what the process works with, for each recipe.
            uploads: for feature files in buckets.
        """
        self._uploads = uploads
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

    def finish(self, state: TargetState) -> Outcome:
        """Write a complete target's file, or record why there is no new one.

        Raises:
            UserError: a disk is full: there is no use in going on.
        """
        seconds = time.monotonic() - state.started
        with contextlib.ExitStack() as stack:
            return self._try(state, seconds, partial(self._write, state, seconds, stack))

    def take_uploaded(self, *, all_of_them: bool = False) -> Iterator[tuple[TargetState, Outcome]]:
        """Yield targets whose features are not on their way any more, and what became of them.

        Args:
            all_of_them: wait for them.

        Raises:
            UserError: as `finish`.
        """
        if self._uploads is None:
            return
        for upload, error in self._uploads.take(all_of_them=all_of_them):
            end = partial(self._end_upload, upload, error)
            yield upload.state, self._try(upload.state, upload.seconds, end)

    def _try(self, state: TargetState, seconds: float, work: Callable[[], Outcome]) -> Outcome:
        """Return what comes of a step, and record why a target has failed in it."""
        target = state.target
        try:
            return work()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"{target.feature_path}: {error.strerror}. The job ends here; what is done is "
                    "kept. Make room, and run again"
                ) from None
            reason = f"{target.feature_path}: {error.strerror or error}"
            self._record_failure(state, MachineError(reason), seconds)
        except ObjectExists:
            self._recorder.write(
                {
                    "time": time.time(),
                    "status": "elsewhere",
                    "num_rows": 1,
                    "feature_path": target.feature_path,
                }
            )
            logger.info("        %s: was written by others meanwhile", target.source)
            return Outcome.ELSEWHERE
        except VideoError as error:
            self._record_failure(state, error, seconds)
        except UserError:  # the records cannot be written
            raise
        except MemoryError as error:
            self._record_failure(state, MachineError(f"out of memory: {error}"), seconds)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._record_failure(state, VideoError(reason), seconds)
            logger.exception("unexpected error in %s", target.source)
        return Outcome.FAILED

    def _end_upload(self, upload: Upload, error: Exception | None) -> Outcome:
        if error is not None:
            raise error
        feature_path = upload.state.target.feature_path
        self._recorder.write(
            {"time": time.time(), "status": "placed", "feature_path": feature_path}
        )
        return self._say_done(*upload)

    def _say_done(self, state: TargetState, seconds: float, shape: tuple[int, ...]) -> Outcome:
        source, decoded = state.target.source, _decoded(state)
        logger.info("done    %s: %d x %d in %.1f s", source, shape[0], shape[-1], seconds)
        if decoded.warning:
            logger.warning("  but   %s: %s", source, decoded.warning)
        elif decoded.messages:
            logger.warning("  but   %s: ffmpeg says: %s", source, decoded.messages[0])
        if decoded.fallback:
            logger.warning("  but   %s: decoded on the CPU: %s", source, decoded.fallback)
        return Outcome.DONE

    def _write(self, state: TargetState, seconds: float, stack: contextlib.ExitStack) -> Outcome:
        """Write the file, and say that it is done just before it is: see `records`.

        Args:
            stack: is left when it is recorded what became of the file.
        """
        if state.error is not None:
            raise state.error
        recipe, decoded = self._recipes[state.target.recipe], _decoded(state)
        path, features = state.target.feature_path, state.features.take(decoded.num_clips)
        assert decoded.times is not None  # it was decoded to the end
        mean_norm, times = state.norm_sum / features.shape[0], decoded.times
        if recipe.pool != "none":
            features, mean_norm = pool_features(features, recipe)
            times = times.whole()
        _check_finite(features, recipe)

        def record(file: BufferedRandom) -> None:
            if not is_url(path):
                stack.enter_context(self._recorder.alone())
            line = self._line("done", _begun(state)) | _facts(state)
            self._recorder.write(
                line
                | RowFacts(
                    file_hash=hash_content(file),
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

        content = (features, times, self._provenance(state))
        if not is_url(path):
            write_features(path, *content, before=record)
            return self._say_done(state, seconds, features.shape)
        assert self._uploads is not None  # who writes URLs names them
        file = prepare_object(self._uploads.folder, path, *content, before=record)
        upload = Upload(state, seconds, features.shape)
        self._uploads.start(upload, file, path, state.target.replaces)
        return Outcome.UPLOADING

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
            | (_device_facts(state.decoded) if state.decoded else {})
        )
        logger.error("FAILED  %s: %s", state.target.source, error.reason)

    def _line(self, status: RowStatus, begun: Begun) -> RowLine:
        """Start the line of a target: which it is, of which file, and what it is made with."""
        target, made_with = begun.target, self._made_with[begun.target.recipe]
        line = RowLine(
            time=time.time(),
            status=status,
            feature_path=target.feature_path,
            video_path=target.source.shown_path,
            video_size=begun.video_size,
            video_mtime_ns=begun.video_mtime_ns,
            digest=made_with["digest"],
            weights=made_with.get("weights"),
        )
        if begun.video_etag:
            line["video_etag"] = begun.video_etag
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
    facts = RowFacts(
        num_frames=decoded.num_frames,
        damaged_share=decoded.damaged_share,
        duration_seconds=_duration_seconds(state, metadata),
        average_fps=metadata.average_fps,
        width=metadata.width,
        height=metadata.height,
        codec=metadata.codec,
    )
    if decoded.num_together > 1:
        facts["num_together"] = decoded.num_together
    return facts | _device_facts(decoded)


def _device_facts(decoded: Decoded) -> RowFacts:
    """Return what decoded a source, where a device was asked for, as records have it."""
    facts = RowFacts()
    if decoded.decoded_on:
        facts["decoded_on"] = decoded.decoded_on
    if decoded.fallback:
        facts["fallback"] = decoded.fallback
    return facts


def _check_finite(features: np.ndarray, recipe: Recipe) -> None:
    # Of sums, since for ten hours of video `isfinite` of each number would be 100 MB.
    if not np.isfinite(features.sum(axis=-1, dtype=np.float64)).all():
        is_cast = recipe.half_precision and not recipe.l2_normalize
        hint = " or `half_precision: false`" if is_cast else ""
        raise VideoError(f"a feature is not a finite number: try `precision: float32`{hint}")
