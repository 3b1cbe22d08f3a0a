"""The real program before an API server that goes wrong in every way: who is served on the node does not notice.

What each fault does to the adapter is tested beside this; here all of them come upon a whole daemon. Another one with
an API server that is well is asked in turns, so that what else this machine does slows down both alike.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from pathlib import Path

import pytest

from aimd.dispatch.client import Client
from tests.e2e.programs import Daemon
from tests.fakes.kube_api import NODES, PARTITIONS, PODS, SERVICES, FakeApi
from tests.integration.test_api_crowd import latency
from tests.systemd.machine import until

ON = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": "8"}
LLAMA = {"serving.kserve.io/inferenceservice": "llama"}
MODEL = "default/llama"
CYCLES, ROUNDS = 40, 3  # a daemon that is too slow is so in every round, a noisy machine is not
ALLOWED, SLACK_SECONDS = 5.0, 0.05
EVERY_SECONDS = 0.01  # how often somebody would have asked: who waits for seconds is not one who waits, but hundreds
SECONDS_TO_CONVERGE = 90  # the longest pause of a watch, and of what is read after it


class Site:
    """A daemon and its API server."""

    def __init__(self, folder: Path) -> None:
        self.api = FakeApi()
        self.folder = folder
        self.api.put(NODES, {"metadata": {"name": "a", "uid": "n"}})
        self.api.put(SERVICES, {"metadata": {"namespace": "default", "name": "llama"}})
        self.pod(1)
        kubeconfig = self.api.kubeconfig(folder)
        config = folder / "aimd.toml"
        config.write_text(
            f'[metrics]\nlisten = "off"\n[kubernetes]\nenabled = true\nnode = "a"\nkubeconfig = "{kubeconfig}"\n'
        )
        self.daemon = Daemon(folder, "mi300x:8", "--config", str(config))

    def pod(self, number: int, **metadata: object) -> None:
        """Made, or changed."""
        whose = {"namespace": "default", "name": f"llama-{number}", "labels": LLAMA, "annotations": ON}
        self.api.put(PODS, {"metadata": whose | metadata, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}})

    def settled(self, pods: int) -> bool:
        """Whether so many pods have a place, and service and record say so."""
        status = self.api.get(SERVICES, "llama", "default").get("status") or {}
        told = (status.get("gpuSharing") or {}).get("assignments") or {}
        claims = {claim["name"]: claim for claim in self.daemon.get("claims")["claims"]}
        placed = len(claims[MODEL]["assignments"]) if MODEL in claims else 0
        record = (self.api.get(PARTITIONS, "a") or {}).get("status") or {}
        reserved = record.get("reservedGB")
        return (placed, sum("partitionId" in entry for entry in told.values()), reserved) == (pods, pods, 8 * pods)

    def close(self) -> None:
        self.daemon.close()
        self.api.close()


@pytest.fixture
def sites():
    """One whose API server goes wrong, and one for comparison."""
    with contextlib.ExitStack() as ends:
        made = []
        for _ in range(2):
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="aimd-")))
            folder.chmod(0o755)
            made.append(Site(folder))
            ends.callback(made[-1].close)
            made[-1].daemon.start()
        for site in made:
            until(lambda site=site: site.settled(1), lambda site=site: site.daemon.log)
        yield made


def gone_in_the_watch(site: Site) -> None:
    site.api.advance()
    site.api.compact()
    site.api.end_watches()


def gone_by_status(site: Site) -> None:
    site.api.advance()
    site.api.compact(as_event=False)
    site.api.end_watches()


def throttled(site: Site) -> None:
    site.api.fail("*", "*", code=429, headers={"Retry-After": "1"}, times=30)
    site.api.cut_watches()


def broken(site: Site) -> None:
    site.api.fail("*", "*", code=503, times=30)
    site.api.cut_watches(b'{"type": "ADD')


def slow_lists(site: Site) -> None:
    site.api.fail("list", "*", delay=2.0, times=4)
    gone_in_the_watch(site)


def slow_answers(site: Site) -> None:
    site.api.fail("get", "*", delay=1.0, times=4)
    site.api.fail("patch", "*", delay=1.0, times=4)


def half_open(site: Site) -> None:
    site.api.hush()


def told_twice_and_late(site: Site) -> None:
    old = {"metadata": {"namespace": "default", "name": "llama-1", "uid": "u", "resourceVersion": "1"}}
    site.api.say(
        PODS, *({"type": kind, "object": old} for kind in ("ADDED", "MODIFIED", "DELETED") for _ in range(300))
    )


def expired(site: Site) -> None:
    site.api.tokens = {"second"}
    site.api.break_connections()
    threading.Timer(1.0, site.api.kubeconfig, (site.folder, "second")).start()


FAULTS = [  # while answers are slow the watches have to tell that there is something to ask
    slow_answers,
    gone_in_the_watch,
    gone_by_status,
    throttled,
    told_twice_and_late,
    slow_lists,
    broken,
    expired,
    half_open,
]


def cycle(client: Client) -> float:
    """From an acquire to the end of its lease, in seconds."""
    began = time.perf_counter()
    with client.lease(MODEL):
        pass
    return time.perf_counter() - began


def all_of(waited: list[float]) -> list[float]:
    """With those who would have come while one had to wait."""
    return [each - n * EVERY_SECONDS for each in waited for n in range(1 + int(each / EVERY_SECONDS))]


class Watch:
    """How long clients of both sites wait, in turns: seconds by what they ask and whom."""

    def __init__(self, sites, clients) -> None:
        self._sites, self._clients = sites, clients
        self.found: dict[str, list[list[float]]] = {"API": [[], []], "acquire": [[], []]}

    def look(self, cycles: int) -> None:
        for _ in range(cycles):
            for number, (site, client) in enumerate(zip(self._sites, self._clients, strict=True)):
                self.found["API"][number].append(latency(site.daemon.socket))
                self.found["acquire"][number].append(cycle(client))
            time.sleep(0.005)

    def p99s(self) -> dict[str, list[float]]:
        found = self.found.items()
        return {what: [statistics.quantiles(all_of(each), n=100)[98] for each in both] for what, both in found}

    def slowed(self) -> bool:
        return any(ill > ALLOWED * well + SLACK_SECONDS for ill, well in self.p99s().values())


def through_all_faults(sites, clients) -> Watch:
    watch = Watch(sites, clients)
    for number, fault in enumerate(FAULTS):
        fault(sites[0])
        for site in sites:  # there is something to do, too
            site.pod(1, labels=LLAMA | {"touched": f"{number}"})
        watch.look(CYCLES)
        time.sleep(0.5)
        watch.look(CYCLES)
    return watch


@pytest.mark.alone
@pytest.mark.timeout(300)
def test_who_is_served_on_the_node_notices_nothing_and_all_is_told_when_the_api_server_is_well(sites):
    ill, well = sites
    with contextlib.ExitStack() as ends:
        paths = [str(site.daemon.runtime / "dispatch.sock") for site in sites]
        clients = [ends.enter_context(Client(path)) for path in paths]
        Watch(sites, clients).look(CYCLES)
        rounds = [through_all_faults(sites, clients)]
        while len(rounds) < ROUNDS and rounds[-1].slowed():
            ill.api.heal()
            ill.api.break_connections()
            until(lambda: ill.api.watches(PODS), lambda: ill.daemon.log, SECONDS_TO_CONVERGE)
            time.sleep(2)  # it may ask again
            rounds.append(through_all_faults(sites, clients))
    shown = [{what: [f"{p * 1e3:.2f} ms" for p in both] for what, both in one.p99s().items()} for one in rounds]
    print(f"p99 before a faulty API server and a good one: {shown[-1]}")
    assert not rounds[-1].slowed(), shown
    for site in sites:
        site.pod(2)
    assert not ill.settled(2)
    ill.api.heal()
    ill.api.break_connections()  # of the half-open one the network tells at last
    until(lambda: well.settled(2), lambda: well.daemon.log)
    until(lambda: ill.settled(2), lambda: ill.daemon.log, SECONDS_TO_CONVERGE)
    assert "Traceback" not in ill.daemon.log
    assert "has failed, the next is in" not in ill.daemon.log
