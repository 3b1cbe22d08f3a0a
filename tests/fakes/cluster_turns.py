"""A desk's node in a cluster in memory: a turn is taken when it is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from aimd.daemon.cluster import ClusterService
from aimd.daemon.effective import Effective
from aimd.daemon.published import Published
from aimd.domain.pod import Pod, PodRef
from aimd.planning import effects as fx
from tests.fakes.cluster import FakeCluster
from tests.unit.planning.desk import Desk
from tests.unit.test_effective import FILE

ON = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": "8"}
SERVICE = {"serving.kserve.io/inferenceservice": "llama"}
KEY = ("default", "llama")
POD = Pod(PodRef("default", "llama-1", "u1"), SERVICE, ON)
REFRESH_SECONDS = 600.0


def pod(number: int, **more: Any) -> Pod:
    """Another of the same service."""
    return replace(POD, ref=PodRef("default", f"llama-{number}", f"u{number}"), **more)


class Turning:
    def __init__(self, made: Desk, cluster: FakeCluster | None = None) -> None:
        self.made = made
        self.cluster = cluster or FakeCluster()
        self.posted: list[fx.Event] = []
        self.now = 1000.0
        self.shown = Published(made.snapshot, lambda snapshot: snapshot.generation)
        self.service = ClusterService(
            self.cluster,  # type: ignore[arg-type]
            self.shown,
            self.posted.append,
            Effective(FILE),
            {},
            REFRESH_SECONDS,
        )

    def turn(self, seconds: float = 0.0) -> None:
        """After so many seconds; and again for what was read in it."""
        self.now += seconds
        for _ in range(4):
            self.shown.publish(self.made.snapshot)
            self.service._turn(self.made.snapshot, self.now)
            while self.posted:
                self.made.tell(self.posted.pop(0))
                self.made.run()

    def ready(self) -> dict[str, Any]:
        assert self.cluster.objects.record is not None
        conditions = self.cluster.objects.record["status"]["conditions"]
        return next(each for each in conditions if each["type"] == "PartitioningReady")

    def turns(self, seconds: float, every: float = 0.5) -> None:
        """For so long."""
        for _ in range(round(seconds / every)):
            self.turn(every)

    @property
    def sharing(self) -> Any:
        """What the service's status says."""
        return (self.cluster.objects.services[KEY].get("status") or {}).get("gpuSharing")
