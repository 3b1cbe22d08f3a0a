"""What containers of prepared claims get, as files of the container runtime: written from the ledger, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence

from aimd.daemon.published import Published
from aimd.daemon.turning import turning
from aimd.domain.dra import ContainerDevice
from aimd.domain.node import NodeSnapshot
from aimd.errors import AimdError, ConflictError
from aimd.planning.dra.cdi import NodeFiles, container_devices
from aimd.planning.dra.kept import Kept, kept
from aimd.ports_dra import ContainerDevices

log = logging.getLogger("aimd.devices")

RETRY_SECONDS = 5.0
FOLLOW_SECONDS = 60.0
_Claims = dict[str, Sequence[ContainerDevice]]  # by UID


class Files:
    """The files of all claims that the kubelet has, as the ledger has them. For the control loop's thread.

    At a start, and whenever a partition's device file is another one, they are written anew: the kubelet does not ask
    again for a container that is started anew.
    """

    def __init__(
        self, written: ContainerDevices, shown: Published[NodeSnapshot], pool: str, node_files: NodeFiles
    ) -> None:
        self._written = written
        self._shown = shown
        self._pool = pool
        self._node_files = node_files
        self._turn = asyncio.Lock()  # one writes, and none removes what another is about to name
        self._last: _Claims = {}

    async def write(self, one: Kept) -> Mapping[str, str]:
        """Those of a claim; gives the name of each request's device.

        Raises:
            ConflictError: its partition is not there (any more).
            CdiError: they cannot be written.
        """
        uid = one.allocation.claim.uid
        async with self._turn:
            devices = self._devices(one)
            names = await asyncio.to_thread(self._written.write, uid, devices)
            self._last[uid] = devices
        return names

    async def remove(self, uid: str) -> None:
        """Raises CdiError."""
        async with self._turn:
            self._last.pop(uid, None)
            await asyncio.to_thread(self._written.remove, uid)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Kept as they should be until the context ends."""
        async with turning(self._run, log, "keeping the files of containers"):
            yield

    async def _run(self) -> None:
        before: _Claims | None = None
        generation = -1
        while True:
            snapshot = await self._shown.newer(generation, FOLLOW_SECONDS)
            generation = snapshot.generation
            if not snapshot.ready:
                continue
            try:
                before = await self._rewritten(before)
            except AimdError as error:
                log.warning("what containers get cannot be written: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                generation = -1

    async def _rewritten(self, before: _Claims | None) -> _Claims:
        async with self._turn:
            wanted = self._wanted()
            if wanted != before:
                done = await asyncio.to_thread(self._written.rewrite, wanted)
                self._last = dict(wanted)
                if done.written or done.removed:
                    log.info("files of containers: %d written anew, %d removed", len(done.written), len(done.removed))
        return wanted

    def _wanted(self) -> _Claims:
        """Of all claims that the kubelet has. Where a partition is missing at the moment its files stay as they are."""
        wanted: _Claims = {}
        for uid, one in kept(self._shown.latest(), self._pool).items():
            if not one.prepared:
                continue
            with contextlib.suppress(ConflictError):
                wanted[uid] = self._devices(one)
            if uid not in wanted and uid in self._last:
                wanted[uid] = self._last[uid]
        return wanted

    def _devices(self, one: Kept) -> Sequence[ContainerDevice]:
        return container_devices(one.allocation, one.model, self._shown.latest(), self._node_files)
