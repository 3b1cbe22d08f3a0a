"""The gate's own answers: which status an outcome gets, and its body (RFC 9457 problem, with the reason as `code`). Pure.

A client can be told three things: too many want the same (429: the request can be sent again), the node is not ready
for it (503: the same, later), or it asked for what it may not have (403). What the model server does wrong is 502 or 504.
"""

from __future__ import annotations

import json
import math
from http import HTTPStatus

from aimd.dispatch.client import DispatchError, UnauthorisedError
from aimd.dispatch.values import Outcome
from aimd.errors import AimdError

PROBLEM_TYPE = "application/problem+json"
BUSY_SECONDS = 1.0  # Retry-After of a 429 whose outcome came without advice
AWAY_SECONDS = 5.0  # of a 503: a mode switch or a restart is over in seconds

_CONTENDED = frozenset(
    outcome.name.lower()
    for outcome in (
        Outcome.QUEUE_FULL_MODEL,
        Outcome.QUEUE_FULL_PARTITION,
        Outcome.QUEUE_FULL_CONN,
        Outcome.QUEUE_FULL_UID,
        Outcome.MEMORY_OVERRUN,
        Outcome.DEADLINE_PASSED,
        Outcome.EXPIRED,
        Outcome.SHED,
        Outcome.WOULD_BLOCK,
    )
)


class GateError(AimdError):
    """A request that the gate answers itself.

    Attributes:
        status: of the answer.
        retry_after: seconds after which another try makes sense; None: not worth a word.
        close: the connection ends with the answer.
    """

    code = "gate"

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.retry_after = retry_after
        self.close = close


def of_dispatch(error: DispatchError) -> GateError:
    """The answer for an acquire that ended without a lease."""
    if error.outcome in _CONTENDED:
        status, seconds = HTTPStatus.TOO_MANY_REQUESTS, error.retry_after or BUSY_SECONDS
    elif isinstance(error, UnauthorisedError) and error.outcome is not None:
        return GateError(HTTPStatus.FORBIDDEN, error.code, error.message, hint=error.hint)
    else:
        status, seconds = HTTPStatus.SERVICE_UNAVAILABLE, error.retry_after or AWAY_SECONDS
    return GateError(status, error.code, error.message, hint=error.hint, retry_after=seconds)


def fields_of(error: GateError) -> dict[str, str]:
    """Header fields beside the body's type; Retry-After is in whole seconds, `retry_after` of the body is exact."""
    return {} if error.retry_after is None else {"Retry-After": str(max(1, math.ceil(error.retry_after)))}


def body_of(error: GateError, *, model: str, number: str | None) -> bytes:
    """The problem's body; `number` is the request's id."""
    said = {
        "type": "about:blank",
        "title": error.status.phrase,
        "status": error.status.value,
        "detail": error.message,
        "code": error.code,
        "hint": error.hint,
        "retry_after": None if error.retry_after is None else round(error.retry_after, 3),
        "model": model,
        "request_id": number,
    }
    return json.dumps({name: value for name, value in said.items() if value is not None}).encode()


def raw(error: GateError, *, model: str) -> bytes:
    """A whole HTTP/1.1 response that ends its connection, for those that never get as far as a request."""
    body = body_of(error, model=model, number=None)
    lines = [
        f"HTTP/1.1 {error.status.value} {error.status.phrase}",
        f"Content-Type: {PROBLEM_TYPE}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in fields_of(error).items()),
        "Connection: close",
    ]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body
