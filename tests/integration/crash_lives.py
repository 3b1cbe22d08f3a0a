"""The two lives of a daemon that is killed: the first one dies at a moment, the second one has to put all in order.

Scenarios say what is asked for and how it has to end; `examine` compares journal, hardware and ledger afterwards.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aimd.adapters.amdgpu.driver import AmdgpuDriver
from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.processes import command_of
from aimd.domain.ledger import LedgerState
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.domain.silicon import partition_count
from aimd.domain.switch import ModeChange
from aimd.planning.reconcile import Policy
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind, SimFault, SimGpu, restore
from tests.fakes.node import ADDRESSES, RunningNode, fast_state, running_node
from tests.integration.crash_points import INSIDE, DyingDriver, DyingLedger, Moment, die

NAME = "wanted"
UNFINISHED = 3  # exit code of a first life that did not die
REFUSED = "refused"
POLICY = Policy(allow_memory_mode_change=True, wait_seconds=5.0, settle_seconds=5.0, wish_retry_seconds=0.05)


@dataclass(frozen=True)
class Scenario:
    """What is asked for, and how it ends when nobody is killed, or somebody is.

    Attributes:
        asked: modes of gpu0, gpu1.
        refused: number of the GPU whose firmware refuses the switch, or None.
        state: of the change at its end.
        modes: of the GPUs at the end.
        wishes: of the GPUs at the end, None for no wish.
        reload: the driver is loaded again when the change waits for it.
        between: `reload` or `reboot` while the daemon is dead.
        profile: driver generation.
    """

    asked: tuple[str, ...]
    state: str
    modes: tuple[str, ...]
    wishes: tuple[str | None, ...]
    refused: int | None = None
    reload: bool = False
    between: str | None = None
    profile: str = "7.2"


def compute(profile: str = "7.2") -> Scenario:
    return Scenario(("CPX", "DPX"), "committed", ("CPX/NPS1", "DPX/NPS1"), ("CPX/?", "DPX/?"), profile=profile)


def refusal(gpu: int) -> Scenario:
    modes = ("SPX/NPS1", "SPX/NPS1") if gpu == 0 else ("CPX/NPS1", "SPX/NPS1")
    wishes = (None, None) if gpu == 0 else ("CPX/?", None)
    return Scenario(("CPX", "DPX"), "failed", modes, wishes, refused=gpu)


def memory(between: str | None = None, *, reload: bool = True) -> Scenario:
    asked = ("QPX/NPS4", "QPX/NPS4")
    return Scenario(asked, "committed", asked, asked, reload=reload, between=between)


def reboot(committed: int) -> Scenario:
    """The first `committed` switches were done before the machine went down; they are wishes now, and done again."""
    modes = ("CPX/NPS1", "SPX/NPS1") if committed else ("SPX/NPS1", "SPX/NPS1")
    wishes = ("CPX/?", None) if committed else (None, None)
    return Scenario(("CPX", "DPX"), "failed", modes, wishes, between="reboot")


# -- lives -----------------------------------------------------------------------------------------------------


def node_in(directory: Path, profile: str) -> SimulatedNode:
    return SimulatedNode.open(directory / "sim.json", fast_state("mi300x", 2, profile))


def first_life(directory: Path, scenario: Scenario, moment: Moment, acknowledge: Callable[[str], None]) -> None:
    """Never returns: dies at the moment, or leaves with UNFINISHED when the change has ended without it."""
    asyncio.run(_submit_and_die(directory, scenario, moment, acknowledge))
    if moment.side == INSIDE:
        time.sleep(1)  # on a busy machine the kill may come late
    os._exit(UNFINISHED)


async def _submit_and_die(
    directory: Path, scenario: Scenario, moment: Moment, acknowledge: Callable[[str], None]
) -> None:
    node = node_in(directory, scenario.profile)
    if scenario.refused is not None:
        fault = SimFault(FaultKind.FIRMWARE_REFUSAL, ADDRESSES[scenario.refused])
        node.act(lambda driver, now: driver.inject(fault, now))
    ledger = DyingLedger(SqliteLedger(directory / "ledger.db", time.time()), moment)
    driver = DyingDriver(AmdgpuDriver(node, command_of), moment)
    async with running_node(node, driver=driver, ledger=ledger, policy=POLICY) as running:
        wishes = [
            (address, PartitionMode.parse(mode)) for address, mode in zip(ADDRESSES, scenario.asked, strict=False)
        ]
        await running.loop.submit(NAME, wishes, wait_seconds=5.0, uid=0)
        acknowledge("acknowledged")
        change = await running.ended(NAME)
        if change.current is not None and scenario.reload and scenario.between is None:
            _reload(node)
            if moment.step == "reload":
                die()
            await running.until(lambda snapshot: ended(snapshot.change(NAME)))


def second_life(directory: Path, scenario: Scenario) -> list[str]:
    """Start again in the same directory, wait until all is quiet, and return what is wrong then."""
    if scenario.between is not None:
        node = node_in(directory, scenario.profile)
        node.act(lambda driver, now: getattr(driver, scenario.between)(now))
    asyncio.run(_recover(directory, scenario))
    return examine(directory, scenario)


async def _recover(directory: Path, scenario: Scenario) -> None:
    node = node_in(directory, scenario.profile)
    async with running_node(node, directory=directory, policy=POLICY) as running:
        if scenario.reload:
            await _reload_when_asked(running)
        await running.until(quiet)


async def _reload_when_asked(running: RunningNode) -> None:
    def settled(snapshot: NodeSnapshot) -> bool:
        change = snapshot.change(NAME)
        return ended(change) or (change is not None and change.state == "awaiting_reload")

    snapshot = await running.until(settled)
    if not ended(snapshot.change(NAME)):
        _reload(running.sim)


def _reload(node: SimulatedNode) -> None:
    assert node.act(lambda driver, now: driver.reload(now)) == 0


def ended(change: ModeChange | None) -> bool:
    return change is None or change.current is None


def quiet(snapshot: NodeSnapshot) -> bool:
    return all(ended(change) for change in snapshot.changes) and not any(status.drift for status in snapshot.gpus)


# -- what has to be true afterwards --------------------------------------------------------------------------------


def examine(directory: Path, scenario: Scenario) -> list[str]:
    """What is wrong with journal, hardware and ledger; nothing when they agree."""
    ledger = SqliteLedger(directory / "ledger.db", time.time())
    state, events = ledger.load(), ledger.events(limit=100_000)
    ledger.close()
    complaints = [f"ledger: {note.message}" for note in state.notes]
    asked = [change for change in state.changes if change.origin == "client"]
    expected = scenario if asked else unasked(scenario)
    if len(asked) > 1:
        complaints.append(f"the change is there {len(asked)} times")
    complaints += [
        f"change has {change.state}, expected {expected.state}" for change in asked if change.state != expected.state
    ]
    complaints += [f"{change.name} is still {change.state}" for change in state.changes if change.current is not None]
    accepted = [event for event in events if event.kind == "plan_accepted" and event.subject == NAME]
    if len(accepted) != len(asked):
        complaints.append(f"{len(accepted)} acceptances for {len(asked)} changes")
    return [*complaints, *_examine_hardware(directory, expected), *_examine_records(state, expected)]


def unasked(scenario: Scenario) -> Scenario:
    """The daemon died before it had taken the change on: nothing has happened."""
    return Scenario((), "", ("SPX/NPS1", "SPX/NPS1"), (None, None), profile=scenario.profile)


def _examine_hardware(directory: Path, scenario: Scenario) -> list[str]:
    state = restore((directory / "sim.json").read_bytes())
    complaints = [f"nodes are still to come: {state.additions}"] if state.additions else []
    for gpu, mode in zip(state.gpus, scenario.modes, strict=True):
        found = _mode(gpu)
        if not found == str(PartitionMode(gpu.mode_file, gpu.memory)) == mode:
            complaints.append(f"{gpu.address} is in {found}, its file says {gpu.mode_file}, expected {mode}")
        nodes = [node for node in state.nodes if node.address == gpu.address]
        count = partition_count(gpu.compute, gpu.xcc_count)
        if [node.index for node in nodes] != list(range(count or 0)):
            complaints.append(f"{gpu.address} has nodes {[node.index for node in nodes]} in {found}")
        if gpu.switching_until is not None or gpu.requested_memory is not None:
            complaints.append(f"{gpu.address} is in the middle of a switch")
    seen = AmdgpuDriver(node_in(directory, scenario.profile), command_of).scan()
    if [str(gpu.mode) for gpu in seen.gpus] != list(scenario.modes):
        complaints.append(f"the adapter sees {[str(gpu.mode) for gpu in seen.gpus]}")
    return complaints


def _mode(gpu: SimGpu) -> str:
    return str(PartitionMode(gpu.compute, gpu.memory))


def _examine_records(state: LedgerState, scenario: Scenario) -> list[str]:
    complaints = []
    records = {record.address: record for record in state.gpus}
    for address, mode, wish in zip(ADDRESSES, scenario.modes, scenario.wishes, strict=False):
        record = records.get(address)
        if record is None:
            complaints.append(f"the ledger does not know {address}")
            continue
        if str(record.mode) != mode:
            complaints.append(f"{address}: the ledger says {record.mode}, expected {mode}")
        if (str(record.wish) if record.wish is not None else None) != wish:
            complaints.append(f"{address}: the wish is {record.wish}, expected {wish}")
    return complaints
