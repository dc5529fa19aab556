"""Looks at files' packets: one for all that ask about a file, as long as it is in work."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from videofeatures.decoding.bounds import PacketFacts
from videofeatures.decoding.libav import Libav
from videofeatures.files import stat_or_none
from videofeatures.source import Source

MAX_KEPT = 64
"""Files of which the facts are kept: several times as many as are decoded at a time. One has 64 KiB
of a filter at most."""


@dataclass
class _Known:
    """What is known of a file, as it is now.

    Attributes:
        facts: of its packets; None before it is looked at.
        frame_rates: that the filter in `facts` is for.
        has_complained: its decoder has, with packets left out.
    """

    facts: PacketFacts | None = None
    frame_rates: tuple[float, ...] = ()
    has_complained: bool = False


class Looks:
    """What files' packets say, for several threads at a time, each of which has files of its own.

    A file that has changed is another one.
    """

    def __init__(self, libav: Libav):
        self._libav = libav
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[object, ...], _Known] = OrderedDict()

    def at(self, source: Source, frame_rates: Sequence[float] = ()) -> PacketFacts:
        """Return what the packets of a source's file say, reading them if that is not known.

        Args:
            frame_rates: for which packets are to be skipped; none if it does not matter.

        Raises:
            VideoError: see `Libav.look_at_packets`.
        """
        known, rates = self._of(source), tuple(frame_rates)
        if known.facts is None or (rates and rates != known.frame_rates):
            known.facts = self._libav.look_at_packets(
                source.path, rates, end_seconds=source.end_seconds
            )
            known.frame_rates = rates
        return known.facts

    def note(self, source: Source, frame_rates: Sequence[float], facts: PacketFacts) -> None:
        """Note what the packets of a source's file say, which someone else has read."""
        known = self._of(source)
        known.facts, known.frame_rates = facts, tuple(frame_rates)

    def has_complained(self, source: Source) -> bool:
        """Return whether a complaint was noted."""
        return self._of(source).has_complained

    def note_complaint(self, source: Source) -> None:
        """Note that the decoder has complained of a source, with packets left out."""
        self._of(source).has_complained = True

    def _of(self, source: Source) -> _Known:
        file = stat_or_none(source.path)
        seen = (file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns) if file else ()
        key = (source.path, source.end_seconds, *seen)
        with self._lock:
            known = self._known.setdefault(key, _Known())
            self._known.move_to_end(key)
            if len(self._known) > MAX_KEPT:
                self._known.popitem(last=False)
        return known
