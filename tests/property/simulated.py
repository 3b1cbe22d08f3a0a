"""Simulated nodes for property tests: nothing takes time, and modes are set as somebody else would."""

from __future__ import annotations

import contextlib

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.domain.gpu import Observed
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.plan import Plan, StepKind
from aimd.errors import DriverError
from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state

TIMES = {"switch_seconds": 0.0, "rebuild_seconds": 0.0, "reap_seconds": 0.0}


class Bench:
    """A simulated node with the real adapter on it.

    `memory` is set before the driver is loaded (by the firmware's setup, say), which then chooses the compute modes;
    `compute` are written afterwards, as far as the driver takes them.
    """

    def __init__(
        self, model: str, profile: str, memory: MemoryMode, compute: list[ComputeMode | None], *, one_hive: bool = True
    ) -> None:
        state = new_state(model, len(compute), profile, **TIMES)
        for number, gpu in enumerate(state.gpus):
            gpu.memory = memory
            if not one_hive:
                gpu.hive_id = 1 + number // 2
        self.node = SimulatedNode(state)
        self.driver = AmdgpuDriver(self.node, lambda _pid: None)
        self.addresses = self.node.gpu_addresses
        for address, mode in zip(self.addresses, compute, strict=True):
            if mode is not None:
                with contextlib.suppress(DriverError):
                    self.driver.set_compute_mode(address, mode)

    def scan(self) -> Observed:
        return self.driver.scan()

    def reload(self) -> None:
        assert self.node.act(lambda driver, now: driver.reload(now)) == 0

    def carry_out(self, planned: Plan) -> None:
        """Plain driver writes, and a driver reload after a memory step; raises DriverError."""
        for step in planned.steps:
            if step.kind is StepKind.MEMORY:
                assert step.after.memory is not None
                self.driver.request_memory_mode(step.gpu, step.after.memory)
                self.reload()
            else:
                assert step.after.compute is not None
                self.driver.set_compute_mode(step.gpu, step.after.compute)
