"""Giving up what root has beyond its files: every capability, in all five sets, and any way to get one back.

A pod of the daemon has to be privileged for its device rules and its view of /sys; the process needs none of the rest.
User 0 without a capability still owns the driver's files, and writes them as their owner.

Sources: capabilities(7), capget(2), prctl(2); include/uapi/linux/capability.h and prctl.h of Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from aimd.errors import DeniedError

PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 23, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
LINUX_CAPABILITY_VERSION_3 = 0x20080522
MOST = 64  # bits that this version of the call has
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def give_up_capabilities(status: Path = Path("/proc/thread-self/status")) -> None:
    """Drop all of them for good. For a process of one thread: each thread has its own, and new ones inherit these.

    The bounding set goes first, since dropping from it needs CAP_SETPCAP.

    Raises:
        DeniedError: the kernel does not allow it, or some are left.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(libc, "the ambient set", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for number in range(MOST):
        has = libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0)
        if has < 0:  # beyond the last one of this kernel
            break
        if has:
            _prctl(libc, f"capability {number} of the bounding set", PR_CAPBSET_DROP, number)
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)  # 0: this thread
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, twice 32 bits of each
    if libc.capset(header, nothing) != 0:
        raise _denied("the effective, permitted and inheritable sets")
    _prctl(libc, "new privileges", PR_SET_NO_NEW_PRIVS, 1)
    _check(status)


def _check(status: Path) -> None:
    """The kernel's word that nothing is left."""
    fields = dict(line.split(":\t", 1) for line in status.read_text("ascii", "replace").splitlines() if ":\t" in line)
    left = [name for name in SETS if int(fields.get(name, "1"), 16)]
    if left or fields.get("NoNewPrivs", "1") != "1":  # Linux tells the latter since 4.10
        raise DeniedError(
            f"capabilities are left in {', '.join(left) or 'NoNewPrivs'}, expected none", code="capabilities"
        )


def _prctl(libc: ctypes.CDLL, what: str, option: int, argument: int) -> None:
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        raise _denied(what)


def _denied(what: str) -> DeniedError:
    number = ctypes.get_errno()
    return DeniedError(
        f"{what} cannot be given up: {os.strerror(number)}",
        code="capabilities",
        hint="it needs root with CAP_SETPCAP: run aimd so, or without --give-up-capabilities"
        if number == errno.EPERM
        else "it needs Linux 4.3",
    )
