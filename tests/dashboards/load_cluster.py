"""The cluster of the load scene: an API server in this process, troubled now and then, and what it was asked."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from tests.fakes.kube_api import NODES, PARTITIONS, PODS, FakeApi

NODE = "node-a"


class Asked(NamedTuple):
    """A request that was answered, or not; `at` is seconds since the epoch."""

    verb: str
    resource: str
    code: str
    at: float


class LoadCluster:
    """A node without pods of its own, whose record the daemon keeps.

    Args:
        home: where the kubeconfig is put.
    """

    def __init__(self, home: Path) -> None:
        self.api = FakeApi()
        self.api.put(NODES, {"metadata": {"name": NODE}})
        kubeconfig = self.api.kubeconfig(home)
        self.settings = f'[kubernetes]\nenabled = true\nnode = "{NODE}"\nkubeconfig = "{kubeconfig}"\n'
        self.cuts: list[float] = []

    def trouble(self, number: int) -> None:
        """One of: the node's record cannot be written once; a watch breaks, or tells that it is alive."""
        if number % 3 == 0:
            self.api.fail("patch", PARTITIONS, code=503)
        elif number % 3 == 1:
            self.api.cut_watches()
            self.cuts.append(time.time())
        else:
            self.api.bookmark(PODS)

    def asked(self) -> list[Asked]:
        """So far."""
        offset = time.time() - time.monotonic()
        found = list(self.api.requests)
        return [Asked(one.verb, one.resource, str(one.code), one.at + offset) for one in found if one.code is not None]

    def written(self) -> bool:
        """The record is there."""
        return bool((self.api.get(PARTITIONS, NODE) or {}).get("status"))

    def followed(self) -> bool:
        """The daemon is told of all changes: after a watch that broke it pauses."""
        return all(self.api.watches(resource) for resource in (PODS, PARTITIONS))

    def close(self) -> None:
        self.api.close()
