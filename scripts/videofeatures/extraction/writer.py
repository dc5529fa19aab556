"""From a complete video to its file, its records and its line in the log."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from videofeatures.decoding.clips import row_timestamps
from videofeatures.errors import UserError, VideoError
from videofeatures.extraction.row_state import RowState
from videofeatures.files import hash_content, write_features
from videofeatures.planning.jobs import Job
from videofeatures.records import Recorder

logger = logging.getLogger(__name__)


def normalize(features: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
    """Features divided by their lengths.

    Args:
        features: (N, feature_dim).
        lengths: (N,), if they are known.
    """
    if lengths is None:
        lengths = np.linalg.norm(features, axis=1)
    # The bound is that of torch.nn.functional.normalize, which the original used.
    return features / np.maximum(lengths, 1e-12)[:, None]


def finish_features(
    features: np.ndarray, lengths: np.ndarray, *, l2_normalize: bool, half_precision: bool
) -> np.ndarray:
    """Features as they are stored: of length 1, and float16, if asked for.

    Args:
        features: (N, feature_dim), float32.
        lengths: (N,), of these.
    """
    if l2_normalize:
        features = normalize(features, lengths)
    with np.errstate(over="ignore"):  # what does not fit is found when the video is complete
        return features.astype(np.float16 if half_precision else np.float32)


class Writer:
    """Records a row's beginning and end, and writes its file in between."""

    def __init__(self, job: Job, made_with: dict[str, Any], recorder: Recorder):
        self.settings = job.settings
        self.backbone = job.settings.resolve_backbone()
        self.made_with = made_with
        self.recorder = recorder

    def begin(self, video: RowState) -> None:
        """Record that the row is worked on. Only the first call counts."""
        if video.has_begun or video.done_by_others:
            return
        video.has_begun = True
        row = video.row
        self.recorder.record("started", row.feature_path, stale=row.stale, **self._identity(video))

    def finish(self, video: RowState) -> bool:
        """Write a complete video's file, or record why there is no new one. True if written.

        Raises:
            UserError: a disk is full: there is no use in going on.
        """
        row = video.row
        seconds = time.monotonic() - video.started
        try:
            if video.error is not None:
                raise video.error
            features = self._features(video)
            timestamps = row_timestamps(
                video.num_frames, self.backbone.frame_rate, self.backbone.num_frames_per_clip
            )
            write_features(
                row.feature_path,
                features,
                timestamps,
                self._provenance(video),
                before=lambda file: self._record_done(video, features, seconds, hash_content(file)),
            )
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise UserError(
                    f"{row.feature_path}: {error.strerror}. The job ends here; what is done is "
                    "kept. Make room, and run again"
                ) from None
            self._record_failure(video, f"{row.feature_path}: {error.strerror or error}", seconds)
            return False
        except VideoError as error:
            self._record_failure(video, str(error), seconds, error.ffmpeg_lines)
            return False
        except UserError:  # the records cannot be written
            raise
        except Exception as error:
            self._record_failure(video, f"{type(error).__name__}: {error}", seconds)
            logger.exception("unexpected error in %s", row.video_path)
            return False
        logger.info("done    %s: %d x %d in %.1f s", row.video_path, *features.shape, seconds)
        if video.warning:
            logger.warning("  but   %s: %s", row.video_path, video.warning)
        elif video.ffmpeg_lines:
            logger.warning("  but   %s: ffmpeg says: %s", row.video_path, video.ffmpeg_lines[0])
        return True

    def _record_done(
        self, video: RowState, features: np.ndarray, seconds: float, file_hash: str
    ) -> None:
        """Say that the row is done just before it is: see `videofeatures.records`."""
        assert video.metadata is not None
        self.recorder.record(
            "done",
            video.row.feature_path,
            **self._identity(video),
            file_hash=file_hash,
            num_features=features.shape[0],
            feature_dim=features.shape[1],
            mean_length=round(video.norm_sum / features.shape[0], 6),
            num_frames=video.num_frames,
            duration_seconds=video.metadata.duration_seconds,
            average_fps=video.metadata.average_fps,
            width=video.metadata.width,
            height=video.metadata.height,
            codec=video.metadata.codec,
            seconds=round(seconds, 3),
            decode_seconds=round(video.decode_seconds, 3),
            compute_seconds=round(video.compute_seconds, 3),
            reason=video.warning or "",
            ffmpeg_lines=list(video.ffmpeg_lines),
        )

    def _record_failure(
        self, video: RowState, reason: str, seconds: float, lines: Iterable[str] = ()
    ) -> None:
        self.recorder.record(
            "failed",
            video.row.feature_path,
            stale=video.row.stale,
            **self._identity(video),
            reason=reason,
            ffmpeg_lines=list(lines),
            duration_seconds=video.metadata.duration_seconds if video.metadata else None,
            seconds=round(seconds, 3),
        )
        logger.error("FAILED  %s: %s", video.row.video_path, reason)

    def _identity(self, video: RowState) -> dict[str, Any]:
        return {
            "video_path": video.row.video_path,
            "video_size": video.file_size,
            "video_mtime_ns": video.file_mtime_ns,
            "digest": self.made_with["digest"],
            "weights": self.made_with["weights"],
        }

    def _features(self, video: RowState) -> np.ndarray:
        """(rows, feature_dim) in the order of time, whatever the order of computing."""
        features = video.features.take(video.num_clips)
        # Of sums, since for ten hours of video `isfinite` of each number would be 100 MB.
        if not np.isfinite(features.sum(axis=1, dtype=np.float64)).all():
            settings = self.settings
            is_cast = settings.half_precision and not settings.l2_normalize
            hint = " or `half_precision: false`" if is_cast else ""
            raise VideoError(f"a feature is not a finite number: try `precision: float32`{hint}")
        return features

    def _provenance(self, video: RowState) -> dict[str, Any]:
        metadata = video.metadata
        assert metadata is not None
        facts = {
            "width": metadata.width,
            "height": metadata.height,
            "sample_aspect_ratio": str(metadata.sample_aspect_ratio),
            "duration_seconds": metadata.duration_seconds,
            "average_fps": metadata.average_fps,
            "codec": metadata.codec,
            "num_frames": video.num_frames,
        }
        return self.made_with | self._identity(video) | facts
