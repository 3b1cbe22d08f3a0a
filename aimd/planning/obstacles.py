"""What stands in the way on a GPU: the mode change that runs, draining, claims, and processes, each by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aimd.domain.gpu import BusyRule, Observed
from aimd.domain.left_behind import LeftBehind
from aimd.domain.memory import GIB, gb_text
from aimd.domain.plan import Reason
from aimd.planning.rooms import Occupancy

MOST_NAMED = 5
COMMAND_LENGTH = 60  # characters of a command line that a sentence can bear


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a GPU takes no claim, or is not switched for one; `words` go on after its name."""

    gpu: str
    reason: Reason
    words: str
    hint: str


def in_the_way(gpu: str, observed: Observed, occupancy: Occupancy) -> Obstacle | None:
    """The obstacle to a switch of this GPU for a claim, None if there is none but the policy."""
    if gpu in occupancy.switching:
        hint = f"aimctl describe plan {occupancy.change} shows how far it is; ask again when it has ended"
        return Obstacle(gpu, Reason.SWITCH_IN_PROGRESS, f"is being switched by mode change {occupancy.change}", hint)
    if gpu in occupancy.draining:
        return Obstacle(gpu, Reason.GPU_DRAINING, "is draining", "aimctl undrain opens a GPU again")
    claims = sorted({each.claim for each in occupancy.assignments if each.gpu == gpu})
    users = _users(gpu, observed, occupancy)
    if claims:
        words = f"is in use by claims: {listed(claims)}" + (f"; it is held by {users}" if users else "")
        hint = "release them, or aimctl set-mode GPU MODE --drain waits for their processes and places them again"
        return Obstacle(gpu, Reason.GPU_IN_USE, words, hint)
    if users:
        return Obstacle(gpu, Reason.GPU_BUSY, f"is held by {users}", "end these processes; aimd never signals any")
    others = [process(holder.pid, holder.command) for holder in observed.holders]
    if others and observed.busy_rule is BusyRule.NODE_WIDE:
        words = f"cannot be switched while a process uses any GPU of the node (this driver's rule): {listed(others)}"
        return Obstacle(gpu, Reason.GPU_BUSY, words, "end these processes; aimd never signals any")
    return None


def _users(gpu: str, observed: Observed, occupancy: Occupancy) -> str:
    """Processes that hold the GPU, and those of earlier claims that are still to end; "" for none."""
    left = [each for each in occupancy.left_behind if each.kept.gpu == gpu]
    named = {pid for each in left for pid, _ in each.processes}
    clients = [process(h.pid, h.command) for h in observed.holders if gpu in h.gpus and h.pid not in named]
    return listed([*clients, *(outliving(each) for each in left)])


def kept_there(gpus: Iterable[str], occupancy: Occupancy) -> str:
    """Sentence about what is kept on these GPUs for processes that outlive their claims; "" for nothing."""
    kept = [
        f"{outliving(each)} on {each.kept.gpu}/{each.kept.index} ({_amount(each)})"
        for each in occupancy.left_behind
        if each.kept.gpu in gpus
    ]
    return f"; kept until they end: {listed(kept)}" if kept else ""


def used_there(place: tuple[str, int], occupancy: Occupancy) -> str:
    """Words about memory of the partition that processes of no claim use; "" for none."""
    used = occupancy.unattributed.get(place, 0)
    return f"; processes of no claim use {used / GIB:.3g} GiB there" if used else ""


def outliving(left: LeftBehind) -> str:
    """`pid 7 (python serve.py) of the former m/0`."""
    return f"{' and '.join(process(pid, command) for pid, command in left.processes)} of the former {left.kept.name}"


def process(pid: int, command: str | None) -> str:
    """`pid 7 (python train.py)`."""
    words = command or "?"
    return f"pid {pid} ({words if len(words) <= COMMAND_LENGTH else words[: COMMAND_LENGTH - 1] + '…'})"


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """The first few, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
    return separator.join(every[:MOST_NAMED]) + more


def _amount(left: LeftBehind) -> str:
    slots = f", {left.kept.guarantee} slots" if left.kept.guarantee else ""
    return f"{gb_text(left.kept.memory_units)} GB{slots}"
