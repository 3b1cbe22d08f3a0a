"""The switch tables: the whole of state x event, what an errno means, and how long is waited."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from aimd.domain.plan import Reason, StepKind
from aimd.domain.switch import FINAL, Switch, SwitchState
from aimd.planning.switching import (
    TABLES,
    IllegalTransitionError,
    SwitchEvent,
    advance,
    outcome_of,
    refused_write,
    retry_delay,
)
from tests.unit.planning.paper import compute_step, memory_step

# Written down from what each state means, not taken from the code. A line: state, then event > next state.
COMPUTE = """
planned              begin > draining                nothing_to_do > committed  abandoned > failed  refused > failed
planned              restarted > planned             rebooted > failed
draining             drained > waiting_for_clients   deadline > failed
draining             restarted > draining            rebooted > failed
waiting_for_clients  occupied > waiting_for_clients  clear > switching          deadline > failed
waiting_for_clients  restarted > draining            rebooted > failed
switching            written > rescanning            busy > switching           refused > failed
switching            broken > needs_operator         deadline > failed
switching            restarted > switching           rebooted > failed
rescanning           stable > verifying              unstable > rescanning      deadline > rolling_back
rescanning           restarted > rescanning          rebooted > failed
verifying            verified > committed            unchanged > failed         mismatch > rolling_back
verifying            broken > needs_operator         restarted > rescanning     rebooted > failed
rolling_back         written > rolling_back          busy > rolling_back        unstable > rolling_back
rolling_back         restored > failed               unrestored > needs_operator
rolling_back         refused > needs_operator        broken > needs_operator    deadline > needs_operator
rolling_back         restarted > rolling_back        rebooted > failed
"""
MEMORY = """
planned              begin > switching               nothing_to_do > committed  abandoned > failed  refused > failed
planned              restarted > planned             rebooted > failed
switching            written > awaiting_reload       busy > switching           refused > failed
switching            broken > needs_operator         deadline > failed
switching            restarted > switching           rebooted > rescanning
awaiting_reload      reloaded > rescanning           restarted > awaiting_reload  rebooted > rescanning
rescanning           stable > verifying              unstable > rescanning      deadline > needs_operator
rescanning           restarted > rescanning          rebooted > rescanning
verifying            verified > committed            unchanged > failed         mismatch > needs_operator
verifying            broken > needs_operator         restarted > rescanning     rebooted > rescanning
verifying            unstable > rescanning
"""
STEPS = {StepKind.COMPUTE: compute_step(), StepKind.MEMORY: memory_step()}


def parsed(table: str) -> dict[tuple[SwitchState, SwitchEvent], SwitchState]:
    transitions = {}
    for line in table.strip().splitlines():
        state, *words = line.replace(">", " ").split()
        for event, after in zip(words[::2], words[1::2], strict=True):
            transitions[SwitchState(state), SwitchEvent(event)] = SwitchState(after)
    return transitions


EXPECTED = {StepKind.COMPUTE: parsed(COMPUTE), StepKind.MEMORY: parsed(MEMORY)}
PAIRS = [(kind, state, event) for kind in StepKind for state in SwitchState for event in SwitchEvent]


def test_matrix_is_the_whole_of_it():
    assert len(PAIRS) == 2 * 11 * 21


@pytest.mark.parametrize(("kind", "state", "event"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_every_pair_of_state_and_event(kind, state, event):
    switch = Switch(STEPS[kind], state, attempts=3, deadline=9.0, began=1.0)
    before = replace(switch)
    expected = EXPECTED[kind].get((state, event))
    if expected is None:
        with pytest.raises(IllegalTransitionError, match=f"{kind} switch: {event} does not go with {state}"):
            advance(switch, event, 5.0, reason=Reason.GPU_BUSY, message="words")
        assert switch == before
        return
    after = advance(switch, event, 5.0, reason=Reason.GPU_BUSY, message="words")
    assert after == replace(
        switch,
        state=expected,
        attempts=4 if event is SwitchEvent.BUSY else 3,
        reason=Reason.GPU_BUSY,
        message="words",
        ended=5.0 if expected in FINAL else None,
    )
    assert switch == before


@pytest.mark.parametrize("kind", StepKind)
@pytest.mark.parametrize("state", [SwitchState.COMMITTED, SwitchState.FAILED, SwitchState.NEEDS_OPERATOR])
def test_final_states_accept_nothing(kind, state):
    assert state in FINAL
    for event in SwitchEvent:
        with pytest.raises(IllegalTransitionError):
            advance(Switch(STEPS[kind], state), event, 0.0)


@pytest.mark.parametrize("kind", StepKind)
def test_every_state_that_can_be_reached_reaches_a_final_one(kind):
    table = TABLES[kind]
    reached, found = {SwitchState.PLANNED}, set()
    while reached != found:
        found = set(reached)
        reached |= {after for (state, _), after in table.items() if state in found}
    for state in reached - FINAL:
        onward, seen = {state}, set()
        while onward != seen:
            seen = set(onward)
            onward |= {after for (before, _), after in table.items() if before in seen}
        assert onward & FINAL, f"{state} never ends"


@pytest.mark.parametrize("kind", StepKind)
def test_every_state_before_the_end_survives_restart_and_reboot(kind):
    states = {state for state, _ in EXPECTED[kind]}
    for state in states:
        assert (state, SwitchEvent.RESTARTED) in TABLES[kind]
        assert (state, SwitchEvent.REBOOTED) in TABLES[kind]


def test_reason_and_message_stay_unless_others_are_told():
    switch = advance(
        Switch(compute_step(), SwitchState.WAITING), SwitchEvent.OCCUPIED, 1.0, reason=Reason.GPU_BUSY, message="a"
    )
    again = advance(switch, SwitchEvent.OCCUPIED, 2.0)
    assert (again.reason, again.message) == (Reason.GPU_BUSY, "a")


# hardware notes 1.3: errno, what it leads to, why, and a word that people need
ERRNOS = [
    (errno.EBUSY, SwitchEvent.BUSY, Reason.GPU_BUSY, "in another pid namespace"),
    (errno.EPERM, SwitchEvent.BUSY, Reason.GPU_IN_RESET, "in reset"),
    (errno.EINVAL, SwitchEvent.REFUSED, Reason.MODE_NOT_AVAILABLE, "does not accept"),
    (errno.EACCES, SwitchEvent.REFUSED, Reason.NOT_PERMITTED, "udev rule"),
    (errno.EROFS, SwitchEvent.REFUSED, Reason.NOT_PERMITTED, "ProtectKernelTunables"),
    (errno.EIO, SwitchEvent.BROKEN, Reason.DRIVER_FAILED, "reload the amdgpu driver"),
    (errno.ENODEV, SwitchEvent.BROKEN, Reason.GPU_LOST, "gone"),
    (errno.ENOENT, SwitchEvent.BROKEN, Reason.GPU_LOST, "gone"),
    (errno.EINTR, SwitchEvent.BUSY, Reason.GPU_BUSY, "interrupted"),
    (errno.ENOSPC, SwitchEvent.BROKEN, Reason.DRIVER_FAILED, "no error that a mode write is known to have"),
]


@pytest.mark.parametrize(("code", "event", "reason", "word"), ERRNOS, ids=lambda value: errno.errorcode.get(value, ""))
def test_outcome_of_an_errno(code, event, reason, word):
    outcome = outcome_of(code)
    assert (outcome.event, outcome.reason) == (event, reason)
    assert word in f"{outcome.fact}; {outcome.hint}"


@pytest.mark.parametrize("kind", StepKind)
def test_a_refused_write_names_gpu_file_errno_and_fact(kind):
    file = "current_memory_partition" if kind is StepKind.MEMORY else "current_compute_partition"
    assert refused_write("0000:05:00.0", kind, errno.EROFS) == (
        f"GPU 0000:05:00.0: writing {file} failed with EROFS: sysfs is mounted read-only here"
    )
    assert "failed with errno 4711: " in refused_write("0000:05:00.0", kind, 4711)


@pytest.mark.parametrize("event", sorted({outcome_of(code).event for code, *_ in ERRNOS}))
@pytest.mark.parametrize("state", [SwitchState.SWITCHING, SwitchState.ROLLING_BACK])
def test_every_outcome_of_a_write_is_in_the_table_where_writes_are_made(state, event):
    assert (state, event) in TABLES[StepKind.COMPUTE]
    assert state is SwitchState.ROLLING_BACK or (state, event) in TABLES[StepKind.MEMORY]


def test_delay_doubles_up_to_a_second():
    delays = [retry_delay(attempts) for attempts in (0, 1, 2, 3, 4, 5, 6, 50, 10_000)]
    assert delays == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0, 1.0])
