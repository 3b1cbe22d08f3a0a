"""Pages for whoever asks: made in a thread beside the event loop, one at a time, shared by those who ask meanwhile."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aimd.adapters.metrics.collector import NodeCollector
from aimd.adapters.metrics.negotiation import content_type, takes_gzip
from aimd.adapters.metrics.render import OPENMETRICS, Renderer
from aimd.adapters.metrics.view import View
from aimd.ports import MetricsPage

FRESH_SECONDS = 0.05  # a page is shared that long, so that a crowd of clients costs no more than twenty pages a second
GZIP_LEVEL = 4  # 6 takes twice as long for a tenth less
# Called on the event loop; what it returns is called in the thread, and may block.
Gather = Callable[[], Callable[[], View]]


class Pages:
    """ports.MetricsPages.

    Args:
        collector: of families.
        gather: of views.
        fresh_seconds: how old a page may be that is given again.
    """

    def __init__(self, collector: NodeCollector, gather: Gather, fresh_seconds: float = FRESH_SECONDS) -> None:
        self._collector = collector
        self._gather = gather
        self._fresh_seconds = fresh_seconds
        self._renderer = Renderer()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        self._made: dict[tuple[str, bool], tuple[float, asyncio.Future[MetricsPage]]] = {}

    async def page(self, accept: str, accept_encoding: str) -> MetricsPage:
        kind = (content_type(accept), takes_gzip(accept_encoding))
        now = time.monotonic()
        begun, page = self._made.get(kind, (0.0, None))
        if page is None or now - begun > self._fresh_seconds or (page.done() and page.exception() is not None):
            make = self._make(kind, self._gather())
            page = asyncio.get_running_loop().run_in_executor(self._thread, make)
            self._made[kind] = (now, page)
        return await asyncio.shield(page)

    def close(self) -> None:
        """Wait for the page that is made; blocks."""
        self._thread.shutdown()

    def _make(self, kind: tuple[str, bool], view: Callable[[], View]) -> Callable[[], MetricsPage]:
        media_type, compressed = kind

        def make() -> MetricsPage:
            seen, began = view(), time.perf_counter()
            body = self._renderer.render(self._collector.families(seen), openmetrics=media_type == OPENMETRICS)
            if compressed:
                body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            self._collector.rendered(time.perf_counter() - began)
            return MetricsPage(body, media_type, "gzip" if compressed else None)

        return make
