"""The service manager: what it handed over, and what it is told. The one door to sdnotify.

Without a manager (its variables are not set) nothing is handed over and nobody is told; nothing else differs.
Formats: sd_notify(3), sd_listen_fds(3) and sd_watchdog_enabled(3) of systemd 252.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Protocol

from aimd.errors import InvalidInputError

log = logging.getLogger("aimd")

FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START
SOCKET_NAMES = ("api", "dispatch", "metrics")
_LISTEN = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_WATCHDOG = ("WATCHDOG_PID", "WATCHDOG_USEC")


class _Sender(Protocol):
    def notify(self, state: str) -> None: ...


class Notifier:
    """Tells the manager of the daemon's state. A message that cannot be sent is logged, and the daemon goes on.

    Args:
        sender: None if there is no manager.
    """

    def __init__(self, sender: _Sender | None = None) -> None:
        self._sender = sender
        self._status = ""

    @classmethod
    def of(cls, environ: MutableMapping[str, str]) -> Notifier:
        """By NOTIFY_SOCKET of this process's environment, which no child is to inherit."""
        if "NOTIFY_SOCKET" not in environ:
            return cls()
        from sdnotify import SystemdNotifier  # noqa: PLC0415 - a daemon without a manager does not need it

        try:
            sender = SystemdNotifier(debug=True)  # without it errors are swallowed
            sender.socket.setblocking(False)  # a manager that does not read must not hold up the daemon
        except OSError as error:
            log.error("the service manager cannot be told anything: %s", error)  # noqa: TRY400 - a sentence
            return cls()
        finally:
            del environ["NOTIFY_SOCKET"]
        return cls(sender)

    def ready(self, status: str) -> None:
        """The daemon serves, for the first time or again after a reload."""
        self._status = _line(status)
        self._send(f"READY=1\nSTATUS={self._status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`; sent when it differs from the last one."""
        line = _line(status)
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows. The time is what Type=notify-reload (253) asks for."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def again(self) -> None:
        """The reload is over, however it ended."""
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=Stopping; leases stay with their clients")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if self._sender is None:
            return
        try:
            self._sender.notify(state)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", state.partition("\n")[0], error)


def watchdog_seconds(environ: MutableMapping[str, str], pid: int) -> float | None:
    """How often the manager wants to hear that the daemon lives; None if it does not ask. Taken from the environment."""
    asked_pid, period = (environ.pop(name, None) for name in _WATCHDOG)
    if not period or asked_pid not in (None, str(pid)):
        return None
    if not period.isdigit() or int(period) == 0:
        raise InvalidInputError(f"WATCHDOG_USEC is {period!r}, expected microseconds as systemd sets them")
    return int(period) / 1e6


def inherited_sockets(
    environ: MutableMapping[str, str], pid: int, first: int = FIRST_DESCRIPTOR
) -> dict[str, socket.socket]:
    """The listening sockets that the manager handed over, by name; taken from the environment.

    Raises:
        InvalidInputError: one that carries a name of SOCKET_NAMES is no listening Unix stream socket, or two carry it.
    """
    told_pid, told_count, told_names = (environ.pop(name, "") for name in _LISTEN)
    if told_pid != str(pid) or not told_count.isdigit():
        return {}
    names = told_names.split(":")
    found: dict[str, socket.socket] = {}
    for number in range(int(told_count)):
        name = names[number] if number < len(names) else ""
        os.set_inheritable(first + number, False)
        if name not in SOCKET_NAMES:
            log.warning("socket %r of the service manager is not used: expected one of %s", name, SOCKET_NAMES)
            os.close(first + number)
            continue
        if name in found:
            raise InvalidInputError(f"two sockets are named {name!r}, expected one", hint=_SOCKET_HINT)
        found[name] = _listening(name, first + number)
    return found


_SOCKET_HINT = "see FileDescriptorName= and ListenStream= of the .socket units"


def _listening(name: str, descriptor: int) -> socket.socket:
    try:
        given = socket.socket(fileno=descriptor)
        listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidInputError(f"descriptor {descriptor} ({name}) is no socket: {error}", hint=_SOCKET_HINT) from error
    if given.family != socket.AF_UNIX or given.type != socket.SOCK_STREAM or not listens:
        raise InvalidInputError(
            f"the socket named {name!r} is {given.family.name} {given.type.name}, expected a Unix stream socket that"
            " listens",
            hint=_SOCKET_HINT,
        )
    given.setblocking(False)
    return given


def in_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether this descriptor, standard error, is the journal's: JOURNAL_STREAM is its device and inode (systemd.exec(5))."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _line(text: str) -> str:
    """One line of ASCII: sdnotify encodes as Latin-1, and a newline would begin another assignment."""
    return " ".join(text.split()).encode("ascii", "replace").decode("ascii")
