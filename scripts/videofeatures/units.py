"""Lengths of time and sizes, as people say them."""

from __future__ import annotations


def describe_seconds(seconds: float) -> str:
    """Return a length of time in two or three digits: 42 s, 5.3 min, 7.1 h, 12.0 days."""
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 3 * 86400)):
        if seconds < limit:
            value = seconds / length
            return f"{value:.1f} {unit}" if 0 < value < 10 else f"{value:.0f} {unit}"
    return f"{seconds / 86400:,.1f} days"


def describe_bytes(num_bytes: float) -> str:
    """Return a size in three digits: 48.6 kB, 1.9 TB."""
    for unit, length in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= 0.9995 * length:  # what rounds to it
            return f"{num_bytes / length:.3g} {unit}"
    return f"{num_bytes / 1e3:.3g} kB"
