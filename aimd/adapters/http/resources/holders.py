"""The processes of a claim: how one becomes its holder, and what its environment is computed from."""

from __future__ import annotations

from http import HTTPStatus

from aimd.adapters.http.api import Api
from aimd.adapters.http.call import Answer, Call, Result
from aimd.adapters.http.resources.claims import visible_claim
from aimd.adapters.http.resources.common import SINCE
from aimd.adapters.http.routes import Parameter, Route
from aimd.errors import DeniedError
from aimd.protocol import claims as msg
from aimd.protocol.convert_claims import environment_message

SELF = "self"
_REPLICA = Parameter("replica", "whose environment, counted from 0", SINCE.schema)


async def read_environment(api: Api, call: Call) -> Result:
    snapshot = api.snapshot()
    claim = visible_claim(snapshot, call)
    replica = call.number("replica", "the number of a replica, counted from 0")
    if replica is None:
        own = claim.replica_of(call.peer.pod)
        replica = claim.numbers[0] if own is None else own
    return Answer(environment_message(claim.name, replica, snapshot, api.facts.sysfs_root))


async def write_holder(api: Api, call: Call) -> Result:
    """The caller is who the kernel says. A pid is an older way to say `self`: in a pod it is a number of the pod's own."""
    body = call.body(msg.HolderRequest, '{"replica": 0}')
    claim = visible_claim(api.snapshot(), call)
    own = claim.replica_of(call.peer.pod)
    if own is None:
        api.operators.require_for(call.peer, claim.owner_uid)
    elif body.replica not in (None, own):
        raise DeniedError(
            f"replica {body.replica} of claim {claim.name} is another pod, expected {own}, which is the caller's",
            code="not_own_replica",
            hint="leave the replica away",
        )
    if call.path["pid"] not in (SELF, str(call.peer.pid)):
        raise DeniedError(
            f"pid {call.path['pid']!r} is not the caller, expected {SELF} or its own pid, {call.peer.pid}",
            code="not_own_process",
            hint="aimctl exec makes itself the holder and then runs the command",
        )
    replica = body.replica if own is None else own
    holder = await api.control.hold(claim.name, replica, call.peer.pid, command=body.command)
    return Answer(environment_message(holder.claim, holder.replica, api.snapshot(), api.facts.sysfs_root, holder))


_NAMED = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)

ROUTES = (
    Route(
        "GET",
        "/v1/claims/{name}/environment",
        "What the environment of a replica's process is computed from",
        read_environment,
        {200: msg.EnvironmentMessage},
        query=(_REPLICA,),
        problems=_NAMED,
    ),
    Route(
        "PUT",
        "/v1/claims/{name}/holders/{pid}",
        "Become the holder of a claim until the process ends; `self` is the only one that may be named",
        write_holder,
        {200: msg.EnvironmentMessage},
        body=msg.HolderRequest,
        problems=(*_NAMED, HTTPStatus.FORBIDDEN),
    ),
)
