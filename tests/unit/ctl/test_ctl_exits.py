from __future__ import annotations

import pytest

from aimd.ctl import exits
from aimd.ctl.client import AnswerTimeoutError, ProblemError
from aimd.ctl.exits import Exit
from aimd.domain.plan import Reason
from aimd.domain.switch import FINAL, SwitchState
from aimd.errors import (
    AimdError,
    ConfigError,
    ConflictError,
    DeniedError,
    InvalidInputError,
    LedgerError,
    NotFoundError,
    RefusedError,
    UnreachableError,
)
from aimd.protocol.messages import to_builtins
from tests.unit.ctl import samples


def test_codes_are_what_scripts_rely_on() -> None:
    assert [(code.name, int(code)) for code in Exit] == [
        ("OK", 0),
        ("REFUSED", 1),
        ("USAGE", 2),
        ("UNREACHABLE", 3),
        ("DENIED", 4),
        ("CONFLICT", 5),
        ("NOT_FOUND", 6),
        ("TIMEOUT", 7),
        ("INTERRUPTED", 130),
        ("PIPE_CLOSED", 141),
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 2), (401, 1), (403, 4), (404, 6), (408, 7), (409, 5), (410, 1), (422, 1), (500, 1), (503, 3), (504, 7)],
)
def test_problem_statuses(status, code) -> None:
    assert exits.of_error(ProblemError(status, {})) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AnswerTimeoutError, 7),
        (UnreachableError, 3),
        (DeniedError, 4),
        (NotFoundError, 6),
        (ConflictError, 5),
        (InvalidInputError, 2),
        (ConfigError, 2),
        (RefusedError, 1),
        (LedgerError, 1),
        (AimdError, 1),
    ],
)
def test_errors(error, code) -> None:
    assert exits.of_error(error("x")) == code


LATER = (Reason.GPU_BUSY, Reason.GPU_IN_USE, Reason.GPU_IN_RESET, Reason.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("reason", Reason)
def test_reasons_of_a_refusal(reason) -> None:
    """The same code for the claims on a GPU as for its processes: both may be gone later."""
    problem = {"detail": "x", "code": reason.value}
    assert exits.of_error(ProblemError(422, problem)) == (5 if reason in LATER else 1)
    refusal = {"gpu": "gpu0", "reason": reason.value, "message": "x", "hint": "y"}
    assert exits.of_error(ProblemError(422, {**problem, "refusals": [refusal]})) == (5 if reason in LATER else 1)
    assert exits.of_plan({"refusals": [refusal]}) == (5 if reason in LATER else 1)
    other = {**refusal, "reason": "mode_not_available"}
    assert exits.of_error(ProblemError(422, {**problem, "refusals": [refusal, other]})) == 1
    assert exits.of_error(ProblemError(403, problem)) == 4


@pytest.mark.parametrize("reason", Reason)
def test_reasons_of_a_failed_change(reason) -> None:
    expected = 5 if reason in LATER else 1
    assert exits.of_change(to_builtins(samples.failed(reason.value, "x"))) == expected


@pytest.mark.parametrize("state", SwitchState)
def test_states_of_a_change(state) -> None:
    expected = 1 if state in FINAL - {SwitchState.COMMITTED} else 0
    assert exits.of_change(to_builtins(samples.change(samples.switch(state.value)))) == expected


def test_a_change_without_steps_is_done() -> None:
    assert exits.of_change(to_builtins(samples.change())) == 0


def test_an_operator_is_needed_whatever_the_reason() -> None:
    change = samples.failed("deadline_exceeded", "x", state="needs_operator")
    assert exits.of_change(to_builtins(change)) == 1


def test_plans() -> None:
    assert exits.of_plan(to_builtins(samples.plan())) == 0
    assert exits.of_plan(to_builtins(samples.plan(refused=True))) == 1
