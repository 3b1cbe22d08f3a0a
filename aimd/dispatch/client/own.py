"""The caller's own model: its pod's, or that of the claim that it is a process of, as the daemon tells by its connection.

    from aimd.dispatch.client import Client
    from aimd.dispatch.client.own import own_model

    with Client() as client, client.lease(own_model()) as lease:

In a pod nobody has to name the model, and nobody can name another one: the daemon knows a process by the kernel's word.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from aimd.errors import NotFoundError, OverdueError, UnreachableError
from aimd.rundirs import API_SOCKET, client_socket

WAIT_SECONDS = 300.0  # a mode switch that makes room takes seconds, the drain before it as long as requests take
POLL_SECONDS = 0.5
ANSWER_SECONDS = 10.0

Own = Mapping[str, Any]  # a SelfMessage
Ask = Callable[[], Own]


class NotPlacedError(OverdueError):
    """The caller's claim had no place in time; the code is the reason, like `no_room`."""

    code = "not_placed"


def own_model(socket_path: str | None = None, *, wait: float = WAIT_SECONDS) -> str:
    """Name of the caller's model, once it has a place.

    Args:
        socket_path: of the local API; else $AIMD_SOCKET, else `aimd.sock` in the runtime directory (in pods /run/aimd).
        wait: seconds for the daemon to be there and the claim to be placed.

    Raises:
        NotPlacedError: it was not placed in time.
        NotFoundError: the process is in no pod and holds no claim, or its pod cannot be told.
        UnreachableError: the daemon was not there in time.
        InvalidInputError: no path is given and there is no default.
    """
    path = client_socket(os.environ, os.getuid(), option=socket_path, file_name=API_SOCKET)
    return str(await_place(lambda: _asked(path), wait, lambda _: None, patient=True)["claim"])


def await_place(
    ask: Ask, wait: float, tell: Callable[[str], None], *, patient: bool, began: float | None = None
) -> Own:
    """What `GET /v1/self` answers once the caller's claim has a place.

    Args:
        ask: gives the answer; UnreachableError is asked again while there is time, if `patient`.
        wait: seconds from `began` on, which is CLOCK_MONOTONIC's now where nothing is said.
        tell: is told what it waits for, each time that this is something else.

    Raises as `own_model`.
    """
    end, told = (time.monotonic() if began is None else began) + wait, None
    while True:
        over = time.monotonic() >= end
        try:
            own = ask()
        except UnreachableError as error:
            if over or not patient:
                raise
            why = error.message
        else:
            if own["state"] == "placed":
                return own
            why = _waits_for(own)
            if over:
                raise _not_placed(own, why, wait)
        if why != told:
            tell(why)
            told = why
        time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))


def _waits_for(own: Own) -> str:
    """Raises NotFoundError where waiting is of no use."""
    if own["state"] != "none" or own["pod_uid"] is not None:
        return str(own["message"])
    hint = "name the claim" if not own["in_pod"] else "mount the directory /run/aimd of a daemon of this very node"
    raise NotFoundError(f"{own['message']}, expected a process of a claim", code="no_claim", hint=hint)


def _not_placed(own: Own, why: str, wait: float) -> NotPlacedError:
    who = f"pod {own['pod'] or own['pod_uid']}" if own["in_pod"] else f"claim {own['claim']}"
    reason = str(own["reason"] or "pending")
    word = "".join(part.title() for part in reason.split("_"))  # as the pod's Events and its service's status have it
    hint = "kubectl describe pod tells what became of it; --wait SECONDS waits longer"
    return NotPlacedError(f"{who} had no partition within {wait:g} s: {why} ({word})", code=reason, hint=hint)


def _asked(path: str) -> Own:
    connection = http.client.HTTPConnection("aimd", timeout=ANSWER_SECONDS)
    with closing(connection):
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(ANSWER_SECONDS)
        try:
            connection.sock.connect(path)
            connection.request("GET", "/v1/self", headers={"Connection": "close"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnreachableError(f"no aimd answers at {path}: {error}") from error
    if response.status != http.client.OK or not isinstance(answer, dict):
        raise UnreachableError(f"aimd at {path} does not tell who asks: status {response.status}")
    return answer
