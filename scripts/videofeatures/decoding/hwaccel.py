"""Decoding on a device: which videos, by which options and filters, and what if it fails.

A decoder of ffmpeg leaves its frames on the device. Filters that look at no pixel (`fps`, `select`,
`trim`, `setpts`, `framestep`, `showinfo` without checksums) take these as they are, so frames are
chosen there, and only those that are taken cross the bus, one after the other. What comes is NV12,
or P010 for ten bits: what the CPU has, with the colours of a pixel beside each other. They are put
apart again, without loss: ffmpeg's scaler makes the same of NV12 where it resizes, and something
else where it does not (seen: 9.0.2, to RGB at the same size).

A device decodes no more than can be had from it as from the CPU: codecs whose standards say each
bit of a picture, in the one layout that all devices share. The rest is done by the CPU.
"""

from __future__ import annotations

import logging
import math
import platform
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import ffmpeg
import numpy as np

from videofeatures.decoding.decoder import Damage, VideoMetadata
from videofeatures.decoding.ffmpeg import find_cause, start_ffmpeg
from videofeatures.decoding.process import NUM_STDERR_LINES, NoAnswerError, ReadTimeout
from videofeatures.decoding.tally import Tally
from videofeatures.errors import UserError, VideoError

HWACCELS = ("cuda", "vaapi", "qsv", "videotoolbox")
"""Kinds of devices that `find_hwaccel` looks for, in this order."""

EXACT_CODECS = ("h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "libaom-av1", "libvpx-vp9")
"""Codecs, by ffmpeg's names of their decoders, of which every decoder that is right gives the same
bits: ITU-T H.264 and H.265, RFC 6386, and the specifications of VP9 and AV1. In MPEG-1, 2 and 4,
VC-1 and MJPEG, decoders may round the inverse transform as they like (IEEE 1180)."""

DOWNLOADED = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
"""Layout in which a device has frames, by the one that the CPU would have. Those of 4:2:2, 4:4:4
and 12 bits depend on the kind of the device, its age, and ffmpeg's version."""

OUTPUT_FORMATS = {"videotoolbox": "videotoolbox_vld"}
"""ffmpeg's name of a frame on a device (libavutil/pixdesc.c), where it is not that of the kind."""

EXTRA_FRAMES = 8
"""Frames on the device that may be held outside its decoder, where their number is fixed: `fps`
holds two. ffmpeg adds those in its own queues (fftools/ffmpeg_dec.c)."""

MIN_SHARED_PIXELS = 500_000_000
"""Of a video, to be worth a device where CPU and device decode side by side: about one second of a
core (H.264, 720p, 20 times as fast as it plays: 460 million pixels a second, measured). Each
video is a process, which opens the device anew; that takes tenths of a second (not measured)."""

TRIAL_TIMEOUT_SECONDS = 30

TRIAL_CLIP = (
    "AAAAAWdNQAzsoICdgIgAAAMACAAAAwGQeKFMsAAAAAFo6+PLIAAAAWWIhAAr//72c3wKa22wlS4Fdvdmo+XQkuX7"
    "EGD64nYPR/2Pt2VZmG6AAAFGAoOIGAtXgQ=="
)
"""H.264, in base64: one black frame of 256×144, which every device that decodes can decode. Made
with libx264, profile main, without its user data."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """How one video is decoded on a device.

    Attributes:
        kind: as ffmpeg's `-hwaccel` has it.
        index: of the device among those of its kind; None for ffmpeg's choice.
        layout: of its frames, where they come from the device.
        cpu_layout: in which the CPU would have them.
        size: (width, height) of its frames, before they are turned.
        turns: filters, each with its arguments, that turn them as they are to be seen.
    """

    kind: str
    index: int | None
    layout: str
    cpu_layout: str
    size: tuple[int, int]
    turns: tuple[tuple[str, ...], ...] = ()

    def input_options(self) -> dict[str, Any]:
        """Return the options of ffmpeg's input: frames stay on the device, and as they are."""
        device = {} if self.index is None else {"hwaccel_device": self.index}
        return {
            "hwaccel": self.kind,
            **device,
            "hwaccel_output_format": OUTPUT_FORMATS.get(self.kind, self.kind),
            "extra_hw_frames": EXTRA_FRAMES,
            "noautorotate": None,  # it would not turn frames of a device (fftools/ffmpeg_filter.c)
            "threads": 1,  # each more would hold frames of the device, and decode nothing
        }

    def fetched(self, stream: ffmpeg.Stream) -> ffmpeg.Stream:
        """Return a stream of frames on the device as one of frames in memory, turned."""
        stream = stream.filter("hwdownload").filter("format", self.layout)
        # On a device, a picture is not cut at its left and top (libavutil/frame.c), and where its
        # size changes, so may all that was known of it: this fails, and the video is the CPU's.
        width, height = self.size
        is_right = f"if(eq(iw,{width})*eq(ih,{height}),iw,0)"  # no crop is 0 wide
        stream = stream.filter("crop", is_right, "ih", 0, 0, exact=1)
        stream = stream.filter("format", self.cpu_layout)
        for name, *arguments in self.turns:
            stream = stream.filter(name, *arguments)
        return stream


def find_device(metadata: VideoMetadata, kind: str, index: int | None = None) -> Device | str:
    """Return how a video is decoded on a device, or why it is not, for people."""
    if metadata.codec not in EXACT_CODECS:
        return f"{metadata.codec} is not decoded on a device"
    layout = DOWNLOADED.get(metadata.pixel_format or "")
    if layout is None:
        return f"pictures in {metadata.pixel_format} are not decoded on a device"
    turns = find_turns(metadata.display_matrix)
    if turns is None:
        return "pictures that are turned by no quarter are not decoded on a device"
    size = metadata.width, metadata.height
    is_swapped = any(name == "transpose" for name, *_ in turns)
    cpu_layout = str(metadata.pixel_format)
    return Device(kind, index, layout, cpu_layout, size[::-1] if is_swapped else size, turns)


def find_turns(matrix: tuple[int, ...] | None) -> tuple[tuple[str, ...], ...] | None:
    """Return the filters by which a picture is turned as its display matrix says.

    They are those that ffmpeg takes itself, of frames in memory (fftools/ffmpeg_filter.c).

    Args:
        matrix: the nine numbers, row by row, in fixed point; None for a picture as it is.

    Returns:
        None if it is not turned by quarters.
    """
    if matrix is None:
        return ()
    # The lengths of the matrix's columns are the scales (libavutil/display.c).
    scales = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if 0 in scales:  # it says nothing
        return ()
    clockwise = math.degrees(math.atan2(matrix[1] / scales[1], matrix[0] / scales[0])) % 360
    quarters = round(clockwise / 90)
    if abs(clockwise - 90 * quarters) >= 1:
        return None
    match quarters % 4:
        case 1:
            return (("transpose", "cclock_flip" if matrix[3] > 0 else "clock"),)
        case 2:
            flips = ("hflip",) * (matrix[0] < 0) + ("vflip",) * (matrix[4] < 0)
        case 3:
            return (("transpose", "clock_flip" if matrix[3] < 0 else "cclock"),)
        case _:
            flips = ("vflip",) * (matrix[4] < 0)
    return tuple((flip,) for flip in flips)


class Read(Protocol):
    """Starts to decode a video, on a device, or, for None, on the CPU; yields its frames, each with
    the number of its view."""

    def __call__(self, *, device: Device | None) -> Iterator[tuple[int, np.ndarray]]: ...


class Accelerator:
    """A device that decodes, or none: which videos it gets, of several threads."""

    def __init__(
        self,
        kind: str = "none",
        *,
        index: int | None = None,
        num_videos: int | None = None,
        is_shared: bool = False,
        stopped: threading.Event | None = None,
    ):
        """
        Args:
            kind: as ffmpeg's `-hwaccel` has it; `none` for the CPU.
            index: of the device among those of its kind; None for ffmpeg's choice.
            num_videos: that it gets at a time: what comes while it has them is the CPU's; None for
                all.
            is_shared: small videos are left to the CPU, too.
            stopped: is set when a failure is none of the device's.
        """
        self.kind = kind
        self._index = index
        self._slots = None if num_videos is None else threading.Semaphore(num_videos)
        self._is_shared = is_shared
        self._stopped = stopped or threading.Event()

    def frames(
        self,
        read: Read,
        metadata: VideoMetadata,
        tally: Tally,
        messages: deque[str],
        damage: Damage,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield a video's frames, from the device if it can decode it, else from the CPU.

        Where the device fails, the CPU decodes the video from its beginning: those frames that the
        device has given stay, and are not given again.

        Args:
            tally, messages: of `read`: started anew, where it is called again.
            damage: is told what decodes, and why it is not the device, where it was asked for.

        Raises:
            VideoError: what the CPU raises; or it gives fewer frames than the device has given.
        """
        if self.kind == "none":
            yield from read(device=None)
            return
        num_given: Counter[int] = Counter()  # by view: those of several come in any order
        with self._lent(metadata, damage) as device:
            if device is not None:
                damage.decoded_on = device.kind
                try:
                    for number, frame in read(device=device):
                        num_given[number] += 1
                        yield number, frame
                    return
                except VideoError as error:
                    if self._stopped.is_set():
                        raise
                    damage.fallback = f"{device.kind}: {error.reason}"
        if damage.fallback and device is not None:
            tally.reset()
            messages.clear()
        damage.decoded_on = "cpu"
        num_again: Counter[int] = Counter()
        for number, frame in read(device=None):
            num_again[number] += 1
            if num_again[number] > num_given[number]:
                yield number, frame
        if not num_given <= num_again:
            raise VideoError(
                f"{damage.fallback}, after {num_given.total():,} frames; and the CPU decodes "
                f"{num_again.total():,}",
                messages,
            )

    @contextmanager
    def _lent(self, metadata: VideoMetadata, damage: Damage) -> Iterator[Device | None]:
        """Hold a place on the device for a video; None if it is the CPU's."""
        if damage.fallback:  # it is read again, as videos of which frames are spread may be
            yield None
            return
        device = find_device(metadata, self.kind, self._index)
        if isinstance(device, str):
            if not self._is_shared:  # where it is, some videos are the CPU's anyway
                damage.fallback = device
            yield None
        elif (self._is_shared and is_small(metadata)) or not (
            self._slots is None or self._slots.acquire(blocking=False)
        ):
            yield None
        else:
            try:
                yield device
            finally:
                if self._slots is not None:
                    self._slots.release()


def open_accelerator(
    kind: str, *, index: int | None = None, stopped: threading.Event | None = None, **shared: Any
) -> Accelerator:
    """Return the accelerator that is set, for `auto` what is found here.

    Args:
        shared: `num_videos` and `is_shared` of an `Accelerator`.

    Raises:
        VideoError: the wait was stopped.
        UserError: there is no ffmpeg that runs.
    """
    if kind == "auto":
        kind = find_hwaccel(stopped)
    # Of other kinds, numbers are those of other lists.
    index = index if kind == "cuda" else None
    return Accelerator(kind, index=index, stopped=stopped, **shared)


def is_small(metadata: VideoMetadata) -> bool:
    """Return whether a video is decoded by the CPU before a device is ready, by its header."""
    if metadata.duration_seconds is None or metadata.average_fps is None:
        return False
    num_frames = metadata.duration_seconds * metadata.average_fps
    return num_frames * metadata.width * metadata.height < MIN_SHARED_PIXELS


@cache
def find_hwaccel(stopped: threading.Event | None = None) -> str:
    """Return the first kind of device that ffmpeg can decode on here; `none` if there is none.

    Each kind is tried in a process of its own: with ffmpeg's own `auto`, one whose library is
    missing ends the whole process (seen: 9.0.2, a static build, without libva).

    Raises:
        VideoError: the wait was stopped.
        UserError: there is no ffmpeg that runs.
    """
    return next((kind for kind in HWACCELS if find_problem(kind, stopped=stopped) is None), "none")


def check_hwaccel(kind: str, index: int | None = None) -> None:
    """Check that a device can decode.

    Raises:
        UserError: it cannot: no video would be decoded as it was asked for.
    """
    if problem := find_problem(kind, index):
        raise UserError(
            f"hwaccel: {kind}: ffmpeg cannot decode on such a device on {platform.node()}: "
            f"{problem}. Set `hwaccel: none`, or `auto`, which takes a device where there is one"
        )


def find_problem(
    kind: str, index: int | None = None, *, stopped: threading.Event | None = None
) -> str | None:
    """Return why ffmpeg decodes nothing on a device, or None: it has decoded a frame there.

    That shows more than a device that opens: in a container, its decoder may be missing.

    Raises:
        VideoError: the wait was stopped.
        UserError: there is no ffmpeg that runs.
    """
    device = Device(kind, index, "nv12", "yuv420p", (256, 144))
    clip = ffmpeg.input(
        f"data:application/octet-stream;base64,{TRIAL_CLIP}",
        format="h264",
        **device.input_options(),
    )
    output = device.fetched(clip["V:0"]).output("pipe:", format="null")
    read_timeout = ReadTimeout(TRIAL_TIMEOUT_SECONDS, stopped)
    lines: deque[str] = deque(maxlen=NUM_STDERR_LINES)
    with (
        suppress(NoAnswerError),
        start_ffmpeg(output, read_timeout, lines, memory_bytes=None) as process,
    ):
        status = process.wait()
        return (find_cause(lines) or f"it ended with {status}") if status else None
    return f"no answer in {TRIAL_TIMEOUT_SECONDS} s"
