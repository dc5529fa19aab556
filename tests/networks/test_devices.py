"""Each process has a device of its own, of a list that is given here: there is no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest
import torch

from conftest import ROOT, Workflow, make_clip, start_session, wait_for
from videofeatures.errors import UserError
from videofeatures.networks import devices
from videofeatures.networks.devices import ALLOCATIONS, Device, find_devices, hold_device
from videofeatures.networks.network import choose_device


@pytest.fixture
def uuids(request) -> list[str]:
    """Two names that no other test on this machine uses."""
    return [f"{os.getpid()}-{request.node.name}-{k}" for k in range(2)]


@pytest.fixture(autouse=True)
def _no_allocation(monkeypatch) -> None:
    for name in ALLOCATIONS:
        monkeypatch.delenv(name, raising=False)


def named(uuids: list[str]) -> list[Device]:
    return [Device(index, uuid) for index, uuid in enumerate(uuids)]


HOLD = """
import sys
from videofeatures.networks.devices import Device, hold_device
with hold_device([Device(k, uuid) for k, uuid in enumerate(sys.argv[1:])]) as device:
    print(device.index, flush=True)
    sys.stdin.read()
"""


def start_holder(uuids: list[str]) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "scripts")}
    return subprocess.Popen([sys.executable, "-c", HOLD, *uuids], env=environment, **pipes)


def test_each_process_has_its_own_and_a_third_one_waits(uuids):
    holders = [start_holder(uuids) for _ in range(2)]
    assert sorted(holder.stdout.readline() for holder in holders) == ["0\n", "1\n"]
    third = start_holder(uuids)
    told = []
    reader = threading.Thread(target=lambda: told.append(third.stdout.readline()))
    reader.start()
    reader.join(3 * devices.POLL_SECONDS)
    assert told == []
    holders[1].kill()  # what it held is free, however it ends
    reader.join(60)
    assert told[0] in ("0\n", "1\n")
    for holder in (holders[0], third):
        holder.communicate("")
        assert holder.returncode == 0


def test_the_number_is_that_of_the_device_and_not_of_the_process(uuids):
    """Two processes that see the same devices in another order (CUDA_VISIBLE_DEVICES)."""
    with hold_device(named(uuids)) as first:
        assert first == Device(0, uuids[0])
        with hold_device(named(uuids[::-1])) as second:
            assert second == Device(0, uuids[1])
        with hold_device(named(uuids)) as second:
            assert second == Device(1, uuids[1])
    with hold_device(named(uuids)) as again:
        assert again == first


def test_a_single_device_of_an_allocation_is_taken_as_it_is(uuids, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with hold_device(named(uuids[:1])) as one, hold_device(named(uuids[:1])) as same:
        assert one == same
    # Of several, as for a run inside of an allocation, each takes another.
    with hold_device(named(uuids)) as one, hold_device(named(uuids)) as other:
        assert one != other


def test_without_devices_nothing_is_held():
    with hold_device([]) as one, hold_device([]) as other:
        assert one is None
        assert other is None


def test_devices_are_those_that_the_driver_shows(monkeypatch):
    class Driver:
        """The calls that are used, with the results that NVIDIA's own module gives."""

        error = 0

        def cuInit(self, flags: int):
            return (self.error,)

        def cuDeviceGetCount(self):
            return 0, 2

        def cuDeviceGet(self, ordinal: int):
            return 0, f"device {ordinal}"

        def cuDeviceGetUuid(self, device: str):
            uuid = bytes([int(device[-1])] * 16)
            return 0, types.SimpleNamespace(bytes=uuid)

    driver = Driver()
    bindings = types.SimpleNamespace(driver=driver)
    monkeypatch.setitem(sys.modules, "cuda.bindings", bindings)
    assert find_devices() == [Device(0, "00" * 16), Device(1, "01" * 16)]
    driver.error = 100  # CUDA_ERROR_NO_DEVICE
    assert find_devices() == []
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)  # a build for CPUs has no such module
    assert find_devices() == []


@pytest.fixture
def cuda(monkeypatch) -> list[int]:
    """CUDA that can be used, it says; the numbers of the devices that were made the default."""
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    return chosen


def test_the_device_that_is_held_is_computed_on(cuda):
    assert choose_device("auto", 3) == torch.device("cuda", 3)
    assert choose_device("cuda", 1) == torch.device("cuda", 1)
    assert cuda == [3, 1]
    assert choose_device("cpu", 2) == torch.device("cpu")
    assert cuda == [3, 1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_a_gpu_that_cannot_be_used_is_told_of(monkeypatch, caplog):
    assert choose_device() == torch.device("cpu")
    assert caplog.text == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert choose_device() == torch.device("cpu")
    assert "CUDA_VISIBLE_DEVICES=0" in caplog.text
    with pytest.raises(UserError, match="no CUDA device can be used"):
        choose_device("cuda")


# What Python imports first in each process: the list of devices that is given.
GIVEN = """
import os, sys
if "extract.py" in " ".join(sys.orig_argv):
    sys.path.insert(0, {scripts!r})
    from videofeatures.networks import devices
    names = os.environ["GIVEN_DEVICES"].split()
    devices.find_devices = lambda: [devices.Device(k, name) for k, name in enumerate(names)]
"""


class WithDevices(Workflow):
    """A workflow whose jobs see the devices that are given."""

    def __init__(self, folder: Path, shared_weights: Path, uuids: list[str]):
        super().__init__(folder, shared_weights)
        (folder / "given").mkdir()
        given = GIVEN.format(scripts=str(folder / "scripts"))
        (folder / "given" / "sitecustomize.py").write_text(given)
        paths = {"PYTHONPATH": str(folder / "given"), "GIVEN_DEVICES": " ".join(uuids)}
        self.environment = os.environ | paths

    def processes(self) -> list[tuple[str, float, float]]:
        """Of each job that ended: its device, when it began, and when it ended."""
        return [
            (line["device_uuid"], lines[0]["time"], lines[-1]["time"])
            for lines in self.records_by_process()
            for line in lines
            if line["status"] == "device" and lines[-1]["status"] == "end"
        ]


def assert_none_at_once(processes: list[tuple[str, float, float]]) -> None:
    """No two jobs were on one device at the same time."""
    for device in {device for device, _, _ in processes}:
        spans = sorted((begin, end) for name, begin, end in processes if name == device)
        ends = [end for _, end in spans]
        assert all(end <= begin for end, (begin, _) in zip(ends, spans[1:], strict=False))


def test_jobs_of_one_run_have_a_device_each(tmp_path, real_weights, uuids):
    workflow = WithDevices(tmp_path, real_weights, uuids)
    clips = [make_clip(tmp_path / f"{k}.mp4", seconds=20, rate=5) for k in range(4)]
    workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
    # Fewer rows than `videos_per_job`.
    assert "4 pending in 2 jobs" in workflow.run("--resources", "gpu=2").stderr
    # The second job would have taken the first one's device, had that one been free again.
    assert sorted(device for device, _, _ in workflow.processes()) == uuids


def test_two_runs_share_the_devices_of_a_machine(tmp_path, real_weights, uuids):
    """Each would use both; one of them has long begun."""
    runs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        workflow = WithDevices(tmp_path / name, real_weights, uuids)
        clips = [
            make_clip(tmp_path / name / f"{k}.mp4", seconds=40, rate=5, size="128x128")
            for k in range(4)
        ]
        workflow.write_rows(*[(clip, f"features/{clip.stem}.npy") for clip in clips])
        runs.append(workflow)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = runs[0].command("--resources", "gpu=2", decoders=1)
    first = start_session(command, runs[0].folder, env=runs[0].environment, **quiet)
    wait_for(lambda: list((runs[0].folder / "results" / "records").glob("*.jsonl")))
    runs[1].run("--resources", "gpu=2")
    assert first.wait(120) == 0
    processes = runs[0].processes() + runs[1].processes()
    assert len(processes) == 4
    assert {device for device, _, _ in processes} == set(uuids)
    assert_none_at_once(processes)
