"""/v1/models over the socket: what a board of traffic becomes, unknown models, and the watch from sample to sample."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from aimd.domain.claim import QosClass
from aimd.domain.partition import PartitionKey
from aimd.domain.traffic import Counts, Reading, Stage, TrafficBoard
from aimd.planning.history import TrafficHistory
from tests.fakes.served import Served, served
from tests.integration.unix_http import UnixConnection, ask

SLO = {"latency_seconds": 0.1, "objective": 0.9}


@pytest.fixture
def api() -> Iterator[Served]:
    with served() as running:
        assert ask(running.socket, "/v1/claims/llama", "PUT", {"memory_gb": 1, "qos": "high", "slo": SLO}).status == 201
        yield running


class Traffic:
    """Boards of the claims that are there, as if each was on its partitions with these counters."""

    def __init__(self, api: Served) -> None:
        self._api = api
        self._history = TrafficHistory(lambda cell: cell / 1000, 100)
        self._at = 100.0

    def pass_time(self, counts: Counts, cells: dict[int, int], begun: float = 100.0) -> TrafficBoard:
        self._at += 10.0
        claims = self._api.node.snapshot.claims
        one = Reading(self._at, begun, {QosClass.HIGH: counts}, 10.0, {(Stage.TOTAL, QosClass.HIGH): cells}, 16)
        readings = {
            claim.name: {PartitionKey(each.gpu, each.index, each.mode_epoch): one for each in claim.assignments}
            for claim in claims
        }
        board = self._history.read(claims, readings, self._at, time.time())
        self._api.run(self._api.traffic.show(board))
        return board


def test_what_is_not_known_is_null(api: Served) -> None:
    answer = ask(api.socket, "/v1/models").json
    assert (answer["window_seconds"], answer["sample"]) == (None, None)
    [model] = answer["models"]
    assert (model["name"], model["state"], model["qos"], model["limit"]) == ("llama", "placed", "high", None)
    assert model["slo"] == {**SLO, "throughput_floor": None}
    assert (model["traffic"], model["compliance"]) == (None, None)
    [place] = model["partitions"]
    assert (place["partition_name"], place["traffic"], place["compliance"]) == ("gpu0/0", None, None)


def test_a_board_becomes_an_answer(api: Served) -> None:
    outcomes = {"granted": 40, "queue_full_model": 5, "expired": 5}
    board = Traffic(api).pass_time(Counts(3, 2, outcomes, {"ok": 37}, 30, 17), {20: 30, 250: 7})
    listed, model = ask(api.socket, "/v1/models").json, ask(api.socket, "/v1/models/llama").json
    assert listed == {"models": [model], "window_seconds": 60.0, "sample": board.number}
    whole = model["traffic"]["whole"]
    assert (whole["running"], whole["waiting"], whole["good"], whole["bad"]) == (3, 2, 30, 17)
    assert (whole["outcomes"], whole["ends"]) == (outcomes, {"ok": 37})
    assert (whole["grants_per_second"], whole["rejected_per_second"]) == (4.0, 1.0)
    assert whole["total"] == {"count": 37, "p50": 0.02, "p95": 0.25, "p99": 0.25}
    assert whole["queue"] == {"count": 0, "p50": None, "p95": None, "p99": None}
    assert model["traffic"]["high"] == whole
    assert model["traffic"]["slots"] == 16
    assert model["traffic"]["low"]["outcomes"] == {}
    assert abs(time.time() - 10 - model["traffic"]["since"]) < 5
    compliance = model["compliance"]
    assert compliance["good_ratio"] == pytest.approx(30 / 47)
    assert (compliance["latency"], compliance["throughput"], compliance["alert"]) == ("missed", "unknown", "ticket")
    assert [(burn["long_seconds"], burn["short_seconds"]) for burn in compliance["burns"]] == [
        (3600, 300),
        (21600, 1800),
        (86400, 7200),
        (259200, 21600),
    ]
    assert compliance["burns"][0]["long"] == pytest.approx(17 / 47 / 0.1)
    assert [burn["firing"] for burn in compliance["burns"]] == [False, False, True, True]
    [place] = model["partitions"]
    assert (place["traffic"], place["compliance"]) == (model["traffic"], compliance)


def test_unknown_models_are_problems(api: Served) -> None:
    answer = ask(api.socket, "/v1/models/bert")
    assert (answer.status, answer.type) == (404, "application/problem+json")
    assert (answer.json["code"], answer.json["detail"]) == (
        "unknown_model",
        "model 'bert' has no claim on this node",
    )
    assert ask(api.socket, "/v1/models?since=3").status == 400
    assert ask(api.socket, "/v1/models", "PUT", {}).status == 405


def test_replicas_on_one_partition_are_one(api: Served) -> None:
    body = {"memory_gb": 1, "replicas": 2, "guarantee": 3, "limit": 5, "weight": 7, "partition": "gpu1/0"}
    assert ask(api.socket, "/v1/claims/twins", "PUT", body).status == 201
    model = ask(api.socket, "/v1/models/twins").json
    assert (model["replicas"], model["guarantee"], model["limit"], model["compliance"]) == (2, 3, 5, None)
    [place] = model["partitions"]
    assert (place["replicas"], place["guarantee"], place["limit"], place["weight"]) == (2, 6, 10, 7)


def test_a_watch_tells_what_differs_between_samples(api: Served) -> None:
    traffic = Traffic(api)
    first = traffic.pass_time(Counts(1), {})
    connection = UnixConnection(api.socket)
    connection.request("GET", "/v1/models?watch=1")
    connection.sock.settimeout(20)
    lines = (json.loads(line) for line in iter(connection.getresponse().readline, b""))
    told = next(lines)
    assert (told["type"], told["generation"], told["object"]["name"]) == ("ADDED", first.number, "llama")
    traffic.pass_time(Counts(1), {})  # nothing differs: no line
    third = traffic.pass_time(Counts(2), {})
    told = next(lines)
    assert (told["type"], told["generation"]) == ("MODIFIED", third.number)
    assert told["object"]["traffic"]["whole"]["running"] == 2
    assert ask(api.socket, "/v1/claims/llama", "DELETE").status == 200
    traffic.pass_time(Counts(2), {})
    assert next(lines)["type"] == "DELETED"
    assert api.traffic.asked == sorted(set(api.traffic.asked)), (
        "it waits for the next board, and does not turn in between"
    )
    connection.close()
