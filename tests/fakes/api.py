"""A small local API on a Unix socket, for tests of its clients: answers are built from the real message structs."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import NamedTuple, final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from aimd.protocol.claims import (
    AssignmentListMessage,
    ClaimListMessage,
    ClaimMessage,
    ClaimRequest,
    EnvironmentMessage,
    HolderRequest,
    SelfMessage,
)
from aimd.protocol.cluster import ClusterMessage
from aimd.protocol.memory import FindingListMessage, FindingMessage, PartitionDetailMessage
from aimd.protocol.messages import (
    ChangeListMessage,
    ChangeMessage,
    ChangeRequest,
    EventListMessage,
    EventMessage,
    HealthMessage,
    InventoryMessage,
    Message,
    NodeMessage,
    PartitionListMessage,
    PlanMessage,
    ProblemMessage,
    ReloadMessage,
    VersionMessage,
    to_builtins,
    to_json,
)
from aimd.protocol.models import ModelListMessage, ModelMessage


class Request(NamedTuple):
    """What a client asked."""

    method: str
    target: str
    host: str | None
    body: object


@dataclass(frozen=True)
class Raw:
    """An answer as bytes. `http` False: the bytes are all that is sent; `hang`: nothing more until the server stops."""

    body: bytes = b""
    status: int = 200
    http: bool = True
    hang: bool = False


@dataclass
class World:
    """What the fake knows.

    Attributes:
        plan: answer to every dry run.
        change: states that every submitted change goes through; its name and wishes become the request's.
        changes: known changes by name, with the states that a watch of each sends.
        claims: known claims by name, with the states that questions about each are answered with, the last one forever.
        claim: states of every claim that is asked for; its name becomes the request's.
        environments: of holders, by replica.
        health: by path, /healthz and /readyz.
        abort: streams end in the middle of a line.
        hold_watch: streams stay open after what there is, as those of the daemon do.
        overrides: answers by method and path (* stands for anything) that replace the normal ones.
        page: events in one answer.
    """

    inventory: InventoryMessage
    node: NodeMessage
    plan: PlanMessage
    change: list[ChangeMessage]
    changes: dict[str, list[ChangeMessage]] = field(default_factory=dict)
    claims: dict[str, list[ClaimMessage]] = field(default_factory=dict)
    claim: list[ClaimMessage] = field(default_factory=list)
    environments: dict[int, EnvironmentMessage] = field(default_factory=dict)
    health: dict[str, HealthMessage] = field(default_factory=dict)
    reload: ReloadMessage = field(default_factory=lambda: ReloadMessage(changed=[], needs_restart=[]))
    events: list[EventMessage] = field(default_factory=list)
    models: list[ModelMessage] = field(default_factory=list)
    findings: list[FindingMessage] = field(default_factory=list)
    cluster: ClusterMessage = field(default_factory=lambda: ClusterMessage(enabled=False))
    overrides: dict[str, Raw | ProblemMessage] = field(default_factory=dict)
    own: list[SelfMessage | ProblemMessage] = field(default_factory=list)  # answers to who asks, the last one for good
    requests: list[Request] = field(default_factory=list)
    page: int = 1000
    abort: bool = False
    hold_watch: bool = False


@final
class FakeApi(ThreadingMixIn, UnixStreamServer):
    """The server; use it as a context manager. `stopping` is set when it ends, which releases hanging answers."""

    daemon_threads = True

    def __init__(self, path: Path, world: World) -> None:
        self.world = world
        self.stopping = threading.Event()
        super().__init__(str(path), _Exchange)
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> FakeApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that went away is no news."""


class _Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeApi

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        world, path, query = self._begin(None)
        if self._overridden(path):
            return
        if path in world.health:
            self._send(world.health[path], status=503 if world.health[path].failing else 200)
        elif path.startswith("/v1/plans/") and "watch" in query:
            self._watch_change(unquote(path.removeprefix("/v1/plans/")))
        elif path == "/v1/events" and "watch" in query:
            self._stream([event for event in world.events if event.sequence > int(query["since"][0])])
        elif "watch" in query:
            self._stream(_watched(world, path.removeprefix("/v1/")))
        else:
            self._send(_answer(world, path, query))

    def do_PUT(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        world, path, _ = self._begin(json.loads(raw))
        if self._overridden(path):
            return
        match [unquote(part) for part in path.split("/")[2:]]:
            case ["plans", name]:
                self._put_change(world, name, msgspec.json.decode(raw, type=ChangeRequest))
            case ["claims", name]:
                msgspec.json.decode(raw, type=ClaimRequest)
                known = name in world.claims
                if not known:
                    world.claims[name] = [msgspec.structs.replace(each, name=name) for each in world.claim]
                self._send(_next(world.claims[name]), status=200 if known else 201)
            case ["claims", name, "holders", _] if name in world.claims:
                replica = msgspec.json.decode(raw, type=HolderRequest).replica
                self._send(world.environments[replica or 0])
            case ["gpus", gpu, "drain"]:
                self._send(_drained(world, gpu, draining=True))
            case _:
                self._send(not_found(path))

    def do_DELETE(self) -> None:
        world, path, _ = self._begin(None)
        if self._overridden(path):
            return
        match [unquote(part) for part in path.split("/")[2:]]:
            case ["claims", name] if name in world.claims:
                self._send(world.claims.pop(name)[-1])
            case ["gpus", gpu, "drain"]:
                self._send(_drained(world, gpu, draining=False))
            case _:
                self._send(not_found(path))

    def do_POST(self) -> None:
        world, path, _ = self._begin(None)
        if not self._overridden(path):
            self._send(world.reload if path == "/v1/reload" else not_found(path))

    def _put_change(self, world: World, name: str, request: ChangeRequest) -> None:
        if request.dry_run:
            self._send(world.plan)
        elif name in world.changes:
            self._send(world.changes[name][-1])
        else:
            states = [msgspec.structs.replace(each, name=name, wishes=request.modes) for each in world.change]
            world.changes[name] = states
            self._send(states[0], status=202)

    def _begin(self, body: object) -> tuple[World, str, dict[str, list[str]]]:
        self.server.world.requests.append(Request(self.command, self.path, self.headers["Host"], body))
        url = urlsplit(self.path)
        return self.server.world, url.path, parse_qs(url.query)

    def _overridden(self, path: str) -> bool:
        overrides, asked = self.server.world.overrides, f"{self.command} {path}"
        answer = next((answer for pattern, answer in overrides.items() if fnmatchcase(asked, pattern)), None)
        if answer is None:
            return False
        if isinstance(answer, Raw):
            self._send_raw(answer)
        else:
            self._send(answer)
        return True

    def _send(self, message: Message, status: int = 200) -> None:
        if isinstance(message, ProblemMessage):
            self._send_raw(Raw(to_json(message), status=message.status), "application/problem+json")
        else:
            self._send_raw(Raw(to_json(message), status=status))

    def _send_raw(self, answer: Raw, content_type: str = "application/json") -> None:
        if answer.http and not answer.hang:
            self.send_response(answer.status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
        self.wfile.write(answer.body)
        if answer.hang:
            self.server.stopping.wait()
        self.close_connection = True

    def _watch_change(self, name: str) -> None:
        if name in self.server.world.changes:
            self._stream(self.server.world.changes[name])
        else:
            self._send(not_found(name))

    def _stream(self, messages: list[Message] | list[dict[str, object]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for message in messages:
            line = (json.dumps(message).encode() if isinstance(message, dict) else to_json(message)) + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        if self.server.world.hold_watch:
            self.server.stopping.wait()
        self.wfile.write(b'40\r\n{"name": ' if self.server.world.abort else b"0\r\n\r\n")
        self.close_connection = True


def not_found(name: str) -> ProblemMessage:
    return ProblemMessage(
        title="Not found",
        status=404,
        detail=f"{name} does not exist",
        code="not_found",
        hint="aimctl get gpus lists what there is",
    )


def _next(states: list[ClaimMessage]) -> ClaimMessage:
    """The state to answer with; the following question meets the following one."""
    return states.pop(0) if len(states) > 1 else states[0]


def _assignments(world: World):
    return [each for states in world.claims.values() for each in states[-1].assignments]


def _drained(world: World, name: str, *, draining: bool) -> Message:
    for index, gpu in enumerate(world.inventory.gpus):
        if name.lower() in (gpu.name, gpu.pci_address):
            world.inventory.gpus[index] = msgspec.structs.replace(gpu, draining=draining)
            return world.inventory.gpus[index]
    return not_found(name)


def _watched(world: World, kind: str) -> list[dict[str, object]]:
    """All objects of the kind as ADDED, then the first one as MODIFIED and DELETED."""
    objects = [to_builtins(each) for each in getattr(_answer(world, f"/v1/{kind}", {}), kind)]
    changes = [("ADDED", each) for each in objects] + [(word, objects[0]) for word in ("MODIFIED", "DELETED")]
    return [{"type": word, "generation": 7 + n, "object": each} for n, (word, each) in enumerate(changes)]


def _answer(world: World, path: str, query: dict[str, list[str]]) -> Message:
    partitions = [partition for gpu in world.inventory.gpus for partition in gpu.partitions]
    match [unquote(part) for part in path.split("/")[2:]]:
        case ["gpus"]:
            return world.inventory
        case ["gpus", gpu]:
            found = [each for each in world.inventory.gpus if gpu.lower() in (each.name, each.pci_address)]
        case ["partitions"]:
            return PartitionListMessage(partitions=partitions)
        case ["partitions", gpu, index]:
            named = [each for each in partitions if f"{gpu.lower()}/{index}" in (each.name, each.id)]
            found = [PartitionDetailMessage(**msgspec.structs.asdict(each)) for each in named]
        case ["findings"]:
            return FindingListMessage(findings=world.findings)
        case ["claims"]:
            return ClaimListMessage(claims=[states[-1] for states in world.claims.values()])
        case ["claims", name]:
            found = [_next(world.claims[name])] if name in world.claims else []
        case ["claims", name, "environment"]:
            replica = int(query["replica"][0])
            found = [world.environments[replica]] if name in world.claims and replica in world.environments else []
        case ["assignments"]:
            return AssignmentListMessage(assignments=_assignments(world))
        case ["assignments", name, replica]:
            found = [each for each in _assignments(world) if each.name == f"{name}/{replica}"]
        case ["models"]:
            sample = 7 if world.models else None
            return ModelListMessage(models=world.models, window_seconds=60.0, sample=sample)
        case ["models", name]:
            found = [each for each in world.models if each.name == name]
        case ["self"]:
            found = [world.own.pop(0) if len(world.own) > 1 else world.own[0]] if world.own else []
        case ["plans"]:
            return ChangeListMessage(plans=[states[-1] for states in world.changes.values()])
        case ["plans", name]:
            found = [world.changes[name][-1]] if name in world.changes else []
        case ["events"]:
            since = int(query["since"][0])
            page = [event for event in world.events if event.sequence > since][: world.page]
            return EventListMessage(events=page, next=page[-1].sequence if page else since)
        case ["cluster"]:
            return world.cluster
        case ["node"]:
            return world.node
        case ["version"]:
            return VersionMessage(version=world.node.version)
        case _:
            found = []
    return found[0] if found else not_found(path)
