"""Kernel uevents as driver events. Says what happened and to which GPU; what follows from it is the daemon's business.

A compute switch sends no uevent, so this complements the poll of KFD's generation_id and does not replace it.
pyroute2 supplies the socket and is loaded when a listener is built, not before.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from aimd.errors import UnreachableError
from aimd.ports import DriverEvent

Fields = Mapping[str, str]

_DATAGRAM_BYTES = 16384  # the kernel's are at most UEVENT_BUFFER_SIZE (2048) and a headline, include/linux/kobject.h
_BATCH = 64  # datagrams between two turns of the loop: a driver load sends hundreds
_KERNEL = (0, 1)  # sender's port id and multicast group: user space can have neither port 0 nor send as it
_DRM_CARD_OF_PCI_DEVICE = re.compile(r"/([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/drm/card\d+\Z")
_AMD_GPU_VENDOR = "1002:"
_GPU_BASE_CLASSES = (0x03, 0x12)  # display controller, processing accelerator


def _nowhere(_fields: Fields) -> str | None:
    return None


def _pci_slot(fields: Fields) -> str | None:
    return fields.get("PCI_SLOT_NAME")


def _pci_slot_of_card(fields: Fields) -> str | None:
    card = _DRM_CARD_OF_PCI_DEVICE.search(fields.get("DEVPATH", ""))
    return card.group(1) if card else None


def _is_amdgpu_module(fields: Fields) -> bool:
    return fields.get("DEVPATH") == "/module/amdgpu"


def _is_bound_to_amdgpu(fields: Fields) -> bool:
    return fields.get("DRIVER") == "amdgpu"


def _was_bound_to_amdgpu(fields: Fields) -> bool:
    """The driver core clears dev->driver before it announces the unbinding (drivers/base/dd.c), so DRIVER is missing.

    What is left to go by is the device: vendor and class. An AMD GPU let go by another driver counts, too; the rescan
    then finds nothing new.
    """
    if "DRIVER" in fields:
        return _is_bound_to_amdgpu(fields)
    try:
        base_class = int(fields.get("PCI_CLASS", ""), 16) >> 16
    except ValueError:
        return False
    return fields.get("PCI_ID", "").startswith(_AMD_GPU_VENDOR) and base_class in _GPU_BASE_CLASSES


def _has_recovered(fields: Fields) -> bool:
    """WEDGED stands in a DRM event after a reset (Linux 6.15 and later); amdgpu sends `none`, after success only."""
    return "WEDGED" in fields and _pci_slot_of_card(fields) is not None


def _pci_recovery_ended(fields: Fields) -> bool:
    """PCI error recovery tells its begin and its end (pci_uevent_ers in drivers/pci, since 4.16)."""
    return _is_bound_to_amdgpu(fields) and fields.get("ERROR_EVENT") in {"SUCCESSFUL_RECOVERY", "FAILED_RECOVERY"}


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: str
    applies: Callable[[Fields], bool]
    address: Callable[[Fields], str | None]


_MEANINGS: Mapping[tuple[str | None, str | None], _Meaning] = {
    # (ACTION, SUBSYSTEM). The module is announced after its init has returned, that is after its GPUs were probed.
    ("add", "module"): _Meaning("driver_reloaded", _is_amdgpu_module, _nowhere),
    ("remove", "module"): _Meaning("driver_unloaded", _is_amdgpu_module, _nowhere),
    ("bind", "pci"): _Meaning("gpu_added", _is_bound_to_amdgpu, _pci_slot),
    ("unbind", "pci"): _Meaning("gpu_removed", _was_bound_to_amdgpu, _pci_slot),
    ("change", "drm"): _Meaning("gpu_reset", _has_recovered, _pci_slot_of_card),
    ("change", "pci"): _Meaning("gpu_reset", _pci_recovery_ended, _pci_slot),
}


def meaning(fields: Fields) -> DriverEvent | None:
    """What a uevent's variables mean for the node's GPUs; None if nothing."""
    row = _MEANINGS.get((fields.get("ACTION"), fields.get("SUBSYSTEM")))
    if row is None or not row.applies(fields):
        return None
    return DriverEvent(row.kind, row.address(fields))


def variables(datagram: bytes) -> dict[str, str] | None:
    """The variables of a uevent as the kernel writes it: `ACTION@DEVPATH`, then KEY=VALUE, each ended by NUL.

    None for everything else: udev's own format (which has a binary header) and whatever is not well-formed.
    """
    headline, *lines = datagram.decode(errors="replace").split("\0")
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    if headline.split("@", 1) != [fields.get("ACTION"), fields.get("DEVPATH")]:
        return None
    return fields


class _NetlinkSocket(Protocol):
    def fileno(self) -> int: ...

    def recvfrom(self, size: int, /) -> tuple[bytes, tuple[int, int]]: ...

    def close(self) -> None: ...


def _kernel_socket() -> _NetlinkSocket:
    """A non-blocking socket that hears the kernel's uevents in the caller's network namespace.

    Of pyroute2 0.9 this is the socket alone. Its asyncio layer drops the sender's address, which tells the kernel from
    a forger, ends for good at the first ENOBUFS, and raises in the loop on datagrams shorter than a netlink header.
    """
    from pyroute2.netlink.uevent import MONITOR_GROUP_KERNEL, AsyncUeventSocket  # noqa: PLC0415 - 10 MiB, listeners only

    netlink = AsyncUeventSocket()
    try:
        netlink.setblocking(False)
        netlink.socket.bind((0, MONITOR_GROUP_KERNEL))
    except OSError as error:
        netlink.close()
        raise UnreachableError(
            f"The kernel's uevents cannot be heard: a netlink socket for them fails with {error.strerror}.",
            code="uevents_unavailable",
            hint="Allow AF_NETLINK to the daemon (RestrictAddressFamilies, seccomp); until then it relies on polling.",
        ) from error
    return netlink  # type: ignore[no-any-return]


class UeventListener:
    """Driver events from construction on; implements ports.DriverEvents.

    Must be constructed in the running event loop to which it then belongs. When the kernel had to drop events because
    the loop was busy for too long, `events_lost` takes their place.

    Raises:
        UnreachableError: the socket cannot be had.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[DriverEvent | None] = asyncio.Queue()
        self._socket = _kernel_socket()
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def __aiter__(self) -> AsyncIterator[DriverEvent]:
        return self

    async def __anext__(self) -> DriverEvent:
        event = await self._events.get()
        if event is None:
            self._events.put_nowait(None)  # for the next one who asks
            raise StopAsyncIteration
        return event

    async def close(self) -> None:
        """Let go of the socket. Iteration hands out what has arrived and ends."""
        self._end()

    def _end(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._events.put_nowait(None)

    def _receive(self) -> None:
        for _ in range(_BATCH):
            try:
                datagram, sender = self._socket.recvfrom(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # netlink(7) knows no other; do not spin on it
                    self._end()
                    raise
                self._events.put_nowait(DriverEvent("events_lost"))
                continue
            if sender == _KERNEL and (fields := variables(datagram)) is not None:
                event = meaning(fields)
                if event is not None:
                    self._events.put_nowait(event)
