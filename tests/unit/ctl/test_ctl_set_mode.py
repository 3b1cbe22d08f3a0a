"""plan set-mode and set-mode against the fake API."""

from __future__ import annotations

import json

import msgspec
import pytest

from aimd.protocol.messages import BlockerMessage, ProblemMessage
from tests.fakes.api import Raw, World
from tests.unit.ctl import samples

WISH = ("gpu1", "DPX/NPS1")


def test_plan_changes_nothing(aimctl, world: World) -> None:
    result = aimctl("plan", "set-mode", "gpu0", "CPX/NPS1", "0000:26:00.0", "spx")
    assert result.exit_code == 0
    assert "4711   python3 serve.py   gpu1     0000:27:00.0" in result.stdout
    (request,) = world.requests
    assert (request.method, request.target[:14]) == ("PUT", "/v1/plans/plan")
    assert request.body == {"modes": {"gpu0": "CPX/NPS1", "0000:26:00.0": "spx"}, "drain": False, "dry_run": True}


def test_refused_plan_is_1_in_every_format(aimctl, world: World) -> None:
    world.plan = samples.plan(refused=True)
    for fmt in ("table", "wide", "name"):
        result = aimctl("plan", "set-mode", *WISH, "-o", fmt)
        assert result.exit_code == 1
        assert "gpu1 does not offer TPX (mode_not_available)\nhint: it offers" in result.output
    assert aimctl("plan", "set-mode", *WISH, "-o", "name").stdout == ""
    as_json = aimctl("plan", "set-mode", *WISH, "-o", "json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["refusals"][0]["gpu"]) == (1, "gpu1")


@pytest.mark.parametrize("command", [("plan", "set-mode"), ("set-mode",)])
@pytest.mark.parametrize("wishes", [(), ("gpu0",), ("gpu0", "SPX", "gpu1"), ("gpu0", "SPX", "gpu0", "CPX")])
def test_wishes_come_in_pairs(aimctl, world: World, command, wishes) -> None:
    assert (aimctl(*command, *wishes).exit_code, world.requests) == (2, [])


def test_progress_is_one_line_per_state_and_the_result_is_on_stdout(aimctl, world: World) -> None:
    result = aimctl("set-mode", *WISH, "--wait", "2.5", "--name", "mine")
    assert result.exit_code == 0
    assert result.stderr == (
        "gpu1 SPX/NPS1 -> DPX/NPS1: waiting_for_clients: pid 4711 (python3 serve.py) holds gpu1\n"
        "gpu1 SPX/NPS1 -> DPX/NPS1: switching\n"
        "gpu1 SPX/NPS1 -> DPX/NPS1: verifying\n"
        "gpu1 SPX/NPS1 -> DPX/NPS1: committed\n"
    )
    assert result.stdout == "mine: committed\ngpu1 SPX/NPS1 -> DPX/NPS1\n"
    put, watch = world.requests
    assert put.target == "/v1/plans/mine"
    assert put.body == {"modes": {"gpu1": "DPX/NPS1"}, "wait_seconds": 2.5, "drain": False, "dry_run": False}
    assert watch.target == "/v1/plans/mine?watch=1"


@pytest.mark.parametrize("command", [("plan", "set-mode"), ("set-mode",)])
def test_drain_is_asked_for(aimctl, world: World, command) -> None:
    assert aimctl(*command, *WISH, "--drain").exit_code == 0
    assert world.requests[0].body["drain"] is True


def test_a_state_sent_twice_is_one_line(aimctl, world: World) -> None:
    world.change = [each for each in world.change for _ in range(2)]
    assert len(aimctl("set-mode", *WISH).stderr.splitlines()) == 4


def test_the_end_of_the_change_ends_the_watch_though_the_stream_stays_open(aimctl, world: World) -> None:
    world.hold_watch = True
    assert aimctl("set-mode", *WISH).exit_code == 0


def test_names_are_made_up_and_differ(aimctl, world: World) -> None:
    aimctl("set-mode", *WISH)
    aimctl("set-mode", *WISH)
    names = [each.target for each in world.requests if each.method == "PUT"]
    assert len(set(names)) == 2
    assert all(name.startswith("/v1/plans/set-mode-") for name in names)
    assert world.requests[0].body["wait_seconds"] is None


def test_no_follow(aimctl, world: World) -> None:
    result = aimctl("set-mode", *WISH, "--no-follow", "--name", "later")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "later: accepted, planned; follow it with: aimctl describe plan later\n"
    assert len(world.requests) == 1


def test_the_same_request_again_is_answered_from_what_is_known(aimctl, world: World) -> None:
    aimctl("set-mode", *WISH, "--name", "once")
    world.requests.clear()
    assert aimctl("set-mode", *WISH, "--name", "once").exit_code == 0
    assert len(world.requests) == 1


def test_nothing_to_do(aimctl, world: World) -> None:
    world.change = [samples.change()]
    result = aimctl("set-mode", *WISH, "--name", "idle")
    assert (result.exit_code, result.stdout) == (0, "idle: nothing to do, the GPUs are in these modes\n")


@pytest.mark.parametrize(
    ("reason", "state", "code"),
    [
        ("gpu_busy", "failed", 5),
        ("gpu_in_reset", "failed", 5),
        ("deadline_exceeded", "failed", 5),
        ("firmware_refused", "failed", 1),
        ("not_permitted", "failed", 1),
        ("rollback_failed", "needs_operator", 1),
    ],
)
def test_how_a_change_can_end(aimctl, world: World, reason, state, code) -> None:
    world.change = [world.change[0], samples.failed(reason, "gpu1 did not switch", state=state)]
    result = aimctl("set-mode", *WISH)
    assert result.exit_code == code
    assert f"gpu1 SPX/NPS1 -> DPX/NPS1: gpu1 did not switch ({reason})\n" in result.stdout
    assert "gpu2 SPX/NPS1 -> DPX/NPS1: the step before it failed (earlier_step_failed)\n" in result.stdout
    assert ("needs an operator" in result.stdout) == (state == "needs_operator")


def test_blockers_of_a_failed_change_are_named(aimctl, world: World) -> None:
    busy = samples.switch("failed", reason="gpu_busy", message="gpu1 is in use")
    world.change = [world.change[0], samples.change(busy, blockers=(samples.blocker(node_wide=True),))]
    result = aimctl("set-mode", *WISH)
    assert result.stdout.endswith(
        "blocked by: pid 4711 (python3 serve.py) holds another GPU, which blocks gpu1 too with this driver\n"
    )


def test_the_result_in_json(aimctl) -> None:
    result = aimctl("set-mode", *WISH, "-o", "json")
    assert (result.exit_code, json.loads(result.stdout)["state"]) == (0, "committed")
    assert aimctl("set-mode", *WISH, "--name", "n", "-o", "name").stdout == "n\n"


@pytest.mark.parametrize("abort", [False, True])
def test_a_daemon_that_goes_away_meanwhile(aimctl, world: World, abort) -> None:
    world.change, world.abort = world.change[:3], abort
    result = aimctl("set-mode", *WISH, "--name", "mine")
    assert (result.exit_code, result.stdout) == (3, "")
    error, hint = result.stderr.splitlines()[-2:]
    assert error == "error: aimd went away before mine had ended"
    assert hint.endswith("see it with: aimctl describe plan mine")


def test_a_refused_change_names_reasons_and_processes(aimctl, world: World) -> None:
    world.overrides["PUT /v1/plans/x"] = ProblemMessage(
        title="Refused",
        status=422,
        detail="the change is refused",
        code="refused",
        refusals=[samples.refusal()],
        blockers=[samples.blocker(), BlockerMessage(pid=9, command=None, gpu="gpu1", node_wide=False)],
    )
    result = aimctl("set-mode", *WISH, "--name", "x")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: the change is refused\n"
        "refused: gpu1 does not offer TPX (mode_not_available)\n"
        "hint: it offers SPX, DPX, QPX, CPX\n"
        "blocked by: pid 4711 (python3 serve.py) holds gpu1\n"
        "blocked by: pid 9 (-) holds gpu1\n"
    )


def test_a_hint_stands_once_below_the_wish_that_it_is_about(aimctl, world: World) -> None:
    problem = ProblemMessage(
        title="No", status=422, detail="no", code="c", hint=samples.refusal().hint, refusals=[samples.refusal()]
    )
    world.overrides["PUT /v1/plans/x"] = problem
    assert aimctl("set-mode", *WISH, "--name", "x").stderr.count("hint: ") == 1
    world.overrides["PUT /v1/plans/x"] = msgspec.structs.replace(problem, hint="try later")
    assert aimctl("set-mode", *WISH, "--name", "x").stderr.endswith("hint: try later\n")


@pytest.mark.parametrize(("status", "code"), [(400, 2), (403, 4), (409, 5)])
def test_a_change_that_is_not_taken_on(aimctl, world: World, status, code) -> None:
    world.overrides["PUT /v1/plans/x"] = ProblemMessage(title="No", status=status, detail="no", code="c")
    result = aimctl("set-mode", *WISH, "--name", "x")
    assert (result.exit_code, result.stderr) == (code, "error: no\n")


def test_no_answer_to_a_change_tells_its_name(aimctl, world: World) -> None:
    world.overrides["PUT /v1/plans/x"] = Raw(hang=True)
    result = aimctl("--timeout", "0.1", "set-mode", *WISH, "--name", "x")
    assert result.exit_code == 7
    assert result.stderr.endswith("see it with: aimctl describe plan x\n")


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_is_none(aimctl, world: World, name) -> None:
    assert (aimctl("set-mode", *WISH, "--name", name).exit_code, world.requests) == (2, [])
