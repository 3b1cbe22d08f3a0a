"""The API's description: complete, as shipped, and true for whatever a fuzzer makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from requests.adapters import HTTPAdapter
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.transport import Response
from schemathesis.specs.openapi import checks
from urllib3 import HTTPConnectionPool

from aimd.adapters.http import openapi
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.resources import ROUTES
from tests.fakes.served import Served, served
from tests.integration.unix_http import UnixConnection, ask

DOCUMENT = openapi.document(ROUTES, Limits())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {f"{route.method} {route.path}": SCHEMA[route.path][route.method] for route in ROUTES}
DENIABLE = [f"{route.method} {route.path}" for route in ROUTES if route.variables or route.query or route.body]
READ_LISTS = ("gpus", "partitions", "claims", "assignments", "models", "plans", "events")
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
fuzzing = settings(
    max_examples=25,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def api() -> Iterator[Served]:
    with served() as running:
        running.run(running.node.switch((1, "CPX")))
        assert ask(running.socket, "/v1/claims/llama", "PUT", {"memory_gb": 1}).status == 201
        yield running


class UnixAdapter(HTTPAdapter):
    """requests over a Unix socket, with connections that are kept."""

    def __init__(self, socket: Any) -> None:
        super().__init__()
        pool = HTTPConnectionPool("aimd", maxsize=1)

        class Connection(pool.ConnectionCls):  # type: ignore[name-defined,misc]
            def _new_conn(self) -> Any:
                connection = UnixConnection(socket)
                connection.connect()
                return connection.sock

        pool.ConnectionCls = Connection
        self._pool = pool

    def get_connection_with_tls_context(self, *_args: Any, **_named: Any) -> HTTPConnectionPool:
        return self._pool

    def close(self) -> None:
        self._pool.close()


@pytest.fixture(scope="module")
def session(api: Served) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.mount("http://aimd", UnixAdapter(api.socket))
        yield session


def ask_as_generated(case: Case, session: requests.Session) -> Response | None:
    """The checked answer; a stream is not read, since it does not end."""
    kwargs = case.as_transport_kwargs(base_url="http://aimd")
    answer = session.request(**kwargs, stream=True, timeout=20)
    if answer.headers["Content-Type"] == "application/x-ndjson":
        assert answer.status_code == 200
        answer.close()
        return None
    answer.content  # noqa: B018 - reads it
    response = Response.from_any(answer)
    if answer.status_code >= 400 and case.method != "HEAD":
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = json.loads(answer.content)
        assert problem["status"] == answer.status_code
        assert len(problem["detail"]) > 15
    case.validate_response(response, checks=CHECKS)
    return response


def test_the_shipped_document_is_the_one_of_the_routes():
    shipped = resources.files("aimd.adapters.http").joinpath("openapi.json").read_text("utf-8")
    assert shipped == openapi.rendered(), "write it anew: python -m aimd.adapters.http.openapi"


def test_the_daemon_serves_it(api):
    answer = ask(api.socket, "/v1/openapi.json")
    assert (answer.status, answer.json) == (200, json.loads(openapi.rendered()))


def test_each_route_is_described_once_by_a_name_of_its_own():
    described = [f"{method.upper()} {path}" for path, methods in DOCUMENT["paths"].items() for method in methods]
    assert sorted(described) == sorted(f"{route.method} {route.path}" for route in ROUTES)
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_it_is_openapi_3_1():
    SCHEMA.validate()
    assert DOCUMENT["openapi"] == "3.1.0"


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_the_description_allows_is_answered_as_described(api, session, name):
    @fuzzing
    @given(case=OPERATIONS[name].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case: Case) -> None:
        ask_as_generated(case, session)

    check()


@pytest.mark.parametrize("name", DENIABLE)
def test_what_it_does_not_allow_is_refused_and_changes_nothing(api, session, name):
    before = everything(api)

    @fuzzing
    @given(case=OPERATIONS[name].as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def check(case: Case) -> None:
        # Where nothing is left to deny (a body that may be absent), the generator falls back to an allowed case.
        assume(case.meta is not None and case.meta.generation.mode is GenerationMode.NEGATIVE)
        ask_as_generated(case, session)

    check()
    assert everything(api) == before


def everything(api: Served) -> Any:
    """What the ledger keeps and what the API shows, without what passes by itself."""
    ledger = api.run(api.node.loop._executor.on_ledger(api.node.ledger.load))
    shown = {kind: ask(api.socket, f"/v1/{kind}").json for kind in READ_LISTS}
    for answer in shown.values():
        answer.pop("generation", None)
    return ledger, shown
