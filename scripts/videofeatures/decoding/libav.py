"""What libav says of a file. Its functions run in worker processes, never in this one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.decoder import VideoMetadata
from videofeatures.decoding.parts import Landing
from videofeatures.decoding.worker_pool import WorkerPool


class Libav(WorkerPool):
    """Asks libav about files, for several threads at a time.

    Each method raises what `call` does; that of the same name, in `probe`, `seeking` or `packets`,
    documents the rest.
    """

    def probe_video(self, path: str) -> VideoMetadata | None:
        """Return a video's metadata; None if none of its frames can be decoded."""
        return self.call("probe_video", _parse_metadata, **self.file_arguments(path))

    def read_duration(self, path: str) -> float | None:
        """Return a video's seconds as its header says; None if it does not say."""
        return self.call("read_duration", _parse_number, **self.file_arguments(path))

    def find_landing(self, path: str, start_seconds: float) -> Landing:
        """Return where decoding of a part begins."""
        file = self.file_arguments(path)
        return self.call("find_landing", _parse_landing, **file, start_seconds=start_seconds)

    def look_at_packets(
        self, path: str, frame_rates: Sequence[float] = (), *, end_seconds: float | None = None
    ) -> PacketFacts:
        """Return what a video's packets say."""
        return self.call(
            "look_at_packets",
            _parse_facts,
            **self.file_arguments(path),
            frame_rates=frame_rates,
            end_seconds=end_seconds,
        )


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
        pixel_format=_parse_text(value["pixel_format"]),
        display_matrix=_parse_matrix(value["display_matrix"]),
        container=str(value["container"]),
    )


def _parse_matrix(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(int(number) for number in value)


def _parse_landing(value: Any) -> Landing:
    return Landing(
        Fraction(value["tick"]),
        Fraction(value["seconds"]),
        value["key_ticks"],
        bool(value["is_open"]),
    )


def _parse_facts(value: Any) -> PacketFacts:
    return PacketFacts(**value)


def _parse_text(value: Any) -> str | None:
    return None if value is None else str(value)


def _parse_number(value: Any) -> float | None:
    return None if value is None else float(value)
