"""ports_dra.DeviceDriver: two sockets below the kubelet's folder, one to be found at and one to be called at."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from aimd.adapters.dra import health, plugin
from aimd.adapters.dra.calls import Calls
from aimd.adapters.dra.health import HealthStream
from aimd.adapters.dra.plugin import Plugin
from aimd.adapters.dra.registration import Registrar
from aimd.adapters.dra.socketfile import SocketFile
from aimd.domain.dra import DRIVER, DeviceHealth, Registration
from aimd.errors import ConfigError
from aimd.ports_dra import Called, Preparing

KUBELET_ROOT = Path("/var/lib/kubelet")
THREADS = 64  # calls at once; the kubelet has one per pod that starts or ends, and one that follows the health
_SECONDS_TO_END = 2.0
_SECONDS_TO_ANSWER = 1.0


class KubeletDriver:
    """Serves from `start` to `close`; after either has failed or ended it is over, and another one is made.

    Args:
        preparing: what the daemon does for the kubelet.
        root: the kubelet's folder (its --root-dir).
        called: is told of each call that has ended.
        known_as: what the kubelet calls its folder, if that is not `root`.
        resend_seconds: between two messages of the same health.
    """

    def __init__(
        self,
        preparing: Preparing,
        root: Path = KUBELET_ROOT,
        called: Called = lambda _operation, _code, _seconds: None,
        *,
        known_as: Path | None = None,
        driver: str = DRIVER,
        resend_seconds: float = health.RESEND_SECONDS,
    ) -> None:
        called_at = Path("plugins") / driver / "dra.sock"
        self._called_at = SocketFile(root / called_at, 0o700)
        self._found_at = SocketFile(root / "plugins_registry" / f"{driver}-reg.sock")
        self._calls = Calls()
        self._health = HealthStream(resend_seconds)
        self._registrar = Registrar(driver, (known_as or root) / called_at, (plugin.SERVICE, health.SERVICE))
        self._plugin = Plugin(preparing, self._calls, called)
        self._servers: list[grpc.Server] = []

    def start(self) -> None:
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._called_at.prepare()
            self._found_at.prepare()
            self._serve(self._called_at, THREADS, self._plugin.handler(), self._health.handler())
            self._serve(self._found_at, 1, self._registrar.handler())  # last: from now on the kubelet calls
            undo.pop_all()

    @property
    def registration(self) -> Registration | None:
        return self._registrar.last

    @property
    def problem(self) -> str | None:
        for file in (self._called_at, self._found_at):
            if not file.intact:
                return f"socket {file.path} is not aimd's any more, so that the kubelet does not find it: restart aimd"
        last = self._registrar.last
        if last is not None and not last.registered:
            return f"the kubelet does not take the driver: {last.error}"
        return None

    def publish_health(self, devices: Sequence[DeviceHealth], at: float) -> None:
        self._health.publish(devices, at)

    def close(self) -> None:
        """The kubelet forgets the driver, and its slices half a minute later unless it is back."""
        self._found_at.remove()
        self._calls.close(_SECONDS_TO_END)
        self._health.close()
        for ended in [server.stop(_SECONDS_TO_ANSWER) for server in self._servers]:
            ended.wait(_SECONDS_TO_END)
        self._servers.clear()
        self._called_at.remove()

    def _serve(self, file: SocketFile, threads: int, *handlers: grpc.GenericRpcHandler) -> None:
        server = grpc.server(ThreadPoolExecutor(threads, thread_name_prefix=f"aimd-{file.path.stem}"), handlers)
        try:
            server.add_insecure_port(f"unix:{file.hidden}")
        except RuntimeError as error:
            raise ConfigError(
                f"socket {file.path} cannot be listened at ({error}), expected a folder that aimd may write to"
            ) from error
        self._servers.append(server)
        server.start()
        file.show()
