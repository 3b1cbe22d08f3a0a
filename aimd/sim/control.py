"""The control socket of a simulated node (`sim.sock`): where KFD clients join and faults are asked for.

An asyncio server over a SimulatedNode, in the daemon's loop or in the loop of the FUSE mount. What can be asked is
sim/requests.py. A process that joined is a KFD client until it dies, as on a real node, where the driver's process
lives until the mm is released: the connection may be closed, the death is seen through a pidfd.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec

from aimd.errors import AimdError, ConflictError, InvalidInputError
from aimd.sim.node import SimulatedNode
from aimd.sim.requests import Answer, Join, Peer, decode, perform, permitted, refusal

LONGEST_LINE = 16 * 1024
MOST_CONNECTIONS = 128
_PEER_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
Result = TypeVar("Result")


async def serve(node: SimulatedNode, path: Path | str) -> ControlServer:
    """Serve the node's control socket at the path until `close`; a left-over socket file is replaced.

    Clients of a restored node that still live are watched again, the others leave.

    Raises:
        ConflictError: another process serves this socket.
        InvalidInputError: no socket can be made at the path.
    """
    path = Path(path)
    if await _answers(path):
        raise ConflictError(
            f"simulation socket {path} is served by another process, expected one simulated node per socket",
            hint="stop that daemon or mount, or choose another path (--socket)",
        )
    server = ControlServer(node, path)
    try:
        await server.start()
    except OSError as cause:
        await server.close()
        raise InvalidInputError(
            f"simulation socket {path} cannot be made ({cause}), expected a path of at most 107 bytes in a writable directory"
        ) from cause
    return server


class ControlServer:
    """The running server; use `serve`."""

    def __init__(self, node: SimulatedNode, path: Path) -> None:
        self.path = path
        self._node = node
        self._loop = asyncio.get_running_loop()
        # One thread of its own: requests keep their order, and a slow mode switch cannot use up all workers.
        self._worker = ThreadPoolExecutor(1, "sim-control")
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._watched: dict[int, int] = {}  # pidfd by pid
        self._departures: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Watch the clients of a restored node, then listen; raises OSError."""
        for pid, start_time in self._node.clients():
            if not self._watch(pid, start_time):
                await self._departed(pid)
        self._server = await asyncio.start_unix_server(
            self._accepted, self.path, limit=LONGEST_LINE, backlog=MOST_CONNECTIONS
        )
        self.path.chmod(0o666)  # as /dev/kfd: anybody may be a client, requests.permitted guards the rest

    async def close(self) -> None:
        """Stop listening, end the connections, remove the socket file. The clients stay clients."""
        if self._server is not None:
            self._server.close()
            writers = list(self._connections.values())
            for writer in writers:
                writer.close()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
            await self._server.wait_closed()
            self.path.unlink(missing_ok=True)
        for pid in list(self._watched):
            self._unwatch(pid)
        await asyncio.gather(*self._departures, return_exceptions=True)
        self._worker.shutdown(wait=False)

    # -- connections -----------------------------------------------------------------------------------------

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._connections) >= MOST_CONNECTIONS:
                sentence = f"{MOST_CONNECTIONS} connections are open, expected clients to close theirs"
                writer.write(_line(refusal(errno.EAGAIN, sentence)))
                return
            self._connections[task] = writer
            await self._converse(reader, writer)
        except ConnectionError:
            pass  # the peer is gone; nobody is left to tell
        finally:
            self._connections.pop(task, None)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = _peer(writer.get_extra_info("socket"))
        while True:
            try:
                line = await _read_line(reader)
            except asyncio.IncompleteReadError:
                return
            if line is None:
                answer = refusal(
                    errno.EMSGSIZE, f"the request is too long, expected at most {LONGEST_LINE} bytes a line"
                )
            else:
                answer = await self._answer(line, peer)
            writer.write(_line(answer))
            await writer.drain()

    async def _answer(self, line: bytes, peer: Peer) -> Answer:
        try:
            request = decode(line)
        except AimdError as error:
            return refusal(errno.EINVAL, error.message)
        if not permitted(request, peer.uid, os.getuid()):
            return refusal(
                errno.EPERM, f"uid {peer.uid} may not ask for this, expected root or the simulated node's user"
            )
        if isinstance(request, Join):
            return await self._join(request, peer)
        return await self._in_worker(lambda: perform(self._node, request, peer))

    async def _in_worker(self, operation: Callable[[], Result]) -> Result:
        return await self._loop.run_in_executor(self._worker, operation)

    # -- KFD clients -----------------------------------------------------------------------------------------

    async def _join(self, request: Join, peer: Peer) -> Answer:
        """The watch comes first, so that a death right after joining is seen."""
        if peer.pid == 0:
            return refusal(errno.ESRCH, "the process has no pid here, expected one in this pid namespace or below")
        known = peer.pid in self._watched
        try:
            start_time = process_start_time(peer.pid)
            alive = start_time is not None and self._watch(peer.pid, start_time)
        except OSError as error:
            return refusal(error.errno or errno.EIO, f"process {peer.pid} cannot be watched ({error.strerror})")
        if not alive or start_time is None:
            return refusal(errno.ESRCH, f"process {peer.pid} is gone, expected the process that asks to be alive")
        answer = await self._in_worker(lambda: perform(self._node, request, peer, start_time))
        if not answer.ok and not known:
            self._unwatch(peer.pid)
        return answer

    def _watch(self, pid: int, start_time: int) -> bool:
        """Have the death of this very process reported; False if it is dead already. Raises OSError."""
        if pid in self._watched:
            return True
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        if process_start_time(pid) != start_time:  # asked after the open: the pid cannot change hands any more
            os.close(descriptor)
            return False
        self._watched[pid] = descriptor
        self._loop.add_reader(descriptor, self._died, pid)
        return True

    def _unwatch(self, pid: int) -> None:
        descriptor = self._watched.pop(pid, None)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _died(self, pid: int) -> None:
        self._unwatch(pid)
        departure = self._loop.create_task(self._departed(pid))
        self._departures.add(departure)
        departure.add_done_callback(self._departures.discard)

    async def _departed(self, pid: int) -> None:
        await self._in_worker(lambda: self._node.act(lambda driver, now: driver.leave(pid, now)))


def process_start_time(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat (clock ticks since boot), which tells a reused pid apart; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name, field 2, may hold spaces and parentheses: count from the last one.
    return int(stat[stat.rindex(b")") + 2 :].split()[22 - 3])


async def _read_line(reader: asyncio.StreamReader) -> bytes | None:
    """The next line, None for one that was too long (it is skipped whole); raises IncompleteReadError at the end."""
    too_long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as overrun:
            too_long = True
            await reader.readexactly(overrun.consumed)
        else:
            return None if too_long else line


def _peer(connection: socket.socket) -> Peer:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    pid, uid, _gid = _PEER_CREDENTIALS.unpack(credentials)
    return Peer(pid, uid)


def _line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


async def _answers(path: Path) -> bool:
    """Whether somebody listens at the path; a socket file alone is left over from a process that was killed."""
    try:
        _reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True
