"""Which file tells how busy a partition is, by driver and mode, on simulated nodes; and what happens when none does."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.amdgpu.telemetry import AmdgpuTelemetry
from aimd.domain.metering import Telemetry
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.errors import DriverError
from aimd.ports import Sysfs
from aimd.sim.activity import SMOOTHING_SECONDS, set_work
from aimd.sim.metrics_tables import gpu_metrics
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimFault, SimState, new_state

GPU = "0000:05:00.0"
PID = 4711


class Node:
    """A simulated node, a process that computes on it, and the daemon's view of it."""

    def __init__(self, state: SimState) -> None:
        self.now = 100.0
        self.sim = SimulatedNode(state, clock=lambda: self.now, sleep=self.sleep)
        self.state = state

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def switch(self, mode: str) -> None:
        self.sim.write(f"bus/pci/drivers/amdgpu/{GPU}/current_compute_partition", mode.encode())

    def compute(self, *shares: float) -> None:
        """Keep the first GPU's partitions busy, and wait until the hardware's figures are steady."""
        nodes = [node for node in self.state.nodes if node.address == GPU]
        assert self.sim.act(lambda driver, now: driver.join(PID, 1, now)) == 0
        for node, share in zip(nodes, shares, strict=False):
            assert set_work(self.state, PID, node.gpu_id, share, self.now) == 0
        self.now += 40 * SMOOTHING_SECONDS

    def snapshot(self, **changes: object) -> NodeSnapshot:
        gpus = AmdgpuDriver(self.sim, lambda _pid: None).scan().gpus
        return NodeSnapshot(gpus=tuple(GpuStatus(n, gpu, **changes) for n, gpu in enumerate(gpus)))

    def telemetry(self, sysfs: object = None) -> Telemetry:
        return AmdgpuTelemetry(sysfs or self.sim).read(self.snapshot())


class Without:
    """ports.Sysfs in which files of a name answer an errno."""

    def __init__(self, sim: Sysfs, name: str, code: int, content: bytes | None = None) -> None:
        self._sim, self._name, self._code, self._content = sim, name, code, content
        self.asked: list[str] = []

    def read(self, path: str) -> bytes:
        self.asked.append(path)
        if path.endswith(self._name):
            if self._content is not None:
                return self._content
            raise OSError(self._code, os.strerror(self._code), path)
        return self._sim.read(path)

    def listdir(self, path: str) -> list[str]:
        return self._sim.listdir(path)


def node(profile: str = "7.2", mode: str = "SPX", version: str | None = None, count: int = 1) -> Node:
    state = new_state("mi300x", count, profile)
    state.gpu_metrics = version
    found = Node(state)
    if mode != "SPX":
        found.switch(mode)
    return found


def shares(told: Telemetry, gpu: str = GPU) -> dict[int, float]:
    return {index: share for (address, index), share in told.utilization.items() if address == gpu}


@pytest.mark.parametrize("mode", ["SPX", "DPX", "QPX", "CPX"])
def test_a_newer_driver_tells_by_partition(mode: str) -> None:
    there = node("7.2", mode)
    there.compute(0.75, 0.25)
    told = there.telemetry()
    count = {"SPX": 1, "DPX": 2, "QPX": 4, "CPX": 8}[mode]
    assert shares(told) == dict(enumerate((0.75, 0.25, *(0.0,) * 6)[:count]))
    assert told.sources == {GPU: {"xcp_metrics": True}}, "nothing else was looked for"


@pytest.mark.parametrize("profile", ["6.8", "6.12"])
def test_an_older_driver_tells_of_the_whole_gpu_alone(profile: str) -> None:
    there = node(profile)
    there.compute(0.6)
    told = there.telemetry()
    assert shares(told) == {0: 0.6}
    assert told.sources == {GPU: {"xcp_metrics": False, "gpu_metrics": True}}
    there = node(profile, "CPX")
    there.compute(0.6)
    told = there.telemetry()
    assert shares(told) == {}, "unknown is absent, not 0"
    assert told.sources == {GPU: {"xcp_metrics": False, "gpu_metrics": False}}


@pytest.mark.parametrize("version", ["1.6", "1.7", "1.8", "1.9"])
@pytest.mark.parametrize("mode", ["SPX", "QPX", "CPX"])
def test_a_driver_between_them_tells_by_the_gpus_table(version: str, mode: str) -> None:
    there = node("6.12", mode, version)
    there.compute(0.75, 0.0, 0.5)
    told = there.telemetry()
    count = {"SPX": 1, "QPX": 4, "CPX": 8}[mode]
    assert shares(told) == dict(enumerate((0.75, 0.0, 0.5, *(0.0,) * 5)[:count]))
    assert told.sources == {GPU: {"xcp_metrics": False, "gpu_metrics": True}}


def test_each_gpu_is_its_own() -> None:
    there = node("7.2", "DPX", count=2)
    there.compute(0.5, 0.5)
    told = there.telemetry()
    assert (shares(told), shares(told, "0000:27:00.0")) == ({0: 0.5, 1: 0.5}, {0: 0.0})


def test_a_table_that_is_not_understood_is_unknown() -> None:
    there = node("6.12")
    told = there.telemetry(Without(there.sim, "gpu_metrics", 0, b"\x08\x00\x01\x63\0\0\0\0"))
    assert (shares(told), told.sources[GPU]) == ({}, {"xcp_metrics": False, "gpu_metrics": False})


def test_one_partition_of_many_that_is_not_told() -> None:
    """Its share is the GPU's table's, those of the others are their own files'."""
    there = node("7.2", "DPX")
    there.compute(0.5, 0.25)
    snapshot = there.snapshot()
    second = f"renderD{snapshot.gpus[0].gpu.partitions[1].render_minor}/device/xcp/xcp_metrics"
    table = Without(there.sim, "/gpu_metrics", 0, gpu_metrics("1.9", [0.9] * 4 + [0.3] * 4, 2))
    told = AmdgpuTelemetry(Without(table, second, 0, b"")).read(snapshot)
    assert shares(told) == {0: 0.5, 1: pytest.approx(0.3)}
    assert told.sources == {GPU: {"xcp_metrics": True, "gpu_metrics": True}}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EBUSY, errno.EIO])
def test_a_file_that_cannot_be_read_now_says_nothing_of_the_driver(code: int) -> None:
    there = node("6.12")
    there.compute(0.5)
    told = there.telemetry(Without(there.sim, "gpu_metrics", code))
    assert told == Telemetry({}, {GPU: {"xcp_metrics": False}})


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM])
def test_want_of_this_process_is_an_error(code: int) -> None:
    there = node()
    with pytest.raises(DriverError, match="telemetry could not be read"):
        there.telemetry(Without(there.sim, "xcp_metrics", code))


@pytest.mark.parametrize("profile", ["6.12", "7.2"])
def test_a_gpu_in_a_reset(profile: str) -> None:
    there = node(profile)
    snapshot = there.snapshot()
    there.sim.act(lambda driver, now: driver.inject(SimFault(FaultKind.RESET, GPU, 1, 5.0), now))
    assert AmdgpuTelemetry(there.sim).read(snapshot).utilization == {}
    there.now += 5
    assert shares(AmdgpuTelemetry(there.sim).read(snapshot)) == {0: 0.0}


def test_a_gpu_that_sleeps_is_left_alone() -> None:
    there = node("6.12")
    sysfs = Without(there.sim, "runtime_status", 0, b"suspended\n")
    assert there.telemetry(sysfs) == Telemetry()
    assert not [path for path in sysfs.asked if path.endswith("_metrics")]


def test_a_gpu_that_is_about_to_be_another_is_left_alone() -> None:
    there = node()
    assert AmdgpuTelemetry(there.sim).read(there.snapshot(change="job")) == Telemetry()
    snapshot = there.snapshot()
    (status,) = snapshot.gpus
    gone = replace(snapshot, gpus=(replace(status, gpu=replace(status.gpu, partitions=())),))
    assert AmdgpuTelemetry(there.sim).read(gone) == Telemetry()


def test_partitions_that_are_gone_when_they_are_read() -> None:
    """The node was switched since the snapshot: the first partition's file is there again, but of fewer XCCs."""
    there = node("7.2", "SPX")
    there.compute(0.5)
    snapshot = there.snapshot()
    there.sim.act(lambda driver, now: driver.leave(PID, now))
    there.now += 1
    there.switch("CPX")
    assert AmdgpuTelemetry(there.sim).read(snapshot).sources[GPU]["xcp_metrics"] is False
