"""Two nodes and their daemons under the real controllers and scheduler, through everything that happens to a service.

After each test pods, ledgers and statuses agree (consistency.py), and when the services are withdrawn nothing is left.
`pytest -m campaign tests/cluster/test_lifecycle_nodes.py` goes on for longer, by other seeds.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster import consistency
from tests.cluster.control_plane import API_SERVER, CONTROLLERS, SCHEDULER, ControlPlane
from tests.cluster.paper_nodes import PaperNodes
from tests.cluster.sites import PARTITIONS, site, with_aimd
from tests.cluster.tollgate import Point
from tests.systemd.machine import until

SECONDS_AWAY = 30
STATUS = r"/inferenceservices/llama/status"
RECORD = r"/nodepartitions/pair-a/status"


@pytest.fixture(scope="module")
def folder():
    """With a short path, for sockets."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def cluster(control_plane):
    return with_aimd(control_plane)


@pytest.fixture(scope="module")
def paper(cluster):
    nodes = PaperNodes(cluster.api)
    yield nodes
    nodes.close()


@pytest.fixture(scope="module")
def removed(cluster, paper, folder):
    """A service on two nodes, of which one is off and its Node removed: its pods stay for a minute (podgc)."""
    with site(cluster, paper, "removal", folder, "stays", "goes") as made:
        made.deploy("llama", 2)
        made.settled()
        assert {pod["spec"]["nodeName"] for pod in made.pods()} == {"stays", "goes"}
        made.switch_off("goes")
        cluster.api.delete("/api/v1/nodes/goes")
        yield made


@pytest.fixture(scope="module")
def pair(cluster, paper, folder, removed):
    """Two nodes with daemons; what is removed goes meanwhile."""
    with site(cluster, paper, "pair", folder, "pair-a", "pair-b") as made:
        yield made


@pytest.fixture
def two(pair):
    yield pair
    pair.cleared()


def spread(site, service):
    """Nodes that its pods are on."""
    return {pod["spec"].get("nodeName") for pod in site.pods(service)}


def kill(site, name):
    return lambda: os.kill(site.nodes[name].daemon.pid, signal.SIGKILL)


def again(site, name):
    """Start the daemon that was killed."""
    site.nodes[name].daemon.stop(signal.SIGKILL)
    site.nodes[name].daemon.start()


def test_scaled_updated_and_withdrawn(two):
    two.deploy("llama", 1)
    two.settled()
    two.scale("llama", 4)
    world = two.settled()
    assert spread(two, "llama") == {"pair-a", "pair-b"}
    assert {entry["node"] for entry in two.status("llama")["gpuSharing"]["assignments"].values()} == set(two.nodes)
    assert sum(len(ledger.assignments) for ledger in world.ledgers.values()) == 4
    before = {pod["metadata"]["uid"] for pod in two.pods()}
    two.update("llama", "12")
    world = two.settled()
    assert before.isdisjoint(pod["metadata"]["uid"] for pod in two.pods())
    assert {one["memory_gb"] for ledger in world.ledgers.values() for one in ledger.assignments} == {12}
    two.deploy("embed", 2, memory="4")
    two.settled()
    two.is_what_aimctl_shows()
    two.scale("llama", 0)
    two.settled()
    assert two.status("llama")["conditions"][0]["reason"] == "NoPods"
    two.withdraw("llama")
    two.settled()


def test_more_than_fits_waits_and_comes_in_when_there_is_room(two):
    """Eight partitions of 24 GB on each of both nodes."""
    two.deploy("llama", 18, memory="20")
    world = two.settled()
    assert sum(len(ledger.assignments) for ledger in world.ledgers.values()) == 16
    assert two.status("llama")["conditions"][0]["reason"] == "NoRoom"
    two.scale("llama", 12)
    world = two.settled()
    assert sum(len(ledger.assignments) for ledger in world.ledgers.values()) == 12
    assert two.status("llama")["conditions"][0]["status"] == "True"


ASSIGNING = (
    Point("asked", "GET", r"/inferenceservices/llama$"),  # bound, its service not read
    Point("asked", "PATCH", STATUS),  # assigned, not told
    Point("answered", "PATCH", STATUS),  # told, and not known to be
    Point("asked", "POST", r"/events"),
    Point("answered", "POST", r"/events"),
    Point("asked", "PATCH", RECORD),
)
RELEASING = (
    Point("answered", "PATCH", RECORD),
    Point("answered", "PATCH", STATUS),  # told, and not known to be
    Point("asked", "PATCH", STATUS),  # released, not told: of the last pod, which nothing else reminds of
)


def killed_at(site, point, happens):
    """What happens makes the daemon come to the point, where it is killed; started again it comes to the same."""
    with site.gates["pair-a"].once(point, kill(site, "pair-a")) as passed:
        happens()
        assert passed.wait(30), f"{point} is never reached"
    again(site, "pair-a")
    site.settled()


def test_killed_while_it_assigns(two):
    """At each of the points, with a pod more each time."""
    two.deploy("llama", 1, on="pair-a")
    two.settled()
    for replicas, point in enumerate(ASSIGNING, 2):
        killed_at(two, point, lambda replicas=replicas: two.scale("llama", replicas))


def test_killed_while_it_releases(two):
    """At each of the points, with a pod less each time and none in the end."""
    two.deploy("llama", len(RELEASING), on="pair-a")
    two.settled()
    for less, point in enumerate(RELEASING, 1):
        killed_at(two, point, lambda less=less: two.scale("llama", len(RELEASING) - less))


def test_killed_in_the_change_of_a_mode(two):
    """The GPU is idle in SPX; a switch is under way when it ends."""
    node = two.nodes["pair-a"]
    assert node.daemon.aimctl("set-mode", "gpu0", "SPX").returncode == 0
    two.deploy("llama", 2, on="pair-a")
    until(lambda: [claim for claim in node.daemon.get("claims")["claims"] if claim["state"] == "switching"], "none")
    kill(two, "pair-a")()
    again(two, "pair-a")
    two.settled()
    assert node.daemon.modes() == ["CPX/NPS1"]


def test_pods_go_and_come_while_a_daemon_is_dead(two):
    two.deploy("llama", 4)
    two.settled()
    two.nodes["pair-b"].daemon.stop(signal.SIGKILL)
    two.update("llama", "6")
    until(lambda: not _old(two, "8"), "the pods are not replaced")
    two.nodes["pair-b"].daemon.start()
    two.settled()


def _old(site, memory):
    pods = site.pods()
    return [pod for pod in pods if pod["metadata"]["annotations"]["aimd.dev/memory-limit-gb"] == memory]


def storm(site, seed, steps):
    """Random deeds, some with a daemon killed a random moment later; all is well in the end."""
    chance = random.Random(seed)
    for number in range(steps):
        names = site.names()
        deed = chance.choice(["deploy", "scale", "scale", "update", "delete pod", "withdraw"])
        if not names or (deed == "deploy" and len(names) < 4):
            site.deploy(f"s{number}", chance.randint(1, 3), chance.choice(("4", "8", "16")))
        elif deed in ("scale", "deploy"):
            site.scale(chance.choice(names), chance.randint(0, 5))
        elif deed == "update":
            site.update(chance.choice(names), chance.choice(("5", "9", "13")))
        elif deed == "withdraw":
            site.withdraw(chance.choice(names))
        elif pods := site.pods():
            pod = chance.choice(sorted(pods, key=lambda pod: pod["metadata"]["name"]))["metadata"]["name"]
            site.cluster.api.delete(f"/api/v1/namespaces/{site.namespace}/pods/{pod}", at_once=chance.random() < 0.5)
        time.sleep(chance.random() * 0.5)
        if chance.random() < 0.4:
            name = chance.choice(sorted(site.nodes))
            kill(site, name)()
            again(site, name)
        assert consistency.never({name: site.ledger(name) for name in site.nodes}) == []
    site.settled()
    site.is_what_aimctl_shows()


def test_random_deeds_and_kills(two):
    storm(two, seed=1, steps=12)


@pytest.mark.campaign
@pytest.mark.timeout(1800, func_only=True)
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_random_deeds_and_kills(two, seed):
    storm(two, seed, steps=60)


def test_a_node_that_is_removed_and_added_again_while_its_daemon_runs(two, cluster, paper):
    """Its token is good for nothing any more until there is one for the new Node."""
    two.deploy("llama", 2)
    two.settled()
    paper.leave("pair-b")
    cluster.api.delete("/api/v1/nodes/pair-b")
    for pod in two.pods():
        if pod["spec"]["nodeName"] == "pair-b":
            cluster.api.delete(f"/api/v1/namespaces/pair/pods/{pod['metadata']['name']}", at_once=True)
    until(lambda: spread(two, "llama") == {"pair-a"}, "no pod in its place")
    paper.add("pair-b", **{"aimd-test/pool": "pair"})
    two.nodes["pair-b"].renew_token()
    two.scale("llama", 4)
    two.settled()
    assert spread(two, "llama") == {"pair-a", "pair-b"}


@pytest.fixture
def outage(cluster_programs, folder, tmp_path):
    """A pair of nodes in a cluster whose API server may be stopped."""
    own = with_aimd(ControlPlane(cluster_programs, tmp_path / "own"))
    paper = PaperNodes(own.api)
    try:
        with site(own, paper, "outage", folder, "out-a", "out-b") as made:
            yield made
    finally:
        paper.close()
        own.close()


def test_the_api_server_is_away_for_half_a_minute(outage):
    """What is placed stays, also over a daemon's death; then all that was changed is caught up with."""
    outage.deploy("llama", 4)
    before = outage.settled()
    outage.cluster.stop(API_SERVER)
    ends = time.monotonic() + SECONDS_AWAY
    kill(outage, "out-b")()
    again(outage, "out-b")
    while time.monotonic() < ends:
        for name, ledger in before.ledgers.items():
            began = time.monotonic()
            assert outage.ledger(name).places() == ledger.places()
            assert time.monotonic() - began < 1, "the local API waits for the cluster"
        time.sleep(0.5)
    outage.cluster.start(API_SERVER)
    outage.cluster.wait_until_ready()
    for program in (CONTROLLERS, SCHEDULER):  # they come back by themselves, too, after up to a minute
        outage.cluster.stop(program)
        outage.cluster.start(program)
    name = outage.pods()[0]["metadata"]["name"]
    outage.cluster.api.delete(f"/api/v1/namespaces/outage/pods/{name}", at_once=True)
    outage.scale("llama", 6)
    outage.deploy("embed", 2)
    world = outage.settled()
    assert sum(len(ledger.assignments) for ledger in world.ledgers.values()) == 8
    outage.is_what_aimctl_shows()
    outage.cleared()


def test_a_removed_node_is_told_of_no_more(removed, cluster):
    """Its pods are deleted by the controllers, others take their place, and its record goes with it."""
    until(lambda: spread(removed, "llama") == {"stays"}, lambda: f"pods are on {spread(removed, 'llama')}", 150)
    removed.settled()
    entries = removed.status("llama")["gpuSharing"]["assignments"]
    assert [entry["node"] for entry in entries.values()] == ["stays", "stays"]
    until(lambda: cluster.api.find(f"{PARTITIONS}/goes") is None, "the record outlives its Node")
