"""GET /v1/cluster: what the daemon tells of its cluster, and to whom."""

import asyncio

from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Call
from aimd.adapters.http.resources.cluster import read_cluster
from aimd.adapters.unix.peer import Peer
from tests.fakes.served import served
from tests.integration.unix_http import ask
from tests.unit.metrics.cluster_scene import standing


def test_over_the_socket():
    with served(standing=standing) as running:
        answer = ask(running.socket, "/v1/cluster")
    assert answer.status == 200
    told = answer.json
    assert (told["enabled"], told["node"], told["server"]) == (True, "node-a", "https://10.0.0.1:6443")
    assert [(watch["resource"], watch["synced"], watch["missing"]) for watch in told["watches"]] == [
        ("pods", True, False),
        ("nodepartitions", False, True),
    ]
    assert [(each["kind"], each["waiting"], each["failing"], each["dropped"]) for each in told["writes"]] == [
        ("event", 2, 0, 1),
        ("node", 1, 1, 0),
        ("service", 0, 0, 1),
    ]
    assert told["problem"] == "patch nodepartitions/status node-a: 503"


def test_without_a_cluster():
    with served() as running:
        assert ask(running.socket, "/v1/cluster").json["enabled"] is False


def test_a_pod_does_not_hear_of_others():
    def refused(*, in_pod: bool):
        api = Api(None, None, None, None, standing)
        answer = asyncio.run(read_cluster(api, Call(Peer(1, 0, in_pod=in_pod, account="x"), {})))
        return set(answer.message.pods_refused)

    assert refused(in_pod=False) == {"default/llama-predictor-0"}
    assert refused(in_pod=True) == set()
