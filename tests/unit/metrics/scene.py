"""A node as it is after a story that is always the same: the view of it, and the text of its page.

python -m tests.unit.metrics.scene        writes golden.txt anew, to be looked at as a diff
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

from aimd.adapters.metrics.collector import NodeCollector
from aimd.adapters.metrics.instruments import Instruments
from aimd.adapters.metrics.render import Renderer
from aimd.adapters.metrics.view import View
from aimd.daemon.metering import meter_of
from aimd.daemon.sampling import readings_of
from aimd.dispatch.core import NativeCore, cell_value, cells_of, histograms_of
from aimd.dispatch.values import SECOND, Class, Limits, ModelConfig, Outcome, PartitionConfig
from aimd.domain.accounting import ProbedGpu
from aimd.domain.claim import ClaimSpec, QosClass, Slo
from aimd.domain.ledger import HolderRecord
from aimd.domain.metering import BUCKETS_SECONDS, DispatchReading, PartitionMeter, PodPlace, Telemetry
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.probe import PartitionMemory, ProbeReport, ProbeState
from aimd.domain.traffic import TrafficBoard
from aimd.planning.history import TrafficHistory
from tests.fakes.node import ADDRESSES, running_node
from tests.unit.metrics.cluster_scene import standing

GOLDEN = Path(__file__).with_name("golden.txt")
HEADER = "# A page of the node that scene.py tells of. Written by: python -m tests.unit.metrics.scene\n"
GIB = 1 << 30
LLAMA, EMBED = 1, 2
POD = "11111111-2222-3333-4444-555555555555"


async def _snapshot() -> NodeSnapshot:
    """gpu0 in CPX with two models on its first partition, gpu1 whole and draining; a process holds llama."""
    async with running_node() as node:
        await node.switch((0, "CPX/NPS1"))
        slo = Slo(latency_seconds=0.1, objective=0.99, throughput_floor=5.0)
        await node.loop.claim("llama", ClaimSpec(12 * 1024, QosClass.HIGH, guarantee=1, slo=slo), uid=0)
        await node.loop.claim("embed", ClaimSpec(6 * 1024, QosClass.LOW), uid=0)
        await node.loop.set_draining(ADDRESSES[1], draining=True)
        return await node.until(lambda snapshot: snapshot.gpus[1].draining and len(snapshot.claims) == 2)


def used_core() -> NativeCore:
    """llama: three in time, one late, one failed, one that waited too long, one waits; embed: nothing."""
    core = NativeCore(Limits(partitions=8, models=16))
    models = (
        ModelConfig(LLAMA, guarantee=1, latency_target_ns=SECOND // 10, budget_ns=(SECOND, SECOND, SECOND)),
        ModelConfig(EMBED),
    )
    core.configure(0, 0, PartitionConfig(models, capacity=1))
    connection, now = core.open(1), 0
    for number, (took, ok) in enumerate(((0.02, True), (0.03, True), (0.04, True), (0.4, True), (0.05, False))):
        [event] = core.acquire(now, connection, number + 1, 0, LLAMA, Class.HIGH)
        now += round(took * SECOND)
        core.release(now, connection, event[3], ok)
    core.acquire(now, connection, 6, 0, LLAMA, Class.HIGH)
    core.acquire(now, connection, 7, 0, LLAMA, Class.HIGH)
    now += 2 * SECOND
    core.advance(now)
    core.acquire(now, connection, 8, 0, LLAMA, Class.MEDIUM)
    core.advance(now + SECOND // 4)
    return core


def reading(snapshot: NodeSnapshot) -> tuple[DispatchReading, TrafficBoard]:
    core = used_core()
    counters = core.snapshot()
    status = snapshot.gpus[0]
    key = PartitionKey(status.gpu.pci_address, 0, status.mode_epoch)
    histograms = {
        each.model: each for each in histograms_of(core._histograms([round(b * SECOND) for b in BUCKETS_SECONDS]))
    }
    names = {LLAMA: ("llama", QosClass.HIGH), EMBED: ("embed", QosClass.LOW)}
    [partition] = counters.partitions
    meters = tuple(meter_of(key, *names[m.model], m, histograms[m.model]) for m in partition.models)
    acquires = {one.name.lower(): 0 for one in Outcome} | {"granted": 6, "expired": 1}
    socket = dict.fromkeys(("connections", "accepted", "refused", "given_up", "frames", "faults"), 1)
    found = DispatchReading(
        (PartitionMeter(key, 1, partition.running, partition.waiting, 4096, closed=False),),
        meters,
        acquires,
        {"llama": {"expired": 1, "shed": 0}, "embed": {"expired": 0, "shed": 0}},
        socket,
        {"unknown_model": 1, "unknown_partition": 0, "unauthorised": 0, "draining": 0},
    )
    served = {(0, number): (key, name) for number, (name, _) in names.items()}
    readings = readings_of(served, counters, cells_of(core._latencies()))
    history = TrafficHistory(lambda cell: cell_value(cell) / SECOND)
    return found, history.read(snapshot.claims, readings, counters.now / SECOND, 1e9)


def view() -> View:
    snapshot = asyncio.run(_snapshot())
    gpu, index = snapshot.claims[0].assignments[0].place
    holder = HolderRecord("llama", 0, 4711, 1, "serve", gpu=gpu, index=index, mode_epoch=snapshot.gpus[0].mode_epoch)
    told = ProbeReport(
        ADDRESSES[0], ProbeState.READ, partitions=tuple(PartitionMemory(n, n * GIB, 24 * GIB) for n in range(8))
    )
    asked = {
        ADDRESSES[0]: ProbedGpu(told, 1.0, snapshot.gpus[0].mode_epoch),
        ADDRESSES[1]: ProbedGpu(ProbeReport(ADDRESSES[1], ProbeState.HELD), 1.0, snapshot.gpus[1].mode_epoch),
    }
    snapshot = replace(snapshot, claim_holders=(holder,), memory=replace(snapshot.memory, gpus=asked))
    dispatch, board = reading(snapshot)
    return View(
        version="0.1.0",
        snapshot=snapshot,
        dispatch=dispatch,
        board=board,
        telemetry=Telemetry(
            {(ADDRESSES[0], 0): 0.25}, {ADDRESSES[0]: {"xcp_metrics": True}, ADDRESSES[1]: {"gpu_metrics": False}}
        ),
        pods=(PodPlace(POD, "llama", gpu, index),),
        simulated=True,
        checks=("inventory", "ledger", "loop"),
        failing={"ledger": "disk full"},
        overdue_seconds=0.5,
        reading_seconds={"dispatch": 0.001, "pods": 0.0001},
        unreadable=frozenset({"telemetry"}),
        cluster=standing(),
    )


def instruments() -> Instruments:
    meters = Instruments()
    meters.operation("assign", "ok")
    meters.operation("switch", "committed")
    meters.mode_changed(
        ADDRESSES[0], PartitionMode.parse("SPX/NPS1"), PartitionMode.parse("CPX/NPS1"), "committed", 2.0
    )
    meters.decided(0.0002)
    meters.committed(0.003, ok=True)
    meters.committed(0.1, ok=False)
    meters.recovered("ledger_quarantined")
    meters.reloaded(ok=False)
    meters.lagged(0.004)
    return meters


def page(*, openmetrics: bool = False) -> str:
    families = list(NodeCollector(instruments(), process=False).families(view()))
    return Renderer().render(families, openmetrics=openmetrics).decode()


if __name__ == "__main__":
    GOLDEN.write_text(HEADER + page())
