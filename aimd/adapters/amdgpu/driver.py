"""ports.GpuDriver on amdgpu: discovery by KFD topology and PCI device files, switching by one write to a mode file."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aimd.adapters.amdgpu.layout import SYSTEM, SysfsLayout
from aimd.adapters.amdgpu.topology import KfdNode, Topology, read_generation, read_topology
from aimd.domain.gpu import BusyRule, Gpu, Holder, Observed, Partition, pci_address
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.errors import DriverError, UnstableError
from aimd.ports import Sysfs

_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
COMPUTE_FILE = "current_compute_partition"
MEMORY_FILE = "current_memory_partition"


@dataclass(frozen=True, slots=True)
class _PciFiles:
    """What the PCI device's files say; None where a file is absent or unreadable."""

    device_id: int | None = None
    compute: ComputeMode | None = None
    memory: MemoryMode | None = None
    compute_modes: tuple[ComputeMode, ...] | None = None
    memory_modes: tuple[MemoryMode, ...] | None = None
    memory_writable: bool = False
    memory_bytes: int | None = None
    numa_node: int | None = None
    in_reset: bool = False
    partitionable: bool = False


class AmdgpuDriver:
    """The GPUs below a sysfs root.

    Args:
        sysfs: the lowest port; the real one or the simulated node.
        command_of: command line of a pid for people, None when it has ended.
        layout: where topology and PCI devices lie, for captures.
    """

    def __init__(self, sysfs: Sysfs, command_of: Callable[[int], str | None], layout: SysfsLayout = SYSTEM) -> None:
        self._sysfs = sysfs
        self._command_of = command_of
        self._layout = layout
        self._address_by_gpu_id: dict[int, str] = {}

    # -- ports.GpuDriver -------------------------------------------------------------------------------------

    def scan(self) -> Observed:
        for _ in range(5):
            topology = read_topology(self._sysfs, self._layout.topology)
            observed = self._observe(topology)
            # A mode file blocks while its GPU is switched: reading it may have outlasted the topology.
            if topology.generation == read_generation(self._sysfs, self._layout.topology):
                return observed
        raise UnstableError("the KFD topology moved while mode files were read", hint="the next scan will do")

    def holders(self) -> tuple[Holder, ...]:
        try:
            pids = sorted(int(name) for name in self._sysfs.listdir(self._layout.processes) if name.isdigit())
        except OSError:
            return ()
        found = []
        for pid in pids:
            try:
                names = self._sysfs.listdir(f"{self._layout.processes}/{pid}")
            except OSError:
                continue  # released between the two listings
            identities = (int(name[5:]) for name in names if name.startswith("vram_") and name[5:].isdigit())
            gpus = frozenset(self._address_by_gpu_id[i] for i in identities if i in self._address_by_gpu_id)
            found.append(Holder(pid, self._command_of(pid), gpus))
        return tuple(found)

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
        addresses: dict[int, str] = {}
        for node in topology.nodes:
            address = pci_address(node.properties.get("domain", 0), node.properties.get("location_id", 0))
            by_address.setdefault(address, []).append(node)
            if node.gpu_id is not None:
                addresses[node.gpu_id] = address
        self._address_by_gpu_id = addresses  # as a whole: holders() is asked in another thread meanwhile
        for address in self._pci_addresses():
            by_address.setdefault(address, [])
        gpus = []
        for address in sorted(by_address):
            files = self._pci_files(address)
            if by_address[address] or files.partitionable:
                gpus.append(_gpu(address, by_address[address], files))
        rule = self._busy_rule(gpus)
        return Observed(tuple(gpus), self.holders(), topology.generation, rule, _warnings(topology))

    def _pci_addresses(self) -> list[str]:
        for folder in self._layout.pci:
            try:
                names = self._sysfs.listdir(folder)
            except OSError:
                continue
            return [name for name in names if _ADDRESS.fullmatch(name)]
        return []

    def _pci_files(self, address: str) -> _PciFiles:
        path = self._layout.pci_file(self._sysfs, address, "")
        if path is None:
            return _PciFiles()
        compute, in_reset = self._text(path + COMPUTE_FILE)
        memory, memory_in_reset = self._text(path + MEMORY_FILE)
        return _PciFiles(
            device_id=_number(self._text(path + "device")[0]),
            compute=ComputeMode.__members__.get(compute or ""),
            memory=MemoryMode.__members__.get(memory or ""),
            compute_modes=_modes(ComputeMode, self._text(path + "available_compute_partition")[0]),
            memory_modes=_modes(MemoryMode, self._text(path + "available_memory_partition")[0]),
            memory_writable=self._is_writable(path + MEMORY_FILE),
            memory_bytes=_number(self._text(path + "mem_info_vram_total")[0]),
            numa_node=_number(self._text(path + "numa_node")[0]),
            in_reset=in_reset or memory_in_reset,
            partitionable=compute is not None or in_reset,
        )

    def _text(self, path: str) -> tuple[str | None, bool]:
        """Content without white space at its ends (None if unreadable), and whether EPERM says "in reset"."""
        try:
            return self._sysfs.read(path).decode("ascii", "replace").strip(), False
        except OSError as error:
            return None, error.errno == errno.EPERM

    def _is_writable(self, path: str) -> bool:
        try:
            return self._sysfs.writable(path)
        except OSError:
            return False

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


def _number(text: str | None) -> int | None:
    try:
        return int(text, 0) if text else None
    except ValueError:
        return None


def _modes(kind: type[ComputeMode | MemoryMode], text: str | None) -> tuple[Any, ...] | None:
    """The modes of a list such as `SPX, DPX`; None where the file is absent, () for `Not supported`."""
    if text is None:
        return None
    return tuple(kind[word.strip()] for word in text.split(",") if word.strip() in kind.__members__)


def _gpu(address: str, nodes: list[KfdNode], files: _PciFiles) -> Gpu:
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
