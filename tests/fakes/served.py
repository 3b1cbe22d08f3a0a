"""A whole daemon with its local API, in a thread of its own, for tests that play any client from outside the loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aimd.adapters.http.limits import Limits
from aimd.adapters.http.server import LocalApi, NodeFacts
from aimd.adapters.unix.peer import Operators
from aimd.domain.cluster import ClusterStanding
from tests.fakes.node import RunningNode, running_node
from tests.fakes.traffic import ShownTraffic

FIRST_GENERATION = 1_000


@dataclass
class Served:
    """The API's socket, and the daemon behind it; `run` carries a coroutine into its loop."""

    socket: Path
    node: RunningNode
    api: LocalApi
    traffic: ShownTraffic
    run: Callable[[Coroutine[Any, Any, Any]], Any]


@contextlib.contextmanager
def served(
    limits: Limits | None = None,
    *,
    operators: frozenset[int] | None = None,
    standing: Callable[[], ClusterStanding] | None = None,
    **node_options: Any,
) -> Iterator[Served]:
    """Start both, stop both. A short directory: the path of a socket has at most 107 bytes."""
    started: list[Served] = []
    failure: list[BaseException] = []
    ready, over = threading.Event(), threading.Event()

    async def live(socket: Path) -> None:
        loop = asyncio.get_running_loop()
        uids = frozenset({os.getuid()}) if operators is None else operators
        async with running_node(first_generation=FIRST_GENERATION, **node_options) as node:
            traffic = ShownTraffic()
            facts = NodeFacts("boot-1", "a test's node", time.monotonic())
            api = LocalApi(node.loop, Operators(uids), facts, traffic, limits, standing)
            await api.start(socket)
            try:
                run = lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(30)  # noqa: E731
                started.append(Served(socket, node, api, traffic, run))
                ready.set()
                await loop.run_in_executor(None, over.wait)
            finally:
                await api.close()

    def thread(socket: Path) -> None:
        try:
            asyncio.run(live(socket))
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            failure.append(error)
        finally:
            ready.set()

    with tempfile.TemporaryDirectory(prefix="aimd-") as directory:
        living = threading.Thread(target=thread, args=(Path(directory) / "s",), daemon=True)
        living.start()
        ready.wait(30)
        try:
            if started:
                yield started[0]
        finally:
            over.set()
            living.join(30)
        if failure:
            raise failure[0]
