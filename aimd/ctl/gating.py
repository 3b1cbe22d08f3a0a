"""`aimctl gate`: the options of the HTTP gate. Its server is loaded when it is to run, not for --help or a wrong option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from aimd.ctl.completing import claim_names
from aimd.ctl.own import OwnClaim, wait_option
from aimd.ctl.seconds import Seconds
from aimd.ctl.session import Session
from aimd.dispatch.gate.settings import GateSettings, address, upstream

Command = TypeVar("Command", bound=Callable[..., Any])
_SECONDS = Seconds(above_zero=True)


def _seconds(name: str, default: float, meaning: str) -> Callable[[Command], Command]:
    return click.option(name, type=_SECONDS, default=default, show_default=True, metavar="SECONDS", help=meaning)


@click.command()
@click.option(
    "--model",
    envvar="AIM_CLAIM",
    shell_complete=claim_names,
    help="The claim to take leases of; else AIM_CLAIM, else in a pod the pod's.",
)
@wait_option
@click.option(
    "--upstream", "to", required=True, metavar="URL", help="The model server: http://HOST:PORT[/PATH] or unix:/PATH."
)
@click.option(
    "--listen",
    multiple=True,
    default=(":8080",),
    show_default=True,
    metavar="ADDRESS",
    help="[HOST]:PORT or unix:/PATH; may be given again.",
)
@click.option("--partition", metavar="GPU/INDEX", help="Else the one that aimd has the model on.")
@click.option(
    "--dispatch-socket", metavar="PATH", help="Else AIMD_DISPATCH_SOCKET, else that of the default runtime directory."
)
@click.option(
    "--fail",
    type=click.Choice(["open", "closed"]),
    default="closed",
    show_default=True,
    help="While aimd cannot be asked: open lets requests pass without a lease, closed refuses them (503).",
)
@_seconds("--patience", 5, "How long requests wait for an aimd that is not there, before --fail decides.")
@click.option(
    "--highest",
    type=click.Choice(["high", "medium", "low"]),
    help="The best class that X-Aim-Class may ask for here; else what aimd allows this process: to an operator's, all.",
)
@click.option(
    "--free",
    multiple=True,
    metavar="PATH",
    help="Needs no lease (/health, /v1/models); with * at its end: all that begins so. May be given again.",
)
@click.option(
    "--lost",
    type=click.Choice(["abort", "continue"]),
    default="abort",
    show_default=True,
    help="What becomes of a request whose lease aimd takes back.",
)
@_seconds("--drain-timeout", 30, "At SIGTERM: how long what is under way may go on.")
@_seconds("--connect-timeout", 5, "For a connection to the model server.")
@_seconds("--upstream-timeout", 600, "Between two signs of life of the model server.")
@_seconds("--client-timeout", 60, "How long a client that holds a slot may neither send nor take anything.")
@_seconds("--idle-timeout", 75, "Between two requests of a client's connection, and for the head of one.")
@_seconds("--upstream-idle", 2, "Keep an idle connection to the model server; less than the model server keeps it.")
@click.option("--connections", type=click.IntRange(min=1), default=4096, show_default=True, help="Of clients, at most.")
@click.option(
    "--max-header-bytes",
    type=click.IntRange(min=1024),
    default=16384,
    show_default=True,
    help="Of a request line or header field.",
)
@click.option(
    "--max-headers", type=click.IntRange(min=1), default=128, show_default=True, help="Header fields of a request."
)
@click.option(
    "--host-header",
    type=click.Choice(["client", "upstream"]),
    default="client",
    show_default=True,
    help="Whose Host the model server sees.",
)
@click.pass_obj
def gate(
    session: Session, /, model: str | None, to: str, listen: tuple[str, ...], *, wait: float | None, **options: Any
) -> None:
    """Take a lease for each HTTP request to a model server, which needs no change: a reverse proxy beside it.

    Fields of a request: X-Aim-Class; X-Aim-Timeout (seconds that it may wait for a slot), or X-Aim-Complete-Within or
    X-Aim-Complete-By (seconds, seconds since 1970) with X-Aim-Est-Service. Pages of its own: /.aim/healthz and
    /.aim/metrics. Runs until SIGTERM, and then until what is under way has ended.
    """
    where, places = upstream(to), tuple(map(address, listen))  # wrong ones are told before anything is waited for
    settings = GateSettings(
        model=model or OwnClaim(session.client, wait).name(),
        upstream=where,
        listen=places,
        partition=options["partition"],
        socket=options["dispatch_socket"],
        fail_open=options["fail"] == "open",
        patience=options["patience"],
        highest=options["highest"],
        free=options["free"],
        keep_lost=options["lost"] == "continue",
        drain_seconds=options["drain_timeout"],
        connect_seconds=options["connect_timeout"],
        upstream_seconds=options["upstream_timeout"],
        client_seconds=options["client_timeout"],
        idle_seconds=options["idle_timeout"],
        upstream_idle=options["upstream_idle"],
        connections=options["connections"],
        line_bytes=options["max_header_bytes"],
        fields=options["max_headers"],
        preserve_host=options["host_header"] == "client",
    )
    from aimd.dispatch.gate.server import run  # noqa: PLC0415 - aiohttp takes longer to load than aimctl

    run(settings)
