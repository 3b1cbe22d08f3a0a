"""The metrics of a running daemon: what is gathered for a page, tasks that measure, sockets that serve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from aimd import __version__
from aimd.adapters.callers import pod_of
from aimd.adapters.http.health import CHECKS, not_alive, not_ready
from aimd.adapters.http.scraping import MetricsEndpoint
from aimd.adapters.metrics.collector import NodeCollector
from aimd.adapters.metrics.instruments import Instruments
from aimd.adapters.metrics.pages import Pages
from aimd.adapters.metrics.view import View
from aimd.config import METRICS_ADDRESS, Metrics
from aimd.daemon.counting import ChangeWatch, watch_lag
from aimd.daemon.loop import ControlLoop
from aimd.daemon.metering import DispatchMeter
from aimd.daemon.sampling import Observer
from aimd.domain.cluster import ClusterStanding
from aimd.domain.metering import DispatchReading, PodPlace, Telemetry
from aimd.domain.node import NodeSnapshot
from aimd.errors import AimdError, UnreachableError
from aimd.ports import TelemetrySource
from aimd.rundirs import METRICS_SOCKET

log = logging.getLogger("aimd.metrics")

Part = TypeVar("Part")


class Pods:
    """Which pods the holders of claims run in. A process stays in its pod: each is looked at once."""

    def __init__(self, pod: Callable[[int, int], str | None] = pod_of) -> None:
        self._pod = pod
        self._known: dict[tuple[int, int], str | None] = {}

    def read(self, snapshot: NodeSnapshot) -> tuple[PodPlace, ...]:
        """Blocks, for files of /proc. Raises OSError."""
        living = [holder for holder in snapshot.claim_holders if holder.ended_at is None]
        known = {(one.pid, one.start_time): self._known.get((one.pid, one.start_time), "") for one in living}
        self._known = {one: self._pod(*one) if pod == "" else pod for one, pod in known.items()}
        found: dict[PodPlace, None] = {}
        for holder in living:
            pod = self._known[holder.pid, holder.start_time]
            if pod is not None and holder.gpu is not None and holder.index is not None:
                found[PodPlace(pod, holder.claim, holder.gpu, holder.index)] = None
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Sources:
    """What pages are made of.

    Attributes:
        meter: of a dispatch service that has begun.
        telemetry: None where nothing reads it.
        cluster: how the node takes part in its cluster; None where it does not.
    """

    loop: ControlLoop
    observer: Observer
    meter: DispatchMeter
    simulated: bool = False
    pods: Pods = field(default_factory=Pods)
    telemetry: TelemetrySource | None = None
    cluster: Callable[[], ClusterStanding] | None = None


class _Parts:
    """Reads parts one by one: each is timed, and one that cannot be read leaves the others as they are."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.unreadable: set[str] = set()

    def read(self, name: str, read: Callable[[], Part], otherwise: Part) -> Part:
        began = time.perf_counter()
        try:
            return read()
        except (AimdError, OSError, ValueError) as error:
            log.warning("a page of metrics is without %s: %s", name, error)
            self.unreadable.add(name)
            return otherwise
        finally:
            self.seconds[name] = time.perf_counter() - began


def gather(sources: Sources) -> Callable[[], View]:
    """Take what belongs to the event loop; the view is made by what is returned, which blocks."""
    loop, telemetry = sources.loop, sources.telemetry
    snapshot, board = loop.snapshot, sources.observer.board
    dispatch: Callable[[], DispatchReading | None] = (
        sources.meter.begin() if sources.meter is not None else lambda: None
    )
    cluster = sources.cluster() if sources.cluster is not None else None
    failing = {**not_alive(loop), **not_ready(loop)}
    overdue, failures = time.monotonic() - loop.health.turned_at, loop.failures

    def view() -> View:
        parts = _Parts()
        return View(
            version=__version__,
            snapshot=snapshot,
            dispatch=parts.read("dispatch", dispatch, None),
            board=board,
            telemetry=Telemetry()
            if telemetry is None
            else parts.read("telemetry", partial(telemetry.read, snapshot), Telemetry()),
            pods=parts.read("pods", partial(sources.pods.read, snapshot), ()),
            simulated=sources.simulated,
            checks=CHECKS,
            failing=failing,
            overdue_seconds=overdue,
            failures=failures,
            cluster=cluster,
            reading_seconds=parts.seconds,
            unreadable=frozenset(parts.unreadable),
        )

    return view


@contextlib.asynccontextmanager
async def metrics_served(
    sources: Sources, instruments: Instruments, settings: Metrics, runtime: Path, given: socket.socket | None
) -> AsyncIterator[None]:
    """Measure and serve meanwhile: on the Unix socket, which a service manager may have given, and by TCP.

    Raises:
        UnreachableError: the configured address cannot be had. That the default one cannot is told in the log.
    """
    pages = Pages(NodeCollector(instruments), lambda: gather(sources))
    endpoint = MetricsEndpoint(pages, sources.loop)
    beside = [
        asyncio.create_task(watch_lag(instruments)),
        asyncio.create_task(ChangeWatch(instruments).follow(sources.loop)),
    ]
    try:
        if given is not None:
            endpoint.serve(given)
        else:
            endpoint.serve_path(runtime / METRICS_SOCKET)
        address = settings.address()
        if address is not None:
            try:
                endpoint.serve_tcp(*address)
            except UnreachableError as error:
                if settings.listen != METRICS_ADDRESS:
                    raise
                log.warning("%s; they are on %s alone", error.message, runtime / METRICS_SOCKET)
        yield
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await endpoint.close()
        await asyncio.to_thread(pages.close)
