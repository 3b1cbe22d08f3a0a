"""Waiting for a claim's places: mode changes end by themselves, its own and the one that it waits for, and are shown."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import click

from aimd.ctl.client import ApiClient, ProblemError
from aimd.ctl.fields import flag, items, required, text
from aimd.ctl.following import Display, display_for
from aimd.ctl.session import segment
from aimd.errors import UnreachableError

POLL_SECONDS = 0.25

Claim = dict[str, Any]


def waits(claim: Mapping[str, Any]) -> bool:
    """Whether a mode change keeps the claim from its places; for room it may wait for ever."""
    state = text(claim, "state")
    return state == "switching" or (state == "pending" and text(claim, "reason") == "switch_in_progress")


def settled(client: ApiClient, claim: Claim, timeout_seconds: float | None = None) -> Claim:
    """The claim when no mode change keeps it waiting any more, or as it is when the time is over.

    Raises:
        UnreachableError: the daemon went away; the claim is kept.
        ProblemError: somebody has released the claim.
    """
    name = text(claim, "name")
    deadline = time.monotonic() + (math.inf if timeout_seconds is None else timeout_seconds)
    progress = _Progress(client)
    try:
        while waits(claim) and (left := deadline - time.monotonic()) > 0:
            progress.show(claim)
            time.sleep(min(POLL_SECONDS, left))
            claim = client.get(f"/v1/claims/{segment(name)}")
    except KeyboardInterrupt:
        progress.close()
        click.echo(f"\n{name} is placed without aimctl; see it with: aimctl describe claim {name}", err=True)
        raise
    except UnreachableError as cause:
        raise UnreachableError(
            f"aimd went away before {name} was placed",
            hint=f"the claim is kept, and a restarted daemon goes on with it: aimctl describe claim {name}",
        ) from cause
    finally:
        progress.close()
    return claim


class _Progress:
    """What the claim waits for, said once, and below it the steps of the mode change that goes on."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._message: str | None = None
        self._change: str | None = None
        self._display: Display | None = None

    def show(self, claim: Claim) -> None:
        message = required(claim, "message")
        if message is not None and message != self._message:
            self.close()
            click.echo(f"{text(claim, 'name')} waits: {text(claim, 'message')}", err=True)
        self._message = message
        with suppress(ProblemError):  # the change can end, and be forgotten, between two questions
            change = self._awaited(claim)
            if change is not None:
                self._display_of(text(change, "name")).show(change)

    def _awaited(self, claim: Claim) -> dict[str, Any] | None:
        """The claim's own mode change, else the one that runs; one that waits for a driver load is in nobody's way."""
        if required(claim, "change") is not None:
            return self._client.get(f"/v1/plans/{segment(text(claim, 'change'))}")
        plans = items(self._client.get("/v1/plans"), "plans")
        running = (each for each in plans if not flag(each, "final") and text(each, "state") != "awaiting_reload")
        return next(running, None)

    def _display_of(self, change: str) -> Display:
        if self._display is None or change != self._change:
            self.close()
            self._display, self._change = display_for(sys.stderr, os.environ), change
        return self._display

    def close(self) -> None:
        if self._display is not None:
            self._display.close()
        self._display = None
