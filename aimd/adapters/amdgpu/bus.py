"""Where GPUs are on the machine's buses, and which driver they have: read once, for those who choose by it."""

from __future__ import annotations

from collections.abc import Iterable

from aimd.ports import Sysfs

DEVICES = "bus/pci/devices"
VERSION = "module/amdgpu/version"


def pcie_roots(sysfs: Sysfs, addresses: Iterable[str]) -> dict[str, str]:
    """The root complex (`pci0000:00`) of each PCI device whose place is known: the first folder of its path in devices/."""
    found = {}
    for address in addresses:
        try:
            parts = sysfs.readlink(f"{DEVICES}/{address}").split("/")
        except OSError:
            continue
        root = next((part for part in parts if part.startswith("pci") and ":" in part), None)
        if root is not None:
            found[address] = root
    return found


def driver_version(sysfs: Sysfs, kernel: str) -> str:
    """What the module says of itself (AMD's own package does), else the kernel's release, whose part it is."""
    try:
        return sysfs.read(VERSION).decode("utf-8", "replace").strip() or kernel
    except OSError:
        return kernel
