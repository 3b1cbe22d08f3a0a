"""Kills daemons around acknowledged claims and releases, starts their successors and compares. One process, one thread.

    python -m tests.integration.claim_crash_rounds POINT ROUNDS

prints one line of JSON: what was wrong, by number of the round, and how much the killed ones had acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aimd.adapters.ledger import SqliteLedger
from aimd.domain.claim import Claim, ClaimSpec, ClaimState
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import LedgerState, LedgerWrite
from aimd.domain.node import NodeSnapshot
from aimd.errors import ConflictError, NotFoundError, RefusedError
from aimd.planning.policy import Policy
from aimd.ports import Ledger
from aimd.sim.node import SimulatedNode
from tests.fakes.claims import broken_promises, places, spec
from tests.fakes.node import fast_state, running_node
from tests.integration.crash_points import AFTER, BEFORE, die
from tests.integration.crash_rounds import _end_of, _forked

UNFINISHED = 3
ENOUGH = 3  # rounds that went wrong
LIFE_SECONDS = 0.12  # the requests of a first life take about as long
LATE = 6  # claims that the successor is asked for
POLICY = Policy(wait_seconds=5.0, settle_seconds=5.0, wish_retry_seconds=0.2)
SPECS = (spec(24, "CPX"), spec(12), spec(90, "DPX"), spec(5, guarantee=4), spec(24, "CPX", replicas=3), spec(60))
Tell = Callable[[dict], None]


@dataclass(frozen=True)
class Point:
    """When to die: around the n-th commit of a kind, after the n-th answer, or a time after the first request."""

    kind: str  # claim, release, answer, time
    side: str = AFTER

    def count(self, number: int) -> int:
        return {"claim": number % 5, "release": number % 3, "answer": number % 11}.get(self.kind, 0)

    @staticmethod
    def delay(number: int) -> float:
        """Seconds, spread over the life: also twenty rounds reach from its first request to its last."""
        return LIFE_SECONDS * (number * 7 % 40 + 1) / 40


POINTS = {
    "claim-before": Point("claim", BEFORE),
    "claim-after": Point("claim", AFTER),
    "release-before": Point("release", BEFORE),
    "release-after": Point("release", AFTER),
    "answered": Point("answer"),
    "any-time": Point("time"),
}


def requests(number: int) -> list[tuple[str, str, ClaimSpec | None]]:
    """What the first life is asked for: claims that fit, need a switch, or are refused, and releases between them."""
    dice = random.Random(number)
    asked: list[tuple[str, str, ClaimSpec | None]] = []
    names: list[str] = []
    for step in range(12):
        if step % 4 == 3:
            asked.append(("release", names.pop(dice.randrange(len(names))), None))
        else:
            names.append(f"m{step}")
            asked.append(("claim", names[-1], dice.choice(SPECS)))
    return [*asked, *(("release", name, None) for name in names)]


class DyingClaims:
    """ports.Ledger that dies around the n-th commit that keeps or forgets a claim."""

    def __init__(self, ledger: Ledger, point: Point, number: int) -> None:
        self._ledger = ledger
        self._point = point
        self._left = point.count(number)

    def commit(self, write: LedgerWrite) -> None:
        concerned = write.claims if self._point.kind == "claim" else write.released
        dies = bool(concerned) and self._point.kind in ("claim", "release") and self._left == 0
        self._left -= bool(concerned)
        if dies and self._point.side == BEFORE:
            die()
        self._ledger.commit(write)
        if dies:
            die()

    def load(self) -> LedgerState:
        return self._ledger.load()

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]:
        return self._ledger.events(after=after, limit=limit)

    def close(self) -> None:
        self._ledger.close()


# -- lives ----------------------------------------------------------------------------------------------------------


def node_in(directory: Path) -> SimulatedNode:
    return SimulatedNode.open(directory / "sim.json", fast_state("mi300x", 2))


def first_life(directory: Path, point: Point, number: int, tell: Tell) -> None:
    """Never returns."""
    asyncio.run(_ask_and_die(directory, point, number, tell))
    if point.kind == "time":  # all was asked before the time had come
        time.sleep(LIFE_SECONDS)
    os._exit(UNFINISHED)


async def _ask_and_die(directory: Path, point: Point, number: int, tell: Tell) -> None:
    ledger = DyingClaims(SqliteLedger(directory / "ledger.db", time.time()), point, number)
    answers_left = point.count(number) if point.kind == "answer" else -1
    async with running_node(node_in(directory), ledger=ledger, policy=POLICY) as node:
        if point.kind == "time":
            threading.Timer(point.delay(number), die).start()
        for what, name, wanted in requests(number):
            tell({"asked": what, "name": name})
            try:
                if wanted is not None:
                    claim = await node.loop.claim(name, wanted, uid=0)
                    tell({"done": "claim", "name": name, "state": claim.state, "places": places(claim)})
                else:
                    await node.loop.release(name)
                    tell({"done": "release", "name": name})
            except (
                RefusedError,
                ConflictError,
                NotFoundError,
            ) as refusal:  # one that was refused is not there to release
                tell({"done": "refused", "name": name, "code": refusal.code})
            if answers_left == 0:
                die()
            answers_left -= 1
            if random.Random(f"{number} {name}").random() < 0.7:
                await node.until(quiet)


def quiet(snapshot: NodeSnapshot) -> bool:
    moving = any(change.current is not None for change in snapshot.changes)
    return not moving and not any(claim.state is ClaimState.SWITCHING for claim in snapshot.claims)


def second_life(directory: Path, number: int, told: list[dict]) -> list[str]:
    """What is wrong when the successor has come to rest."""

    async def look() -> tuple[NodeSnapshot, NodeSnapshot]:
        async with running_node(node_in(directory), directory=directory, policy=POLICY) as node:
            await node.until(quiet)
            await asyncio.sleep(0.03)
            snapshot = await node.until(quiet)
            for late in range(LATE):
                with contextlib.suppress(RefusedError, ConflictError):
                    await node.loop.claim(f"late{late}", SPECS[(number + late) % len(SPECS)], uid=0)
                    await node.until(quiet)
            return snapshot, node.snapshot

    snapshot, crowded = asyncio.run(look())
    ledger = SqliteLedger(directory / "ledger.db", time.time())
    kept = ledger.load()
    ledger.close()
    complaints = [f"ledger: {note.message}" for note in kept.notes]
    if kept.claims != crowded.claims:
        complaints.append("ledger and snapshot differ")
    complaints += [
        f"{claim.name} has moved from {places(claim)} to {places(now) if now is not None else None} for a later claim"
        for claim in snapshot.claims
        if claim.state is not ClaimState.PENDING
        if (now := crowded.claim(claim.name)) is None or places(now) != places(claim)
    ]
    return [*complaints, *broken_promises(snapshot), *broken_promises(crowded), *examine(snapshot, number, told)]


def examine(snapshot: NodeSnapshot, number: int, told: list[dict]) -> list[str]:
    """Lost acknowledgements, and places that have moved although nothing made them."""
    wanted = {name: each for what, name, each in requests(number) if what == "claim"}
    present = {claim.name: claim for claim in snapshot.claims}
    asked = {line["name"] for line in told if line.get("asked") == "release"}
    complaints = []
    for line in told:
        name = line["name"]
        if line.get("done") == "release" and name in present:
            complaints.append(f"the release of {name} was acknowledged and is lost")
        if line.get("done") == "refused" and name in present and name not in asked:
            complaints.append(f"{name} was refused and is there")
        if line.get("done") == "claim" and name not in asked:
            complaints += _examine_claim(present.get(name), wanted[name], line)
    names = {line["name"] for line in told if line.get("asked") == "claim"}
    complaints += [f"{name} was never asked for" for name in present if name not in names]
    return complaints


def _examine_claim(claim: Claim | None, wanted: ClaimSpec | None, line: dict) -> list[str]:
    if claim is None:
        return [f"claim {line['name']} was acknowledged and is lost"]
    if claim.spec != wanted:
        return [f"claim {claim.name} is another one now: {claim.spec}"]
    if line["state"] == "pending":  # accepted to wait for room: it has none yet, or any
        return []
    if claim.state is not ClaimState.PLACED:
        return [f"claim {claim.name} is {claim.state}: {claim.message}"]
    if [list(place) for place in places(claim)] != line["places"]:
        return [f"claim {claim.name} has moved from {line['places']} to {places(claim)}"]
    return []


# -- rounds ---------------------------------------------------------------------------------------------------------


def run_round(point: Point, number: int) -> tuple[list[str], int]:
    """One daemon killed and its successor: what is wrong afterwards, and the number of acknowledgements."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="aimd-crash-", dir=memory))
    try:
        status, text = _forked(
            lambda tell: first_life(directory, point, number, lambda line: tell(json.dumps(line) + "\n")),
            directory / "first.log",
        )
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return [f"the first life was not killed, status {status}: {_end_of(directory / 'first.log')}"], 0
        told = [json.loads(line) for line in text.splitlines()]
        status, answer = _forked(
            lambda tell: tell(json.dumps(second_life(directory, number, told))), directory / "second.log"
        )
        if status or not answer:
            return [f"the second life ended with {status}: {_end_of(directory / 'second.log')}"], 0
        found: list[str] = json.loads(answer)
        return found, sum(line.get("done") in ("claim", "release") for line in told)
    finally:
        shutil.rmtree(directory)


def main(name: str, rounds: int) -> None:
    wrong: dict[int, list[str]] = {}
    acknowledged = 0
    for number in range(rounds):
        found, count = run_round(POINTS[name], number)
        acknowledged += count
        if found:
            wrong[number] = found
        if len(wrong) == ENOUGH:
            break
    sys.stdout.write(json.dumps({"wrong": wrong, "acknowledged": acknowledged}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
