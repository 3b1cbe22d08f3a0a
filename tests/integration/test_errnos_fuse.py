"""The core rows of the errno table through a real mount: the unmodified adapter, system calls, a daemon on top.

The driver lives in another process, its events are not heard: what happens there is found by the poll.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.amdgpu.sysfs import OsSysfs
from aimd.adapters.processes import command_of
from aimd.domain.gpu import GpuState
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.planning.policy import Policy
from tests.fakes.node import ADDRESSES, RunningNode, fast_state, running_node
from tests.integration.sim.sim_processes import kfd_client, mounted
from tests.integration.stories import begin, refused, story, told


@pytest.fixture(scope="module", params=["7.2", "6.12"])
def mount_of_module(request, requires_fuse, tmp_path_factory):
    options = ("--model", "mi300x:2", "--profile", request.param)
    with mounted(tmp_path_factory.mktemp("mount"), *options) as mount:
        mount.profile = request.param
        yield mount


@pytest.fixture
def mount(mount_of_module):
    with mount_of_module.client() as client:
        client.reboot()
    return mount_of_module


@contextlib.asynccontextmanager
async def daemon_on(mount) -> AsyncIterator[RunningNode]:
    """A daemon whose adapter reads and writes the mount as it would /sys; its own simulated node is not looked at."""
    driver = AmdgpuDriver(OsSysfs(Path(mount.root)), command_of)
    policy = Policy(wait_seconds=5.0, settle_seconds=5.0, allow_memory_mode_change=True)
    async with running_node(fast_state(count=1), driver=driver, policy=policy, boot_id="mounted") as node:
        yield node


def partitions(node: RunningNode) -> list[int]:
    return [len(status.gpu.partitions) for status in node.snapshot.gpus]


def mode_files(mount) -> list[str]:
    return [Path(mount.device("current_compute_partition", gpu)).read_text().strip() for gpu in ADDRESSES[:2]]


def nodes_of(mount, gpu: int = 0) -> int:
    """KFD nodes of the GPU, counted in the mount."""
    folders = Path(mount.root, "class/kfd/kfd/topology/nodes").iterdir()
    texts = [(folder / "properties").read_text() for folder in folders]
    bus = int(ADDRESSES[gpu][5:7], 16)
    locations = [int(text.split("location_id ")[1].split("\n")[0]) for text in texts if "\nsimd_count 0\n" not in text]
    return sum(location >> 8 == bus for location in locations)


@story
async def test_a_switch_that_goes_well(mount):
    async with daemon_on(mount) as node:
        change = await node.switch((0, "CPX"), (1, "QPX"))
        assert change.state is S.COMMITTED
        assert partitions(node) == [8, 4]
        assert mode_files(mount) == ["CPX", "QPX"]
        assert (nodes_of(mount, 0), nodes_of(mount, 1)) == (8, 4)


@story
async def test_busy_by_a_client_until_it_leaves(mount):
    async with daemon_on(mount) as node:
        with kfd_client(mount.socket, "gpu0") as child:
            await begin(node, (0, "CPX"), wait=20.0)
            switch = await told(node, lambda s: s.message is not None)
            assert switch.state is S.WAITING
            assert f"pid {child.pid} (" in (switch.message or "")
            assert mode_files(mount) == ["SPX", "SPX"]
        assert (await node.ended("c1")).state is S.COMMITTED
        assert partitions(node) == [8, 1]


@story
async def test_busy_at_the_write_is_tried_again(mount):
    with mount.client() as client:
        client.fault("busy", "gpu0", remaining=2)
    async with daemon_on(mount) as node:
        change = await node.switch((0, "CPX"), wait=5.0)
        assert (change.state, change.switches[0].attempts) == (S.COMMITTED, 2)


@story
async def test_busy_by_a_client_of_another_gpu_is_busy_with_an_old_driver_alone(mount):
    async with daemon_on(mount) as node:
        with kfd_client(mount.socket, "gpu1") as child:
            change = await node.switch((0, "CPX"), wait=0.5)
            if mount.profile == "7.2":
                assert change.state is S.COMMITTED
            else:
                assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.GPU_BUSY)
                assert f"pid {child.pid} (" in (change.switches[0].message or "")
                assert "any process of the node" in (change.switches[0].message or "")


@story
async def test_a_mode_that_does_not_fit_is_refused_as_the_driver_would(mount):
    async with daemon_on(mount) as node:
        with pytest.raises(OSError, match="Invalid argument"):
            OsSysfs(Path(mount.root)).write(f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition", b"TPX")
        assert (await refused(node, (0, "TPX"))).code == Reason.MODE_NOT_AVAILABLE
        assert mode_files(mount) == ["SPX", "SPX"]


@pytest.mark.parametrize(
    ("kind", "words"), [("access-denied", "may not be written"), ("read-only", "mounted read-only")]
)
@story
async def test_a_file_that_may_not_be_written(mount, kind, words):
    with mount.client() as client:
        client.fault(kind, "gpu0", remaining=None)
    async with daemon_on(mount) as node:
        change = await node.switch((0, "CPX"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.NOT_PERMITTED)
        assert words in (change.switches[0].message or "")


@story
async def test_a_silent_refusal_of_the_firmware_is_rolled_back(mount):
    with mount.client() as client:
        client.fault("firmware-refusal", "gpu0")
    async with daemon_on(mount) as node:
        change = await node.switch((0, "CPX"))
        assert (change.state, change.switches[0].reason) == (S.FAILED, Reason.FIRMWARE_REFUSED)
        assert mode_files(mount) == ["SPX", "SPX"]
        assert nodes_of(mount) == 1


@story
async def test_a_gpu_that_the_driver_cannot_bring_up_again(mount):
    with mount.client() as client:
        client.fault("kfd-failure", "gpu0")
    async with daemon_on(mount) as node:
        change = await node.switch((0, "CPX"))
        assert (change.state, change.switches[0].reason) == (S.NEEDS_OPERATOR, Reason.DRIVER_FAILED)
        await node.until(lambda s: s.gpus[0].gpu.state is GpuState.LOST)
        assert nodes_of(mount) == 0
        with mount.client() as client:
            client.reload()
        await node.until(lambda s: s.gpus[0].gpu.state is GpuState.READY)


@story
async def test_a_reset_is_waited_for(mount):
    async with daemon_on(mount) as node:
        with mount.client() as client:
            client.fault("reset", "gpu0", seconds=1.5)
        change = await node.switch((0, "CPX"), wait=20.0)
        assert change.state is S.COMMITTED
        assert change.switches[0].attempts > 0


@story
async def test_a_memory_mode_is_completed_by_a_load_that_the_poll_finds(mount):
    async with daemon_on(mount) as node:
        if mount.profile != "7.2":
            assert (await refused(node, (0, "QPX/NPS4"))).code == Reason.MODE_NOT_AVAILABLE
            return
        change = await node.switch((0, "QPX/NPS4"))
        assert change.state is S.AWAITING_RELOAD
        with mount.client() as client:
            client.reload()
        await node.until(lambda s: (c := s.change(change.name)) is not None and c.state is S.COMMITTED)
        assert partitions(node) == [4, 8]
        assert mode_files(mount) == ["QPX", "CPX"]
