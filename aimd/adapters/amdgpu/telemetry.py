"""How busy partitions are, from the driver's metrics files. Implements ports.TelemetrySource; decides nothing.

Neither file makes a process a client of a GPU. Up to Linux 6.12 reading gpu_metrics wakes a GPU that sleeps (runtime power
management; newer drivers answer EPERM): a sleeping one is left alone. Each reading may ask the GPU's firmware.
"""

from __future__ import annotations

from aimd.adapters.amdgpu.errnos import ABSENT, OWN_WANT, unreadable
from aimd.adapters.amdgpu.gpu_metrics import GpuActivity, Share, decode_gpu_metrics, decode_partition_metrics, mean
from aimd.adapters.amdgpu.layout import SYSTEM, SysfsLayout
from aimd.domain.gpu import Gpu, Partition
from aimd.domain.metering import Telemetry
from aimd.domain.modes import ComputeMode
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.ports import Sysfs

XCP_METRICS = "xcp_metrics"
GPU_METRICS = "gpu_metrics"
_ASLEEP = (b"suspended", b"suspending")

Told = dict[int, float]


class AmdgpuTelemetry:
    """Reads below a sysfs root; one thread at a time."""

    def __init__(self, sysfs: Sysfs, layout: SysfsLayout = SYSTEM) -> None:
        self._sysfs = sysfs
        self._layout = layout

    def read(self, snapshot: NodeSnapshot) -> Telemetry:
        """Of the GPUs that are not about to be others: not in a mode change, nor in a reset.

        A source that could not be read now is not among `sources`, nor is gpu_metrics where xcp_metrics has said all.

        Raises:
            DriverError: this process or machine lacks what reading needs (descriptors, memory).
        """
        utilization: dict[tuple[str, int], float] = {}
        sources: dict[str, dict[str, bool]] = {}
        for status in snapshot.gpus:
            if not self._can_tell(status):
                continue
            address = status.gpu.pci_address
            told, found = self._gpu(status.gpu)
            utilization |= {(address, index): share for index, share in told.items()}
            sources[address] = found
        return Telemetry(utilization, sources)

    def _can_tell(self, status: GpuStatus) -> bool:
        gpu = status.gpu
        return bool(gpu.partitions) and status.change is None and not gpu.in_reset and not self._asleep(gpu.pci_address)

    def _asleep(self, address: str) -> bool:
        path = self._layout.pci_file(self._sysfs, address, "power/runtime_status")
        state = None if path is None else self._file(path)
        return state is not None and state.strip() in _ASLEEP

    def _gpu(self, gpu: Gpu) -> tuple[Told, dict[str, bool]]:
        """Busy shares by partition index, and which source told any."""
        told, readable = self._by_partitions(gpu)
        sources = {XCP_METRICS: bool(told)} if readable else {}
        if len(told) == len(gpu.partitions):
            return told, sources
        rest, readable = self._by_gpu(gpu)
        if readable:
            sources[GPU_METRICS] = bool(rest)
        return rest | told, sources

    def _by_partitions(self, gpu: Gpu) -> tuple[Told, bool]:
        """From the partitions' own files, and whether these could be read, were it only to find that there are none."""
        told, readable = {}, True
        for partition in gpu.partitions:
            if partition.render_minor is None or partition.xcc_count is None:
                continue
            data = self._file(f"class/drm/renderD{partition.render_minor}/device/xcp/{XCP_METRICS}")
            if data is None:
                readable = False
                continue
            share = mean(decode_partition_metrics(data) or (), partition.xcc_count)
            if share is not None:
                told[partition.index] = share
        return told, readable

    def _by_gpu(self, gpu: Gpu) -> tuple[Told, bool]:
        path = self._layout.pci_file(self._sysfs, gpu.pci_address, GPU_METRICS)
        data = None if path is None else self._file(path)
        activity = None if data is None else decode_gpu_metrics(data)
        told: Told = {}
        if activity is not None:
            for partition in gpu.partitions:
                share = _of_its_xccs(activity, gpu, partition)
                if share is None and gpu.compute_mode is ComputeMode.SPX and len(gpu.partitions) == 1:
                    share = activity.whole
                if share is not None:
                    told[partition.index] = share
        return told, data is not None

    def _file(self, path: str) -> bytes | None:
        """Content, empty if there is no such file; None if it cannot be read now: the GPU sleeps, or is in a reset."""
        try:
            return self._sysfs.read(path)
        except OSError as error:
            if error.errno in OWN_WANT:
                raise unreadable(error, path, "a GPU's telemetry") from error
            return b"" if error.errno in ABSENT else None


def _of_its_xccs(activity: GpuActivity, gpu: Gpu, partition: Partition) -> Share:
    """XCCs are numbered through the partitions in their order (aqua_vanjaram.c: XCP_INST_MASK)."""
    before = [other.xcc_count for other in gpu.partitions if other.index < partition.index]
    counts = [count for count in before if count is not None]
    if partition.xcc_count is None or len(counts) != partition.index:
        return None
    return activity.of(partition.index, sum(counts), partition.xcc_count)
