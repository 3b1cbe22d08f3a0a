"""A model server with a real model, as a process: `python -m tests.models.server`. It knows nothing of aimd.

POST /NAME/embed {"texts": [...]} answers {"embeddings": [[...], ...]}; POST /NAME/embed/stream sends each embedding as a
server-sent event when it is ready; GET /health. NAME is one of MODELS, which share the processors as models share a
partition: what comes first is computed first, by one of two threads.
"""

import argparse
import asyncio
import contextlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from tests.models.minilm import MiniLm
from tests.models.packages import cache_folder

THREADS = 2
MODELS = "urgent", "patient"


class Server:
    def __init__(self, models):
        self._models = models
        self._threads = ThreadPoolExecutor(THREADS)

    def application(self):
        application = web.Application()
        application.add_routes(
            [
                web.post("/{name}/embed", self.embed),
                web.post("/{name}/embed/stream", self.stream),
                web.get("/health", self.health),
            ]
        )
        return application

    async def _vectors(self, request):
        loop, model = asyncio.get_running_loop(), self._models[request.match_info["name"]]
        for text in (await request.json())["texts"]:
            yield (await loop.run_in_executor(self._threads, model.embed, text)).tolist()

    async def embed(self, request):
        return web.json_response({"embeddings": [vector async for vector in self._vectors(request)]})

    async def stream(self, request):
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await response.prepare(request)
        async for vector in self._vectors(request):
            await response.write(b"data: " + json.dumps(vector).encode() + b"\n\n")
        return response

    async def health(self, _request):
        return web.Response(text="ok")


async def serve(folder):
    runner = web.AppRunner(Server({name: MiniLm(folder) for name in MODELS}).application(), handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.Event().wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", default=str(cache_folder()), help="a folder with the model's packages")
    folder = parser.parse_args().packages
    sys.path.append(folder)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(folder))


if __name__ == "__main__":
    main()
