"""The health of devices as the kubelet follows it (v1alpha1.DRAResourceHealth): what is published, streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc

from aimd.adapters.dra.proto import health_pb2 as messages
from aimd.domain.dra import DeviceHealth

SERVICE: str = messages.DESCRIPTOR.services_by_name["DRAResourceHealth"].full_name  # v1alpha1.DRAResourceHealth
RESEND_SECONDS = 10.0
TIMEOUT_SECONDS = 30  # what the kubelet takes if it is not told (pkg/kubelet/cm/dra/healthinfo.go)
_LONGEST_MESSAGE = 1024  # characters
_STATES = {None: messages.UNKNOWN, True: messages.HEALTHY, False: messages.UNHEALTHY}


@dataclass(frozen=True, slots=True)
class _Board:
    devices: tuple[DeviceHealth, ...]
    at: float


class HealthStream:
    """All who follow are told of what is published: at once if it differs, else that it still holds.

    What nobody publishes again is not sent again: the kubelet then calls it unknown.

    Args:
        resend_seconds: between two messages that say the same.
    """

    def __init__(self, resend_seconds: float = RESEND_SECONDS) -> None:
        self._resend_seconds = resend_seconds
        self._changed = threading.Condition()  # guards all below
        self._board: _Board | None = None
        self._closed = False

    def handler(self) -> grpc.GenericRpcHandler:
        """For a gRPC server. A stream has a thread of it as long as the kubelet follows."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "NodeWatchResources": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    messages.NodeWatchResourcesRequest.FromString,
                    messages.NodeWatchResourcesResponse.SerializeToString,
                ),
            },
        )

    def publish(self, devices: Sequence[DeviceHealth], at: float) -> None:
        """All devices, as of `at` (seconds since the epoch)."""
        with self._changed:
            self._board = _Board(tuple(devices), at)
            self._changed.notify_all()

    def close(self) -> None:
        """End all streams."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _watch(
        self, _request: messages.NodeWatchResourcesRequest, context: grpc.ServicerContext
    ) -> Iterator[messages.NodeWatchResourcesResponse]:
        context.add_callback(self._wake)
        sent: _Board | None = None
        while (board := self._next(sent, context)) is not None:
            yield _response(board)
            sent = board

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _next(self, sent: _Board | None, context: grpc.ServicerContext) -> _Board | None:
        """What is to be sent after this; None at the end of the stream."""

        def is_over() -> bool:
            return self._closed or not context.is_active()

        def differs() -> bool:
            return self._board is not None and (sent is None or self._board.devices != sent.devices)

        with self._changed:
            self._changed.wait_for(lambda: is_over() or differs(), self._resend_seconds if sent else None)
            if not differs():  # nothing new: that it still holds, once somebody says so
                self._changed.wait_for(lambda: is_over() or self._board != sent)
            return None if is_over() else self._board


def _response(board: _Board) -> messages.NodeWatchResourcesResponse:
    return messages.NodeWatchResourcesResponse(
        devices=[
            messages.DeviceHealth(
                device=messages.DeviceIdentifier(pool_name=each.pool, device_name=each.device),
                health=_STATES[each.healthy],
                last_updated_time=int(board.at),
                health_check_timeout_seconds=TIMEOUT_SECONDS,
                message=each.message[:_LONGEST_MESSAGE],
            )
            for each in board.devices
        ]
    )
