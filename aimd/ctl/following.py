"""Showing a mode change while it goes on: lines for a log, or live on a terminal. Both write to stderr."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import click

from aimd.ctl.fields import flag, item, items, required, text, texts
from aimd.ctl.session import blocker_lines

if TYPE_CHECKING:  # rich costs as much time as the whole of a short command
    from rich.progress import Progress, TaskID

Change = Mapping[str, Any]


class Display(Protocol):
    """Shows each state of one change; `close` leaves the terminal as it was."""

    def show(self, change: Change) -> None: ...

    def close(self) -> None: ...


def display_for(stream: TextIO | None, environ: Mapping[str, str]) -> Display:
    """Live on a terminal that can move its cursor, else lines."""
    if stream is not None and stream.isatty() and environ.get("TERM", "dumb") != "dumb":
        return LiveDisplay(stream)
    return LineDisplay()


def switch_line(switch: Mapping[str, Any]) -> str:
    """`gpu0 SPX/NPS1 -> CPX/NPS1`."""
    step = item(switch, "step")
    return f"{','.join(texts(step, 'gpus'))} {text(step, 'before')} -> {text(step, 'after')}"


def state_line(switch: Mapping[str, Any], change: Change) -> str:
    """The switch's state, and what it waits for where it waits."""
    state = text(switch, "state")
    if state == "waiting_for_clients" and blocker_lines(change):
        return f"{state}: {'; '.join(blocker_lines(change))}"
    return state if required(switch, "message") is None else f"{state}: {text(switch, 'message')}"


class LineDisplay:
    """One plain line per change of a switch's state."""

    def __init__(self) -> None:
        self._shown: dict[int, str] = {}

    def show(self, change: Change) -> None:
        for index, switch in enumerate(items(change, "switches")):
            state = text(switch, "state")
            if self._shown.get(index, "planned") != state:
                click.echo(f"{switch_line(switch)}: {state_line(switch, change)}", err=True)
            self._shown[index] = state

    def close(self) -> None: ...


class LiveDisplay:
    """A line per switch with its state and its time, redrawn in place."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console  # noqa: PLC0415 - see above
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

        self._progress: Progress = Progress(
            SpinnerColumn(finished_text=" "),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            console=Console(file=stream),
        )
        self._tasks: dict[int, TaskID] = {}
        self._progress.start()

    def show(self, change: Change) -> None:
        for index, switch in enumerate(items(change, "switches")):
            state = text(switch, "state")
            line = state_line(switch, change)
            if index not in self._tasks:
                self._tasks[index] = self._progress.add_task(switch_line(switch), total=1, start=False, state=line)
            task = self._tasks[index]
            if state != "planned" and self._progress.tasks[index].start_time is None:
                self._progress.start_task(task)
            ended = state in ("committed", "failed", "needs_operator")
            self._progress.update(task, state=line, completed=1 if ended else 0)

    def close(self) -> None:
        self._progress.stop()


def result_lines(change: Change) -> str:
    """How a change ended (or where it stands), for people, on several lines."""
    name, state = text(change, "name"), text(change, "state")
    switches = items(change, "switches")
    if not flag(change, "final"):
        return f"{name}: accepted, {state}; follow it with: aimctl describe plan {name}\n"
    if state == "committed":
        done = "".join(f"{switch_line(switch)}\n" for switch in switches)
        return f"{name}: committed\n{done}" if switches else f"{name}: nothing to do, the GPUs are in these modes\n"
    reasons = "".join(
        f"{switch_line(switch)}: {text(switch, 'message')} ({text(switch, 'reason')})\n"
        for switch in switches
        if text(switch, "state") in ("failed", "needs_operator")
    )
    blocked = "".join(f"blocked by: {line}\n" for line in blocker_lines(change))
    outcome = "failed" if state == "failed" else "needs an operator: aimd cannot bring this GPU back by itself"
    return f"{name}: {outcome}\n{reasons}{blocked}"
