"""The daemon itself: what it runs on, its version, whether it is alive and ready, and this API's description."""

from __future__ import annotations

import os
import time
from http import HTTPStatus
from importlib import resources

from aimd import __version__
from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Answer, Call, Document, Result
from aimd.adapters.http.health import not_alive, not_ready
from aimd.adapters.http.routes import Route
from aimd.protocol import messages as msg

DESCRIPTION = "openapi.json"


async def read_node(api: Api, _call: Call) -> Result:
    snapshot, facts, ledger = api.snapshot(), api.facts, api.control.health.ledger
    return Answer(
        msg.NodeMessage(
            ready=snapshot.ready,
            generation=snapshot.generation,
            gpu_count=len(snapshot.gpus),
            partition_count=sum(len(status.gpu.partitions) for status in snapshot.gpus),
            topology_generation=snapshot.topology_generation,
            busy_rule=snapshot.busy_rule.value,
            boot_id=facts.boot_id,
            simulated=facts.simulated,
            version=__version__,
            pid=os.getpid(),
            uptime_seconds=round(time.monotonic() - facts.started, 3),
            warnings=[*snapshot.warnings, *([ledger] if ledger is not None else [])],
        )
    )


async def read_version(_api: Api, _call: Call) -> Result:
    return Answer(msg.VersionMessage(version=__version__))


async def read_health(api: Api, _call: Call) -> Result:
    return _health(not_alive(api.control))


async def read_readiness(api: Api, _call: Call) -> Result:
    return _health(not_ready(api.control))


def _health(failing: dict[str, str]) -> Answer:
    if not failing:
        return Answer(msg.HealthMessage(status="ok"))
    return Answer(msg.HealthMessage(status="failing", failing=failing), HTTPStatus.SERVICE_UNAVAILABLE)


async def reload(api: Api, call: Call) -> Result:
    api.operators.require(call.peer)
    done = await api.control.reload()
    return Answer(msg.ReloadMessage(changed=done.changed, needs_restart=done.needs_restart, problems=done.problems))


async def read_description(_api: Api, _call: Call) -> Result:
    return Document(resources.files("aimd.adapters.http").joinpath(DESCRIPTION).read_bytes())


_HEALTH = {200: msg.HealthMessage, 503: msg.HealthMessage}
ROUTES = (
    Route("GET", "/v1/node", "The node and the daemon that runs on it", read_node, {200: msg.NodeMessage}),
    Route("GET", "/v1/version", "Versions of daemon and API", read_version, {200: msg.VersionMessage}),
    Route("GET", "/v1/openapi.json", "This description of the API", read_description, {200: None}),
    Route(
        "POST",
        "/v1/reload",
        "Read the configuration again; one that is not valid changes nothing",
        reload,
        {200: msg.ReloadMessage},
        problems=(HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY),
    ),
    Route("GET", "/healthz", "Whether the daemon works; restart it if not", read_health, _HEALTH),
    Route("GET", "/readyz", "Whether the daemon can be used, and the checks that say no", read_readiness, _HEALTH),
)
