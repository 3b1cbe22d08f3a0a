"""A kubelet as a driver of Dynamic Resource Allocation meets it: it finds sockets in its folder, and calls them."""

from __future__ import annotations

import stat

import grpc

from aimd.adapters.dra.proto import dra_pb2, health_pb2, registration_pb2
from tests.systemd.machine import until

DRA = "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/"
REGISTRATION = "/pluginregistration.Registration/"
HEALTH = "/v1alpha1.DRAResourceHealth/"
SECONDS = 45


class FakeKubelet:
    def __init__(self, root):
        self.root = root
        self.info = None
        self.found = None
        self._channel = None

    @property
    def registry(self):
        return self.root / "plugins_registry"

    def sockets(self):
        """What the plugin watcher sees: sockets without a dot before their name."""
        return [
            path
            for path in (self.registry.iterdir() if self.registry.exists() else ())
            if not path.name.startswith(".") and stat.S_ISSOCK(path.lstat().st_mode)
        ]

    def register(self, error=""):
        """Wait for a driver, and take it, or say why not."""
        (self.found,) = until(self.sockets, "no driver appears")
        with grpc.insecure_channel(f"unix:{self.found}") as channel:
            ask = channel.unary_unary(
                f"{REGISTRATION}GetInfo",
                registration_pb2.InfoRequest.SerializeToString,
                registration_pb2.PluginInfo.FromString,
            )
            self.info = ask(registration_pb2.InfoRequest(), timeout=5, wait_for_ready=False)
            tell = channel.unary_unary(
                f"{REGISTRATION}NotifyRegistrationStatus",
                registration_pb2.RegistrationStatus.SerializeToString,
                registration_pb2.RegistrationStatusResponse.FromString,
            )
            tell(registration_pb2.RegistrationStatus(plugin_registered=not error, error=error), timeout=5)
        self._channel = grpc.insecure_channel(f"unix:{self.info.endpoint}")
        return self.info

    def begin(self, operation, *claims, seconds=SECONDS):
        """A call under way; `claims` are (namespace, name, uid)."""
        request = getattr(dra_pb2, f"Node{operation}ResourcesRequest")
        response = getattr(dra_pb2, f"Node{operation}ResourcesResponse")
        method = self._channel.unary_unary(
            f"{DRA}Node{operation}Resources", request.SerializeToString, response.FromString
        )
        named = [dra_pb2.Claim(namespace=space, name=name, uid=uid) for space, name, uid in claims]
        return method.future(request(claims=named), timeout=seconds)

    def prepare(self, *claims, **more):
        return dict(self.begin("Prepare", *claims, **more).result().claims)

    def unprepare(self, *claims, **more):
        return dict(self.begin("Unprepare", *claims, **more).result().claims)

    def follow_health(self):
        """The stream; iterate over it, or cancel it."""
        method = self._channel.unary_stream(
            f"{HEALTH}NodeWatchResources",
            health_pb2.NodeWatchResourcesRequest.SerializeToString,
            health_pb2.NodeWatchResourcesResponse.FromString,
        )
        return method(health_pb2.NodeWatchResourcesRequest())

    def close(self):
        if self._channel is not None:
            self._channel.close()
            self._channel = None
