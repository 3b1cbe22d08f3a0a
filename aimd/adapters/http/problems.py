"""Errors as RFC 9457 problems: which status each leaf of the exception tree gets, and what its body says."""

from __future__ import annotations

from http import HTTPStatus

from aimd import errors
from aimd.domain.plan import PlanRefusedError
from aimd.protocol.convert import blocker_messages, refusal_messages
from aimd.protocol.messages import ProblemMessage, to_json

PROBLEM_TYPE = "application/problem+json"
STATUS: tuple[tuple[type[errors.AimdError], HTTPStatus], ...] = (
    (errors.InvalidInputError, HTTPStatus.BAD_REQUEST),
    (errors.NotFoundError, HTTPStatus.NOT_FOUND),
    (errors.GoneError, HTTPStatus.GONE),
    (errors.RefusedError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.ConflictError, HTTPStatus.CONFLICT),
    (errors.DeniedError, HTTPStatus.FORBIDDEN),
    (errors.AimdError, HTTPStatus.SERVICE_UNAVAILABLE),
)


RFC_9110 = {413: "Content Too Large", 422: "Unprocessable Content"}  # Python before 3.13 has older names


def phrase_of(status: HTTPStatus) -> str:
    """The status's name, the same with every Python."""
    return RFC_9110.get(status.value, status.phrase)


class HttpError(errors.AimdError):
    """What HTTP itself has a status for, and the rest of the daemon no word.

    Attributes:
        status: the answer's status.
        headers: header fields that belong to it (Allow of a 405).
    """

    def __init__(self, status: HTTPStatus, code: str, message: str, *, hint: str | None = None, **headers: str) -> None:
        super().__init__(message, code=code, hint=hint)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def problem_of(error: errors.AimdError) -> ProblemMessage:
    """The problem that tells of an error raised on purpose."""
    if isinstance(error, HttpError):
        status = error.status
    else:
        status = next(status for kind, status in STATUS if isinstance(error, kind))
    plan = error.plan if isinstance(error, PlanRefusedError) else None
    return ProblemMessage(
        title=phrase_of(status),
        status=status.value,
        detail=_encodable(error.message),
        code=error.code,
        hint=_encodable(error.hint) if error.hint is not None else None,
        refusals=refusal_messages(plan.refusals) if plan is not None else [],
        blockers=blocker_messages(plan.blockers) if plan is not None else [],
    )


def internal_problem(request: str) -> ProblemMessage:
    """The problem of an error that nobody foresaw; what it was stays in the daemon's log."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = _encodable(f"{request} failed inside aimd; its log has the details")
    return ProblemMessage(title=phrase_of(status), status=status.value, detail=detail, code="internal")


def raw_response(error: HttpError) -> bytes:
    """A whole HTTP/1.1 response that ends its connection, for those that never get as far as a request."""
    body = to_json(problem_of(error))
    head = (
        f"HTTP/1.1 {error.status.value} {phrase_of(error.status)}\r\nContent-Type: {PROBLEM_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body


def _encodable(text: str) -> str:
    """A path may hold any bytes, as surrogates; JSON cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
