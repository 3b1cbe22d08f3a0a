"""A model server for tests of the gate: it tells what it got, streams, stalls, breaks off, and counts who is inside."""

import asyncio
import json
import os
import socket

from aiohttp import web


class Upstream:
    """Runs in the test's loop. `steps`: of /steps, each sends its next event when it is set.

    Attributes:
        inside: requests in a handler now. aborted: handlers that were cancelled.
        got: bytes of the body that /upload has read so far.
        requests: (method, raw path, header fields) of all.
    """

    def __init__(self):
        self.inside = self.most = self.aborted = self.got = 0
        self.requests = []
        self.go = asyncio.Event()
        self.steps = asyncio.Queue()
        self.origin = None

    async def __aenter__(self):
        self.runner = web.ServerRunner(
            web.Server(self.answer, handler_cancellation=True, auto_decompress=False, keepalive_timeout=30),
            shutdown_timeout=0.1,
        )
        await self.runner.setup()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        await web.SockSite(self.runner, listener).start()
        self.origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self.go.set()
        await self.runner.cleanup()

    async def answer(self, request):
        self.requests.append((request.method, request.raw_path, request.headers.copy()))
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            return await getattr(self, "on_" + request.path.strip("/").partition("/")[0], self.on_echo)(request)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.inside -= 1

    async def on_echo(self, request):
        body = await request.read()
        told = {
            "method": request.method,
            "path": request.raw_path,
            "headers": [[name, value] for name, value in request.headers.items()],
            "body": body.decode("latin-1"),
        }
        return web.Response(text=json.dumps(told), headers={"X-Model": "echo", "Connection": "X-Model, close"})

    async def on_hold(self, request):
        """Answer when told to."""
        await self.go.wait()
        return web.Response(text="held")

    async def on_sleep(self, request):
        await asyncio.sleep(float(request.query.get("s", "0.05")))
        return web.Response(text="slept")

    async def on_status(self, request):
        return web.Response(status=int(request.path.rpartition("/")[2]), text="as told")

    async def on_upload(self, request):
        """Read the body, piece by piece, from when it is told to."""
        if "wait" in request.query:
            await self.go.wait()
        async for piece in request.content.iter_any():
            self.got += len(piece)
        return web.Response(text=str(self.got))

    async def on_steps(self, request):
        """Server-sent events, each when the test says so; None ends the stream, an exception breaks it off."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while (step := await self.steps.get()) is not None:
            if isinstance(step, Exception):
                request.transport.abort()
                raise step
            await response.write(f"data: {step}\n\n".encode())
        return response

    async def on_flood(self, request):
        """As many bytes as one likes, counted as they leave."""
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(int(request.query["mb"])):
            await response.write(os.urandom(1 << 20))
            self.got += 1 << 20
        return response

    async def on_abort(self, request):
        """No answer at all."""
        request.transport.abort()
        await asyncio.sleep(1)

    async def on_short(self, request):
        """Less than was announced."""
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        request.transport.close()
        await asyncio.sleep(1)
        return response
