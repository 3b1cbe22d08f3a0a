"""class/kfd/kfd: the KFD topology and the list of KFD clients as the driver's folders and files.

The topology is made again for each version of the node list (driver.version) and each node's folder at its first look.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import partial

from aimd.sim.driver import Driver
from aimd.sim.entries import Directory, Entry, File, Link, constant, failure, folder, lazy, nested
from aimd.sim.faults import armed
from aimd.sim.links import End, NodeLink, io_links, link_counts, p2p_links
from aimd.sim.properties import (
    caches,
    cpu_memory_bank,
    cpu_properties,
    gpu_memory_bank,
    gpu_properties,
)
from aimd.sim.state import FaultKind, KfdNode, SimClient

FIRST_PASID = 0x8000


class Topology:
    """The folder devices/virtual/kfd/kfd of one driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._version = -1
        self._nodes: dict[str, Entry] = {}

    def directory(self) -> Directory:
        return folder(
            {
                "dev": constant("511:0\n"),
                "uevent": constant("MAJOR=511\nMINOR=0\nDEVNAME=kfd\n"),
                "subsystem": Link("../../../../class/kfd"),
                "topology": folder(
                    {
                        "generation_id": File(self._generation),
                        "system_properties": File(self._system),
                        "nodes": Directory(self._children),
                    }
                ),
                "proc": Directory(self._processes),
            }
        )

    def _generation(self, now: float) -> str:
        self._driver.settle(now)
        return f"{self._driver.state.generation}\n"

    def _system(self, _now: float) -> str:
        oem, platform, revision = self._driver.state.platform
        return f"platform_oem {oem}\nplatform_id {platform}\nplatform_rev {revision}\n"

    # -- nodes -----------------------------------------------------------------------------------------------

    def _children(self, now: float) -> Mapping[str, Entry]:
        if not self._driver.nodes_visible(now):
            return {}
        if self._version != self._driver.version:
            self._version = self._driver.version
            self._nodes = self._make_nodes()
        return self._nodes

    def _make_nodes(self) -> dict[str, Entry]:
        state = self._driver.state
        ends = [End(socket) for socket in range(state.sockets)]
        for node in state.nodes:
            gpu = state.gpu(node.address)
            ends.append(End(gpu.numa_node, gpu.address, gpu.hive_id))
        counts = link_counts(ends)
        nodes: dict[str, Entry] = {
            str(socket): lazy(partial(self._cpu_node, socket, ends, counts[socket])) for socket in range(state.sockets)
        }
        for number, node in enumerate(state.nodes, start=state.sockets):
            nodes[str(number)] = lazy(partial(self._gpu_node, number, node, ends, counts[number]))
        return nodes

    def _cpu_node(self, number: int, ends: list[End], counts: tuple[int, int]) -> Mapping[str, Entry]:
        text = cpu_properties(self._driver.state, number, *counts)
        return {
            "gpu_id": constant("0\n"),
            "name": constant("\n"),
            "properties": constant(text),
            "mem_banks": nested({"0/properties": constant(cpu_memory_bank(self._driver.state))}),
            "caches": folder({}),
            "io_links": lazy(lambda: _numbers([self._link(link) for link in io_links(ends, number)])),
            "p2p_links": lazy(lambda: _numbers([self._link(link) for link in p2p_links(ends, number)])),
            "perf": folder({}),
        }

    def _gpu_node(self, number: int, node: KfdNode, ends: list[End], counts: tuple[int, int]) -> Mapping[str, Entry]:
        state = self._driver.state
        guarded = partial(self._guarded, node.address)
        text = gpu_properties(state, state.gpu(node.address), node, *counts)
        bank = gpu_memory_bank(node)
        return {
            "gpu_id": guarded(f"{node.gpu_id}\n"),
            "name": guarded("ip discovery\n"),
            "properties": guarded(text),
            "mem_banks": nested({"0/properties": guarded(bank)}),
            "caches": lazy(lambda: _numbers([guarded(text) for text in caches(state.hardware, node)])),
            "io_links": lazy(lambda: _numbers([self._link(link) for link in io_links(ends, number)])),
            "p2p_links": lazy(lambda: _numbers([self._link(link) for link in p2p_links(ends, number)])),
            "perf": folder({}),
        }

    def _link(self, link: NodeLink) -> File:
        """The file of a link, guarded by the GPU at either end (iolink_show asks for the link's GPU)."""
        state = self._driver.state
        for number in (link.origin, link.target):
            if number >= state.sockets:
                return self._guarded(state.nodes[number - state.sockets].address, link.render())
        return constant(link.render())

    def _guarded(self, address: str, text: str) -> File:
        """A file that a process without access to the GPU's render node cannot read (kfd_devcgroup_check_permission)."""

        def read(_now: float) -> str:
            if armed(self._driver.state, FaultKind.CGROUP_DENIED, address):
                raise failure(errno.EPERM)
            return text

        return File(read)

    # -- clients ---------------------------------------------------------------------------------------------

    def _processes(self, now: float) -> Mapping[str, Entry]:
        self._driver.settle(now)
        return {
            str(client.pid): lazy(partial(self._process, position, client))
            for position, client in enumerate(self._driver.state.clients)
        }

    def _process(self, position: int, client: SimClient) -> Mapping[str, Entry]:
        pasid = 0 if self._driver.state.driver.reset_eperm else FIRST_PASID + position
        entries: dict[str, Entry] = {"pasid": constant(f"{pasid}\n"), "queues": folder({})}
        for gpu_id in client.vram:
            entries[f"vram_{gpu_id}"] = File(partial(_vram, client, gpu_id))
            entries[f"sdma_{gpu_id}"] = constant("0\n")
            entries[f"stats_{gpu_id}"] = folder({"evicted_ms": constant("0\n"), "cu_occupancy": constant("0\n")})
            entries[f"counters_{gpu_id}"] = folder(
                {name: constant("0\n") for name in ("faults", "page_in", "page_out")}
            )
        return entries


def _vram(client: SimClient, gpu_id: int, _now: float) -> str:
    return f"{client.vram[gpu_id]}\n"


def _numbers(files: list[File]) -> dict[str, Entry]:
    """Folders 0, 1, ... that hold one `properties` each."""
    return {str(number): folder({"properties": entry}) for number, entry in enumerate(files)}
