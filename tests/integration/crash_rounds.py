"""Kills daemons: reads points from standard input, and answers each with what was wrong in its rounds.

A process of its own with one thread, so that it may fork: what costs half a second, the imports, is done once.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.node import FAST
from tests.integration import crash_lives as lives
from tests.integration.crash_points import AFTER, BEFORE, INSIDE, Moment

LIFE_SECONDS = 30
ENOUGH = 3  # rounds of a point that went wrong


@dataclass(frozen=True)
class Point:
    """A moment to die at, in a scenario; both may vary with the number of the round."""

    name: str
    scenario: Callable[[int], lives.Scenario]
    moment: Callable[[int], Moment]


def _points() -> dict[str, Point]:
    points: list[Point] = []

    def add(
        group: str, scenario: Callable[[int], lives.Scenario], step: str, sides: str, first: int, count: int
    ) -> None:
        for side in sides.split():

            def moment(number: int, side: str = side) -> Moment:
                return Moment(step, side, first + number % count, _delay(number))

            points.append(Point(f"{group}-{step}-{side}", scenario, moment))

    both, three = f"{BEFORE} {AFTER}", f"{BEFORE} {INSIDE} {AFTER}"

    def plain(number: int) -> lives.Scenario:
        return lives.compute(("7.2", "6.12")[number // 2 % 2])

    for step in ("planned", "draining", "waiting_for_clients", "switching", "rescanning", "verifying", "committed"):
        add("compute", plain, step, both, 0, 1 if step == "planned" else 2)
    add("compute", plain, "write", three, 0, 2)

    def refused(number: int) -> lives.Scenario:
        return lives.refusal(number % 2)

    for step in ("rolling_back", "failed"):
        add("refusal", refused, step, both, 0, 2)
    # The write that rolls back is the second one, or the third after a first switch that went well.
    add("refusal", refused, "write", three, 1, 2)

    def asked(_number: int) -> lives.Scenario:
        return lives.memory()

    for step in ("switching", "awaiting_reload", "rescanning", "verifying", "committed"):
        add("memory", asked, step, both, 0, 1)
    add("memory", asked, "write", three, 0, 1)
    add("memory", asked, "reload", AFTER, 0, 1)
    for step in ("draining", "switching", "committed"):
        add("memory-compute", asked, step, both, 1, 2)
    add("memory-compute", asked, "write", three, 1, 2)
    add("reload-meanwhile", lambda _number: lives.memory("reload"), "switching", AFTER, 0, 1)
    add("reload-meanwhile", lambda _number: lives.memory("reload", reload=False), "awaiting_reload", AFTER, 0, 1)
    for step in ("draining", "switching", "rescanning", "verifying"):
        add("reboot-meanwhile", lambda number: lives.reboot(number % 2), step, AFTER, 0, 2)
    return {point.name: point for point in points}


def _delay(number: int) -> float:
    """From the begin of a write to its end, and a little beyond, in twenty steps."""
    return FAST["switch_seconds"] * 1.2 * (number % 20) / 20


POINTS = _points()


def run_round(point: Point, number: int) -> list[str]:
    """One daemon killed at the point and its successor; what is wrong afterwards."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix="aimd-crash-", dir=memory))
    scenario, moment = point.scenario(number), point.moment(number)
    try:
        status, acknowledged = _forked(
            lambda tell: lives.first_life(directory, scenario, moment, tell), directory / "first.log"
        )
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            return [f"the first life was not killed, status {status}: {_end_of(directory / 'first.log')}"]
        status, answer = _forked(
            lambda tell: tell(json.dumps(lives.second_life(directory, scenario))), directory / "second.log"
        )
        if status or not answer:
            return [f"the second life ended with {status}: {_end_of(directory / 'second.log')}"]
        complaints: list[str] = json.loads(answer)
        if acknowledged and not _known(directory):
            complaints.append("the change was acknowledged and is lost")
        return complaints
    finally:
        shutil.rmtree(directory)


def _end_of(log: Path) -> str:
    return log.read_text()[-400:]


def _known(directory: Path) -> bool:
    raw = (directory / "ledger.db").read_bytes()
    return b'"name":"' + lives.NAME.encode() in raw


def _forked(work: Callable[[Callable[[str], None]], None], log: Path) -> tuple[int, str]:
    """Run `work(tell)` in a child; its wait status and what it told. Its standard error goes to the log."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 2)
            signal.alarm(LIFE_SECONDS)
            work(lambda text: os.write(writer, text.encode()) and None)
            code = 0
        except BaseException:  # noqa: BLE001 -- the child must not go on as its parent
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read().decode()
    return os.waitpid(pid, 0)[1], told


def main() -> None:
    """For each line `POINT ROUNDS`: a line of JSON, complaints by number of the round."""
    for line in sys.stdin:
        name, rounds = line.split()
        wrong: dict[int, list[str]] = {}
        for number in range(int(rounds)):
            if len(wrong) < ENOUGH and (complaints := run_round(POINTS[name], number)):
                wrong[number] = complaints
        sys.stdout.write(json.dumps(wrong) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
