"""What the gate is told on its command line, as values, and the addresses in it. Needs the standard library alone."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from aimd.errors import InvalidInputError

_SCHEME = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: a TCP port on a host (None: on all), or a Unix socket's path."""

    host: str | None = None
    port: int = 0
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Upstream:
    """The model server: its origin and a path that goes before every request's, perhaps on a Unix socket."""

    origin: str
    prefix: str = ""
    path: str | None = None


@dataclass(frozen=True, slots=True)
class GateSettings:
    """All options of `aimctl gate`; times in seconds.

    Attributes:
        partition: a lease is taken there; None: wherever aimd has the model.
        socket: of the dispatch service; None: the default.
        fail_open: requests pass without a lease while aimd cannot be asked; else they are refused.
        patience: how long requests wait for an aimd that is not there.
        highest: the best class that a header may ask for; None: what aimd allows this process.
        free: paths that need no lease; with a `*` at its end: what begins so.
        keep_lost: go on with a request whose lease was taken back.
        drain_seconds: what runs at SIGTERM has this long to end.
        connect_seconds, upstream_seconds: for the model server's connection, and between two signs of life.
        client_seconds: how long a client may neither send nor take what it should while it holds a lease.
        idle_seconds: between two requests of a connection. upstream_idle: the same, towards the model server.
        connections: of clients, all together.
        line_bytes: of a request line or header field. fields: header fields of a request.
        preserve_host: hand the client's Host on, instead of the model server's own.
    """

    model: str
    upstream: Upstream
    listen: tuple[Address, ...]
    partition: str | None = None
    socket: str | None = None
    fail_open: bool = False
    patience: float = 5.0
    highest: str | None = None
    free: tuple[str, ...] = ()
    keep_lost: bool = False
    drain_seconds: float = 30.0
    connect_seconds: float = 5.0
    upstream_seconds: float = 600.0
    client_seconds: float = 60.0
    idle_seconds: float = 75.0
    upstream_idle: float = 2.0
    connections: int = 4096
    line_bytes: int = 16384
    fields: int = 128
    preserve_host: bool = True

    def needs_lease(self, path: str) -> bool:
        """Whether a request of this path (without its query) is one that uses the partition."""
        return not any(
            path.startswith(free.removesuffix("*")) if free.endswith("*") else path == free for free in self.free
        )


def address(text: str) -> Address:
    """Of `:8080`, `127.0.0.1:8080`, `[::1]:8080`, `unix:/run/gate.sock`.

    Raises:
        InvalidInputError: it is none of these.
    """
    if text.startswith(_SCHEME):
        return Address(path=_socket_path(text, text.removeprefix(_SCHEME)))
    host, colon, port = text.rpartition(":")
    is_port = bool(colon) and port.isascii() and port.isdecimal() and int(port) <= 65535
    if not is_port or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise InvalidInputError(
            f"listen address {text!r} is none: expected :PORT, HOST:PORT, [IPV6]:PORT or unix:/PATH",
            hint="for example --listen 127.0.0.1:8080",
        )
    return Address(host=host.strip("[]") or None, port=int(port))


def upstream(text: str) -> Upstream:
    """Of `http://127.0.0.1:8000`, perhaps with a path, or `unix:/run/model.sock`.

    Raises:
        InvalidInputError: it is neither.
    """
    if text.startswith(_SCHEME):
        return Upstream("http://localhost", path=_socket_path(text, text.removeprefix(_SCHEME)))
    hint = "for example --upstream http://127.0.0.1:8000"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise InvalidInputError(f"upstream {text!r} is no URL: {error}", hint=hint) from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise InvalidInputError(f"upstream {text!r} is no URL: expected http://HOST:PORT or unix:/PATH", hint=hint)
    if parts.query or parts.fragment or parts.username is not None:
        raise InvalidInputError(
            f"upstream {text!r} has a query, a fragment or a user: expected scheme, host, port and path alone",
            hint=hint,
        )
    return Upstream(f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/"))


def _socket_path(text: str, path: str) -> str:
    if not path.startswith("/") or len(path.encode()) > 107:
        raise InvalidInputError(
            f"{text!r} names no Unix socket: expected unix: and an absolute path of at most 107 bytes"
        )
    return path
