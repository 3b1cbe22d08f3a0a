"""A dispatch daemon in a thread of the test: the reference core behind a socket that speaks as DISPATCH.md says.

What only a test wants: it is killed and started again with its leases kept, stalls, refuses, denies, and tells what it
was asked. The real server has the same `path`, `start`, `kill`, `stall` and `resume`.
"""

import selectors
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path

from aimd.dispatch import Limits, ModelConfig, PartitionConfig, Reference
from aimd.dispatch.values import Kind, Outcome
from tests.fakes.dispatch_frames import (
    BAD_VERSION,
    DUPLICATE,
    OUT_OF_ORDER,
    UNKNOWN_HANDLE,
    BadFrameError,
    decode,
    encode,
    whole_frame,
)

PLACE = "0000:05:00.0/{}".format
ACQUIRE_NO_WAIT, ACQUIRE_QUIET = 1, 2
RELEASE_FAILED, RELEASE_QUIET = 1, 2
LOOK_SECONDS = 0.002


class Peer:
    """A connection: its socket, what arrived of a frame, and what it was told of handles and requests."""

    def __init__(self, sock, process):
        self.sock = sock
        self.process = process
        self.buffer = bytearray()
        self.connection = None
        self.handles = []
        self.quiet = set()
        self.waiting = set()


class DispatchDaemon:
    """`models`: of partition 0, its slots shared; more partitions by `configure`."""

    def __init__(self, path, models=("llama",), *, slots=2, lease_ns=600_000_000_000, budget_ns=None):
        self.path = str(path)
        self.lease_ns = lease_ns
        self.names = {}  # (model, partition) -> model id
        self.config = {}  # partition -> PartitionConfig
        self.denied = {}  # model -> (outcome, sentence)
        self.greeting_error = None  # (error, sentence) instead of WELCOME
        self.highest = 0
        self.requests_per_connection = 1024
        self.generation = 1
        self.instance = 0
        self.kept = ()
        self.frames = []  # what clients sent, as fields
        self.connections = 0  # accepted ones, of all starts
        self._lock = threading.RLock()
        self._thread = None
        self.stalled = False
        self.core = None
        self.budget_ns = budget_ns or (5_000_000_000, 15_000_000_000, 60_000_000_000)
        self.place(0, models, slots)

    # Life.

    def start(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(256)
        self.listener.setblocking(False)
        self.instance += 1
        self.core = Reference(
            Limits(leases=64, requests_per_connection=self.requests_per_connection), generation=self.generation
        )
        for partition, config in self.config.items():
            self.core.configure(self.now(), partition, config)
        self.core.restore(self.now(), self.kept)
        self.peers = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ)
        self._running = True
        self._thread = threading.Thread(target=self._serve, name="fake-dispatch")
        self._thread.start()
        return self

    def kill(self):
        """As by SIGKILL: nothing is said, leases stay as they are."""
        if self._thread is None:
            return
        self._running = False
        self._thread.join()
        self._thread = None
        self.kept = self.core.leases()
        self.generation += 1_000_000
        for peer in self.peers.values():
            peer.sock.close()
        self.selector.close()
        self.listener.close()
        Path(self.path).unlink()

    def restart(self, pause=0.0):
        self.kill()
        time.sleep(pause)
        self.stalled = False
        return self.start()

    def stall(self):
        """Stop answering, as by SIGSTOP."""
        with self._lock:
            self.stalled = True

    def resume(self):
        with self._lock:
            self.stalled = False

    def __enter__(self):
        return self.start()

    def __exit__(self, *exc):
        self.kill()

    # Configuration, at any time.

    def place(self, partition, models, slots=2):
        with self._lock:
            self.names = {key: value for key, value in self.names.items() if key[1] != PLACE(partition)}
            for number, model in enumerate(models):
                self.names[model, PLACE(partition)] = number
            configs = tuple(ModelConfig(number, budget_ns=self.budget_ns) for number in range(len(models)))
            config = self.config[partition] = PartitionConfig(configs, capacity=slots, lease_max_ns=self.lease_ns)
            if self.core is not None:
                self.tell(self.core.configure(self.now(), partition, config))

    def remove(self, partition):
        with self._lock:
            del self.config[partition]
            self.names = {key: value for key, value in self.names.items() if key[1] != PLACE(partition)}
            self.tell(self.core.remove_partition(self.now(), partition))

    def drain(self, partition):
        with self._lock:
            self.core.drain(self.now(), partition)

    def give_back(self, lease):
        """End the lease as if its owner had released it elsewhere; nobody reads or writes for it."""
        with self._lock:
            connection = next(iter(self.peers))
            events = self.core.release(self.now(), connection, lease)
            self.tell([event for event in events if event[0] != Kind.RELEASED])

    def drop_connections(self, error=None):
        """End all connections, by an ERROR frame if one is given."""
        with self._lock:
            for peer in list(self.peers.values()):
                if error is not None:
                    self.write(peer, encode("error", error=error, message="told to"))
                self.end(peer)

    def send_all(self, data):
        with self._lock:
            for peer in self.peers.values():
                self.write(peer, data)

    # What tests ask.

    def running(self):
        with self._lock:
            self.tell(self.core.advance(self.now()))
            return [lease.lease for lease in self.core.leases()]

    def waiting(self):
        with self._lock:
            return sum(place.waiting for place in self.core.snapshot().partitions)

    def model(self, number=0, partition=0):
        with self._lock:
            (place,) = (place for place in self.core.snapshot().partitions if place.partition == partition)
            return place.models[number]

    def asked(self, kind):
        with self._lock:
            return [fields for fields in self.frames if fields["kind"] == kind]

    # Service.

    @staticmethod
    def now():
        return time.monotonic_ns()

    def _serve(self):
        while self._running:
            ready = self.selector.select(LOOK_SECONDS)
            with self._lock:
                if self.stalled:
                    time.sleep(LOOK_SECONDS)
                    continue
                for key, _ in ready:
                    if key.fileobj is self.listener:
                        self.accept()
                    elif key.data.sock.fileno() >= 0:
                        self.read(key.data)
                self.tell(self.core.advance(self.now()))

    def accept(self):
        sock, _ = self.listener.accept()
        pid, _, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        self.connections += 1
        self.selector.register(sock, selectors.EVENT_READ, Peer(sock, pid))

    def read(self, peer):
        try:
            data = peer.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            self.end(peer)
            return
        peer.buffer += data
        try:
            while (frame := whole_frame(peer.buffer)) is not None:
                self.answer(peer, decode(frame))
                if peer.sock.fileno() < 0:
                    return
        except BadFrameError as bad:
            self.write(peer, encode("error", error=bad.error, message=str(bad)))
            self.end(peer)

    def end(self, peer):
        self.selector.unregister(peer.sock)
        peer.sock.close()
        if peer.connection is not None:
            del self.peers[peer.connection]
            self.tell(self.core.disconnect(self.now(), peer.connection, alive=True))

    def answer(self, peer, fields):
        self.frames.append(fields)
        if (fields["kind"] == "hello") != (peer.connection is None):
            raise BadFrameError(OUT_OF_ORDER, "hello comes first, and once")
        getattr(self, "on_" + fields["kind"])(peer, fields)

    def on_hello(self, peer, fields):
        if self.greeting_error is not None:
            raise BadFrameError(*self.greeting_error)
        if not fields["first"] <= 1 <= fields["last"]:
            raise BadFrameError(BAD_VERSION, "version 1 is spoken")
        peer.connection = self.core.open(peer.process, self.highest)
        self.peers[peer.connection] = peer
        requests = self.requests_per_connection
        self.write(
            peer, encode("welcome", version=1, instance=self.instance, features=0, requests=requests, handles=256)
        )

    def on_open(self, peer, fields):
        model, place, tag = fields["model"], fields["partition"], fields["tag"]
        places = [at for name, at in self.names if name == model and place in ("", at)]
        if model in self.denied or len(places) != 1:
            outcome = Outcome.UNKNOWN_PARTITION if places or place else Outcome.UNKNOWN_MODEL
            outcome, sentence = self.denied.get(model, (outcome, f"{model} has {len(places)} partitions"))
            self.write(peer, encode("denied", tag=tag, outcome=outcome, message=sentence))
            return
        partition = int(places[0].rpartition("/")[2])
        peer.handles.append((partition, self.names[model, places[0]]))
        self.write(
            peer,
            encode(
                "opened",
                tag=tag,
                handle=len(peer.handles) - 1,
                highest=self.highest,
                default_class=1,
                slots=self.config[partition].capacity,
                lease_ns=self.lease_ns,
                partition=places[0],
            ),
        )

    def on_acquire(self, peer, fields):
        if fields["handle"] >= len(peer.handles):
            raise BadFrameError(UNKNOWN_HANDLE, f"handle {fields['handle']}")
        if fields["request"] in peer.waiting:
            raise BadFrameError(DUPLICATE, f"request {fields['request']}")
        partition, model = peer.handles[fields["handle"]]
        if fields["flags"] & ACQUIRE_QUIET:
            peer.quiet.add(fields["request"])
        now = self.now()
        klass = -1 if fields["klass"] == 255 else fields["klass"]
        start_by = -1 if fields["wait_ns"] < 0 else now + fields["wait_ns"]
        no_wait = bool(fields["flags"] & ACQUIRE_NO_WAIT)
        self.tell(
            self.core.acquire(now, peer.connection, fields["request"], partition, model, klass, start_by, no_wait)
        )

    def on_release(self, peer, fields):
        ok = not fields["flags"] & RELEASE_FAILED
        self.tell(self.core.release(self.now(), peer.connection, fields["lease"], ok), peer, fields)

    def on_renew(self, peer, fields):
        self.tell(self.core.renew(self.now(), peer.connection, fields["lease"]), peer, fields)

    def on_adopt(self, peer, fields):
        self.tell(self.core.adopt(self.now(), peer.connection, fields["lease"]), peer, fields)

    def on_cancel(self, peer, fields):
        self.tell(self.core.cancel(self.now(), peer.connection, fields["request"]), peer, fields)

    def tell(self, events, asker=None, fields=None):
        """Send what the core said to those whom it concerns; `fields`: of the frame that made it speak."""
        for event in events:
            kind = event[0]
            if kind in (Kind.QUEUED, Kind.GRANTED, Kind.ENDED):
                self.tell_request(event)
            elif kind == Kind.REFUSED:
                asked = ["hello", "open", "acquire", "release", "renew", "adopt", "cancel"].index(fields["kind"]) + 1
                self.write(asker, encode("refused", number=event[2], fault=event[3], asked=asked))
            elif kind == Kind.RELEASED and not fields.get("flags", 0) & RELEASE_QUIET:
                self.write(asker, encode("released", lease=event[1]))
            elif kind == Kind.RENEWED:
                self.write(asker, encode("renewed", lease=event[1], lease_ns=event[2] - self.now()))
            elif kind == Kind.ADOPTED:
                left = next(lease.deadline for lease in self.core.leases() if lease.lease == event[2]) - self.now()
                self.write(asker, encode("adopted", lease=event[2], lease_ns=left))
            elif kind in (Kind.REVOKED, Kind.LOST):
                for peer in self.peers.values():  # the owner's among them; the others do not know the lease
                    self.write(peer, encode("taken", lease=event[1], end=2 if kind == Kind.REVOKED else 3))

    def tell_request(self, event):
        peer = self.peers.get(event[1])
        if peer is None:
            return
        kind, _, request = event[:3]
        if kind == Kind.QUEUED:
            peer.waiting.add(request)
            if request not in peer.quiet:
                self.write(peer, encode("queued", request=request))
            return
        peer.waiting.discard(request)
        peer.quiet.discard(request)
        if kind == Kind.GRANTED:
            _, _, _, lease, _, _, klass, green = event
            self.write(
                peer,
                encode("granted", request=request, lease=lease, klass=klass, lease_ns=self.lease_ns, guaranteed=green),
            )
        else:
            self.write(peer, encode("ended", request=request, outcome=event[3], retry_after_ns=250_000_000))

    @staticmethod
    def write(peer, data):
        """Small frames to readers: what does not fit is a fault of the test."""
        with suppress(OSError):
            assert peer.sock.send(data) == len(data)
