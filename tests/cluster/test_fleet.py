"""What many nodes cost the API server: requests for a change of a status, watches, and its processor time.

The normal run has a small fleet and asserts counts. The measurement that README's numbers are from:
`pytest -m campaign -s tests/cluster/test_fleet.py`.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.cluster import pods
from tests.cluster.control_plane import ControlPlane
from tests.cluster.fleet import Cost, Fleet, watches_served
from tests.cluster.sites import with_aimd
from tests.cluster.test_cluster_policies import ON, SERVICES, service_with
from tests.systemd.machine import until

WATCHED = ("pods", "nodepartitions")
# For a pod that comes: its service read for what it declares and for what it says already, its status, the Event on the
# pod, the node's record read and written.
MOST_REQUESTS = 7
FOR_RIVALS = ("get nodes 200", "list resourceslices 200")  # once a minute
ACCOUNT = "system:serviceaccount:aimd-system:aimd"
PATH = "/api/v1/namespaces/{}/pods"


class Services:
    """One with at most one pod for each node of a fleet."""

    def __init__(self, cluster, fleet, namespace):
        self._api, self._fleet, self._namespace = cluster.api, fleet, namespace
        self._path = SERVICES.format(namespace)
        for name in fleet.names:
            item = service_with(ON)
            item["metadata"] = {"name": name, "annotations": ON}
            self._api.create(self._path, item)

    def bind(self, annotations, pace=0.0):
        """A pod on each node, `pace` seconds after the one before; gives when each was there."""
        created = {}
        for name in self._fleet.names:
            began = time.monotonic()
            item = pods.pod(f"{name}-1", nodeName=name)
            labels = {"serving.kserve.io/inferenceservice": name, "component": "predictor"}
            item["metadata"] |= {"annotations": annotations, "labels": labels}
            self._api.create(PATH.format(self._namespace), item)
            created[name] = time.monotonic()
            time.sleep(max(0.0, pace - (created[name] - began)))
        return created

    def unbind(self, pace=0.0):
        for name in self._fleet.names:
            began = time.monotonic()
            self._api.delete(f"{PATH.format(self._namespace)}/{name}-1", at_once=True)
            time.sleep(max(0.0, pace - (time.monotonic() - began)))

    def told(self, verdict):
        """Whether every status says so, and nobody has anything to write any more."""
        time.sleep(0.2)
        items = self._api.get(self._path)["items"]
        return all(_verdict(item) == verdict for item in items) and self._fleet.is_idle()

    @contextlib.contextmanager
    def seen(self):
        """When each status was first seen to be true, by a watch that begins now."""
        found, ending = {}, threading.Event()
        version = self._api.get(self._path)["metadata"]["resourceVersion"]

        def follow(answer):
            for line in answer:
                item = json.loads(line)["object"]
                if _verdict(item) == "True":
                    found.setdefault(item["metadata"]["name"], time.monotonic())
                if ending.is_set():
                    return

        with self._api.lines(self._path, watch="true", resourceVersion=version, timeoutSeconds=600) as answer:
            thread = threading.Thread(target=follow, args=(answer,), daemon=True)
            thread.start()
            yield found
            ending.set()


def _verdict(item):
    conditions = (item.get("status") or {}).get("conditions") or []
    return next((one["status"] for one in conditions if one["type"] == "GPUPartitionAssigned"), "False")


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="aimd-") as name:
        yield Path(name)


def listed_without_selector(events):
    """Lists and watches of everything in the cluster, by the nodes' account."""
    found = []
    for event in events:
        if event["user"]["username"] == ACCOUNT and event["verb"] in ("list", "watch"):
            query = parse_qs(urlsplit(event["requestURI"]).query)
            if not query.get("fieldSelector"):
                found.append(event["requestURI"])
    return found


def test_what_twenty_nodes_ask(control_plane, namespace, folder):
    count = 20
    cluster = with_aimd(control_plane)
    before, began = watches_served(cluster), len(cluster.requests_made())
    fleet = Fleet(cluster, folder, count)
    try:
        assert set(fleet.watches()) == {len(WATCHED)}
        served = watches_served(cluster) - before
        assert {resource: served[resource] for resource in WATCHED} == dict.fromkeys(WATCHED, count)
        services = Services(cluster, fleet, namespace)
        until(fleet.is_idle, "it goes on writing")
        quiet = Cost(cluster, fleet)
        time.sleep(3)
        assert not [asked for asked in quiet.requests() if asked not in FOR_RIVALS], "an idle node asks"
        for change, verdict in ((lambda: services.bind(ON), "True"), (services.unbind, "False")):
            cost = Cost(cluster, fleet)
            change()
            until(lambda verdict=verdict: services.told(verdict), "not told")
            made = cost.requests()
            print(verdict, dict(made))
            assert made["patch inferenceservices/status 200"] == count
            assert sum(made.values()) <= MOST_REQUESTS * count
        assert fleet.watches() == [len(WATCHED)] * count
        assert listed_without_selector(cluster.requests_made()[began:]) == []
    finally:
        fleet.close()


@pytest.mark.campaign
@pytest.mark.timeout(3600, func_only=True)
@pytest.mark.parametrize("count", [20, 200])
def test_what_a_fleet_costs(cluster_programs, folder, count):
    """Prints; a burst of pods without annotations is what the pods themselves cost."""
    cluster = with_aimd(ControlPlane(cluster_programs, folder / "control"))
    try:
        time.sleep(20)
        memory = cluster.memory()["kube-apiserver"]
        alone = _rate(cluster)
        began = Cost(cluster)
        fleet = Fleet(cluster, folder, count)
        print(f"\n{count} nodes: started in {began.elapsed():.1f} s, {began.processor() / count * 1e3:.1f} ms each")
        services = Services(cluster, fleet, "default")
        until(fleet.is_idle, "it goes on writing", 120)
        time.sleep(20)
        idle = _rate(cluster, fleet)
        grown = cluster.memory()["kube-apiserver"] - memory
        print(
            f"idle: {alone * 1e3:.1f} ms/s alone, {idle * 1e3:.1f} with the fleet; {grown / count / 2**10:.0f} KiB each"
        )
        print(f"watches: {dict(watches_served(cluster))}")
        _waves(cluster, fleet, services, idle)
        fleet.close()
    finally:
        cluster.close()


def _rate(cluster, fleet=None, seconds=60):
    """Processor seconds per second while nothing happens."""
    cost = Cost(cluster, fleet)
    time.sleep(seconds)
    if fleet is not None:
        print(f"requests in {seconds} s of idleness: {dict(cost.requests())}")
    return cost.processor() / cost.elapsed()


def _waves(cluster, fleet, services, idle):
    count, pace = len(fleet.names), 0.1
    spent = {}
    for said in ({}, ON):
        with services.seen() as seen:
            cost = Cost(cluster, fleet)
            created = services.bind(said, pace)
            if said:
                until(lambda: services.told("True"), "not told", 120)
                latencies = sorted(seen[name] - created[name] for name in created)
                p50, p99 = (latencies[min(count - 1, int(count * part))] for part in (0.5, 0.99))
                print(f"bound -> visible: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
            bound = cost.processor() - idle * cost.elapsed()
            print(f"bound: {dict(cost.requests())}")
        cost = Cost(cluster, fleet)
        services.unbind(pace)
        if said:
            until(lambda: services.told("False"), "not told", 120)
        spent[bool(said)] = bound, cost.processor() - idle * cost.elapsed()
        print(f"released: {dict(cost.requests())}")
        time.sleep(5)
    for number, what in enumerate(("binding", "release")):
        of_pods, whole = spent[False][number], spent[True][number]
        print(
            f"{what}: {(whole - of_pods) / count * 1e3:.1f} ms each beside {of_pods / count * 1e3:.1f} of the pod itself"
        )
