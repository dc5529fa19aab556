"""How many videos a job decodes at a time, and how many of these on a device."""

from __future__ import annotations

from typing import NamedTuple

from videofeatures.settings import Settings

MAX_DECODERS = 16
"""On the CPU, unless it is set."""

MAX_DEVICE_DECODERS = 8
"""On a device, unless it is set: one for each of an H100's seven decoders and one that is starting
(NVIDIA, Video Encode and Decode GPU Support Matrix). With many more, each is slower; `make
bench-gpu` measures it."""


class Split(NamedTuple):
    """Videos that are decoded at a time, and how many of them on a device, at most."""

    num_decoders: int
    num_on_device: int


def split_decoders(
    settings: Settings, *, has_device: bool, num_threads: int, num_videos: int
) -> Split:
    """Return how a job's videos share the CPU and a device that decodes.

    A kind of device that is asked for by its name gets all that it can decode, unless it is said
    how many. With `auto`, it does so many beside those of the CPU.

    Args:
        has_device: one that can decode is there.
        num_threads: CPU threads of the job.
        num_videos: that the job has to do.
    """
    num_on_cpu = min(num_threads, MAX_DECODERS)
    decoders, on_device = settings.decoders, settings.device_decoders
    if not has_device:
        return Split(min(decoders or num_on_cpu, num_videos), 0)
    is_shared = settings.hwaccel == "auto"
    if on_device is None:
        on_device = MAX_DEVICE_DECODERS
        if decoders is not None:
            on_device = min(decoders, on_device) if is_shared else decoders
    if decoders is None:
        # Where the device does not do all, the CPU does not wait for it.
        is_beside = is_shared or settings.device_decoders is not None
        decoders = num_on_cpu + on_device if is_beside else on_device
    num_decoders = min(decoders, num_videos)
    return Split(num_decoders, min(on_device, num_decoders))
