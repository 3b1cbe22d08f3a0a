"""How busy XCCs are: what the KFD clients say that they compute, smoothed as firmware smooths it. Pure.

A real client's kernels keep the XCCs of its partition busy; a simulated one says which share of the time it would. Its word
ends with its process. How long the real firmware averages is not documented.
"""

from __future__ import annotations

import errno
import math

from aimd.sim.memory import living_client
from aimd.sim.state import KfdNode, SimGpu, SimState, Work

SMOOTHING_SECONDS = 0.5


def set_work(state: SimState, pid: int, gpu_id: int, share: float, now: float) -> int:
    """From now on a client keeps a partition busy for this share of the time (0 to 1).

    The errno: ESRCH if it is no living client, EINVAL for a partition that it may not use.
    """
    client = living_client(state, pid)
    if client is None:
        return errno.ESRCH
    if gpu_id not in client.vram or all(node.gpu_id != gpu_id for node in state.nodes):
        return errno.EINVAL
    before = client.work.get(gpu_id)
    client.work[gpu_id] = Work(share, level(before, now) if before is not None else 0.0, now)
    return 0


def level(work: Work, now: float) -> float:
    """The smoothed share: on its way from what it was when the work changed to what it is."""
    return work.share + (work.level - work.share) * math.exp(-max(0.0, now - work.since) / SMOOTHING_SECONDS)


def partition_activity(state: SimState, node: KfdNode, now: float) -> float:
    """Share of the time that a partition's XCCs are busy, 0 to 1; they share all work evenly."""
    works = [client.work.get(node.gpu_id) for client in state.clients if client.reap_at is None]
    return min(1.0, sum(level(work, now) for work in works if work is not None))


def xcc_activity(state: SimState, gpu: SimGpu, now: float) -> list[float]:
    """The same of each XCC of a GPU, by number."""
    busy = [0.0] * gpu.xcc_count
    for node in state.nodes:
        if node.address == gpu.address:
            busy[node.first_xcc : node.first_xcc + node.xcc_count] = [
                partition_activity(state, node, now)
            ] * node.xcc_count
    return busy
