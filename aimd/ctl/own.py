"""What commands use that are given no claim: the caller's own, which the daemon knows by the caller's connection.

In a pod that is the pod's. Its place may not be there yet, or the daemon itself: both are waited for, within a bound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import click

from aimd.ctl.client import ApiClient, ProblemError
from aimd.ctl.fields import text
from aimd.ctl.seconds import Seconds
from aimd.ctl.session import segment
from aimd.dispatch.client.own import POLL_SECONDS, WAIT_SECONDS, await_place
from aimd.errors import UnreachableError
from aimd.rundirs import in_kubernetes

Command = TypeVar("Command", bound=Callable[..., Any])


def wait_option(command: Command) -> Command:
    """`--wait SECONDS`, handed on as `wait`: None where it is not given."""
    option = click.option(
        "--wait",
        type=Seconds(),
        metavar="SECONDS",
        help=f"Without a name: how long a pod waits for its partition, and for aimd.  [default: {WAIT_SECONDS:g}]",
    )
    return option(command)


class OwnClaim:
    """The caller's own claim.

    Args:
        wait: seconds; None where nothing was said.
    """

    def __init__(self, client: ApiClient, wait: float | None) -> None:
        self._client = client
        self._patient = wait is not None or in_kubernetes(
            os.environ
        )  # elsewhere an aimd that is not there is told at once
        self._seconds = WAIT_SECONDS if wait is None else wait
        self._began = time.monotonic()

    def name(self) -> str:
        """Its name, once it has a place; raises as aimd.dispatch.client.own.own_model."""
        own = await_place(self._ask, self._seconds, _tell, patient=self._patient, began=self._began)
        return text(own, "claim")

    def held(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The EnvironmentMessage, now that this process holds it; raises as `name`."""
        while True:
            name = self.name()
            try:
                return hold(self._client, name, body)
            except ProblemError as error:  # a switch that has just begun
                if error.code != "not_placed" or not self._left():
                    raise
            time.sleep(min(POLL_SECONDS, self._left()))

    def _left(self) -> float:
        return max(0.0, self._began + self._seconds - time.monotonic())

    def _ask(self) -> dict[str, Any]:
        try:
            return self._client.get("/v1/self")
        except ProblemError as error:
            if error.status == HTTPStatus.SERVICE_UNAVAILABLE:  # too many ask
                raise UnreachableError(error.message, hint=error.hint) from error
            raise


def hold(client: ApiClient, claim: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Have this process hold a replica of the claim; the EnvironmentMessage. Raises as ApiClient.put."""
    return client.put(f"/v1/claims/{segment(claim)}/holders/self", body)


def _tell(what: str) -> None:
    click.echo(f"waiting for a partition: {what}", err=True)
