"""Totals to the byte and free memory by the driver's formula, with two real processes that hold memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from errno import EINVAL, ESRCH
from pathlib import Path

import pytest

from aimd.domain.probe import ProbeState
from aimd.sim.memory import GRANULE, allocate, available, page_table_reserve, release
from aimd.sim.node import SimulatedNode
from aimd.sim.state import SimClient, new_state
from tests.hip.simulated import ADDRESSES, client, free_by_formula, node_in, probe_of

GIB = 1 << 30
WHOLE = 206141652992
# By hardware notes, section 3.
TOTALS = {
    ("mi300x", "SPX/NPS1"): [WHOLE],
    ("mi300x", "CPX/NPS1"): [25767706624] * 8,
    ("mi300x", "CPX/NPS4"): [25769803776] * 6 + [25761415168] * 2,
    ("mi308x", "CPX/NPS4"): [51539607552] * 3 + [51522830336],
}
PINNED, RAS, RAM_GIB = 37_000_001, 5_000_000, 1536
# Free on the first partition, empty and with both clients, worked out by hand: 119.998 MiB of page tables.
FREE = {
    ("mi300x", "SPX/NPS1"): (205971783680, 197377654784 - GRANULE),  # the second's little allocation is there, too
    ("mi300x", "CPX/NPS1"): (25597837312, 17003708416),
    ("mi300x", "CPX/NPS4"): (25599934464, 17005805568),
    ("mi308x", "CPX/NPS4"): (51369738240, 42775609344),
}
FIRST, SECOND = [5 * GIB + 1, 3, GIB], [2 * GIB, 4097]  # bytes that the two processes allocate


@pytest.mark.parametrize(("model", "mode"), TOTALS)
def test_totals_and_free_memory(stubs, tmp_path: Path, model: str, mode: str) -> None:
    totals, library = TOTALS[model, mode], stubs.build()
    settings = {"pinned_bytes": PINNED, "ras_bytes": RAS, "system_memory_gib": RAM_GIB}
    last = len(totals) - 1
    with node_in(tmp_path, model, mode, count=2, **settings) as (node, socket):
        ask = lambda: asyncio.run(_probe(node, socket, library))  # noqa: E731
        before = ask()
        # Of the clients' devices those of the first GPU: where it alone was switched, they come after the second's one.
        offset = 0 if mode.endswith("NPS4") or mode.startswith("SPX") else 1
        first = [f"{offset}:{size}" for size in FIRST]
        second = [f"{offset}:{SECOND[0]}", f"{offset + last}:{SECOND[1]}"]
        with client(library, socket, *first) as one, client(library, socket, *second) as other:
            held = ask()
            listed = [counted(node, process.pid) for process in (one, other)]
    reserve = {"pinned": PINNED, "ras": RAS, "ram": RAM_GIB * GIB, "vram": 2 * WHOLE}
    taken: list[list[int]] = [[] for _ in totals]
    taken[0] += [*FIRST, SECOND[0]]
    taken[last].append(SECOND[1])
    assert (before.partitions[0].free_bytes, held.partitions[0].free_bytes) == FREE[model, mode]
    assert [each.total_bytes for each in held.partitions] == totals
    assert [each.free_bytes for each in before.partitions] == [free_by_formula(size, [], **reserve) for size in totals]
    assert [each.free_bytes for each in held.partitions] == [
        free_by_formula(size, sizes, **reserve) for size, sizes in zip(totals, taken, strict=True)
    ]
    # KFD's counter has pages, the free memory has granules of 2 MiB and, in every partition, all of the reserves.
    assert listed == [5 * GIB + 4096 + 4096 + GIB, 2 * GIB + 8192]
    missing = sum(totals) - sum(each.free_bytes for each in before.partitions)
    reserves = PINNED + RAS + max((RAM_GIB * GIB + 2 * WHOLE) >> 14, 8 << 20)
    assert 0 <= missing - len(totals) * reserves < len(totals) * GRANULE


def counted(node, pid: int) -> int:
    """Bytes of the process on all partitions, by KFD's counters."""
    folder = f"class/kfd/kfd/proc/{pid}"
    return sum(int(node.read(f"{folder}/{name}")) for name in node.listdir(folder) if name.startswith("vram_"))


async def _probe(node, socket: Path, library: Path):
    report = await probe_of(node, socket, library).probe(ADDRESSES[0])
    assert report.state is ProbeState.READ, report
    return report


def test_page_tables_take_a_share_of_all_memory() -> None:
    """The example of the hardware notes: 2 TiB and eight GPUs of 192 GiB keep back about 224 MiB."""
    state = new_state("mi300x", 8)
    assert page_table_reserve(state) == (2048 * GIB + 8 * WHOLE) >> 14
    assert page_table_reserve(state) >> 20 == 223
    state.system_memory_gib = 0
    state.gpus = state.gpus[:0]
    assert page_table_reserve(state) == 8 << 20


def test_an_allocation_fails_where_the_driver_would_refuse_it(stubs, tmp_path: Path) -> None:
    script = """
import ctypes, sys
hip = ctypes.CDLL(sys.argv[1])
address, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
def told():
    assert hip.hipMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value
before = told()
codes = [hip.hipMalloc(ctypes.byref(address), ctypes.c_size_t(size)) for size in (total.value, before + (4 << 20), before)]
after = told()
codes += [hip.hipFree(address), hip.hipFree(ctypes.c_void_p(1)), hip.hipFree(None), hip.hipMalloc(None, 1)]
print(codes, after < 4 << 20, told() == before)
"""
    with node_in(tmp_path) as (_, socket):
        done = subprocess.run(
            [sys.executable, "-c", script, str(stubs.build())],
            env={"AIMD_SIM_SOCKET": str(socket)},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.stdout == "[2, 2, 0, 0, 1, 0, 1] True True\n", done.stderr


def test_memory_of_nobody_and_of_foreign_partitions() -> None:
    node = SimulatedNode(new_state("mi300x", 2))
    state = node._driver.state
    first, second = state.nodes
    state.clients.append(SimClient(1, 1, {first.gpu_id: 0}, [first.address]))
    assert allocate(state, 2, first.gpu_id, 1) == release(state, 2, first.gpu_id, 1) == ESRCH
    assert allocate(state, 1, second.gpu_id, 1) == EINVAL
    assert release(state, 1, first.gpu_id, 1) == EINVAL
    whole = available(state, first)
    assert allocate(state, 1, first.gpu_id, 1) == 0
    assert state.clients[0].vram == {first.gpu_id: 4096}
    assert whole - available(state, first) == GRANULE
    assert release(state, 1, first.gpu_id, 1) == 0
    assert available(state, first) == whole
