"""Where things lie below a sysfs root; captures for support cases hold only a part of it, sometimes elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from aimd.adapters.amdgpu.errnos import OWN_WANT, unreadable
from aimd.errors import DriverError
from aimd.ports import Sysfs

ENOENT = 2
_TOPOLOGIES = (
    "class/kfd/kfd/topology",
    "devices/virtual/kfd/kfd/topology",
    "kfd/kfd/topology",
    "kfd/topology",
    "topology",
    "",
)
_PCI = ("bus/pci/drivers/amdgpu", "module/amdgpu/drivers/pci:amdgpu", "bus/pci/devices")


@dataclass(frozen=True, slots=True)
class SysfsLayout:
    """Paths relative to the root: of `topology`, of `proc` and of the folders that may hold PCI devices.

    `root` is how messages call the root.
    """

    topology: str
    processes: str
    pci: tuple[str, ...]
    root: str = "/sys"

    def pci_file(self, sysfs: Sysfs, address: str, name: str) -> str | None:
        """Path of a file of the PCI device, or None if no folder has it; raises DriverError for want of memory."""
        for folder in self.pci:
            path = f"{folder}/{address}"
            try:
                sysfs.listdir(path)
            except OSError as error:
                if error.errno in OWN_WANT:
                    raise unreadable(error, path, f"the folder of GPU {address}") from error
                continue
            return f"{path}/{name}"
        return None


SYSTEM = SysfsLayout("class/kfd/kfd/topology", "class/kfd/kfd/proc", _PCI)


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def locate(sysfs: Sysfs, root: str) -> SysfsLayout:
    """The layout of a root that may be /sys, a folder that holds `sys`, or a capture of the topology alone.

    Looks in the root, in its `sys`, and likewise in each of its folders (an unpacked archive often has one more level).
    `root` is how messages call it.

    Raises:
        DriverError: no KFD topology (a folder with `nodes`) is found.
    """
    try:
        children = sysfs.listdir("")
    except OSError as error:
        raise DriverError(
            f"{root} cannot be read ({error.strerror}), expected /sys or a captured part of it",
            errno=error.errno or ENOENT,
            path="",
        ) from error
    prefixes = ["", "sys", *(place for name in children for place in (name, f"{name}/sys"))]
    for prefix in prefixes:
        for candidate in _TOPOLOGIES:
            topology = _join(prefix, candidate)
            if _has_nodes(sysfs, topology):
                processes = _join(topology[: -len("topology")].rstrip("/"), "proc")
                return SysfsLayout(topology or ".", processes, tuple(_join(prefix, folder) for folder in _PCI), root)
    raise DriverError(
        f"{root} holds no KFD topology: neither class/kfd/kfd/topology/nodes nor topology/nodes has nodes, "
        "expected /sys of a machine with the amdgpu driver or a captured part of it",
        hint="on the machine itself load the driver (modprobe amdgpu); of a capture name the folder that holds topology/",
        errno=ENOENT,
        path="class/kfd/kfd/topology",
    )


def _has_nodes(sysfs: Sysfs, topology: str) -> bool:
    try:
        return any(name.isdigit() for name in sysfs.listdir(_join(topology, "nodes")))
    except OSError:
        return False
