"""What is asked of a request before it may go on, and the gate's own pages below /.aim/."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from http import HTTPStatus

from aiohttp import web

from aimd.dispatch.gate import answers, asking, counters, fields
from aimd.dispatch.gate.answers import GateError
from aimd.dispatch.gate.asking import Ask
from aimd.dispatch.gate.endings import Abort, Stage, draining
from aimd.dispatch.gate.exchange import Exchange, Means
from aimd.dispatch.gate.reach import Reach
from aimd.dispatch.gate.upload import expects_continue
from aimd.errors import InvalidInputError

HEALTH, METRICS, OWN = "/.aim/healthz", "/.aim/metrics", "/.aim/"


class Gate:
    """Answers requests.

    Attributes:
        exchanges: those under way.
        draining: no new ones are taken.
    """

    def __init__(self, means: Means, reach: Reach) -> None:
        self.exchanges: set[Exchange] = set()
        self.draining = False
        self._means = means
        self._reach = reach

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The response to a request, by whomever."""
        number = fields.request_id(request.headers, uuid.uuid4().hex)
        try:
            path = request.raw_path.partition("?")[0]
            if path.startswith(OWN):
                return self._page(request, path)
            return await self._pass(request, path, number)
        except GateError as error:
            self._means.counters.answers.add(str(error.status.value))
            return self._refusal(error, number)

    async def _pass(self, request: web.BaseRequest, path: str, number: str) -> web.StreamResponse:
        try:
            ask = self._check(request, path)
        except GateError as error:
            self._means.counters.requests.add("none", error.code)
            raise
        exchange = Exchange(self._means, request, ask, number)
        self.exchanges.add(exchange)
        try:
            return await exchange.carry()
        finally:
            self.exchanges.discard(exchange)

    def _check(self, request: web.BaseRequest, path: str) -> Ask | None:
        """What to ask of aimd for the request; None: it needs no lease.

        Raises:
            GateError: it is not let in.
        """
        settings = self._means.settings
        if self.draining:
            raise draining(settings)
        check_protocol(request)
        if not settings.needs_lease(path):
            return None
        try:
            ask = asking.ask_of(request.headers, time.time())
        except InvalidInputError as error:
            raise GateError(HTTPStatus.BAD_REQUEST, error.code, error.message) from error
        if asking.above(ask.klass, settings.highest):
            raise GateError(
                HTTPStatus.FORBIDDEN,
                "unauthorised",
                f"{asking.CLASS} is {ask.klass!r}, expected {settings.highest} or lower: this gate's --highest",
            )
        return ask

    def _refusal(self, error: GateError, number: str) -> web.Response:
        response = web.Response(
            body=answers.body_of(error, model=self._means.settings.model, number=number),
            status=error.status,
            content_type=answers.PROBLEM_TYPE,
            headers={fields.REQUEST_ID: number, "Server": fields.VIA, **answers.fields_of(error)},
        )
        if error.close:
            response.force_close()
        return response

    # -- own pages -------------------------------------------------------------------------------------------

    def _page(self, request: web.BaseRequest, path: str) -> web.Response:
        if request.method not in ("GET", "HEAD"):
            raise GateError(HTTPStatus.METHOD_NOT_ALLOWED, "method", f"{path} can be read: expected GET", close=True)
        if path == HEALTH:
            return self._health()
        if path == METRICS:
            text = self._means.counters.text(self._gauges())
            return web.Response(body=text.encode(), headers={"Content-Type": counters.CONTENT_TYPE})
        raise GateError(HTTPStatus.NOT_FOUND, "not_found", f"the gate has no {path}: expected {HEALTH} or {METRICS}")

    def _health(self) -> web.Response:
        """200 as long as requests are taken. That aimd is away is said, but restarting a gate would not bring it back."""
        there = self._reach.look(self._means.clock())
        body = {
            "status": "draining" if self.draining else "ok",
            "model": self._means.settings.model,
            "aimd": "reachable" if there else "unreachable",
            **{name.removeprefix("aim_gate_"): value for name, _, value in self._gauges()},
        }
        status = HTTPStatus.SERVICE_UNAVAILABLE if self.draining else HTTPStatus.OK
        return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/json")

    def _gauges(self) -> Iterator[tuple[str, str, int]]:
        running = sum(exchange.stage is Stage.RUNNING for exchange in self.exchanges)
        yield "aim_gate_requests_waiting", "Requests that wait for a lease.", len(self.exchanges) - running
        yield "aim_gate_requests_running", "Requests that the model server works on.", running

    def abort_all(self) -> None:
        """End what is under way."""
        for exchange in self.exchanges:
            exchange.abort(Abort.DRAINED)


def check_protocol(request: web.BaseRequest) -> None:
    """Raises GateError for what cannot go through a gate that counts requests."""
    if request.method == "CONNECT":
        raise GateError(
            HTTPStatus.NOT_IMPLEMENTED,
            "connect_refused",
            "CONNECT asks for a tunnel: the gate passes HTTP requests, each with a lease of its own",
            close=True,
        )
    if fields.is_upgrade_to_websocket(request.headers):
        raise GateError(
            HTTPStatus.NOT_IMPLEMENTED,
            "websocket_refused",
            "WebSocket is not passed on: a connection that lives for hours is no request that a slot can be leased for",
            hint="stream the answer of a request instead (server-sent events), or connect to the model server itself",
            close=True,
        )
    if not request.raw_path.startswith("/"):
        raise GateError(
            HTTPStatus.BAD_REQUEST, "bad_target", f"the target is {request.raw_path[:100]!r}, expected a path from /"
        )
    if "Expect" in request.headers and not expects_continue(request) and request.version >= (1, 1):
        raise GateError(
            HTTPStatus.EXPECTATION_FAILED,
            "bad_expect",
            f"Expect is {request.headers['Expect'][:100]!r}, expected 100-continue",
            close=True,
        )
