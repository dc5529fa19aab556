"""So many frames, spread evenly over a video, however many it has."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from videofeatures.decoding.tally import Tally
from videofeatures.errors import VideoError

MAX_HELD_BYTES = 64 << 20
"""Frames that may be held until it is known that they are the right ones: 445 of 224×224."""

MAX_RUNS = 3
"""One with the packets counted, one with the frames counted, and one more where these go on to
change, as they may with damage and several threads."""


def spread_indices(num_frames: int, total: int) -> np.ndarray:
    """Return which of `total` frames are taken: (num_frames,), int, rising.

    The first, the last, and what lies evenly between, rounded down; some of them several times
    where there are fewer than are wanted. So video-language models take them.
    """
    return np.linspace(0, total - 1, num_frames).astype(int)


def spread_expression(num_frames: int, total: int) -> str:
    """Return the expression of ffmpeg's filter `select` for frames of `spread_indices`, each once.

    As these are one multiplication and a floor in double precision, ffmpeg comes to the same.
    """
    if num_frames >= total:
        return "1"
    step = (total - 1) / max(1, num_frames - 1)
    index = f"if(eq(selected_n,{num_frames - 1}),{total - 1},floor(selected_n*{step!r}))"
    if num_frames == 1:
        index = "0"
    return f"lt(selected_n,{num_frames})*eq(n,{index})"


def iter_spread_frames(
    read: Callable[[str | None], Iterator[np.ndarray]],
    num_frames: int,
    total: int,
    tally: Tally,
    stderr_lines: deque[str],
    *,
    frame_bytes: int,
) -> Iterator[np.ndarray]:
    """Yield `num_frames` frames, spread evenly over all that a video gives.

    How many that are is known at its end. Until then, frames are those of so many as there are
    packets, which is right for nearly all videos, and are held; where it turns out to be wrong, for
    one has fields as packets, or damage, it is decoded again. Of more than can be held, frames
    are counted first, by decoding.

    Args:
        read: runs ffmpeg, and yields the video's frames for which an expression of `select` is
            true, or all of them for None.
        total: frames that it has by its packets.
        tally: counts the frames of each run; started anew, as are `stderr_lines`.
        frame_bytes: of a frame that `read` yields.

    Raises:
        VideoError: ffmpeg gives other numbers of frames each time; and what `read` raises.
    """
    total = max(1, total)
    is_held = num_frames * frame_bytes <= MAX_HELD_BYTES
    restarts = False
    counts: list[int] = []
    if not is_held:
        deque(read("eq(n,0)"), maxlen=0)
        total, restarts = len(tally.shown_seconds), len(tally.graph_starts) > 1
        counts.append(total)
    for _ in range(MAX_RUNS if is_held else 1):
        tally.reset()
        stderr_lines.clear()
        frames = _take(read, num_frames, total, here=restarts)
        if is_held:
            held = list(frames)
        else:
            yield from frames
        counts.append(len(tally.shown_seconds))
        # ffmpeg's filters count from zero again where the size of frames changes.
        if counts[-1] == total and (restarts or len(tally.graph_starts) <= 1):
            if is_held:
                yield from held
            return
        total, restarts = len(tally.shown_seconds), len(tally.graph_starts) > 1
    raise VideoError(
        f"cannot take {num_frames:,} frames of it: ffmpeg decodes "
        f"{' and then '.join(f'{count:,}' for count in dict.fromkeys(counts))}, damaged",
        stderr_lines,
    )


def _take(
    read: Callable[[str | None], Iterator[np.ndarray]], num_frames: int, total: int, *, here: bool
) -> Iterator[np.ndarray]:
    """Yield frames of one run.

    Args:
        here: whether they are chosen here, of all, rather than by ffmpeg.
    """
    wanted, num_times = np.unique(spread_indices(num_frames, total), return_counts=True)
    frames: Iterator[np.ndarray]
    if here:
        chosen = set(wanted.tolist())
        frames = (frame for k, frame in enumerate(read(None)) if k in chosen)
    else:
        frames = read(spread_expression(num_frames, total))
    for k, frame in enumerate(frames):
        for _ in range(num_times[k] if k < len(num_times) else 0):
            yield frame
