"""Watched lists and followed objects over the socket, with the daemon's real past."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aimd.protocol.watch import KEPT_SNAPSHOTS
from tests.fakes.node import ADDRESSES
from tests.fakes.served import FIRST_GENERATION, Served, served
from tests.integration.unix_http import UnixConnection, ask, lines

KEYS = {"gpus": "pci_address", "partitions": "id", "plans": "name", "claims": "name", "assignments": "name"}


@pytest.fixture(scope="module")
def api():
    with served() as running:
        yield running


def switch(api: Served, gpu: int, mode: str, name: str | None = None) -> None:
    change = api.run(api.node.switch((gpu, mode), name=name or f"w{time.monotonic_ns()}"))
    assert change.state.value == "committed"


def listed(api: Served, kind: str) -> tuple[dict[str, Any], int]:
    answer = ask(api.socket, f"/v1/{kind}").json
    return {each[KEYS[kind]]: each for each in answer[kind]}, answer["generation"]


def opened(api: Served, path: str, seconds: float = 30.0) -> tuple[UnixConnection, Iterator[dict[str, Any]]]:
    """A watch that has begun when this returns."""
    connection = UnixConnection(api.socket)
    connection.request("GET", path)
    connection.sock.settimeout(seconds)
    response = connection.getresponse()
    assert response.status == 200
    return connection, (json.loads(line) for line in iter(response.readline, b""))


def play(kind: str, known: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    for line in lines:
        name = line["object"][KEYS[kind]]
        if line["type"] == "DELETED":
            del known[name]
        else:
            assert (line["type"] == "ADDED") == (name not in known)
            known[name] = line["object"]
    return known


def until(stream, generation: int) -> list[dict[str, Any]]:
    """The lines up to the one that reaches the generation."""
    told = []
    for line in stream:
        told.append(line)
        if line["generation"] >= generation:
            return told
    raise AssertionError("the stream has ended")


def test_a_watch_begins_with_all_objects_and_goes_on_with_changes(api):
    connection, stream = opened(api, "/v1/partitions?watch=1")
    present, _ = listed(api, "partitions")
    known = play("partitions", {}, list(itertools.islice(stream, len(present))))
    assert known == present
    switch(api, 0, "DPX")
    later, _ = listed(api, "partitions")
    assert later != present
    while known != later:
        known = play("partitions", known, [next(stream)])
    connection.close()


@pytest.mark.parametrize("kind", ["gpus", "partitions", "plans"])
def test_since_a_list_only_what_has_changed_is_told(api, kind):
    switch(api, 1, "SPX")
    known, generation = listed(api, kind)
    switch(api, 1, "CPX")
    switch(api, 1, "SPX")
    switch(api, 1, "QPX")
    present, reached = listed(api, kind)
    told = until(lines(api.socket, f"/v1/{kind}?watch=1&since={generation}"), reached)
    assert {line["object"][KEYS[kind]] for line in told} <= {
        name for name in present.keys() | known.keys() if known.get(name) != present.get(name)
    }
    assert play(kind, known, told) == present


def test_objects_that_are_gone_are_told_as_deleted(api):
    switch(api, 1, "CPX")
    _, generation = listed(api, "partitions")
    switch(api, 1, "SPX")
    told = until(lines(api.socket, f"/v1/partitions?watch=1&since={generation}"), listed(api, "partitions")[1])
    deleted = [line["object"]["name"] for line in told if line["type"] == "DELETED"]
    assert deleted == [f"gpu1/{index}" for index in range(1, 8)]


def test_claims_and_assignments_are_watched(api):
    _, generation = listed(api, "claims")
    claims = opened(api, f"/v1/claims?watch=1&since={generation}")
    assignments = opened(api, f"/v1/assignments?watch=1&since={generation}")
    assert ask(api.socket, "/v1/claims/llama", "PUT", {"memory_gb": 1}).status == 201
    for (_, told), name in ((claims, "llama"), (assignments, "llama/0")):
        added = next(told)
        assert (added["type"], added["object"]["name"]) == ("ADDED", name)
        assert added["generation"] > generation
    assert ask(api.socket, "/v1/claims/llama", "DELETE").status == 200
    for (connection, told), name in ((claims, "llama"), (assignments, "llama/0")):
        deleted = next(told)
        assert (deleted["type"], deleted["object"]["name"]) == ("DELETED", name)
        connection.close()


def test_a_running_switch_is_no_change_of_the_list_by_its_mere_duration(api):
    switch(api, 0, "SPX", name="measured")
    _, generation = listed(api, "plans")
    connection, told = opened(api, f"/v1/plans?watch=1&since={generation}", seconds=0.3)
    with pytest.raises(TimeoutError):
        next(told)
    connection.close()


@pytest.mark.parametrize(
    ("since", "why"),
    [(FIRST_GENERATION - 1, "an earlier life"), (10**15, "the future"), (1, "nobody's")],
)
def test_a_generation_that_is_not_known_is_gone(api, since, why):
    answer = ask(api.socket, f"/v1/gpus?watch=1&since={since}")
    assert (answer.status, answer.type, answer.json["code"]) == (410, "application/problem+json", "generation_gone"), (
        why
    )
    assert str(since) in answer.json["detail"]
    assert "without since" in answer.json["hint"]


def test_a_generation_beyond_the_history_is_gone(api):
    _, oldest = listed(api, "gpus")
    for number in range(KEPT_SNAPSHOTS - 1):
        api.run(api.node.loop.set_draining(ADDRESSES[0], draining=number % 2 == 0))
        listed(api, "gpus")
    assert ask(api.socket, f"/v1/gpus?watch=1&since={oldest}", "HEAD").status == 200
    api.run(api.node.loop.set_draining(ADDRESSES[0], draining=False))
    listed(api, "gpus")
    assert ask(api.socket, f"/v1/gpus?watch=1&since={oldest}", "HEAD").status == 410


def test_since_alone_is_refused(api):
    answer = ask(api.socket, "/v1/plans?since=3")
    assert (answer.status, answer.json["detail"]) == (400, "since is 3 without watch, expected both")


def test_a_followed_plan_ends_with_its_final_state(api):
    mode = {"modes": {"gpu0": "CPX"}}
    assert ask(api.socket, "/v1/plans/followed", "PUT", mode).status == 202
    told = list(lines(api.socket, "/v1/plans/followed?watch=1"))
    assert [each["final"] for each in told] == [False] * (len(told) - 1) + [True]
    assert told[-1]["state"] == "committed"


def test_events_go_on_after_the_last_known_one(api):
    last = ask(api.socket, "/v1/events").json["next"]
    connection, told = opened(api, f"/v1/events?watch=1&since={last}")
    switch(api, 0, "SPX", name="heard")
    assert next(told)["subject"] == "heard"
    connection.close()


@pytest.mark.parametrize("path", ["/v1/gpus", "/v1/plans", "/v1/events"])
def test_a_watch_whose_client_has_hung_up_leaves_nothing_behind(api, path):
    """Also where there is nothing to tell, and so nothing that fails."""
    until_none_runs(api)
    since = {"/v1/events": ask(api.socket, "/v1/events").json["next"]}.get(path, listed(api, "gpus")[1])
    connection, _ = opened(api, f"{path}?watch=1&since={since}")
    assert running_tasks(api) > 0
    connection.close()
    until_none_runs(api)


def test_streams_end_properly_when_the_daemon_stops():
    with served() as api, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(api.socket))
        connection.sendall(b"GET /v1/events?watch=1 HTTP/1.1\r\nHost: aimd\r\n\r\n")
        told = connection.recv(65536)
        began = time.monotonic()
        api.run(api.api.close())
        told += b"".join(iter(lambda: connection.recv(65536), b""))
        assert told.endswith(b"0\r\n\r\n")
        assert time.monotonic() - began < 0.5


def until_none_runs(api: Served) -> None:
    gc.collect()  # streams that earlier tests did not read to their end
    deadline = time.monotonic() + 5
    while running_tasks(api):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running_tasks(api: Served) -> int:
    """Tasks of requests; the daemon's own come and go."""

    async def count() -> int:
        return sum("RequestHandler" in repr(task) for task in asyncio.all_tasks())

    return api.run(count())
