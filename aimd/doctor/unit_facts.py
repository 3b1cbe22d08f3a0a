"""What systemd and the files that a unit needs tell of aimd, as values. None is "could not be told"."""

from __future__ import annotations

from dataclasses import dataclass, field

SERVICE = "aimd.service"
SOCKETS = ("aimd.socket", "aimd-dispatch.socket", "aimd-metrics.socket")


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening socket's unit.

    Attributes:
        path: where it listens; None if systemd does not say.
        present: the socket's file is there.
    """

    name: str
    load: str
    active: str
    result: str
    path: str | None = None
    present: bool = True


@dataclass(frozen=True, slots=True)
class Service:
    """The daemon's unit, in systemd's words (systemctl show).

    Attributes:
        code, status: how its main process ended last: `exited`, `killed` or `dumped`, and exit code or signal.
        restarts: automatic ones since somebody started it.
        enabled: UnitFileState.
        told: its last STATUS= line.
    """

    load: str
    active: str
    sub: str
    result: str
    code: str = ""
    status: int = 0
    restarts: int = 0
    enabled: str = ""
    told: str = ""
    since: str = ""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class ModeFile:
    """A mode file and who owns it; `writable` tells that the unit's user may write it, `offered` that anybody may."""

    gpu: str
    name: str
    mode: int
    owner: str
    group: str
    writable: bool
    offered: bool = True


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """All of it.

    Attributes:
        booted: systemd is this system's init.
        failure: why systemd does not tell.
        user, group: that the unit runs as.
        user_known: the user exists.
        failures: results of failed runs of this boot, `watchdog` and others, with seconds since the epoch; None where
            the journal cannot be read.
        last_lines: the last words of the daemon in the journal.
    """

    booted: bool
    failure: str | None = None
    service: Service | None = None
    sockets: tuple[Socket, ...] = ()
    user: str = "root"
    group: str = "root"
    user_known: bool = True
    mode_files: tuple[ModeFile, ...] = ()
    failures: tuple[tuple[str, float], ...] | None = ()
    last_lines: tuple[str, ...] = field(default=())
