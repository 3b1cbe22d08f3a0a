"""Carries out effects that may block: driver and ledger calls in worker threads, pauses on the loop."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from aimd.daemon.probing import NoProbe
from aimd.domain.gpu import Holder
from aimd.domain.modes import ComputeMode
from aimd.domain.process import Process
from aimd.errors import DriverError, NotFoundError, UnreachableError, UnstableError
from aimd.planning import effects as fx
from aimd.ports import Dispatch, GpuDriver, MemoryProbe, Processes

Result = TypeVar("Result")
NO_DRIVER = (errno.ENOENT, errno.ENODEV)  # of the topology: any other errno says that it could not be read


class Executor:
    """Worker threads and what runs on them.

    The driver gets several: a mode write is uninterruptible for as long as the firmware takes, and must not keep a
    scan of the others waiting. The ledger gets one, which makes its commits a sequence.

    The HIP helper is no holder that anybody is to be told of: it is held from a GPU's drain until its undrain.
    """

    def __init__(
        self, driver: GpuDriver, processes: Processes, dispatch: Dispatch, probe: MemoryProbe | None = None
    ) -> None:
        self._driver = driver
        self._probe: MemoryProbe = probe or NoProbe()
        self._processes = processes
        self._dispatch = dispatch
        self._driver_threads = ThreadPoolExecutor(4, thread_name_prefix="gpu")
        self._ledger_thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    @property
    def dispatch_problems(self) -> tuple[str, ...]:
        """What the dispatch service could not be brought to."""
        return self._dispatch.problems

    async def on_ledger(self, call: Callable[[], Result]) -> Result:
        """Run a call of the ledger on its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._ledger_thread, call)

    def identify(self, pid: int) -> Process:
        """The living process; raises NotFoundError."""
        return self._processes.identify(pid)

    async def members(self, pid: int, start_time: int) -> tuple[Process, ...]:
        """The living processes that belong to the holder."""
        return await asyncio.to_thread(self._processes.members, pid, start_time)

    async def _on_driver(self, call: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._driver_threads, call)

    async def perform(self, effect: fx.Effect) -> fx.Event | None:
        """Execute one effect; its result is an event."""
        if isinstance(effect, fx.Scan):
            return await self._scan(effect)
        if isinstance(effect, fx.Poll):
            return await self._poll()
        if isinstance(effect, fx.ListHolders):
            return await self._list_holders(effect)
        if isinstance(effect, fx.WriteMode):
            return await self._write(effect)
        if isinstance(effect, fx.Wake):
            await asyncio.sleep(effect.seconds)
            return fx.Woken(effect.token)
        if isinstance(effect, fx.Drain):
            return fx.Drained(effect.token, await self._drain(effect))
        if isinstance(effect, fx.Undrain):
            self._dispatch.undrain(effect.gpu)
            self._probe.resume(effect.gpu)
        if isinstance(effect, fx.WatchProcess):
            remains = await self._processes.ended(effect.pid, effect.start_time, effect.known)
            return fx.HolderEnded(effect.pid, effect.start_time, remains.seen, remains.living)
        return None

    async def _drain(self, effect: fx.Drain) -> tuple[Holder, ...]:
        left, _ = await asyncio.gather(self._dispatch.drain(effect.gpu, effect.until), self._probe.hold(effect.gpu))
        return tuple(Holder(pid, self._command(pid), frozenset({effect.gpu})) for pid in left)

    def _command(self, pid: int) -> str | None:
        try:
            return self._processes.identify(pid).command
        except (NotFoundError, UnreachableError):
            return None

    async def _poll(self) -> fx.Polled | fx.Scanned:
        """What could not be read is told like a scan that failed: the warning stands until a scan succeeds."""
        own = self._probe.pids
        try:
            generation, holders = await self._on_driver(lambda: (self._driver.generation(), self._driver.holders()))
        except DriverError as error:
            return fx.Scanned(0, None, error.message)
        return fx.Polled(generation, self._foreign(holders, own))

    async def _list_holders(self, effect: fx.ListHolders) -> fx.HoldersSeen:
        own = self._probe.pids
        try:
            holders = await self._on_driver(self._driver.holders)
            return fx.HoldersSeen(effect.token, self._foreign(holders, own))
        except DriverError as error:
            return fx.HoldersSeen(effect.token, None, error.message)

    async def _scan(self, effect: fx.Scan) -> fx.Scanned:
        own = self._probe.pids
        try:
            observed = await self._on_driver(self._driver.scan)
            return fx.Scanned(effect.token, replace(observed, holders=self._foreign(observed.holders, own)))
        except DriverError as error:
            return fx.Scanned(effect.token, None, error.message, gone=error.errno in NO_DRIVER)
        except UnstableError as error:
            return fx.Scanned(effect.token, None, error.message)

    def _foreign(self, holders: tuple[Holder, ...], before: frozenset[int]) -> tuple[Holder, ...]:
        """Without the HIP helper, which will be gone before anything is switched; `before` the list was read or now."""
        own = before | self._probe.pids
        return tuple(holder for holder in holders if holder.pid not in own) if own else holders

    async def _write(self, effect: fx.WriteMode) -> fx.WriteEnded:
        if isinstance(effect.mode, ComputeMode):
            await self._probe.hold(effect.gpu)  # after a restart the drain is past

        def write() -> fx.WriteEnded:
            began, code = time.monotonic(), 0
            try:
                if isinstance(effect.mode, ComputeMode):
                    self._driver.set_compute_mode(effect.gpu, effect.mode)
                else:
                    self._driver.request_memory_mode(effect.gpu, effect.mode)
            except DriverError as error:
                code = error.errno
            return fx.WriteEnded(effect.token, code, time.monotonic() - began)

        return await self._on_driver(write)

    def close(self) -> None:
        """Let running calls end; a write inside the driver cannot be cancelled by anybody."""
        self._driver_threads.shutdown(cancel_futures=True)
        self._ledger_thread.shutdown()
