"""What cannot be read is not taken for absent: the last observation stays, with the errno, until it can be read again."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.processes import command_of
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.errors import DriverError
from aimd.planning import effects as fx
from aimd.planning.policy import Policy
from aimd.sim.node import SimulatedNode
from tests.fakes.node import fast_state, running_node
from tests.integration.stories import begin, join, leave, memory_requests, story, told

ALLOWED = Policy(wait_seconds=2.0, settle_seconds=2.0, allow_memory_mode_change=True)
TOPOLOGY = "class/kfd/kfd/topology"
CLIENTS = "class/kfd/kfd/proc"
ERRNOS = (errno.EMFILE, errno.EIO, errno.EACCES, errno.ENOMEM)


class FailingSysfs:
    """A simulated node of which paths that end in `suffix` answer `code` while it is not 0."""

    def __init__(self, sim: SimulatedNode) -> None:
        self._sim = sim
        self.suffix = ""
        self.code = 0

    def _check(self, path: str) -> None:
        if self.code and path.endswith(self.suffix):
            raise OSError(self.code, os.strerror(self.code), path)

    def read(self, path: str) -> bytes:
        self._check(path)
        return self._sim.read(path)

    def write(self, path: str, data: bytes) -> None:
        self._sim.write(path, data)

    def listdir(self, path: str) -> list[str]:
        self._check(path)
        return self._sim.listdir(path)

    def readlink(self, path: str) -> str:
        return self._sim.readlink(path)

    def writable(self, path: str) -> bool:
        return self._sim.writable(path)


def failing(suffix: str, code: int) -> tuple[FailingSysfs, AmdgpuDriver]:
    sysfs = FailingSysfs(SimulatedNode(fast_state()))
    sysfs.suffix, sysfs.code = suffix, code
    return sysfs, AmdgpuDriver(sysfs, command_of)


@pytest.mark.parametrize("code", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("suffix", ["/nodes", "/generation_id", "/proc"])
def test_a_scan_that_cannot_read_fails_with_the_errno(suffix, code):
    _, driver = failing(suffix, code)
    with pytest.raises(DriverError) as caught:
        driver.scan()
    assert caught.value.errno == code
    assert errno.errorcode[code] in caught.value.message
    assert "not loaded" not in caught.value.message


@pytest.mark.parametrize("suffix", ["/properties", "/gpu_id", "/mem_banks", "/current_compute_partition", "/numa_node"])
def test_want_of_descriptors_makes_no_gpu_look_poorer(suffix):
    _, driver = failing(suffix, errno.EMFILE)
    with pytest.raises(DriverError) as caught:
        driver.scan()
    assert caught.value.errno == errno.EMFILE


def test_a_file_of_a_gpu_that_cannot_be_read_is_unknown_and_told():
    _, driver = failing("05:00.0/numa_node", errno.EIO)
    observed = driver.scan()
    assert [gpu.numa_node for gpu in observed.gpus] == [None, 1]
    (warning,) = observed.warnings
    assert "0000:05:00.0/numa_node answers EIO" in warning


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV], ids=errno.errorcode.get)
def test_an_absent_list_of_clients_means_nobody(code):
    _, driver = failing("/proc", code)
    assert driver.holders() == ()


@pytest.mark.parametrize("code", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("suffix", ["/proc", "/proc/4242"])
def test_an_unreadable_list_of_clients_does_not_mean_nobody(suffix, code):
    sysfs, driver = failing(suffix, code)
    join(sysfs._sim, pid=4242)
    with pytest.raises(DriverError) as caught:
        driver.holders()
    assert caught.value.errno == code


@pytest.mark.parametrize("code", ERRNOS, ids=errno.errorcode.get)
@story
async def test_the_last_observation_stays_and_a_pending_memory_mode_stays_pending(code):
    sysfs, driver = failing("/nodes", 0)
    async with running_node(sysfs._sim, driver=driver, policy=ALLOWED) as node:
        await node.switch((1, "DPX"))
        assert (await node.switch((0, "CPX/NPS4"), name="n")).state is S.AWAITING_RELOAD
        epochs = [status.mode_epoch for status in node.snapshot.gpus]
        sysfs.code = code
        node.loop.post(fx.DriverChanged("gpu_reset", None))
        snapshot = await node.until(lambda s: bool(s.warnings))
        assert errno.errorcode[code] in snapshot.warnings[0]
        assert [len(status.gpu.partitions) for status in snapshot.gpus] == [1, 2]
        sysfs.code = 0
        await node.until(lambda s: not s.warnings)
        await asyncio.sleep(0.1)
        assert [status.mode_epoch for status in node.snapshot.gpus] == epochs
        assert node.snapshot.change("n").state is S.AWAITING_RELOAD
        assert memory_requests(sysfs._sim) == ["NPS4", "NPS4"]


@story
async def test_a_generation_that_cannot_be_read_is_no_driver_load():
    sysfs, driver = failing("/generation_id", 0)
    async with running_node(sysfs._sim, driver=driver, policy=ALLOWED) as node:
        await node.switch((0, "CPX/NPS4"), name="n")
        sysfs.code = errno.EMFILE
        await node.until(lambda s: bool(s.warnings))
        sysfs.code = 0
        await node.until(lambda s: not s.warnings)
        await asyncio.sleep(0.1)
        assert node.snapshot.change("n").state is S.AWAITING_RELOAD


@story
async def test_a_switch_waits_until_the_clients_can_be_listed():
    sysfs, driver = failing("/proc", 0)
    async with running_node(sysfs._sim, driver=driver) as node:
        pid = join(sysfs._sim, 0)
        await begin(node, (0, "CPX"))
        await told(node, lambda switch: switch.reason is Reason.GPU_BUSY)
        sysfs.code = errno.EMFILE
        switch = await told(node, lambda switch: "EMFILE" in (switch.message or ""))
        assert switch.state is S.WAITING
        leave(sysfs._sim, pid)
        sysfs.code = 0
        assert (await node.ended("c1")).state is S.COMMITTED


@story
async def test_a_switch_fails_at_its_deadline_if_the_clients_can_never_be_listed():
    sysfs, driver = failing("/proc", 0)
    async with running_node(sysfs._sim, driver=driver) as node:
        sysfs.code = errno.EIO
        await begin(node, (0, "CPX"), wait=0.2)
        change = await node.ended("c1")
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.DEADLINE_EXCEEDED)
        assert "EIO" in (change.switches[0].message or "")
