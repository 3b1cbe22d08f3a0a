"""Errors as RFC 9457 problems: which status each leaf of the exception tree gets, and what its body says."""

from __future__ import annotations

import logging
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from aimd import errors
from aimd.domain.plan import PlanRefusedError
from aimd.protocol.convert import blocker_messages, refusal_messages
from aimd.protocol.messages import ProblemMessage, to_json

log = logging.getLogger("aimd.api")

HOSTS = frozenset({"aimd", "localhost"})
STATUS: tuple[tuple[type[errors.AimdError], HTTPStatus], ...] = (
    (errors.InvalidInputError, HTTPStatus.BAD_REQUEST),
    (errors.NotFoundError, HTTPStatus.NOT_FOUND),
    (errors.RefusedError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (errors.ConflictError, HTTPStatus.CONFLICT),
    (errors.DeniedError, HTTPStatus.FORBIDDEN),
    (errors.AimdError, HTTPStatus.SERVICE_UNAVAILABLE),
)


def problem_of(error: errors.AimdError) -> ProblemMessage:
    """The problem that tells of an error raised on purpose."""
    status = next(status for kind, status in STATUS if isinstance(error, kind))
    plan = error.plan if isinstance(error, PlanRefusedError) else None
    return ProblemMessage(
        title=status.phrase,
        status=status.value,
        detail=error.message,
        code=error.code,
        hint=error.hint,
        refusals=refusal_messages(plan.refusals) if plan is not None else [],
        blockers=blocker_messages(plan.blockers) if plan is not None else [],
    )


def response_of(problem: ProblemMessage) -> web.Response:
    """The problem as a response."""
    return web.Response(body=to_json(problem), status=problem.status, content_type="application/problem+json")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error leaves as a problem; what nobody foresaw is logged with its traceback."""
    try:
        if request.host.partition(":")[0] not in HOSTS:
            raise errors.InvalidInputError(f"Host is {request.host!r}, expected aimd or localhost", code="host_invalid")
        return await handler(request)
    except errors.AimdError as error:
        return response_of(problem_of(error))
    except web.HTTPException as error:
        detail = f"{request.method} {request.path}: {error.reason}"
        code = "not_found" if error.status == HTTPStatus.NOT_FOUND else "http_error"
        problem = ProblemMessage(title=error.reason, status=error.status, detail=detail, code=code)
        return response_of(problem)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        detail = f"{request.method} {request.path} failed inside aimd; its log has the details"
        return response_of(ProblemMessage(title=status.phrase, status=status.value, detail=detail, code="internal"))
