"""Links between KFD nodes, as a real eight-GPU MI300X node shows them (io_links and p2p_links).

The rule below reproduces all 4034 io_links of the public capture. p2p_links are the CPU links that lead through the
other socket; the capture has only their number, so their values follow from the code (kfd_create_indirect_link_prop:
the weights of both hops added, bandwidth unknown).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

CPU_TO_CPU, PCIE, XGMI = 1, 2, 11  # HSA_IOLINK_TYPE_HYPERTRANSPORT, _PCIEXPRESS, _XGMI
WEIGHT_SOCKETS, WEIGHT_PCIE, WEIGHT_SIBLING, WEIGHT_HIVE = 32, 20, 13, 41
BANDWIDTH_PCIE, BANDWIDTH_SIBLING = 64000, 819200  # MB/s


@dataclass(frozen=True, slots=True)
class End:
    """A node as far as links care: its socket, and its GPU's address (None for a CPU node) and hive."""

    socket: int
    gpu: str | None = None
    hive: int = 0


@dataclass(frozen=True, slots=True)
class NodeLink:
    """One link, by node numbers. `sdma_mask` recommends engines."""

    kind: int
    origin: int
    target: int
    weight: int
    low: int = 0
    high: int = 0
    sdma_mask: int = 0
    flags: int = 0

    def render(self) -> str:
        return (
            f"type {self.kind}\nversion_major 0\nversion_minor 0\nnode_from {self.origin}\nnode_to {self.target}\n"
            f"weight {self.weight}\nmin_latency 0\nmax_latency 0\nmin_bandwidth {self.low}\n"
            f"max_bandwidth {self.high}\nrecommended_transfer_size 0\n"
            f"recommended_sdma_engine_id_mask {self.sdma_mask}\nflags {self.flags}\n"
        )


def io_links(ends: Sequence[End], origin: int) -> list[NodeLink]:
    """Direct links of one node, in the order of the nodes they lead to."""
    found = []
    for target in range(len(ends)):
        link = _direct(ends, origin, target) if target != origin else None
        if link is not None:
            found.append(link)
    return found


def p2p_links(ends: Sequence[End], origin: int) -> list[NodeLink]:
    """Links of one node over the other socket."""
    own = ends[origin]
    weight = WEIGHT_PCIE + WEIGHT_SOCKETS
    flags = 3 if own.gpu is None else 1
    return [
        NodeLink(PCIE, origin, target, weight, flags=flags)
        for target, end in enumerate(ends)
        if (own.gpu is None) != (end.gpu is None) and own.socket != end.socket
    ]


def link_counts(ends: Sequence[End]) -> list[tuple[int, int]]:
    """How many io_links and p2p_links each node has, without making them (a node of 64 partitions has 4034)."""
    sockets = {end.socket for end in ends if end.gpu is None}
    by_socket = Counter(end.socket for end in ends if end.gpu is not None)
    by_gpu = Counter(end.gpu for end in ends if end.gpu is not None)
    by_hive = Counter(end.hive for end in ends if end.gpu is not None and end.hive)
    counts = []
    for end in ends:
        if end.gpu is None:
            counts.append((len(sockets) - 1 + by_socket[end.socket], sum(by_socket.values()) - by_socket[end.socket]))
        else:
            peers = by_hive[end.hive] if end.hive else by_gpu[end.gpu]
            counts.append(((end.socket in sockets) + peers - 1, len(sockets - {end.socket})))
    return counts


def _direct(ends: Sequence[End], origin: int, target: int) -> NodeLink | None:
    own, other = ends[origin], ends[target]
    if own.gpu is None and other.gpu is None:
        return NodeLink(CPU_TO_CPU, origin, target, WEIGHT_SOCKETS)
    if own.gpu is None or other.gpu is None:
        if own.socket != other.socket:
            return None
        flags = 3 if own.gpu is None else 1
        return NodeLink(PCIE, origin, target, WEIGHT_PCIE, high=BANDWIDTH_PCIE, sdma_mask=3, flags=flags)
    if own.gpu == other.gpu:
        return NodeLink(XGMI, origin, target, WEIGHT_SIBLING, BANDWIDTH_SIBLING, BANDWIDTH_SIBLING, 3, 1)
    if own.hive and own.hive == other.hive:
        return NodeLink(XGMI, origin, target, WEIGHT_HIVE, sdma_mask=3, flags=1)
    return None
