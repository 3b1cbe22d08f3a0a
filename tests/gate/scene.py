"""Client, gate, model server and dispatch server of a test, in one event loop (the dispatch server in its own thread)."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp

from aimd.dispatch.gate.server import running
from aimd.dispatch.gate.settings import Address, GateSettings, upstream
from tests.gate.upstream import Upstream


class Scene:
    """What a test has at hand."""

    def __init__(self, gate, origin, model_server, client):
        self.gate, self.origin, self.upstream, self.client = gate, origin, model_server, client
        self.port = 0 if origin.startswith("unix:") else int(origin.rpartition(":")[2])

    def ask(self, path="/", method="GET", **options):
        """A request through the gate; to be used in `async with`."""
        return self.client.request(method, self.origin + path, **options)

    async def told(self, path="/", method="GET", **options):
        """Status, header fields and body."""
        async with self.ask(path, method, **options) as response:
            body = await response.read()
            is_json = "json" in response.content_type or body.startswith(b"{")
            return response.status, response.headers, json.loads(body) if is_json else body

    async def raw(self, data, until=b"", seconds=5.0):
        """What comes back for these bytes, to the end of the connection or to a mark."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.readuntil(until) if until else reader.read(), seconds)
        finally:
            writer.close()

    async def counted(self, line):
        """The value of a line of /.aim/metrics, 0 if it is not there."""
        _, _, text = await self.told("/.aim/metrics")
        lines = dict(each.rsplit(" ", 1) for each in text.decode().splitlines() if not each.startswith("#"))
        return float(lines.get(line, 0))


async def until(condition, seconds=10.0):
    for _ in range(int(seconds / 0.005)):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"not within {seconds} s")


@asynccontextmanager
async def scene(dispatcher, **changes):
    """`changes`: of GateSettings."""
    async with Upstream() as model_server:
        settings = GateSettings(
            model="llama",
            upstream=upstream(model_server.origin),
            listen=(Address("127.0.0.1", 0),),
            socket=str(dispatcher.path),
            patience=0.5,
        )
        async with running(replace(settings, **changes)) as (gate, (origin, *_)), aiohttp.ClientSession() as client:
            yield Scene(gate, origin, model_server, client)
