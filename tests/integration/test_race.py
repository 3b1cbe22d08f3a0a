"""Readers of the API during a hundred mode switches see the old partitions or the new ones, never a mixture.

The daemon is the real program. Its simulated driver has slow rebuilds of the topology, so that the moments in which a
careless scan would see half of it are long, and driver events that make the daemon scan in the middle of switches.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.silicon import partition_count
from aimd.sim.client import SimClient
from aimd.sim.hardware import MODELS, partition_sizes
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimFault, new_state
from tests.e2e.programs import Daemon
from tests.integration.unix_http import UnixConnection, ask, lines

SWITCHES = 100
MODES = ("CPX", "DPX", "QPX", "SPX")
REBUILD_SECONDS = 0.002
ADDRESSES = ("0000:05:00.0", "0000:27:00.0")


@pytest.fixture(params=["6.12", "7.2"])
def daemon(request) -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        daemon = Daemon(Path(folder), "mi300x:2", "--profile", request.param)
        daemon.state.mkdir(parents=True)
        state = new_state("mi300x", 2, request.param, switch_seconds=0.01)
        state.faults.append(SimFault(FaultKind.REBUILD_WINDOW, remaining=None, seconds=REBUILD_SECONDS))
        SimulatedNode(state, daemon.state / "sim.json")
        daemon.start()
        yield daemon
        daemon.close()


def complaints(gpu: str, mode: str, partitions: list[dict[str, Any]]) -> list[str]:
    """What does not belong together in the partitions of a GPU that is shown in the mode."""
    count = partition_count(ComputeMode[mode], 8)
    assert count is not None
    sizes = list(partition_sizes(MODELS["mi300x"], ComputeMode[mode], MemoryMode.NPS1, 8))
    found = {
        "index": ([part["index"] for part in partitions], list(range(count))),
        "xcc_count": ([part["xcc_count"] for part in partitions], [8 // count] * count),
        "compute_mode": ([part["compute_mode"] for part in partitions], [mode] * count),
        "memory_bytes": ([part["memory_bytes"] for part in partitions], sizes),
        "render_minor": ([part["render_minor"] for part in partitions], minors(gpu, count)),
        "epochs": (len({part["mode_epoch"] for part in partitions}), 1),
    }
    return [f"{gpu} {mode}: {what} {is_} != {expected}" for what, (is_, expected) in found.items() if is_ != expected]


def minors(gpu: str, count: int) -> list[int]:
    return [128 + 8 * ADDRESSES.index(gpu) + index for index in range(count)]


class Reader(threading.Thread):
    """Reads one resource as fast as it can; `seen` has (GPU, epoch, mode) in the order of appearance."""

    def __init__(self, daemon: Daemon, path: str, end: threading.Event) -> None:
        super().__init__(name=path)
        self._daemon, self._path, self._end = daemon, path, end
        self.seen: list[tuple[str, int, str]] = []
        self.wrong: list[str] = []
        self.reads = 0

    def run(self) -> None:
        connection = UnixConnection(self._daemon.socket)
        while not self._end.is_set() and len(self.wrong) < 10:
            answer = ask(connection, self._path)
            if answer.status != 200:
                self.wrong.append(f"{self._path}: {answer}")
                continue
            self._look(self._by_gpu(answer.json))
            self.reads += 1
        connection.close()

    def _by_gpu(self, answer: dict[str, Any]) -> dict[str, tuple[str, list[dict[str, Any]]]]:
        """Mode and partitions by PCI address."""
        if "partitions" in answer and "pci_address" not in answer:
            groups = itertools.groupby(answer["partitions"], key=lambda part: part["pci_address"])
            listed = {address: list(parts) for address, parts in groups}
            return {address: (parts[0]["compute_mode"], parts) for address, parts in listed.items()}
        gpus = answer.get("gpus", [answer])
        for gpu in gpus:
            if {gpu["mode_epoch"]} != {part["mode_epoch"] for part in gpu["partitions"]}:
                self.wrong.append(f"{gpu['name']} has epoch {gpu['mode_epoch']}, its partitions have another")
        return {gpu["pci_address"]: (gpu["compute_mode"], gpu["partitions"]) for gpu in gpus}

    def _look(self, gpus: dict[str, tuple[str, list[dict[str, Any]]]]) -> None:
        expected = ADDRESSES[:1] if self._path.endswith("gpu0") else ADDRESSES
        if tuple(gpus) != expected:
            self.wrong.append(f"{self._path} shows {list(gpus)}")
        for gpu, (mode, partitions) in gpus.items():
            self.wrong += complaints(gpu, mode, partitions)
            state = (gpu, partitions[0]["mode_epoch"] if partitions else -1, mode)
            if state not in self.seen[-2:]:
                self.seen.append(state)


def listen(daemon: Daemon, events: list[dict[str, Any]], count: int) -> None:
    """Collect the stream of events until `count` of them told of a mode."""
    stream = lines(daemon.socket, "/v1/events?watch=1")
    for event in stream:
        events.append(event)
        if sum(each["kind"] == "mode_changed" for each in events) == count:
            break
    stream.close()


class Disturber(threading.Thread):
    """Resets that are over at once: the newer driver tells of each by an event, and the daemon looks."""

    def __init__(self, daemon: Daemon, end: threading.Event) -> None:
        super().__init__()
        self._path, self._end = daemon.runtime / "sim.sock", end

    def run(self) -> None:
        with SimClient(self._path) as node:
            while not self._end.wait(0.02):
                node.fault("reset", seconds=0.0)


def test_no_reader_sees_a_mixture(daemon: Daemon) -> None:
    end = threading.Event()
    paths = ("/v1/gpus", "/v1/partitions", "/v1/gpus/gpu0", "/v1/gpus", "/v1/partitions")
    readers = [Reader(daemon, path, end) for path in paths]
    events: list[dict[str, Any]] = []
    listener = threading.Thread(target=listen, args=(daemon, events, SWITCHES), daemon=True)
    history: dict[str, list[str]] = {address: ["SPX"] for address in ADDRESSES}
    disturber = Disturber(daemon, end)
    for thread in (*readers, listener, disturber):
        thread.start()
    try:
        for number in range(SWITCHES):
            address, mode = ADDRESSES[number % 2], MODES[number // 2 % len(MODES)]
            switch(daemon, f"plan-{number}", address, mode)
            history[address].append(mode)
    finally:
        end.set()
        for thread in (*readers, disturber):
            thread.join(60)
    listener.join(60)
    assert [wrong for reader in readers for wrong in reader.wrong] == []
    true = {(gpu, epoch, mode) for gpu, modes in history.items() for epoch, mode in enumerate(modes, 1)}
    for reader in readers:
        assert reader.reads > SWITCHES / 4, f"{reader.name} was too slow to be a race"
        assert set(reader.seen) <= true
        assert len(reader.seen) == len(set(reader.seen)), f"{reader.name} went back to what was"
        assert len(reader.seen) > SWITCHES / 10
    assert told(events) == {address: list(itertools.pairwise(modes)) for address, modes in history.items()}


def switch(daemon: Daemon, name: str, gpu: str, mode: str) -> None:
    """Follow one change to its end; when that is told, the resources show it."""
    assert ask(daemon.socket, f"/v1/plans/{name}", "PUT", {"modes": {gpu: mode}}).status == 202
    states = [change["state"] for change in lines(daemon.socket, f"/v1/plans/{name}?watch=1")]
    order = ["planned", "draining", "waiting_for_clients", "switching", "rescanning", "verifying", "committed"]
    assert states == sorted(states, key=order.index)
    assert states[-1] == "committed"
    assert ask(daemon.socket, f"/v1/gpus/{gpu}").json["compute_mode"] == mode


def told(events: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """From mode to mode by PCI address, as the events told it."""
    sequences = [event["sequence"] for event in events]
    assert sequences == sorted(set(sequences)), "no event is told twice"
    changes: dict[str, list[tuple[str, str]]] = {address: [] for address in ADDRESSES}
    for event in events:
        if event["kind"] == "mode_changed":
            words = event["message"].replace("/NPS1", "").split()
            changes[event["subject"]].append((words[-3], words[-1]))
    return changes
