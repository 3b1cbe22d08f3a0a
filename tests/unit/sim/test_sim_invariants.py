"""Whatever is done to a simulated driver, it stays a possible machine."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from aimd.domain.silicon import partition_count
from aimd.sim.driver import Blocked, Driver
from aimd.sim.hardware import MODELS, PROFILES
from aimd.sim.state import FaultKind, SimFault, dump, new_state, restore

GPUS = 3
WORDS = ["SPX", "DPX", "TPX", "QPX", "CPX", "cpx\n", "x"]
gpu = st.integers(0, GPUS - 1)
operation = st.one_of(
    st.tuples(st.just("compute"), gpu, st.sampled_from(WORDS)),
    st.tuples(st.just("memory"), gpu, st.sampled_from(["NPS1", "NPS2", "NPS4", "x"])),
    st.tuples(st.just("join"), st.integers(1, 3), st.one_of(st.none(), st.frozensets(gpu))),
    st.tuples(st.just("leave"), st.integers(1, 3), st.none()),
    st.tuples(st.just("pass"), st.floats(0, 2), st.none()),
    st.tuples(st.just("fault"), gpu, st.sampled_from(FaultKind)),
    st.tuples(st.just("reload"), gpu, st.none()),
    st.tuples(st.just("reboot"), gpu, st.none()),
    st.tuples(st.just("restart"), gpu, st.none()),
)


class Run:
    """A driver, its clock, and what must hold of it after each operation."""

    def __init__(self, model: str, profile: str) -> None:
        self.driver = Driver(new_state(model, GPUS, profile))
        self.now = 0.0
        self.driver.load()
        self.loads = 1
        self.last = (self.loads, self.driver.state.generation)

    def perform(self, kind: str, first: object, second: object) -> None:
        driver, addresses = self.driver, [gpu.address for gpu in self.driver.state.gpus]
        if kind == "compute":
            with contextlib.suppress(Blocked):
                assert driver.write_compute(addresses[first], second.encode(), self.now).until >= self.now
        elif kind == "memory":
            driver.write_memory(addresses[first], second.encode(), self.now)
        elif kind == "join":
            permitted = None if second is None else frozenset(addresses[g] for g in second)
            driver.join(first, 1, self.now, permitted=permitted)
        elif kind == "leave":
            driver.leave(first, self.now)
        elif kind == "pass":
            self.now += first
        elif kind == "fault":
            driver.inject(SimFault(second, addresses[first], 1, 0.5), self.now)
        elif kind == "reload":
            self.loads += driver.reload(self.now) == 0
        elif kind == "reboot":
            driver.reboot(self.now)
            self.loads += 1
        else:
            self.driver = Driver(restore(dump(driver.state)))

    def check(self) -> None:
        self.driver.settle(self.now)
        state = self.driver.state
        assert (self.loads, state.generation) >= self.last
        self.last = (self.loads, state.generation)
        for values in ([n.gpu_id for n in state.nodes], [n.render_minor for n in state.nodes]):
            assert len(set(values)) == len(values)
        assert all(0 < node.gpu_id < 1 << 16 for node in state.nodes)
        released = [client for client in state.clients if client.reap_at is not None and client.reap_at <= self.now]
        assert not released or any(gpu.reset_until is not None for gpu in state.gpus)
        for gpu in state.gpus:
            self.check_gpu(gpu.address)
        assert dump(restore(dump(state))) == dump(state)

    def check_gpu(self, address: str) -> None:
        state = self.driver.state
        gpu = state.gpu(address)
        nodes = [node for node in state.nodes if node.address == address]
        assert sum(node.memory_bytes for node in nodes) <= state.hardware.memory_bytes
        assert all(gpu.render_minors[node.index] == node.render_minor for node in nodes)
        assert sum(node.xcc_count for node in nodes) <= gpu.xcc_count
        if not gpu.bound or gpu.kfd_dead:
            assert nodes == []
        elif gpu.switching_until is None:
            count = partition_count(gpu.compute, gpu.xcc_count) or 1
            assert len(nodes) == sum(minor is not None for minor in gpu.render_minors[:count])
            assert [node.index for node in nodes] == list(range(len(nodes)))
        assert gpu.memory in state.hardware.memory_modes


@settings(max_examples=150)
@given(st.sampled_from(sorted(MODELS)), st.sampled_from(sorted(PROFILES)), st.lists(operation, max_size=25))
def test_any_sequence_of_operations_leaves_a_possible_machine(
    model: str, profile: str, operations: list[tuple[str, object, object]]
) -> None:
    run = Run(model, profile)
    run.check()
    for kind, first, second in operations:
        run.perform(kind, first, second)
        run.check()
