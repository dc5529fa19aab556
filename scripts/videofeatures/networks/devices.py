"""The GPU that a job computes on: a free one of those that it sees, held until the job ends.

Snakemake counts GPUs and says to no job which one is its own. So each job takes one that no
other process of this program holds, on this machine, whoever started it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

ALLOCATIONS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "KUBERNETES_SERVICE_HOST")
"""Variables that SLURM, PBS, LSF, Grid Engine and Kubernetes set in what they start."""

POLL_SECONDS = 0.5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Device:
    """A CUDA device: its number, as torch counts, and its own name, the same in all processes."""

    index: int
    uuid: str


def find_devices() -> list[Device]:
    """Return the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES has it.

    Asks the driver, without torch: to know it before torch is imported, which takes seconds.
    """
    try:
        from cuda.bindings import driver  # comes with the builds of torch that know CUDA
    except ImportError:
        return []
    try:
        (error,) = driver.cuInit(0)
    except RuntimeError:
        return []  # there is no driver
    if error:
        return []
    devices = []
    for index in range(driver.cuDeviceGetCount()[1]):
        uuid = driver.cuDeviceGetUuid(driver.cuDeviceGet(index)[1])[1].bytes
        devices.append(Device(index, bytes(uuid).hex()))
    return devices


@contextmanager
def hold_device(devices: Sequence[Device]) -> Iterator[Device | None]:
    """Hold a free device, waiting until there is one; None if there are no devices at all.

    What a process holds is free again when it ends, however it ends. A single device that a
    scheduler has given to this process is taken as it is: it may be meant to be shared.
    """
    if not devices:
        yield None
    elif len(devices) == 1 and any(name in os.environ for name in ALLOCATIONS):
        yield devices[0]
    else:
        device, lock = _wait_for_one(devices)
        with lock:
            yield device


def _wait_for_one(devices: Sequence[Device]) -> tuple[Device, socket.socket]:
    is_logged = False
    while True:
        for device in devices:
            if lock := _try_lock(device.uuid):
                return device, lock
        if not is_logged:
            logger.info("each of the %d GPUs is held by another job: waiting", len(devices))
            is_logged = True
        time.sleep(POLL_SECONDS)


def _try_lock(uuid: str) -> socket.socket | None:
    """Return the device's lock, or None if another process on this machine holds it.

    A name in Linux's abstract namespace of sockets: the kernel takes it back when the process
    ends, no file is left, and it is the same for all users.
    """
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0videofeatures-gpu-{uuid}")
    except OSError:
        lock.close()
        return None
    return lock
