"""Processes that hold a server: python -m tests.benchmarks.peers.hosts KIND PATH PROCESSOR LIBRARY.

KIND is aimd, or a peer that gives back the 32 bytes that it is sent; LIBRARY is the compiled echo.c, a thread without
the GIL like aimd's. Lines of the standard input are answered by "ok": `load` has two threads of the process work with
the GIL until `rest`. Meanwhile all run on whichever processor there is, else on PROCESSOR. The process ends with its
input.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

FRAME = 32
SLOTS = 256  # as many as may be under way
EVENTS_PER_SECOND = 1_000


def aimd(path: str, _library: str) -> None:
    """The dispatch server: model "wide" has slots enough for all, "narrow" has one."""
    from aimd.dispatch import ModelConfig, PartitionConfig
    from tests.dispatch_service.hosting import Host

    partitions = {
        0: PartitionConfig((ModelConfig(0),), capacity=SLOTS),
        1: PartitionConfig((ModelConfig(0),), capacity=1),
    }
    folder = path.rpartition("/")[0]
    Host(folder, partitions, names={"wide": (0, 0), "narrow": (1, 0)}).start()


def c_echo(path: str, library: str) -> None:
    echo = ctypes.CDLL(library)
    threading.Thread(target=echo.serve, args=(path.encode(),), daemon=True).start()


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve_echo(path: str) -> None:
    KEPT.append(await asyncio.get_running_loop().create_unix_server(Echo, path))


def run_loop(new_loop: Callable[[], asyncio.AbstractEventLoop], serve: Callable[[], Any]) -> None:
    def run() -> None:
        loop = new_loop()
        loop.run_until_complete(serve())
        loop.run_forever()

    threading.Thread(target=run, daemon=True).start()


def asyncio_echo(path: str, _library: str) -> None:
    run_loop(asyncio.new_event_loop, lambda: serve_echo(path))


def uvloop_echo(path: str, _library: str) -> None:
    import uvloop

    run_loop(uvloop.new_event_loop, lambda: serve_echo(path))


def aiohttp_echo(path: str, _library: str) -> None:
    from aiohttp import web

    async def echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async def serve() -> None:
        application = web.Application()
        application.router.add_post("/", echo)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.UnixSite(runner, path).start()

    run_loop(asyncio.new_event_loop, serve)


def grpcio_echo(path: str, _library: str) -> None:
    import grpc

    method = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("echo", {"Echo": method}),))
    server.add_insecure_port(f"unix:{path}")
    server.start()
    KEPT.append(server)


KINDS: dict[str, Callable[[str, str], None]] = {
    "aimd": aimd,
    "C epoll echo": c_echo,
    "uvloop echo": uvloop_echo,
    "asyncio echo": asyncio_echo,
    "aiohttp": aiohttp_echo,
    "grpcio": grpcio_echo,
}
KEPT: list[Any] = []


class Load:
    """What else the daemon's process does: a scrape of 10,000 series over and over, and 1,000 events a second."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self._registry = CollectorRegistry()
        gauge = Gauge("series", "of a scrape", ["partition", "model"], registry=self._registry)
        for number in range(10_000):
            gauge.labels(f"0000:05:00.0/{number // 100}", f"model-{number % 100}").set(number)
        item = {"metadata": {"name": "pod", "labels": {"app": "x" * 20}}, "status": {"phase": "Running", "ready": True}}
        self._event = json.dumps({"type": "MODIFIED", "items": [item] * 42}).encode()
        assert 4_500 < len(self._event) < 5_500, len(self._event)
        self._over = threading.Event()
        self._begun = threading.Barrier(3)
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        self._over.clear()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._render, self._parse)]
        for thread in self._threads:
            thread.start()
        self._begun.wait()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _render(self) -> None:
        from prometheus_client import generate_latest

        self._begun.wait()
        while not self._over.is_set():
            generate_latest(self._registry)

    def _parse(self) -> None:
        self._begun.wait()
        due = time.monotonic()
        while not self._over.is_set():
            json.loads(self._event)
            due += 1 / EVENTS_PER_SECOND
            time.sleep(max(0.0, due - time.monotonic()))


def run_on(processors: set[int]) -> None:
    """All threads of this process, whoever has made them, and those that they make from now on."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), processors)


def main(kind: str, path: str, processor: str, library: str) -> None:
    anywhere = os.sched_getaffinity(0)
    run_on({int(processor)})
    KINDS[kind](path, library)
    load: Load | None = None
    for line in sys.stdin:
        if line.strip() == "load":
            load = load or Load()
            run_on(anywhere)
            load.begin()
        elif load is not None:
            load.end()
            run_on({int(processor)})
        print("ok", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
