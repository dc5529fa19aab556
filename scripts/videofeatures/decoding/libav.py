"""What libav says of a file. Its functions run in worker processes, never in this one."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import Any

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.parts import Landing
from videofeatures.decoding.process import DEFAULT_MEMORY_BYTES, ReadTimeout
from videofeatures.decoding.worker_pool import WorkerPool


class Libav(WorkerPool):
    """Asks libav about files, for several threads at a time.

    Each method raises what `call` does; that of the same name, in `probe`, `skipping`,
    `truncation` or `packets`, documents the rest.
    """

    def __init__(
        self,
        read_timeout: ReadTimeout,
        *,
        local_files_only: bool = True,
        memory_bytes: int | None = DEFAULT_MEMORY_BYTES,
    ):
        """Start nothing yet.

        Args:
            read_timeout: how long libav may show no sign of life.
            local_files_only: see `input_options`.
            memory_bytes: see `WorkerPool`.
        """
        super().__init__(read_timeout, memory_bytes=memory_bytes)
        self._local_files_only = local_files_only

    def probe_video(self, path: str) -> VideoMetadata | None:
        """Return a video's metadata; None if none of its frames can be decoded."""
        return self.call("probe_video", _parse_metadata, **self._file(path))

    def read_duration(self, path: str) -> float | None:
        """Return a video's seconds as its header says; None if it does not say."""
        return self.call("read_duration", _parse_number, **self._file(path))

    def skip_filter(self, path: str, frame_rate: float) -> str | None:
        """Return the bitstream filter that skips packets; None if there are none to skip."""
        file = self._file(path)
        return self.call("skip_filter", _parse_text, **file, frame_rate=frame_rate)

    def find_landing(self, path: str, start_seconds: float) -> Landing:
        """Return where decoding of a part begins."""
        file = self._file(path)
        return self.call("find_landing", _parse_landing, **file, start_seconds=start_seconds)

    def find_truncation(
        self,
        path: str,
        metadata: VideoMetadata,
        decoded_seconds: float,
        *,
        rounding_seconds: float = 0.0,
        keyframes_only: bool = False,
        end_seconds: float | None = None,
    ) -> str | None:
        """Return what is missing at a video's end, or at that of a part; None if nothing is."""
        return self.call(
            "find_truncation",
            _parse_text,
            **self._file(path),
            duration_seconds=metadata.duration_seconds,
            decoded_seconds=decoded_seconds,
            rounding_seconds=rounding_seconds,
            keyframes_only=keyframes_only,
            end_seconds=end_seconds,
        )

    def look_at_packets(self, path: str) -> PacketFacts:
        """Return what a video's packets say of its pictures."""
        return self.call("look_at_packets", _parse_facts, **self._file(path))

    def _file(self, path: str) -> dict[str, Any]:
        if not os.path.isabs(path):  # a worker stays in the folder that it was started in
            path = os.path.join(os.getcwd(), path)
        return {"path": path, "local_files_only": self._local_files_only}


def _parse_metadata(value: Any) -> VideoMetadata | None:
    if value is None:
        return None
    return VideoMetadata(
        width=int(value["width"]),
        height=int(value["height"]),
        sample_aspect_ratio=Fraction(value["sample_aspect_ratio"]),
        duration_seconds=_parse_number(value["duration_seconds"]),
        average_fps=_parse_number(value["average_fps"]),
        codec=str(value["codec"]),
    )


def _parse_landing(value: Any) -> Landing:
    return Landing(
        Fraction(value["tick"]),
        Fraction(value["seconds"]),
        value["key_ticks"],
        bool(value["is_open"]),
    )


def _parse_facts(value: Any) -> PacketFacts:
    return PacketFacts(**value)


def _parse_number(value: Any) -> float | None:
    return None if value is None else float(value)


def _parse_text(value: Any) -> str | None:
    return None if value is None else str(value)
