"""What a page of metrics costs: rendered beside prometheus_client's generate_latest, and made of a whole node.

Run: .venv/bin/pytest tests/benchmarks/test_metrics.py --benchmark-columns=min,median,max

The last two ask what a request at the dispatch socket of a real daemon with 64 partitions notices of a scrape every 100 ms,
and what a scrape by TCP notices of 1,500 connections that have sent half a request or nothing.

Both render the same families. generate_latest is given its own objects, made anew as a collector of prometheus_client
makes them; in a second row it is given them ready-made, which no collector can do.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from aimd.adapters.metrics.collector import NodeCollector
from aimd.adapters.metrics.family import Descriptor, Family, as_metric
from aimd.adapters.metrics.instruments import Instruments
from aimd.adapters.metrics.render import Renderer
from aimd.adapters.metrics.view import View
from aimd.domain.claim import Assignment, Claim, ClaimSpec, QosClass, Slo
from aimd.domain.metering import BUCKETS_SECONDS, ClassMeter, DispatchReading, Histogram, ModelMeter, PartitionMeter
from aimd.domain.node import NodeSnapshot
from aimd.domain.partition import PartitionKey
from tests.benchmarks.peers.driving import Process, Sample
from tests.e2e.programs import Daemon
from tests.fakes.node import ADDRESSES, fast_state, running_node
from tests.integration.test_metrics import HALF_OPEN, MeteredDaemon
from tests.integration.unix_http import ask

SIZES = (300, 3_000, 10_000, 50_000)
LABELS = ("model", "gpu_id", "partition_id", "class")
GAUGE = Descriptor("a_depth", "gauge", "Waiting.", LABELS)
COUNTER = Descriptor("a_requests", "counter", "Requests.", (*LABELS, "outcome"))
HISTOGRAM = Descriptor("a_latency_seconds", "histogram", "Seconds.", LABELS, BUCKETS_SECONDS)
LINES = len(BUCKETS_SECONDS) + 3
SCRAPE_SECONDS = 0.1
ROUNDS, TRIPS, ANYWHERE = 15, 20_000, -1
CROWDS, SCRAPES = 5, 20


class Collected:
    """What generate_latest asks of a registry."""

    def __init__(self, collect) -> None:
        self.collect = collect


def histogram(draw: random.Random) -> Histogram:
    counts = sorted(draw.randrange(1 << 20) for _ in range(len(BUCKETS_SECONDS) + 1))
    return Histogram(tuple(counts), draw.random() * 1e6)


def families(size: int) -> list[Family]:
    """So many series: about half of them of histograms, as on a node."""
    draw = random.Random(size)
    place = lambda n: (f"model-{n % 64}", ADDRESSES[n % 8], str(n // 64), "high")  # noqa: E731
    quarter, histograms = size // 4, size // 2 // LINES
    gauges = [(place(n), draw.randrange(1000)) for n in range(quarter)]
    counters = [((*place(n), "released"), draw.random() * 1e9) for n in range(size - quarter - histograms * LINES)]
    return [
        GAUGE.of(gauges),
        COUNTER.of(counters),
        HISTOGRAM.histograms([(place(n), histogram(draw)) for n in range(histograms)]),
    ]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("peer", ["aimd", "generate_latest", "generate_latest, ready-made"])
def test_rendering(benchmark, peer: str, size: int) -> None:
    found = families(size)
    renderer = Renderer()
    ready = [as_metric(one) for one in found]
    call = {
        "aimd": lambda: renderer.render(found, openmetrics=False),
        "generate_latest": lambda: generate_latest(Collected(lambda: [as_metric(one) for one in found])),
        "generate_latest, ready-made": lambda: generate_latest(Collected(lambda: ready)),
    }[peer]
    call()
    benchmark.group = f"page of {size} series"
    benchmark.extra_info.update(peer=peer, operations=size)
    page = benchmark.pedantic(call, rounds=max(5, 60_000 // size), warmup_rounds=1)
    assert sum(len(family.samples) for family in text_string_to_metric_families(page.decode())) == size


def full_view() -> View:
    """64 partitions with one model each, whose class is used."""

    async def snapshot() -> NodeSnapshot:
        async with running_node(fast_state("mi300x", 8)) as node:
            await node.switch(*[(gpu, "CPX") for gpu in range(8)])
            return node.snapshot

    seen = asyncio.run(snapshot())
    draw = random.Random(1)
    partitions, models, claims = [], [], []
    for number in range(64):
        status = seen.gpus[number // 8]
        key = PartitionKey(status.gpu.pci_address, number % 8, status.mode_epoch)
        ended = dict.fromkeys(("released", "late", "failed", "revoked", "lost", "expired", "shed"), 12345)
        meter = ClassMeter(3, 4, ended, histogram(draw), histogram(draw))
        partitions.append(PartitionMeter(key, 16, 3, 4, 4096, closed=False))
        models.append(ModelMeter(key, f"model-{number}", {QosClass.HIGH: meter}, 1e5, 1e3))
        place = Assignment(f"model-{number}", 0, key.gpu, key.index, 1024, 1, key.mode_epoch)
        claims.append(Claim(f"model-{number}", 0, ClaimSpec(1024, slo=Slo(0.1)), float(number), assignments=(place,)))
    snapshot_ = NodeSnapshot(gpus=seen.gpus, claims=tuple(claims), ready=True)
    return View("1", snapshot_, DispatchReading(tuple(partitions), tuple(models), {"granted": 1}))


@pytest.mark.benchmark(group="page of a node with 64 partitions and 64 models")
def test_page_of_a_full_node(benchmark) -> None:
    view = full_view()
    collector, renderer = NodeCollector(Instruments()), Renderer()
    page = benchmark(lambda: renderer.render(collector.families(view), openmetrics=False))
    lines = sum(not line.startswith(b"#") for line in page.splitlines())
    benchmark.extra_info.update(peer="aimd", operations=lines)
    print(f"\n{lines} series, {len(page) / 1024:.0f} KiB, {benchmark.stats.stats.min * 1e3:.2f} ms")


@pytest.fixture
def asked(tmp_path_factory, compiled) -> Iterator[tuple[Path, Process]]:
    """The metrics socket of a daemon with 64 partitions that has models in use, and a client of its dispatch socket in C."""
    home = tmp_path_factory.mktemp("m")
    daemon = Daemon(home, "mi300x:8")
    daemon.start()
    try:
        for gpu in range(8):
            assert daemon.aimctl("set-mode", f"gpu{gpu}", "CPX/NPS1", "--wait", "20").returncode == 0
        for model in ("wide", "narrow"):
            assert daemon.aimctl("claim", model, "--memory", "8", "--qos", "high").returncode == 0
        client = Process(compiled("load.c"), f"aimd:{daemon.runtime / 'dispatch.sock'}")
        client.ask(f"processor {ANYWHERE}")
        yield daemon.runtime / "metrics.sock", client
        client.end()
    finally:
        daemon.close()


@pytest.mark.timeout(300)
def test_a_request_beside_scrapes(benchmark, asked) -> None:
    path, client = asked
    over, scraping, pages = threading.Event(), threading.Event(), []

    def scrape() -> None:
        while not over.wait(SCRAPE_SECONDS):
            if scraping.is_set():
                answer = ask(path, "/metrics")
                assert answer.status == 200
                pages.append(len(answer.body))

    scraper = threading.Thread(target=scrape)
    scraper.start()

    def rounds() -> list[tuple[Sample, Sample]]:
        found = []
        for _ in range(ROUNDS):
            pair = []
            for event in (scraping.clear, scraping.set):
                event()
                pair.append(Sample.of(client.ask(f"trips 0 {TRIPS}")))
            found.append(tuple(pair))
        return found

    found = benchmark.pedantic(rounds, rounds=1)
    over.set()
    scraper.join()
    rows = {}
    for percent in (50, 99.9):
        quiet, scraped = (median(pair[place].percentile(percent) for pair in found) for place in (0, 1))
        rows[f"a request beside scrapes, p{percent}"] = {"aimd": scraped, "aimd without scrapes": quiet}
    ratio = median(scraped.percentile(99.9) / quiet.percentile(99.9) for quiet, scraped in found)
    benchmark.extra_info.update(rows=rows, measured={"request, p99.9, with a scrape every 100 ms": ratio})
    print(f"\n{len(pages)} pages of {pages[-1] / 1024:.0f} KiB; p99.9 with scrapes by without: {ratio:.2f}")


@pytest.fixture
def metered() -> Iterator[MeteredDaemon]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        daemon = MeteredDaemon(Path(folder))
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.close()


def half_open(port: int, crowd: contextlib.ExitStack) -> None:
    for number in range(HALF_OPEN):
        connection = crowd.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
        connection.sendall(b"GET /metrics HTTP/1.1\r\n" if number % 2 else b"")


def scrapes(daemon: MeteredDaemon) -> float:
    """Median seconds of a scrape."""
    found = []
    for _ in range(SCRAPES):
        time.sleep(0.06)  # else it is the same page again
        began = time.perf_counter()
        assert "aim_node_ready 1" in daemon.page()
        found.append(time.perf_counter() - began)
    return median(found)


@pytest.mark.timeout(300)
def test_a_scrape_beside_half_open_connections(benchmark, metered) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < HALF_OPEN + 64:
        pytest.skip(f"a process may have {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, HALF_OPEN + 64), hard))

    def rounds() -> list[tuple[float, float]]:
        found = []
        for _ in range(CROWDS):
            alone = scrapes(metered)
            with contextlib.ExitStack() as crowd:
                half_open(metered.port, crowd)
                found.append((alone, scrapes(metered)))
        return found

    found = benchmark.pedantic(rounds, rounds=1)
    alone, crowded = (median(pair[place] for pair in found) * 1e9 for place in (0, 1))
    rows = {"a scrape beside 1,500 half-open connections, p50": {"aimd": crowded, "aimd without them": alone}}
    ratio = median(crowded / alone for alone, crowded in found)
    benchmark.extra_info.update(rows=rows, measured={"scrape, p50, beside 1,500 half-open connections": ratio})
    print(f"\nmedian {alone / 1e6:.1f} ms alone, {crowded / 1e6:.1f} ms beside them, ratio {ratio:.2f}")
