"""The PCI device folder of a GPU: its attributes, as far as partitioning and inventory need them.

Modes, formats and errnos: hardware notes 1.2, 1.3 and 2.4. An attribute that a driver profile or a virtual function
lacks is absent, which is how programs probe for it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.silicon import pair_allowed, partition_count
from aimd.sim import attributes
from aimd.sim.activity import partition_activity, xcc_activity
from aimd.sim.driver import Blocked, Driver, WriteOutcome
from aimd.sim.entries import Directory, Entry, File, Link, constant, failure, nested
from aimd.sim.faults import spend
from aimd.sim.metrics_tables import gpu_metrics, partition_metrics
from aimd.sim.state import FaultKind, KfdNode, SimGpu

IDLE_VRAM_BYTES = 283 << 20  # MI300X in SPX, from AMD's published amd-smi tables
DECODERS = JPEG_ENGINES = 4  # of a whole MI300X or MI308X
JPEG_RINGS = 8
DRIVERS_OWN = ("unique_id", "mem_info_vram_vendor")  # of the identity, by amdgpu itself
CARD_OFFSET = 127  # card1 belongs to renderD128: card0 is the BMC's

Write = Callable[[bytes, float], WriteOutcome]


class PciDevice:
    """The files of one GPU. `driver.state` keeps what they show."""

    def __init__(self, driver: Driver, gpu: SimGpu) -> None:
        self._driver = driver
        self._gpu = gpu

    def directory(self) -> Directory:
        entries: dict[str, Entry] = {"subsystem": Link("../../../bus/pci"), **self._identity()}
        if not self._gpu.bound:  # what is left are the files of the PCI core
            return nested({name: entry for name, entry in entries.items() if name not in DRIVERS_OWN})
        entries |= {
            "driver": Link("../../../bus/pci/drivers/amdgpu"),
            **self._usage(),
            **self._metrics(),
            **self._compute(),
            **self._memory(),
        }
        minor = self._gpu.render_minors[0] if self._gpu.render_minors else None
        if minor is not None:
            entries |= drm_nodes(minor, self._gpu.address)
        return nested(entries)

    # -- groups ----------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Entry]:
        gpu, model = self._gpu, self._driver.state.hardware
        texts = {
            "vendor": "0x1002",
            "device": f"0x{model.device_id:04x}",
            "subsystem_vendor": "0x1002",
            "subsystem_device": f"0x{model.device_id:04x}",
            "class": "0x120000",
            "revision": "0x00",
            "numa_node": str(gpu.numa_node),
            "unique_id": f"{gpu.unique_id:016x}",
            "mem_info_vram_vendor": "hynix",
        }
        entries: dict[str, Entry] = {name: constant(f"{text}\n") for name, text in texts.items()}
        entries["uevent"] = File(
            lambda _now: (
                f"{_driver_line(gpu)}PCI_CLASS=120000\nPCI_ID=1002:{model.device_id:04X}\n"
                f"PCI_SUBSYS_ID=1002:{model.device_id:04X}\nPCI_SLOT_NAME={gpu.address}\n"
            ),
            mode=0o644,
            write=lambda _data, now: WriteOutcome(now),
        )
        return entries

    def _usage(self) -> dict[str, Entry]:
        total = self._driver.state.hardware.memory_bytes
        return {
            "mem_info_vram_total": constant(f"{total}\n"),
            "mem_info_vis_vram_total": constant(f"{total}\n"),
            "mem_info_vram_used": File(self._used),
            "mem_info_vis_vram_used": File(self._used),
            "gpu_busy_percent": File(self._percent),
            "mem_busy_percent": File(self._percent),  # traffic of memory is not simulated: as the XCCs
        }

    def _metrics(self) -> dict[str, Entry]:
        """Awake always: these products have no runtime power management."""
        entries: dict[str, Entry] = {
            "gpu_metrics": File(self._gpu_metrics),
            "power/runtime_status": constant("active\n"),
            "power/control": constant("on\n"),
        }
        if self._driver.state.driver.xcp_metrics:
            entries["xcp"] = xcp_folder(self._driver, self._gpu, 0)
        return entries

    def _compute(self) -> dict[str, Entry]:
        gpu, profile = self._gpu, self._driver.state.driver
        settable = not (gpu.vf and profile.modes_by_memory)
        entries: dict[str, Entry] = {
            "current_compute_partition": self._file(
                self._read_compute, self._driver.write_compute if settable else None, fault=True
            ),
            "enforce_isolation": self._file(
                lambda _now: attributes.isolation(gpu), self._store(attributes.write_isolation)
            ),
        }
        if settable:
            entries["available_compute_partition"] = File(lambda _now: _listed(self._available()))
        if profile.compute_config:
            entries |= self._config()
        if profile.alloc_mode:
            entries["compute_partition_mem_alloc_mode"] = self._file(
                lambda _now: f"{gpu.alloc_mode}\n", self._store(attributes.write_alloc_mode)
            )
        return entries

    def _config(self) -> dict[str, Entry]:
        gpu = self._gpu
        folder = "compute_partition_config"
        entries: dict[str, Entry] = {
            f"{folder}/supported_xcp_configs": File(lambda _now: _listed(attributes.supported(gpu))),
            f"{folder}/xcp_config": self._file(
                lambda _now: f"{gpu.xcp_config}\n", self._store(attributes.write_xcp_config)
            ),
        }
        if not gpu.vf and not self._driver.state.hardware.apu:
            entries[f"{folder}/supported_nps_configs"] = File(lambda _now: _listed(self._memory_modes_of_config()))
        engines = self._driver.state.hardware.sdma_engines
        totals = {"xcc": gpu.xcc_count, "dma": engines, "dec": DECODERS, "jpeg": JPEG_ENGINES}
        for resource, total in totals.items():
            rings = JPEG_RINGS if resource == "jpeg" else 1
            for name, value in (("num_inst", self._instances(total, rings)), ("num_shared", self._shared(total))):
                entries[f"{folder}/{resource}/{name}"] = File(value, mode=0o400)
        return entries

    def _memory(self) -> dict[str, Entry]:
        writable = self._driver.memory_writable(self._gpu)
        modes = self._driver.state.hardware.memory_modes
        entries: dict[str, Entry] = {
            "current_memory_partition": self._file(
                self._read_memory, self._driver.write_memory if writable else None, fault=True
            )
        }
        if writable:
            entries["available_memory_partition"] = File(lambda _now: _listed(modes))
        return entries

    # -- reading ---------------------------------------------------------------------------------------------

    def _read_compute(self, now: float) -> str:
        """Sleeps on xcp_lock while a switch runs, else the cached mode; EPERM in reset with newer drivers."""
        until = self._driver.blocked_until(self._gpu.address, now)
        if until is not None:
            raise Blocked(until)
        self._check_reset()
        return f"{self._gpu.mode_file}\n"

    def _read_memory(self, now: float) -> str:
        """The hardware register: the memory mode in force, whatever was requested."""
        self._driver.settle(now)
        self._check_reset()
        return f"{self._gpu.memory}\n"

    def _check_reset(self) -> None:
        if not self._gpu.bound:
            raise failure(errno.ENODEV)
        if self._gpu.reset_until is not None and self._driver.state.driver.reset_eperm:
            raise failure(errno.EPERM)

    def _used(self, now: float) -> str:
        self._driver.settle(now)
        own = {node.gpu_id for node in self._driver.state.nodes if node.address == self._gpu.address}
        clients = self._driver.state.clients
        return f"{IDLE_VRAM_BYTES + sum(n for c in clients for gpu_id, n in c.vram.items() if gpu_id in own)}\n"

    def _percent(self, now: float) -> str:
        self._driver.settle(now)
        check_active(self._driver, self._gpu)
        busy = xcc_activity(self._driver.state, self._gpu, now)
        return f"{round(100 * sum(busy) / len(busy))}\n"

    def _gpu_metrics(self, now: float) -> bytes:
        state = self._driver.state
        self._driver.settle(now)
        check_active(self._driver, self._gpu)
        count = partition_count(self._gpu.mode_file, self._gpu.xcc_count) or 1
        return gpu_metrics(state.metrics_version, xcc_activity(state, self._gpu, now), count)

    def _available(self) -> list[ComputeMode]:
        gpu, state = self._gpu, self._driver.state
        modes = attributes.supported(gpu)
        if not state.driver.modes_by_memory:
            return modes
        return [mode for mode in modes if pair_allowed(state.hardware.gfx_target, mode, gpu.memory)]

    def _memory_modes_of_config(self) -> list[MemoryMode]:
        state = self._driver.state
        target, compute = state.hardware.gfx_target, self._gpu.xcp_config
        return [mode for mode in state.hardware.memory_modes if pair_allowed(target, compute, mode)]

    def _instances(self, total: int, rings: int) -> Callable[[float], str]:
        """aqua_vanjaram_get_xcp_res_info for the mode named in xcp_config."""

        def read(_now: float) -> str:
            count = partition_count(self._gpu.xcp_config, self._gpu.xcc_count) or 1
            return f"{max(total // count, 1) * rings}\n"

        return read

    def _shared(self, total: int) -> Callable[[float], str]:
        def read(_now: float) -> str:
            count = partition_count(self._gpu.xcp_config, self._gpu.xcc_count) or 1
            return f"{count // total if total < count else 1}\n"

        return read

    # -- making files ----------------------------------------------------------------------------------------

    def _file(
        self,
        read: Callable[[float], str],
        write: Callable[[str, bytes, float], WriteOutcome] | None,
        *,
        fault: bool = False,
    ) -> File:
        """0644 with a store function, else 0444; `fault`: a mode file, whose open the faults can refuse."""
        address = self._gpu.address
        if write is None:
            return File(read)
        store = write
        return File(
            read,
            mode=0o644,
            write=lambda data, now: store(address, data, now),
            may_open=self._may_open if fault else None,
        )

    def _store(self, change: Callable[[SimGpu, bytes], int]) -> Callable[[str, bytes, float], WriteOutcome]:
        """A store function that only changes a setting of the GPU."""

        def write(_address: str, data: bytes, now: float) -> WriteOutcome:
            self._driver.settle(now)
            return WriteOutcome(now, change(self._gpu, data) if self._gpu.bound else errno.ENODEV)

        return write

    def _may_open(self) -> int:
        state, address = self._driver.state, self._gpu.address
        if spend(state, FaultKind.ACCESS_DENIED, address):
            return errno.EACCES
        return errno.EROFS if spend(state, FaultKind.READ_ONLY, address) else 0


def check_active(driver: Driver, gpu: SimGpu) -> None:
    """Newer drivers answer EBUSY in a reset (amdgpu_pm_get_access_if_active), older ones EPERM."""
    if gpu.reset_until is not None:
        raise failure(errno.EBUSY if driver.state.driver.reset_eperm else errno.EPERM)


def xcp_folder(driver: Driver, gpu: SimGpu, index: int) -> Directory:
    """xcp/ of a DRM device: its metrics are there while the mode uses this XCP."""

    def find(now: float) -> KfdNode | None:
        driver.settle(now)
        nodes = driver.state.nodes
        return next((node for node in nodes if (node.address, node.index) == (gpu.address, index)), None)

    def read(now: float) -> bytes:
        node = find(now)
        if node is None:
            raise failure(errno.ENODEV)
        check_active(driver, gpu)
        return partition_metrics([partition_activity(driver.state, node, now)] * node.xcc_count)

    file = File(read)
    return Directory(lambda now: {"xcp_metrics": file} if find(now) is not None else {})


def drm_nodes(minor: int, parent: str) -> dict[str, Entry]:
    """The drm/ folder of a device: card and render node (both exist whatever the mode)."""
    card = minor - CARD_OFFSET
    entries: dict[str, Entry] = {}
    for name, number in ((f"card{card}", card), (f"renderD{minor}", minor)):
        entries |= {
            f"drm/{name}/dev": constant(f"226:{number}\n"),
            f"drm/{name}/uevent": constant(f"MAJOR=226\nMINOR={number}\nDEVNAME=dri/{name}\nDEVTYPE=drm_minor\n"),
            f"drm/{name}/device": Link(f"../../../{parent}"),
            f"drm/{name}/subsystem": Link("../../../../../class/drm"),
        }
    return entries


def _driver_line(gpu: SimGpu) -> str:
    return "DRIVER=amdgpu\n" if gpu.bound else ""


def _listed(modes: Iterable[ComputeMode] | Iterable[MemoryMode]) -> str:
    return (", ".join(mode.value for mode in modes) or "Not supported") + "\n"
