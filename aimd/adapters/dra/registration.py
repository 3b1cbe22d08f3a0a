"""How the kubelet gets to know the driver (pluginregistration.Registration)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import grpc

from aimd.adapters.dra.proto import registration_pb2 as messages
from aimd.domain.dra import Registration

log = logging.getLogger("aimd.dra")
PLUGIN_TYPE = "DRAPlugin"  # pkg/apis/pluginregistration/v1/constants.go


class Registrar:
    """Says who the driver is, and keeps what the kubelet made of it.

    Args:
        endpoint: the socket of the services, as the kubelet finds it.
        services: that are served there.
        wall: seconds since the epoch.
    """

    def __init__(
        self, driver: str, endpoint: Path, services: tuple[str, ...], wall: Callable[[], float] = time.time
    ) -> None:
        self._info = messages.PluginInfo(
            type=PLUGIN_TYPE, name=driver, endpoint=str(endpoint), supported_versions=services
        )
        self._wall = wall
        self.last: Registration | None = None

    def handler(self) -> grpc.GenericRpcHandler:
        """For a gRPC server."""
        return grpc.method_handlers_generic_handler(
            messages.DESCRIPTOR.services_by_name["Registration"].full_name,
            {
                "GetInfo": grpc.unary_unary_rpc_method_handler(
                    self._get_info, messages.InfoRequest.FromString, messages.PluginInfo.SerializeToString
                ),
                "NotifyRegistrationStatus": grpc.unary_unary_rpc_method_handler(
                    self._notify,
                    messages.RegistrationStatus.FromString,
                    messages.RegistrationStatusResponse.SerializeToString,
                ),
            },
        )

    def _get_info(self, _request: messages.InfoRequest, _context: grpc.ServicerContext) -> messages.PluginInfo:
        return self._info

    def _notify(
        self, request: messages.RegistrationStatus, _context: grpc.ServicerContext
    ) -> messages.RegistrationStatusResponse:
        self.last = Registration(request.plugin_registered, request.error, self._wall())
        if not request.plugin_registered:
            log.error("the kubelet does not take driver %s: %s", self._info.name, request.error)
        return messages.RegistrationStatusResponse()
