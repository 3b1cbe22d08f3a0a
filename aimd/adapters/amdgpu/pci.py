"""The PCI device's files: which modes a GPU is in and offers, as far as the driver and its generation tell."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

from aimd.adapters.amdgpu.errnos import ABSENT, OWN_WANT, unreadable
from aimd.adapters.amdgpu.layout import SysfsLayout
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.ports import Sysfs

COMPUTE_FILE = "current_compute_partition"
MEMORY_FILE = "current_memory_partition"


@dataclass(frozen=True, slots=True)
class PciFiles:
    """What the PCI device's files say; None where a file is absent or unreadable."""

    device_id: int | None = None
    compute: ComputeMode | None = None
    memory: MemoryMode | None = None
    compute_modes: tuple[ComputeMode, ...] | None = None
    memory_modes: tuple[MemoryMode, ...] | None = None
    memory_writable: bool | None = None
    memory_bytes: int | None = None
    numa_node: int | None = None
    in_reset: bool = False
    partitionable: bool = False


class PciReader:
    """Reads the devices of one scan.

    Attributes:
        warnings: a sentence per file that is there and could not be read.
    """

    def __init__(self, sysfs: Sysfs, layout: SysfsLayout) -> None:
        self._sysfs = sysfs
        self._layout = layout
        self.warnings: list[str] = []

    def read(self, address: str) -> PciFiles:
        """The files of a device, nothing but None if it is not on the bus.

        Raises:
            DriverError: this process or machine lacks what reading needs (descriptors, memory).
        """
        path = self._layout.pci_file(self._sysfs, address, "")
        if path is None:
            return PciFiles()
        compute, in_reset = self._text(path + COMPUTE_FILE)
        memory, memory_in_reset = self._text(path + MEMORY_FILE)
        return PciFiles(
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
        """Content without white space at its ends (None if absent or unreadable), and whether EPERM says "in reset"."""
        try:
            return self._sysfs.read(path).decode("ascii", "replace").strip(), False
        except OSError as error:
            if error.errno in ABSENT:
                return None, False
            if error.errno == errno.EPERM:
                return None, True
            failed = unreadable(error, path, "a file of a GPU")
            if error.errno in OWN_WANT:
                raise failed from error
            self.warnings.append(failed.message)
            return None, False

    def _is_writable(self, path: str) -> bool | None:
        try:
            return self._sysfs.writable(path)
        except OSError:
            return None


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
