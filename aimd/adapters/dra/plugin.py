"""The kubelet's calls for claims (v1.DRAPlugin), translated: each claim of a call has a result or an error of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import grpc

from aimd.adapters.dra.calls import Call, Calls
from aimd.adapters.dra.proto import dra_pb2 as messages
from aimd.domain.dra import ClaimRef, PreparedDevice
from aimd.errors import AimdError, InvalidInputError
from aimd.ports_dra import Called, Preparing

log = logging.getLogger("aimd.dra")
SERVICE = "v1.DRAPlugin"  # as the kubelet knows it (k8s.io/kubelet, pkg/apis/dra/v1/types.go)
LONGEST_SECONDS = 40.0  # the kubelet gives up after 45 (pkg/kubelet/cm/dra/plugin/dra_plugin.go)
_MARGIN_SECONDS = 2.0
_LONGEST_ERROR = 1000  # characters: an Event has 1,024
Devices = Sequence[PreparedDevice]


class Plugin:
    """Has the daemon prepare and unprepare.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self, preparing: Preparing, calls: Calls, called: Called, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._preparing = preparing
        self._calls = calls
        self._called = called
        self._clock = clock

    def handler(self) -> grpc.GenericRpcHandler:
        """For a gRPC server."""
        return grpc.method_handlers_generic_handler(
            messages.DESCRIPTOR.services_by_name["DRAPlugin"].full_name,
            {
                "NodePrepareResources": grpc.unary_unary_rpc_method_handler(
                    self._prepare,
                    messages.NodePrepareResourcesRequest.FromString,
                    messages.NodePrepareResourcesResponse.SerializeToString,
                ),
                "NodeUnprepareResources": grpc.unary_unary_rpc_method_handler(
                    self._unprepare,
                    messages.NodeUnprepareResourcesRequest.FromString,
                    messages.NodeUnprepareResourcesResponse.SerializeToString,
                ),
            },
        )

    def _prepare(
        self, request: messages.NodePrepareResourcesRequest, context: grpc.ServicerContext
    ) -> messages.NodePrepareResourcesResponse:
        outcomes = self._run("prepare", self._preparing.prepare, request.claims, context)
        return messages.NodePrepareResourcesResponse(
            claims={uid: _prepared(outcome) for uid, outcome in outcomes.items()}
        )

    def _unprepare(
        self, request: messages.NodeUnprepareResourcesRequest, context: grpc.ServicerContext
    ) -> messages.NodeUnprepareResourcesResponse:
        def unprepare(claim: ClaimRef, deadline: float) -> Devices:
            self._preparing.unprepare(claim, deadline)
            return ()

        outcomes = self._run("unprepare", unprepare, request.claims, context)
        responses = {
            uid: messages.NodeUnprepareResourceResponse(error=_sentence(outcome)) for uid, outcome in outcomes.items()
        }
        return messages.NodeUnprepareResourcesResponse(claims=responses)

    def _run(
        self,
        operation: str,
        work: Callable[[ClaimRef, float], Devices],
        claims: Iterable[messages.Claim],
        context: grpc.ServicerContext,
    ) -> Mapping[str, Devices | AimdError]:
        began = self._clock()
        deadline = began + _patience(context.time_remaining())
        works = {each.uid: partial(self._one, operation, work, each, deadline) for each in claims}
        call: Call[Devices] = Call(works, deadline)
        if not context.add_callback(partial(self._calls.abandon, call)):  # the kubelet has gone already
            call.over = True
        outcomes = self._calls.run(call)
        for uid, outcome in outcomes.items():
            self._called(operation, outcome.code if isinstance(outcome, AimdError) else "ok", self._clock() - began)
            if isinstance(outcome, AimdError):
                log.warning("%s of claim %s has failed: %s", operation, uid, outcome)
        return outcomes

    def _one(
        self, operation: str, work: Callable[[ClaimRef, float], Devices], claim: messages.Claim, deadline: float
    ) -> Devices:
        if not (claim.uid and claim.namespace and claim.name):
            raise InvalidInputError(
                f"{operation} is asked for a claim with namespace {claim.namespace!r}, name {claim.name!r} and uid "
                f"{claim.uid!r}, expected all three"
            )
        return work(ClaimRef(claim.namespace, claim.name, claim.uid), deadline)


def _patience(remaining: float | None) -> float:
    """Seconds to answer in, of those that the caller waits."""
    if remaining is None:
        return LONGEST_SECONDS
    return min(LONGEST_SECONDS, max(remaining / 2, remaining - _MARGIN_SECONDS))


def _prepared(outcome: Devices | AimdError) -> messages.NodePrepareResourceResponse:
    if isinstance(outcome, AimdError):
        return messages.NodePrepareResourceResponse(error=_sentence(outcome))
    return messages.NodePrepareResourceResponse(
        devices=[
            messages.Device(
                request_names=each.requests,
                pool_name=each.pool,
                device_name=each.device,
                cdi_device_ids=each.cdi_ids,
                share_id=each.share_id,
            )
            for each in outcome
        ]
    )


def _sentence(outcome: Devices | AimdError) -> str:
    """Of an error, in one line; empty if it is none."""
    if not isinstance(outcome, AimdError):
        return ""
    told = f"{outcome.message}: {outcome.hint}" if outcome.hint else outcome.message
    return " ".join(told.split())[:_LONGEST_ERROR]
