"""The daemon and its service manager: sockets from it, states, status line and watchdog to it, a reload by SIGHUP."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from aimd.adapters.journal import about
from aimd.adapters.systemd import Notifier, in_journal, inherited_sockets, watchdog_seconds
from aimd.daemon import watchdog
from aimd.daemon.loop import ControlLoop, Reload
from aimd.domain.node import NodeSnapshot
from aimd.errors import AimdError
from aimd.exits import told
from aimd.planning import effects as fx
from aimd.ports import Reloaded
from aimd.rundirs import API_SOCKET, DISPATCH_SOCKET, METRICS_SOCKET

log = logging.getLogger("aimd")

FOLLOW_SECONDS = 60.0
# A node without a driver is shown as that by a daemon that runs, not by a unit that is starting for ever.
PATIENCE_SECONDS = 10.0
_NOT_READY = about("not_ready", "node")
SOCKET_FILES = {"api": API_SOCKET, "dispatch": DISPATCH_SOCKET, "metrics": METRICS_SOCKET}


@dataclass(frozen=True, slots=True)
class Supervision:
    """What a service manager gave this process.

    Attributes:
        sockets: listening ones by name (api, dispatch, metrics); the daemon binds those that are not among them.
        watchdog_seconds: None if nobody watches.
        journal: standard error is the journal's.
    """

    notifier: Notifier = field(default_factory=Notifier)
    sockets: dict[str, socket.socket] = field(default_factory=dict)
    watchdog_seconds: float | None = None
    journal: bool = False

    @classmethod
    def of(cls, environ: MutableMapping[str, str], pid: int) -> Supervision:
        """By this process's environment, from which it is taken: a child would take it for its own."""
        return cls(
            Notifier.of(environ),
            inherited_sockets(environ, pid),
            watchdog_seconds(environ, pid),
            in_journal(environ),
        )

    def remove_sockets(self, runtime: Path) -> None:
        """Remove the files of the sockets that the daemon has bound itself; the manager's go on listening."""
        for name, file in SOCKET_FILES.items():
            if name not in self.sockets:
                (runtime / file).unlink(missing_ok=True)

    def announced(self, reload: Reload) -> Reload:
        """The same reload, of which the manager is told."""

        def announced() -> tuple[fx.Reconfigured, list[str], list[str]]:
            self.notifier.reloading()
            try:
                return reload()
            finally:
                self.notifier.again()

        return announced

    def ready(self, line: str, snapshot: NodeSnapshot) -> None:
        """Tell the manager and the reader of the log."""
        self.notifier.ready(status_line(snapshot))
        if self.journal:
            log.info(line, extra=about("ready", "node"))
        else:
            sys.stderr.write(f"{line}\n")

    @contextlib.asynccontextmanager
    async def watching(self, loop: ControlLoop, dispatch: watchdog.Path) -> AsyncIterator[None]:
        """Meanwhile status line and watchdog are kept up, and SIGHUP reloads."""
        running = asyncio.get_running_loop()
        beside = [asyncio.create_task(self._follow(loop)), asyncio.create_task(self._out_of_patience(loop))]
        if self.watchdog_seconds is not None:
            paths: dict[str, watchdog.Path] = {"control loop": loop, "dispatch thread": dispatch}
            watching = watchdog.Watchdog(paths, self.watchdog_seconds, self.notifier.alive)
            beside.append(asyncio.create_task(watching.run()))
        hangup = asyncio.Event()
        if not (sys.stdin is not None and sys.stdin.isatty()):  # there SIGHUP says that the terminal has gone
            running.add_signal_handler(signal.SIGHUP, hangup.set)
            beside.append(asyncio.create_task(_reload_on(hangup, loop)))
        try:
            yield
        finally:
            self.notifier.stopping()
            running.remove_signal_handler(signal.SIGHUP)
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _follow(self, loop: ControlLoop) -> None:
        generation = -1
        while True:
            snapshot = await loop.changed(generation, FOLLOW_SECONDS)
            generation = snapshot.generation
            self.notifier.status(status_line(snapshot))

    async def _out_of_patience(self, loop: ControlLoop) -> None:
        try:
            await asyncio.wait_for(loop.ready.wait(), PATIENCE_SECONDS)
        except asyncio.TimeoutError:
            log.warning("the manager is told that the daemon runs: it does, and waits for the node", extra=_NOT_READY)
            self.notifier.ready(status_line(loop.snapshot))


async def reload_logged(reload: Callable[[], Awaitable[Reloaded]]) -> None:
    """A reload asked for by a signal, which has no answer: the log has it."""
    try:
        found = await reload()
    except AimdError as error:
        log.error("the configuration stays as it was: %s", told(error), extra=about("reload_refused", "node"))  # noqa: TRY400
        return
    words = ", ".join(found.changed) or "nothing"
    late = f"; after a restart: {', '.join(found.needs_restart)}" if found.needs_restart else ""
    log.info("the configuration was read again; changed: %s%s", words, late, extra=about("reloaded", "node"))
    for problem in found.problems:
        log.warning("%s", problem, extra=about("reload_problem", "node"))


def status_line(snapshot: NodeSnapshot) -> str:
    """What `systemctl status` says: 8 GPUs, 64 partitions, 3 assigned; what is under way or wrong."""
    if not snapshot.ready:
        return f"Not ready: {'; '.join(snapshot.warnings) or 'the node has not been looked at yet'}"
    partitions = sum(len(status.gpu.partitions) for status in snapshot.gpus)
    assigned = sum(len(claim.assignments) for claim in snapshot.claims)
    words = [f"{len(snapshot.gpus)} GPUs, {partitions} partitions, {assigned} assigned"]
    words += [f"mode change {change.name}: {change.state}" for change in snapshot.changes if change.current is not None]
    drifting = [status.name for status in snapshot.gpus if status.drift]
    if drifting:
        words.append(f"not as wished: {', '.join(drifting)}")
    return "; ".join([*words, *snapshot.warnings])


async def _reload_on(hangup: asyncio.Event, loop: ControlLoop) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        await reload_logged(loop.reload)
