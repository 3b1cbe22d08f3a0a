"""A request's body on its way to the model server: read from the client only as fast as the model server takes it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from aiohttp import web

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Upload:
    """An asynchronous iterable of a body's pieces, for one use.

    Attributes:
        reading_since: since when a piece is expected from the client; None while the model server is to take one.
        failure: what was wrong with the client's side.
    """

    def __init__(self, request: web.BaseRequest, clock: Callable[[], float]) -> None:
        self.reading_since: float | None = None
        self.failure: web.RequestPayloadError | None = None
        self._request = request
        self._clock = clock

    async def __aiter__(self) -> AsyncIterator[bytes]:
        request = self._request
        if expects_continue(request):
            # Not before there is a lease: a client that asks first does not send what will be refused.
            await request.writer.write(_CONTINUE)
            request.writer.output_size = 0  # nothing of the response is out yet
        while True:
            self.reading_since = self._clock()
            try:
                piece = await request.content.readany()
            except web.RequestPayloadError as error:
                self.failure = error
                raise
            finally:
                self.reading_since = None
            if not piece:
                return
            yield piece


def expects_continue(request: web.BaseRequest) -> bool:
    return request.version >= (1, 1) and request.headers.get("Expect", "").lower() == "100-continue"
