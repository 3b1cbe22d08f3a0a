"""The dispatch server beside echo servers: one client in C for all, frames of 32 bytes, all numbers of one run.

Run: .venv/bin/pytest tests/benchmarks/test_dispatch.py

The barest peer, a C echo with epoll (peers/echo.c), is a thread of a Python process as the dispatch thread is, so that
both can be asked while other threads of that process hold the GIL. It decides nothing, remembers nothing and writes no
lease file: what it costs less is the price of that.

aimd and one peer are measured in turn, in many short rounds. Aims are about the median of the rounds' ratios, since
what else the machine does comes and goes; in brackets are medians of the rounds' percentiles. Client and servers share a
processor unless a group says otherwise: see peers/driving.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from statistics import median
from typing import Any

import pytest

from tests.benchmarks.peers.driving import Field, Process, Sample
from tests.benchmarks.peers.hosts import KINDS, SLOTS

C_ECHO = "C epoll echo"
PERCENTILES = (50, 99, 99.9)
NEEDS = {"uvloop echo": "uvloop", "aiohttp": "aiohttp", "grpcio": "grpc"}
AVAILABLE = tuple(kind for kind in KINDS if find_spec(NEEDS.get(kind, "sys")) is not None)
# Rounds, round trips each: the slower the peer, the fewer.
TRIPS = {C_ECHO: (31, 4_000), "uvloop echo": (15, 4_000), "asyncio echo": (15, 2_000), "aiohttp": (9, 1_000), "grpcio": (9, 1_000)}  # fmt: skip
LOADED = {C_ECHO: (25, 10_000), "uvloop echo": (3, 1_000), "asyncio echo": (3, 500)}
DEPTHS = (1, 16, 64, SLOTS)
ANYWHERE = -1
MESSAGES = 60_000
LEASES = 2_000

Pair = tuple[Sample, Sample]


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory, compiled: Any) -> Iterator[Field]:
    with Field(tmp_path_factory.mktemp("field"), compiled, AVAILABLE) as field:
        yield field


def in_turn(rounds: int, *ways: Callable[[], Sample]) -> list[tuple[Sample, ...]]:
    """Every second round begins with the last."""
    found = []
    for number in range(rounds):
        order = list(range(len(ways)))[:: -1 if number % 2 else 1]
        samples = {place: ways[place]() for place in order}
        found.append(tuple(samples[place] for place in range(len(ways))))
    return found


def tell(benchmark: Any, group: str, peer: str, rounds: list[tuple[Sample, ...]], *, own: bool) -> None:
    """Rows of each percentile, and the medians of the rounds' ratios, as conftest.py and aims.py read them."""
    rows: dict[str, dict[str, float]] = {}
    ratios = {}
    for percent in PERCENTILES:
        told = [tuple(sample.percentile(percent) for sample in samples) for samples in rounds]
        row = rows.setdefault(f"{group}, p{percent}", {})
        if own:
            row["aimd"] = median(one[0] for one in told)
        row[peer] = median(one[1] for one in told)
        ratios[f"{group}, p{percent}, beside {peer}"] = median(one[0] / one[1] for one in told)
    benchmark.extra_info.update(rows=rows, measured=ratios)


@pytest.mark.parametrize("peer", TRIPS)
def test_round_trip(benchmark: Any, field: Field, peer: str) -> None:
    """ACQUIRE to GRANTED beside a message and its echo, for one client that waits for each answer."""
    if peer not in AVAILABLE:
        pytest.skip(f"{NEEDS[peer]} is not installed: pip install 'aimd[bench]'")
    rounds, count = TRIPS[peer]
    ways = [lambda kind=kind: field.measure("trips", kind, count) for kind in ("aimd", peer)]
    found = benchmark.pedantic(lambda: in_turn(rounds, *ways), rounds=1)
    tell(benchmark, "round trip", peer, found, own=peer == C_ECHO)


def loaded(field: Field, kind: str, count: int) -> Sample:
    field.hosts[kind].ask("load")
    try:
        return field.measure("trips", kind, count)
    finally:
        field.hosts[kind].ask("rest")


@pytest.mark.parametrize("peer", LOADED)
@pytest.mark.timeout(300)
def test_round_trip_while_others_hold_the_gil(benchmark: Any, field: Field, peer: str) -> None:
    """Threads of the server's process render 10,000 series without a pause and parse 1,000 events of 5 kB a second.

    Here the scheduler places all as it likes: it is part of the question whether the dispatch thread gets its turn.
    """
    if peer not in AVAILABLE:
        pytest.skip(f"{NEEDS[peer]} is not installed: pip install 'aimd[bench]'")
    pytest.importorskip("prometheus_client", reason="it renders the scrape: pip install 'aimd[bench]'")
    rounds, count = LOADED[peer]
    ways = [lambda kind=kind: loaded(field, kind, count) for kind in ("aimd", peer)]
    with field.client_on(ANYWHERE):
        found = benchmark.pedantic(lambda: in_turn(rounds, *ways), rounds=1)
    tell(benchmark, "round trip under load", peer, found, own=peer == C_ECHO)


def apart(field: Field) -> AbstractContextManager[None]:
    """The client on another processor than the servers."""
    if field.other_processor is None:
        pytest.skip("there is one processor")
    return field.client_on(field.other_processor)


def test_round_trip_between_two_processors(benchmark: Any, field: Field) -> None:
    """The same, and each message wakes up another processor, which is most of it where processors are virtual."""
    ways = [lambda kind=kind: field.measure("trips", kind, 1_000) for kind in ("aimd", C_ECHO)]
    with apart(field):
        found = benchmark.pedantic(lambda: in_turn(15, *ways), rounds=1)
    tell(benchmark, "round trip, two processors", C_ECHO, found, own=True)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("two", [False, True], ids=["one-processor", "two-processors"])
def test_pipeline(benchmark: Any, field: Field, depth: int, two: bool) -> None:
    """ACQUIRE, GRANTED, RELEASE beside a message and its echo, with `depth` under way on one connection."""
    count = MESSAGES if depth > 1 else MESSAGES // 20
    ways = [lambda kind=kind: field.measure("pipeline", kind, depth, count) for kind in ("aimd", C_ECHO)]
    with apart(field) if two else nullcontext():
        found = benchmark.pedantic(lambda: in_turn(11, *ways), rounds=1)
    group = f"pipelined, {depth} under way" + (", two processors" if two else "")
    row = {"aimd": median(own.mean for own, _ in found), C_ECHO: median(echo.mean for _, echo in found)}
    rate = median(echo.mean / own.mean for own, echo in found)
    benchmark.extra_info.update(rows={group: row}, measured={f"{group}: cycles by messages of {C_ECHO}": rate})


def test_freed_slot_to_the_one_who_waits(benchmark: Any, field: Field) -> None:
    """RELEASE of the only slot on one connection to GRANTED on another, beside the echo's round trip."""
    ways = (lambda: field.measure("handoff", "aimd", 4_000), lambda: field.measure("trips", C_ECHO, 4_000))
    found = benchmark.pedantic(lambda: in_turn(21, *ways), rounds=1)
    tell(benchmark, "freed slot to waiting client", f"{C_ECHO}, round trip", found, own=True)


def test_client_library(benchmark: Any, field: Field) -> None:
    """From Python: the library's two clients beside frames that are ready, and nothing looked at."""
    names = {"blocking": "aimd", "async": "aimd, AsyncClient", "frames": "bare frames"}
    clients = {
        kind: Process(
            sys.executable, "-m", "tests.benchmarks.peers.clients", kind, field.paths["aimd"], str(field.processor)
        )
        for kind in names
    }

    def run() -> list[dict[str, list[int]]]:
        return [
            {kind: list(map(int, client.ask(str(LEASES)).split())) for kind, client in clients.items()}
            for _ in range(11)
        ]

    try:
        found = benchmark.pedantic(run, rounds=1)
    finally:
        for client in clients.values():
            client.end()
    rows = {
        f"lease in Python, p{percent}": {
            name: median(one[kind][place] for one in found) for kind, name in names.items()
        }
        for place, percent in enumerate(PERCENTILES)
    }
    benchmark.extra_info.update(rows=rows)
