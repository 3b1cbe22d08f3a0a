"""Families of the hardware: GPUs and partitions, their memory and modes. From one snapshot, pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from aimd.adapters.metrics.family import Descriptor, Family
from aimd.adapters.metrics.view import View
from aimd.domain.gpu import GpuState
from aimd.domain.memory import reserved_bytes
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.probe import ProbeState
from aimd.domain.reserved import reserved_on

GPU = ("gpu_id",)
PLACE = ("gpu_id", "partition_id")
Place = tuple[str, int]

PARTITION_MEMORY = Descriptor(
    "aim_gpu_partition_memory_bytes",
    "gauge",
    "Memory of a partition in bytes, as KFD's topology shows it. Absent where the driver does not say.",
    (*PLACE, "compute_mode", "memory_mode"),
)
UTILIZATION = Descriptor(
    "aim_gpu_partition_utilization",
    "gauge",
    "Mean busy share of the partition's XCCs, 0 to 1, from the driver's partition metrics; of the whole GPU in SPX."
    " Absent, not 0, where the driver cannot say: see aim_gpu_telemetry_supported.",
    PLACE,
)
TELEMETRY = Descriptor(
    "aim_gpu_telemetry_supported",
    "gauge",
    "1 if this source tells how busy partitions of the GPU are in its present mode, 0 if not. Absent: it was not needed,"
    " or could not be read.",
    (*GPU, "source"),
)
GPU_INFO = Descriptor(
    "aim_gpu",
    "info",
    "A GPU of the node: its name here, product, PCI device id and NUMA node; empty labels are unknown. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    (*GPU, "gpu", "product", "device_id", "numa_node"),
)
GPU_STATE = Descriptor(
    "aim_gpu_state",
    "gauge",
    "1 for the state that the GPU is in: ready, lost (no partitions in KFD), hidden (by the device cgroup), gone (from"
    " the bus or the driver). From aimd's last look at the node. Absent: no such GPU or partition is there.",
    (*GPU, "state"),
)
DRAINING = Descriptor(
    "aim_gpu_draining",
    "gauge",
    "1 if the GPU takes no new claims, by an operator's word. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
IN_RESET = Descriptor(
    "aim_gpu_in_reset",
    "gauge",
    "1 while the driver resets the GPU, by its uevents. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
HOLDERS = Descriptor(
    "aim_gpu_holders",
    "gauge",
    "Processes that hold the GPU open, from KFD's list of clients; one that holds several counts at each. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
PARTITIONS = Descriptor(
    "aim_gpu_partitions",
    "gauge",
    "Partitions that KFD shows of the GPU; 0 while it has none. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
GPU_MEMORY = Descriptor(
    "aim_gpu_total_memory_bytes",
    "gauge",
    "Memory of the whole GPU in bytes, from the driver or the sum of its partitions. Absent where neither tells.",
    GPU,
)
PARTITION_INFO = Descriptor(
    "aim_gpu_partition",
    "info",
    "A partition: its GPU's name here, modes, render node (empty if unknown), and how many mode changes of the GPU aimd"
    " has seen. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    (*PLACE, "gpu", "compute_mode", "memory_mode", "render_node", "mode_epoch"),
)
COMPUTE_UNITS = Descriptor(
    "aim_gpu_partition_compute_units", "gauge", "Compute units of a partition, from KFD. Absent if unknown.", PLACE
)
ALLOCATED = Descriptor(
    "aim_gpu_partition_memory_allocated_bytes",
    "gauge",
    "Bytes of the partition that claims and processes that outlived theirs have reserved, from aimd's ledger. Absent"
    " where the partition's memory is unknown.",
    PLACE,
)
USED = Descriptor(
    "aim_gpu_partition_memory_used_bytes",
    "gauge",
    "Bytes that processes use on the partition, as KFD counts them of each. Absent while the node, or one of the"
    " counters, could not be read.",
    PLACE,
)
UNATTRIBUTED = Descriptor(
    "aim_gpu_partition_memory_unattributed_bytes",
    "gauge",
    "Bytes that are used on the partition and reserved by nobody: by processes of no claim, or where theirs has no"
    " place. Claims do not get them. Absent where that is not known.",
    PLACE,
)
FINDING = Descriptor(
    "aim_gpu_partition_memory_finding",
    "gauge",
    "1 while the memory of the partition is not as it should be, after a while: over-limit (the model's claim uses more"
    " than it has reserved), drift (HIP and KFD do not tell the same; without model). From aimd's last look at the node. Absent: no such GPU or partition is there.",
    (*PLACE, "kind", "model"),
)
AVAILABLE = Descriptor(
    "aim_gpu_partition_memory_available_bytes",
    "gauge",
    "Bytes that one more process could allocate on the partition when HIP was asked last. Absent if HIP is off or could"
    " not tell.",
    PLACE,
)
PROBE = Descriptor(
    "aim_gpu_memory_probe_state",
    "gauge",
    "1 for how asking HIP for the memory of the GPU's partitions has ended last: read; off or held (by aimd), moved (the"
    " GPU's partitions); no-library, wrong-library, no-device, failed, timed-out, crashed, implausible: aimctl doctor says"
    " why. Absent before the first answer.",
    (*GPU, "state"),
)
ASSIGNMENTS = Descriptor(
    "aim_gpu_partition_assignments",
    "gauge",
    "Replicas of claims that are placed on the partition. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    PLACE,
)
CHANGING = Descriptor(
    "aim_gpu_partition_change_in_progress",
    "gauge",
    "1 while a mode change of the GPU is planned or runs. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
DRIFT = Descriptor(
    "aim_gpu_partition_drift",
    "gauge",
    "1 if wish, mode file and partitions of the GPU do not agree; aimctl describe gpu says how. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
PENDING = Descriptor(
    "aim_gpu_memory_mode_pending",
    "gauge",
    "1 if a memory mode is requested that the next driver load applies. From aimd's last look at the node. Absent: no such GPU or partition is there.",
    GPU,
)
POD = Descriptor(
    "aim_pod",
    "info",
    "A pod whose process holds the model's claim on the partition, by its cgroup: to be joined by model, gpu_id and"
    " partition_id. Absent for processes outside of pods.",
    ("pod_uid", "model", *PLACE),
)


def required(view: View) -> Iterator[Family]:
    """The two of the names that everybody asks for first."""
    yield PARTITION_MEMORY.of(
        [
            (
                (gpu.pci_address, str(partition.index), _word(gpu.compute_mode), _word(gpu.memory_mode)),
                partition.memory_bytes,
            )
            for gpu in (status.gpu for status in view.snapshot.gpus)
            for partition in gpu.partitions
            if partition.memory_bytes is not None
        ]
    )
    yield UTILIZATION.of([(_place(place), share) for place, share in view.telemetry.utilization.items()])


def families(view: View) -> Iterator[Family]:
    """All others of the hardware."""
    yield TELEMETRY.of(
        [
            ((gpu, name), int(there))
            for gpu, sources in view.telemetry.sources.items()
            for name, there in sources.items()
        ]
    )
    yield from _gpus(view.snapshot)
    yield from _partitions(view.snapshot)
    yield from _memory(view.snapshot)
    yield POD.of([((pod.pod_uid, pod.model, *_place((pod.gpu, pod.index))), 1) for pod in view.pods])


def _gpus(snapshot: NodeSnapshot) -> Iterator[Family]:
    gpus = [((status.gpu.pci_address,), status) for status in snapshot.gpus]
    held = Counter(address for holder in snapshot.holders for address in holder.gpus)
    changing = {gpu for change in snapshot.changes if change.current is not None for gpu, _ in change.wishes}
    yield GPU_INFO.of(
        [
            (
                (
                    *gpu,
                    status.name,
                    status.gpu.model.name if status.gpu.model is not None else "",
                    f"0x{status.gpu.device_id:04x}" if status.gpu.device_id is not None else "",
                    _word(status.gpu.numa_node),
                ),
                1,
            )
            for gpu, status in gpus
        ]
    )
    yield GPU_STATE.of(
        [((*gpu, state.value), int(status.gpu.state is state)) for gpu, status in gpus for state in GpuState]
    )
    yield DRAINING.of([(gpu, int(status.draining)) for gpu, status in gpus])
    yield IN_RESET.of([(gpu, int(status.gpu.in_reset)) for gpu, status in gpus])
    yield HOLDERS.of([(gpu, held[gpu[0]]) for gpu, _ in gpus])
    yield PARTITIONS.of([(gpu, len(status.gpu.partitions)) for gpu, status in gpus])
    sizes = [(gpu, status.gpu.total_memory_bytes) for gpu, status in gpus]
    yield GPU_MEMORY.of([(gpu, size) for gpu, size in sizes if size is not None])
    yield CHANGING.of([(gpu, int(gpu[0] in changing)) for gpu, _ in gpus])
    yield DRIFT.of([(gpu, int(bool(status.drift))) for gpu, status in gpus])
    yield PENDING.of([(gpu, int(status.pending_memory is not None)) for gpu, status in gpus])


def _partitions(snapshot: NodeSnapshot) -> Iterator[Family]:
    places = [
        ((status.gpu.pci_address, str(partition.index)), status, partition)
        for status in snapshot.gpus
        for partition in status.gpu.partitions
    ]
    assigned = Counter(
        (one.gpu, str(one.index), one.mode_epoch) for claim in snapshot.claims for one in claim.assignments
    )
    yield PARTITION_INFO.of(
        [
            (
                (
                    *place,
                    status.name,
                    _word(status.gpu.compute_mode),
                    _word(status.gpu.memory_mode),
                    f"renderD{partition.render_minor}" if partition.render_minor is not None else "",
                    str(status.mode_epoch),
                ),
                1,
            )
            for place, status, partition in places
        ]
    )
    yield COMPUTE_UNITS.of(
        [(place, partition.compute_units) for place, _, partition in places if partition.compute_units is not None]
    )
    yield ASSIGNMENTS.of([(place, assigned[place[0], place[1], status.mode_epoch]) for place, status, _ in places])


def _memory(snapshot: NodeSnapshot) -> Iterator[Family]:
    units, epochs = reserved_on(snapshot), {one.gpu.pci_address: one.mode_epoch for one in snapshot.gpus}
    sizes = {
        (status.gpu.pci_address, partition.index): (status.mode_epoch, partition.memory_bytes)
        for status in snapshot.gpus
        for partition in status.gpu.partitions
    }
    yield ALLOCATED.of(
        [
            (_place(place), reserved_bytes(units[PartitionKey(*place, epoch)], size))
            for place, (epoch, size) in sizes.items()
            if size is not None
        ]
    )
    accounts = {place: account for place, account in snapshot.memory.partitions.items() if place in sizes}
    for family, amounts in (
        (USED, {place: account.used_bytes for place, account in accounts.items()}),
        (UNATTRIBUTED, {place: account.unattributed_bytes for place, account in accounts.items()}),
    ):
        yield family.of([(_place(place), size) for place, size in amounts.items() if size is not None])
    yield FINDING.of(
        [((*_place((one.gpu, one.index)), one.kind.value, one.claim or ""), 1) for one in snapshot.findings]
    )
    yield PROBE.of(
        [
            ((gpu, state.value), int(probed.report.state is state))
            for gpu, probed in snapshot.memory.gpus.items()
            if gpu in epochs
            for state in ProbeState
        ]
    )
    yield AVAILABLE.of(
        [
            (_place((gpu, memory.index)), memory.free_bytes)
            for gpu, probed in snapshot.memory.gpus.items()
            if probed.report.state is ProbeState.READ and probed.mode_epoch == epochs.get(gpu)
            for memory in probed.report.partitions
            if (gpu, memory.index) in sizes
        ]
    )


def _place(place: Place) -> tuple[str, str]:
    return place[0], str(place[1])


def _word(value: object) -> str:
    return "" if value is None else str(value)
