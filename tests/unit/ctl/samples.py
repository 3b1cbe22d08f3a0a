"""Messages that the tests of aimctl show: a divided GPU, one that drifts, and one of which nothing can be read."""

from __future__ import annotations

import msgspec

from aimd.protocol.claims import AssignmentMessage, ClaimMessage, EnvironmentMessage, SloMessage
from aimd.protocol.memory import ClaimUseMessage, FindingMessage, PartitionDetailMessage, ProcessUseMessage
from aimd.protocol.messages import (
    BlockerMessage,
    ChangeMessage,
    EventMessage,
    GpuMessage,
    HealthMessage,
    HolderMessage,
    InventoryMessage,
    LeftBehindMessage,
    NodeMessage,
    PartitionMessage,
    PlanMessage,
    ProbeMessage,
    RefusalMessage,
    StepMessage,
    SwitchMessage,
)
from aimd.protocol.models import (
    BurnMessage,
    ComplianceMessage,
    FlowMessage,
    ModelMessage,
    ModelPlaceMessage,
    QuantilesMessage,
    TrafficMessage,
)
from tests.fakes.api import World

GPU0, GPU1, GPU2 = "0000:05:00.0", "0000:26:00.0", "0000:46:00.0"


def partition(gpu: str, address: str, index: int, *, divided: bool) -> PartitionMessage:
    return PartitionMessage(
        id=f"{address}/{index}",
        name=f"{gpu}/{index}",
        gpu=gpu,
        pci_address=address,
        index=index,
        compute_mode="DPX" if divided else "SPX",
        memory_mode="NPS1",
        xcc_count=4 if divided else 8,
        compute_units=152 if divided else 304,
        memory_bytes=103070826496 if divided else 206141652992,
        render_minor=128 + index,
        mode_epoch=2,
    )


def known_gpu(name: str, address: str, *, divided: bool) -> GpuMessage:
    return GpuMessage(
        name=name,
        pci_address=address,
        model="MI300X",
        device_id="0x74a1",
        state="ready",
        compute_mode="DPX" if divided else "SPX",
        memory_mode="NPS1",
        reported_compute_mode="DPX",
        available_compute_modes=["SPX", "DPX", "QPX", "CPX"],
        available_memory_modes=["NPS1", "NPS4"],
        memory_mode_writable=True,
        memory_bytes=206141652992,
        numa_node=0,
        hive_id="0x1f2e",
        partitions=[partition(name, address, index, divided=divided) for index in range(2 if divided else 1)],
        mode_epoch=2,
        wish="DPX/NPS1",
        drift=[] if divided else ["wished are DPX/NPS1, the partitions show SPX/NPS1", "the mode file says DPX"],
        pending_memory_mode=None if divided else "NPS4",
        change=None if divided else "set-mode-1",
        holders=[]
        if divided
        else [HolderMessage(pid=4711, command="python3 serve.py"), HolderMessage(pid=9, command=None)],
    )


def probe(
    state: str = "read", message: str | None = None, library: str | None = "/opt/rocm/lib/libamdhip64.so.7"
) -> ProbeMessage:
    return ProbeMessage(
        state=state, message=message, at=1700000000.0, library=library, runtime_version=None, seconds=0.3
    )


def finding(*, denied: bool = False) -> FindingMessage:
    return FindingMessage(
        kind="over-limit",
        partition=f"{GPU0}/1",
        partition_name="gpu0/1",
        claim="llama",
        message="claim llama uses 26 GiB",
        since=1700000000.0,
        denied=denied,
    )


def accounted() -> PartitionDetailMessage:
    """A partition of which all is known, with a claim over its limit and a stranger."""
    gib = 1 << 30
    known = msgspec.structs.asdict(partition("gpu0", GPU0, 1, divided=True))
    figures = {"reserved_bytes": 24 * gib, "used_bytes": 27 * gib, "unattributed_bytes": gib, "free_bytes": 60 * gib}
    return PartitionDetailMessage(
        **{**known, **figures, "findings": ["over-limit"]},
        free_at=1700000000.0,
        free_used_bytes=26 * gib,
        page_tables_bytes=235 << 20,
        pins_bytes=0,
        rounding_bytes=None,
        estimated_free_bytes=59 * gib,
        claims=[ClaimUseMessage(claim="llama", reserved_bytes=24 * gib, used_bytes=26 * gib)],
        processes=[
            ProcessUseMessage(
                pid=7, start_time=1, command="serve", used_bytes=26 * gib, claim="llama", replica=0, pod="u-1"
            ),
            ProcessUseMessage(pid=8, start_time=None, command=None, used_bytes=None, claim=None, replica=None, pod=""),
        ],
        memory_findings=[finding(denied=True)],
    )


def left_behind() -> LeftBehindMessage:
    return LeftBehindMessage(
        name="llama/0",
        claim="llama",
        replica=0,
        partition=f"{GPU0}/1",
        partition_name="gpu0/1",
        memory_gb=24,
        guarantee=4,
        released_at=1700000000.0,
        processes=[HolderMessage(pid=7, command="python serve.py"), HolderMessage(pid=8, command=None)],
    )


def unknown_gpu() -> GpuMessage:
    return GpuMessage(
        name="gpu2",
        pci_address=GPU2,
        model=None,
        device_id=None,
        state="ready",
        compute_mode="CPX",
        memory_mode=None,
        reported_compute_mode=None,
        available_compute_modes=None,
        available_memory_modes=None,
        memory_mode_writable=False,
        memory_bytes=None,
        numa_node=None,
        hive_id=None,
        partitions=[
            PartitionMessage(
                id=f"{GPU2}/0",
                name="gpu2/0",
                gpu="gpu2",
                pci_address=GPU2,
                index=0,
                compute_mode=None,
                memory_mode=None,
                xcc_count=None,
                compute_units=None,
                memory_bytes=None,
                render_minor=None,
            )
        ],
    )


def inventory() -> InventoryMessage:
    return InventoryMessage(
        gpus=[known_gpu("gpu0", GPU0, divided=True), known_gpu("gpu1", GPU1, divided=False), unknown_gpu()],
        topology_generation=7,
        warnings=["gpu2: mem_banks cannot be read"],
    )


def step(gpu: str = "gpu1", *, kind: str = "compute", after_reload: bool = False) -> StepMessage:
    return StepMessage(kind=kind, gpus=[gpu], before="SPX/NPS1", after="DPX/NPS1", after_reload=after_reload)


def blocker(*, node_wide: bool = False) -> BlockerMessage:
    return BlockerMessage(pid=4711, command="python3 serve.py", gpu="gpu1", node_wide=node_wide, holds=["0000:27:00.0"])


def refusal() -> RefusalMessage:
    return RefusalMessage(
        gpu="gpu1",
        reason="mode_not_available",
        message="gpu1 does not offer TPX",
        hint="it offers SPX, DPX, QPX, CPX",
    )


def plan(*, refused: bool = False) -> PlanMessage:
    if refused:
        return PlanMessage(steps=[], refusals=[refusal()], blockers=[])
    return PlanMessage(
        steps=[step(kind="memory"), step(after_reload=True)],
        refusals=[],
        blockers=[blocker(), BlockerMessage(pid=9, command=None, gpu="gpu0", node_wide=True, holds=["0000:47:00.0"])],
        warnings=["the driver must be reloaded for NPS4"],
    )


def switch(state: str, *, gpu: str = "gpu1", reason: str | None = None, message: str | None = None) -> SwitchMessage:
    ended = state in ("committed", "failed", "needs_operator")
    return SwitchMessage(
        step=step(gpu),
        state=state,
        attempts=3 if reason else 0,
        reason=reason,
        message=message,
        seconds=2.345 if ended else None,
        write_seconds=2.2 if ended else 0.0,
    )


def change(
    *switches: SwitchMessage,
    state: str | None = None,
    name: str = "set-mode-1",
    blockers: tuple[BlockerMessage, ...] = (),
) -> ChangeMessage:
    whole = state or (switches[-1].state if switches else "committed")
    return ChangeMessage(
        name=name,
        origin="client",
        state=whole,
        final=whole in ("committed", "failed", "needs_operator"),
        wishes={"gpu1": "DPX/NPS1"},
        switches=list(switches),
        created_at=1700000000.25,
        requester_uid=0,
        blockers=list(blockers),
    )


def committing() -> list[ChangeMessage]:
    return [
        change(switch("planned")),
        change(switch("waiting_for_clients", message="1 process holds gpu1"), blockers=(blocker(),)),
        change(switch("switching")),
        change(switch("verifying")),
        change(switch("committed")),
    ]


def failed(reason: str, message: str, *, state: str = "failed") -> ChangeMessage:
    first = switch(state, reason=reason, message=message)
    later = switch("failed", gpu="gpu2", reason="earlier_step_failed", message="the step before it failed")
    return change(first, later, state=state)


def assignment(replica: int = 0, *, claim: str = "llama") -> AssignmentMessage:
    return AssignmentMessage(
        name=f"{claim}/{replica}",
        claim=claim,
        replica=replica,
        partition=f"{GPU0}/{replica}",
        partition_name=f"gpu0/{replica}",
        pci_address=GPU0,
        index=replica,
        memory_gb=24,
        memory_bytes=25767706624,
        guarantee=4,
        render_minor=128 + replica,
    )


def claim(
    state: str = "placed",
    *,
    name: str = "llama",
    replicas: int = 2,
    change: str | None = None,
    reason: str | None = None,
    message: str | None = None,
    holders: tuple[HolderMessage, ...] = (),
) -> ClaimMessage:
    placed = state == "placed"
    return ClaimMessage(
        name=name,
        state=state,
        owner_uid=1000,
        memory_gb=24,
        qos="high",
        compute_mode="CPX",
        memory_mode=None,
        partition=None,
        preferred="0000:05:00.0/0",
        guarantee=4,
        limit=None,
        weight=2,
        replicas=replicas,
        slo=SloMessage(latency_seconds=0.25, objective=0.99),
        assignments=[assignment(replica, claim=name) for replica in range(replicas)] if placed else [],
        change=change,
        reason=reason,
        message=message,
        created_at=1700000000.25,
        pods=[],
        holders=list(holders),
    )


def waiting(reason: str = "no_room", message: str = "24 GB fit nowhere, 12 GB are free on gpu0/1") -> ClaimMessage:
    return claim("pending", name="bert", replicas=1, reason=reason, message=message)


def environment(replica: int = 0, *, sysfs_root: str | None = None) -> EnvironmentMessage:
    return EnvironmentMessage(
        claim="llama",
        replica=replica,
        partition=f"{GPU0}/{replica}",
        memory_limit_bytes=25767706624,
        kfd_order=[f"{GPU1}/0", f"{GPU0}/0", f"{GPU0}/1"],
        sysfs_root=sysfs_root,
    )


def quantiles(count: int = 100, p50: float = 0.0015, p95: float = 0.25, p99: float = 1.5) -> QuantilesMessage:
    return QuantilesMessage(count=count, p50=p50, p95=p95, p99=p99)


NO_LATENCIES = QuantilesMessage(count=0, p50=None, p95=None, p99=None)
IDLE = FlowMessage(
    running=0,
    waiting=0,
    outcomes={},
    ends={},
    good=0,
    bad=0,
    grants_per_second=0.0,
    rejected_per_second=0.0,
    queue=NO_LATENCIES,
    service=NO_LATENCIES,
    total=NO_LATENCIES,
)


def flow(scale: int = 1) -> FlowMessage:
    return FlowMessage(
        running=3 * scale,
        waiting=2 * scale,
        outcomes={"granted": 120 * scale, "expired": 4 * scale},
        ends={"ok": 115 * scale, "failed": 2 * scale},
        good=110 * scale,
        bad=11 * scale,
        grants_per_second=12.5 * scale,
        rejected_per_second=0.25 * scale,
        queue=quantiles(),
        service=quantiles(90, 0.05, 0.06, 0.07),
        total=quantiles(90, 0.06, 0.3, 90.0),
    )


def traffic(scale: int = 1) -> TrafficMessage:
    return TrafficMessage(since=1700000000.25, slots=16, whole=flow(scale), high=flow(scale), medium=IDLE, low=IDLE)


def compliance(alert: str | None = "ticket") -> ComplianceMessage:
    return ComplianceMessage(
        latency="missed",
        good_ratio=110 / 121,
        throughput="unknown",
        released_per_second=None,
        burns=[
            BurnMessage(
                long_seconds=long,
                short_seconds=short,
                threshold=threshold,
                severity=severity,
                long=9.0909,
                short=None if short == 300 else 8.0,
                firing=alert is not None and threshold < 9,
            )
            for long, short, threshold, severity in (
                (3600, 300, 14.4, "page"),
                (21600, 1800, 6.0, "page"),
                (86400, 7200, 3.0, "ticket"),
                (259200, 21600, 1.0, "ticket"),
            )
        ],
        alert=alert,
    )


def model(name: str = "llama", scale: int = 1, alert: str | None = "ticket") -> ModelMessage:
    place = ModelPlaceMessage(
        partition=f"{GPU0}/0",
        partition_name="gpu0/0",
        pci_address=GPU0,
        index=0,
        replicas=2,
        guarantee=8,
        limit=None,
        weight=2,
        traffic=traffic(scale),
        compliance=compliance(alert),
    )
    return ModelMessage(
        name=name,
        state="placed",
        qos="high",
        replicas=2,
        guarantee=4,
        limit=None,
        weight=2,
        slo=SloMessage(latency_seconds=0.25, objective=0.99),
        traffic=traffic(scale),
        compliance=compliance(alert),
        partitions=[place],
    )


def unread_model() -> ModelMessage:
    """A claim without partitions, objectives and traffic."""
    return ModelMessage(
        name="bert",
        state="pending",
        qos="low",
        replicas=1,
        guarantee=0,
        limit=5,
        weight=1,
        slo=SloMessage(),
        traffic=None,
        compliance=None,
        partitions=[],
    )


def events() -> list[EventMessage]:
    return [
        EventMessage(
            sequence=1, at=1700000000.0, kind="daemon_started", subject="node", message="3 GPUs, 4 partitions"
        ),
        EventMessage(
            sequence=2, at=1700000001.5, kind="mode_changed", subject="0000:26:00.0", message="SPX/NPS1 to DPX/NPS1"
        ),
        EventMessage(sequence=5, at=1700000002.0, kind="driver_reloaded", subject="node", message="rescanned"),
    ]


def node() -> NodeMessage:
    return NodeMessage(
        ready=True,
        generation=12,
        gpu_count=3,
        partition_count=4,
        topology_generation=7,
        busy_rule="per-gpu",
        boot_id="6f1c",
        simulated=None,
        version="0.1.0",
        pid=321,
        uptime_seconds=3725.0,
        warnings=["the ledger was rebuilt"],
    )


def world() -> World:
    return World(
        inventory=inventory(),
        node=node(),
        plan=plan(),
        change=committing(),
        changes={"set-mode-0": [change(switch("committed"), name="set-mode-0")]},
        claims={"llama": [claim(holders=(HolderMessage(pid=4711, command="python3 serve.py"),))], "bert": [waiting()]},
        claim=[claim()],
        environments={0: environment(), 1: environment(1)},
        health={"/healthz": HealthMessage(status="ok"), "/readyz": HealthMessage(status="ok")},
        events=events(),
        models=[model(), unread_model()],
    )
