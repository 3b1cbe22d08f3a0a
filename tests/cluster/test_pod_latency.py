"""How long it takes from a pod's binding until its service's status is visible: one daemon, a real control plane.

Run: .venv/bin/pytest tests/cluster/test_pod_latency.py -s
"""

from __future__ import annotations

import http.client
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.cluster.test_cluster_policies import ON, SERVICES
from tests.cluster.test_lifecycle import NodeDaemon, cluster, service
from tests.systemd.machine import until

__all__ = ["cluster"]

PODS = 60
AIM_SECONDS = 0.1
ALLOWED_SECONDS = 0.4  # a machine that does much else is slower, a daemon that waits for a tick is too


class Statuses(threading.Thread):
    """Watches the services of a namespace; `seen` has when each pod's place was first told, in perf_counter seconds."""

    def __init__(self, cluster, namespace: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, float] = {}
        api = cluster.api
        self._connection = http.client.HTTPSConnection(api._address, context=api._context)
        self._connection.request("GET", f"{SERVICES.format(namespace)}?watch=true", headers=api._headers)
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200

    def run(self) -> None:
        while line := self._answer.readline():
            now = time.perf_counter()
            sharing = (json.loads(line)["object"].get("status") or {}).get("gpuSharing") or {}
            for uid, entry in (sharing.get("assignments") or {}).items():
                if "partitionId" in entry:
                    self.seen.setdefault(uid, now)


@pytest.mark.alone
def test_from_a_bound_pod_to_the_status(cluster, namespace):
    said = ON | {"aimd.dev/memory-limit-gb": "1"}
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        node = NodeDaemon(cluster, "node-latency", folder)
        statuses = Statuses(cluster, namespace)
        statuses.start()
        found = []
        try:
            for number in range(PODS):
                service(cluster, namespace, f"llama-{number}", said)
                began = time.perf_counter()
                uid = node.pod(namespace, f"pod-{number}", f"llama-{number}", said)
                until(lambda uid=uid: uid in statuses.seen, lambda: node.daemon.log)
                found.append(statuses.seen[uid] - began)
        finally:
            node.close()
    p50, p99 = statistics.median(found), statistics.quantiles(found, n=100)[98]
    verdict = "met" if p50 <= AIM_SECONDS else "MISSED"
    print(
        f"\nbound to visible: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, least {min(found) * 1e3:.0f} ms; {verdict}"
    )
    assert p50 < ALLOWED_SECONDS, found
