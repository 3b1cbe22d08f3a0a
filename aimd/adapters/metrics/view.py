"""All that one page is made of: values of one instant, gathered by the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aimd.domain.cluster import ClusterStanding
from aimd.domain.metering import DispatchReading, PodPlace, Telemetry
from aimd.domain.node import NodeSnapshot
from aimd.domain.traffic import TrafficBoard


@dataclass(frozen=True, slots=True)
class View:
    """The node as published last, and what was read for this page.

    Attributes:
        version: of aimd; `simulated`: the node is.
        dispatch: None while the service does not run, or could not be read.
        board: of the models, seconds old; None while there is none.
        failing: checks of /healthz and /readyz that fail, with the reason; `checks` are the names of all.
        overdue_seconds: since the control loop has turned last.
        failures: events and effects that the control loop could not handle.
        cluster: None where none is configured.
        reading_seconds: how long each part took that was read for this page; `unreadable` are parts that failed.
    """

    version: str
    snapshot: NodeSnapshot
    dispatch: DispatchReading | None = None
    board: TrafficBoard | None = None
    telemetry: Telemetry = field(default_factory=Telemetry)
    pods: tuple[PodPlace, ...] = ()
    simulated: bool = False
    checks: tuple[str, ...] = ()
    failing: Mapping[str, str] = field(default_factory=dict)
    overdue_seconds: float = 0.0
    failures: int = 0
    cluster: ClusterStanding | None = None
    reading_seconds: Mapping[str, float] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()
