"""Simulated nodes with a control socket, clients that hold memory on them, and the driver's formula."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

from aimd.adapters.hip.probe import HipProbe, ProbeSettings
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.sim.node import SimulatedNode
from aimd.sim.thread import ControlThread
from tests.fakes.node import ADDRESSES, FAST, fast_state

GRANULE = 2 << 20
# A client of HIP as a model server is one: it allocates what it is told to, says so, and keeps it until it is ended.
CLIENT = """
import ctypes, os, sys
hip = ctypes.CDLL(sys.argv[1])
for word in sys.argv[2:]:
    device, size = word.split(":")
    address = ctypes.c_void_p()
    assert hip.hipSetDevice(int(device)) == 0
    assert hip.hipMalloc(ctypes.byref(address), ctypes.c_size_t(int(size))) == 0
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def node_in(
    folder: Path, model: str = "mi300x", mode: str = "SPX/NPS1", count: int = 2, profile: str = "7.2", **settings
):
    """A simulated node with its first GPU (for NPS4 all of them) in the mode, and its control socket."""
    state = fast_state(model, count, profile)
    for name, value in {"pinned_bytes": 37_000_000, "ras_bytes": 5_000_000, **settings}.items():
        setattr(state, name, value)
    node = SimulatedNode(state)
    compute, memory = mode.split("/")
    if memory != "NPS1":
        node.write(f"bus/pci/devices/{ADDRESSES[0]}/current_memory_partition", memory.encode())
        assert node.reload() == 0
    if node.read(f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition") != f"{compute}\n".encode():
        node.write(f"bus/pci/devices/{ADDRESSES[0]}/current_compute_partition", compute.encode())
    gpu = node._driver.state.gpus[0]
    assert (gpu.compute, gpu.memory) == (ComputeMode(compute), MemoryMode(memory))
    path = folder / "sim.sock"
    with ControlThread(node, path):
        yield node, path


def probe_of(node: SimulatedNode, socket: Path, library: Path | str, seconds: float = 10.0) -> HipProbe:
    """To be made inside an event loop."""
    environment = {"AIMD_SIM_SOCKET": str(socket)}
    return HipProbe(node, ProbeSettings(str(library), seconds, environment))


@contextlib.contextmanager
def client(library: Path, socket: Path, *allocations: str, **environment: str):
    """A real process that has joined the node by the library and holds memory: `device:bytes` each."""
    variables = {"AIMD_SIM_SOCKET": str(socket), **environment}
    command = [sys.executable, "-c", CLIENT, str(library), *allocations]
    with subprocess.Popen(command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert int(process.stdout.readline()) == process.pid
            yield process
        finally:
            process.kill()


def free_by_formula(total: int, allocated: list[int], *, pinned: int, ras: int, ram: int, vram: int) -> int:
    """amdgpu_amdkfd_get_available_memory, written down a second time."""
    counted = sum((size + GRANULE - 1) // GRANULE * GRANULE for size in allocated)
    tables = max((ram + vram) >> 14, 8 << 20)
    return max(0, (total - counted - pinned - tables - ras) // GRANULE * GRANULE)


__all__ = ["ADDRESSES", "FAST", "client", "free_by_formula", "node_in", "probe_of"]
