"""ports.GpuDriver on amdgpu: discovery by KFD topology and PCI device files, switching by one write to a mode file."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable

from aimd.adapters.amdgpu.clients import ClientReader, Identification, Place
from aimd.adapters.amdgpu.layout import SYSTEM, SysfsLayout
from aimd.adapters.amdgpu.pci import COMPUTE_FILE, MEMORY_FILE, PciFiles, PciReader
from aimd.adapters.amdgpu.topology import KfdNode, Topology, read_generation, read_topology
from aimd.domain.gpu import BusyRule, Gpu, GpuState, Holder, Observed, Partition, pci_address
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.errors import DriverError, UnstableError
from aimd.ports import Sysfs

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class AmdgpuDriver:
    """The GPUs below a sysfs root.

    Args:
        sysfs: the lowest port; the real one or the simulated node.
        command_of: command line of a pid for people, None when it has ended.
        layout: where topology and PCI devices lie, for captures.
        owner_of, start_time_of, pod_of: what else is told of a KFD client, see Identification.
    """

    def __init__(
        self,
        sysfs: Sysfs,
        command_of: Callable[[int], str | None],
        layout: SysfsLayout = SYSTEM,
        owner_of: Callable[[int], tuple[int, int] | None] = lambda _pid: None,
        start_time_of: Callable[[int], int | None] = lambda _pid: None,
        pod_of: Callable[[int, int], str | None] = lambda _pid, _start: None,
    ) -> None:
        self._sysfs = sysfs
        identify = Identification(command_of, owner_of, start_time_of, pod_of)
        self._clients = ClientReader(sysfs, layout.processes, identify)
        self._layout = layout
        self._places: dict[int, Place] = {}

    # -- ports.GpuDriver -------------------------------------------------------------------------------------

    def scan(self) -> Observed:
        for _ in range(5):
            topology = read_topology(self._sysfs, self._layout.topology, self._layout.root)
            observed = self._observe(topology)
            # A mode file blocks while its GPU is switched: reading it may have outlasted the topology.
            if topology.generation == read_generation(self._sysfs, self._layout.topology):
                return observed
        raise UnstableError("the KFD topology moved while mode files were read", hint="the next scan will do")

    def holders(self) -> tuple[Holder, ...]:
        return self._clients.read(self._places)

    def generation(self) -> int | None:
        return read_generation(self._sysfs, self._layout.topology)

    def set_compute_mode(self, address: str, mode: ComputeMode) -> None:
        self._write(address, COMPUTE_FILE, mode.value)

    def request_memory_mode(self, address: str, mode: MemoryMode) -> None:
        self._write(address, MEMORY_FILE, mode.value)

    # -- inside ----------------------------------------------------------------------------------------------

    def _write(self, address: str, name: str, value: str) -> None:
        path = self._layout.pci_file(self._sysfs, address, name)
        if path is None:
            raise DriverError(f"GPU {address} is not on the bus", errno=errno.ENODEV, path=address)
        try:
            self._sysfs.write(path, value.encode())
        except OSError as error:
            code = error.errno or errno.EIO
            raise DriverError(
                f"GPU {address}: writing {value} to {name} failed with {errno.errorcode.get(code, code)} "
                f"({os.strerror(code)})",
                errno=code,
                path=path,
            ) from error

    def _observe(self, topology: Topology) -> Observed:
        by_address: dict[str, list[KfdNode]] = {}
        places: dict[int, Place] = {}
        for node in topology.nodes:
            address = pci_address(node.properties.get("domain", 0), node.properties.get("location_id", 0))
            by_address.setdefault(address, []).append(node)
            if node.gpu_id is not None:
                places[node.gpu_id] = (address, node.properties.get("location_id", 0) & 7)
        self._places = places  # as a whole: holders() is asked in another thread meanwhile
        for address in self._pci_addresses():
            by_address.setdefault(address, [])
        gpus = []
        # Which GPU a hidden node belongs to cannot be read: each without nodes may be it.
        absence = GpuState.HIDDEN if topology.hidden else GpuState.LOST
        reader = PciReader(self._sysfs, self._layout)
        for address in sorted(by_address):
            files = reader.read(address)
            if by_address[address] or files.partitionable:
                gpus.append(_gpu(address, by_address[address], files, absence))
        rule = self._busy_rule(gpus)
        warnings = (*_warnings(topology), *reader.warnings)
        return Observed(
            tuple(gpus), self.holders(), topology.generation, rule, warnings, system_bytes=topology.system_bytes
        )

    def _pci_addresses(self) -> list[str]:
        for folder in self._layout.pci:
            try:
                names = self._sysfs.listdir(folder)
            except OSError:
                continue
            return [name for name in names if _ADDRESS.fullmatch(name)]
        return []

    def _busy_rule(self, gpus: list[Gpu]) -> BusyRule:
        """By files that came with a driver generation, never by kernel version.

        compute_partition_mem_alloc_mode is newer than the per-GPU rule, compute_partition_config older than it.
        """
        for gpu in gpus:
            path = self._layout.pci_file(self._sysfs, gpu.pci_address, "")
            if path is None:
                continue
            try:
                names = self._sysfs.listdir(path.rstrip("/"))
            except OSError:
                continue
            if "compute_partition_mem_alloc_mode" in names:
                return BusyRule.PER_GPU
            return BusyRule.UNKNOWN if "compute_partition_config" in names else BusyRule.NODE_WIDE
        return BusyRule.UNKNOWN


def _gpu(address: str, nodes: list[KfdNode], files: PciFiles, absence: GpuState) -> Gpu:
    partitions = tuple(sorted((_partition(node) for node in nodes), key=lambda partition: partition.index))
    properties = nodes[0].properties if nodes else {}
    numa = files.numa_node
    return Gpu(
        pci_address=address,
        device_id=files.device_id if files.device_id is not None else properties.get("device_id"),
        partitions=partitions,
        reported_compute=files.compute,
        memory_mode=files.memory,
        compute_modes=files.compute_modes,
        memory_modes=files.memory_modes,
        memory_mode_writable=files.memory_writable,
        memory_bytes=files.memory_bytes,
        hive_id=properties.get("hive_id"),
        numa_node=numa if numa is not None and numa >= 0 else None,
        gfx_target=properties.get("gfx_target_version"),
        in_reset=files.in_reset,
        absence=absence,
    )


def _partition(node: KfdNode) -> Partition:
    properties = node.properties
    simd, per_cu = properties.get("simd_count"), properties.get("simd_per_cu")
    return Partition(
        index=properties.get("location_id", 0) & 7,
        render_minor=properties.get("drm_render_minor"),
        xcc_count=properties.get("num_xcc"),
        memory_bytes=node.memory_bytes,
        kfd_gpu_id=node.gpu_id,
        compute_units=simd // per_cu if simd is not None and per_cu else None,
        kfd_node=node.number,
    )


def _warnings(topology: Topology) -> tuple[str, ...]:
    warnings = []
    if topology.hidden:
        warnings.append(
            f"{topology.hidden} KFD nodes are hidden from this process (EPERM): its device cgroup denies their render "
            "nodes; allow char 226:* rw"
        )
    if topology.broken:
        numbers = ", ".join(map(str, topology.broken))
        warnings.append(f"KFD nodes {numbers} have no readable properties and were left out")
    return tuple(warnings)
