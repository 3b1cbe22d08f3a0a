"""/sys of a simulated node: where the driver's folders and files are, with the symbolic links of a real system.

Contents are in sim/pci.py (PCI devices) and sim/topology.py (KFD). Everything is made when it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from aimd.sim.driver import Blocked, Driver
from aimd.sim.entries import Directory, Entry, File, Link, constant, folder, nested, resolve
from aimd.sim.pci import CARD_OFFSET, PciDevice, drm_nodes, xcp_folder
from aimd.sim.state import SimGpu
from aimd.sim.topology import Topology

__all__ = ["Blocked", "Directory", "Entry", "File", "Link", "Tree"]

SOURCE_VERSION = "8D3F6B1C2A5E4F7091B2C3D"  # srcversion; dkms builds alone have a version file


class Tree:
    """The file tree over one driver. Paths are relative to /sys."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._version = -1
        self._entries: Mapping[str, Entry] = {}
        self._kfd = Topology(driver).directory()
        self._root = Directory(self._children)

    def resolve(self, path: str, now: float, *, follow_last: bool = True) -> Entry:
        """The entry at a path; raises OSError (ENOENT, ENOTDIR, ELOOP)."""
        return resolve(self._root, path, now, follow_last=follow_last)

    def _children(self, now: float) -> Mapping[str, Entry]:
        self._driver.settle(now)
        if self._version != self._driver.devices_version:
            self._version = self._driver.devices_version
            self._entries = self._make()
        return self._entries

    def _make(self) -> Mapping[str, Entry]:
        state = self._driver.state
        present = [gpu for gpu in state.gpus if not gpu.lost]
        driver, module, kfd = self._driver_folders() if state.module_at is None else ({}, {}, {})
        buses = {_pci_root(gpu): folder({gpu.address: PciDevice(self._driver, gpu).directory()}) for gpu in present}
        platform = {
            name: self._xcp_device(gpu, index, name, minor) for gpu, index, name, minor in self._xcps() if gpu.bound
        }
        return {
            "devices": folder(
                {
                    **buses,
                    "platform": folder(platform),
                    "virtual": nested({"kfd/kfd": self._kfd}) if kfd else folder({}),
                }
            ),
            "bus": nested(
                {
                    "platform/devices": folder({name: Link(f"../../../devices/platform/{name}") for name in platform}),
                    "pci/devices": folder({g.address: Link(f"../../../devices/{_pci_path(g)}") for g in present}),
                    "pci/drivers": folder(driver),
                }
            ),
            "module": folder(module),
            "class": folder({**kfd, "drm": self._drm()}),
        }

    def _driver_folders(self) -> tuple[dict[str, Entry], dict[str, Entry], dict[str, Entry]]:
        """What is there while the module is loaded: the PCI driver with its GPUs, the module, the class of KFD."""
        bound = {
            gpu.address: Link(f"../../../../devices/{_pci_path(gpu)}") for gpu in self._driver.state.gpus if gpu.bound
        }
        driver = folder({"module": Link("../../../../module/amdgpu"), **bound})
        kfd = folder({"kfd": Link("../../devices/virtual/kfd/kfd")})
        return {"amdgpu": driver}, {"amdgpu": self._module()}, {"kfd": kfd}

    def _module(self) -> Directory:
        return folder(
            {
                "initstate": constant("live\n"),
                "refcnt": File(lambda _now: f"{len(self._driver.state.clients)}\n"),
                "srcversion": constant(f"{SOURCE_VERSION}\n"),
                "drivers": folder({"pci:amdgpu": Link("../../../bus/pci/drivers/amdgpu")}),
            }
        )

    def _drm(self) -> Directory:
        """class/drm: a link for each card and render node, those of XCPs that the mode does not use included."""
        links: dict[str, Entry] = {}
        for gpu in self._driver.state.gpus:
            if gpu.bound and gpu.render_minors and gpu.render_minors[0] is not None:
                links |= _drm_links(_pci_path(gpu), gpu.render_minors[0])
        for gpu, _index, name, minor in self._xcps():
            if gpu.bound:
                links |= _drm_links(f"platform/{name}", minor)
        return folder(links)

    def _xcps(self) -> Iterator[tuple[SimGpu, int, str, int]]:
        """Platform devices of the XCPs 1 to 7 of each GPU, numbered over the node, with their render minors."""
        number = 0
        for gpu in self._driver.state.gpus:
            for index, minor in enumerate(gpu.render_minors[1:], start=1):
                if minor is not None:
                    yield gpu, index, f"amdgpu_xcp{self._driver.state.driver.xcp_separator}{number}", minor
                    number += 1

    def _xcp_device(self, gpu: SimGpu, index: int, name: str, minor: int) -> Directory:
        """A platform device: it has none of the PCI device's attributes."""
        alias = f"platform:{name.rstrip('0123456789').rstrip('.')}" if "." in name else f"platform:{name}"
        entries: dict[str, Entry] = {
            "modalias": constant(f"{alias}\n"),
            "uevent": constant(f"MODALIAS={alias}\n"),
            "driver_override": constant("(null)\n"),
            "subsystem": Link("../../../bus/platform"),
            **drm_nodes(minor, name),
        }
        if self._driver.state.driver.xcp_metrics:
            entries["xcp"] = xcp_folder(self._driver, gpu, index)
        return nested(entries)


def _pci_root(gpu: SimGpu) -> str:
    return f"pci{gpu.address[:7]}"


def _pci_path(gpu: SimGpu) -> str:
    return f"{_pci_root(gpu)}/{gpu.address}"


def _drm_links(device: str, minor: int) -> dict[str, Entry]:
    names = (f"card{minor - CARD_OFFSET}", f"renderD{minor}")
    return {name: Link(f"../../devices/{device}/drm/{name}") for name in names}
