"""What an answer that is no success means, told by what the caller can do. Pure."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from aimd.errors import (
    AimdError,
    ConflictError,
    DeniedError,
    GoneError,
    InvalidInputError,
    NotFoundError,
    ThrottledError,
    UnauthenticatedError,
    UnreachableError,
)

UNTRUSTED = "untrusted"  # code of an UnreachableError: certificates do not fit (any more)
_TOO_LARGE = "ResourceVersionTooLarge"  # of a version that the server has not reached, or never will (restored etcd)
_SHOWN = 500  # characters of a message


def failure(what: str, status: int, body: bytes, retry_after: str | None = None) -> AimdError:
    """The error of an HTTP answer with this status (300 and above).

    Args:
        what: the request, `patch inferenceservices/status default/llama`.
        body: a Status object as JSON, or whatever a proxy sent instead.
        retry_after: the header field, seconds.
    """
    try:
        said = json.loads(body)
    except ValueError:
        said = {"message": body.decode(errors="replace")}
    return status_failure(what, said if isinstance(said, dict) else {}, status, retry_after)


def status_failure(what: str, said: Mapping[str, Any], code: int, retry_after: str | None = None) -> AimdError:
    """The error of a Status object (meta/v1), which a watch tells as an event of type ERROR, too."""
    message = f"{what}: {code} {said.get('reason') or ''}: {str(said.get('message'))[:_SHOWN]}"
    details = said.get("details")
    details = details if isinstance(details, dict) else {}
    causes = details.get("causes") or []
    if code == 410 or any(isinstance(cause, dict) and cause.get("reason") == _TOO_LARGE for cause in causes):
        return GoneError(message)
    if code == 409:
        exists = said.get("reason") == "AlreadyExists"
        return ConflictError(message, code="already_exists" if exists else None)
    if code == 401:
        return UnauthenticatedError(message, hint="renew the token or certificate that the kubeconfig names")
    if code == 403:
        return DeniedError(message, hint="compare the roles of aimd's account with k8s/daemonset/base/rbac.yaml")
    if code in (404, 405):
        return NotFoundError(message)
    if code == 429:
        return ThrottledError(message, retry_after_seconds=_seconds(retry_after, details))
    if 400 <= code < 500 and code != 408:
        return InvalidInputError(message)
    return UnreachableError(message, code="server_error")


def _seconds(header: str | None, details: Mapping[str, Any]) -> float:
    """What the header or the Status says, 0 if neither does; the API server sends whole seconds, never a date."""
    for said in (header, details.get("retryAfterSeconds")):
        with contextlib.suppress(ValueError):
            if said is not None:
                return max(0.0, float(str(said)))
    return 0.0


def problem_of(error: AimdError) -> str:
    """The error for whoever looks later: what was said, and what to do about it."""
    return error.message if error.hint is None else f"{error.message} ({error.hint})"


def wants_credentials(error: AimdError) -> bool:
    """Whether reading credentials again may help."""
    return isinstance(error, UnauthenticatedError) or error.code == UNTRUSTED
