"""aimctl doctor with the daemon: findings from its answers, and exit codes."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import msgspec
import pytest

import aimd
from aimd.ctl.examination import RECENT_SECONDS, Answers, examine
from aimd.doctor.finding import FAIL, OK, WARN
from aimd.protocol.claims import ClaimListMessage
from aimd.protocol.cluster import ClusterMessage
from aimd.protocol.memory import FindingListMessage
from aimd.protocol.messages import (
    ChangeListMessage,
    EventListMessage,
    EventMessage,
    HealthMessage,
    InventoryMessage,
    ProblemMessage,
    to_builtins,
)
from tests.fakes.api import Raw, World
from tests.unit.ctl import samples

NOW = 1700000100.0


def healthy() -> Answers:
    quiet = msgspec.structs.replace(samples.node(), warnings=[], version="1")
    gpu = samples.known_gpu("gpu0", samples.GPU0, divided=True)
    return Answers(
        version="1",
        now=NOW,
        health=to_builtins(HealthMessage(status="ok")),
        readiness=to_builtins(HealthMessage(status="ok")),
        node=to_builtins(quiet),
        inventory=to_builtins(InventoryMessage(gpus=[gpu])),
        memory=to_builtins(FindingListMessage(findings=[])),
        claims=to_builtins(ClaimListMessage(claims=[samples.claim()])),
        plans=to_builtins(ChangeListMessage(plans=[samples.committing()[-1]])),
        events=to_builtins(EventListMessage(events=samples.events(), next=5)),
        cluster=to_builtins(ClusterMessage(enabled=False)),
    )


def found(**changed) -> list[tuple[str, str, str]]:
    """What is not ok with these answers, as (result, check, message)."""
    answers = replace(healthy(), **{name: to_builtins(value) for name, value in changed.items()})
    return [each[:3] for each in examine(answers) if each.result != OK]


def with_gpu(**changed) -> InventoryMessage:
    gpu = samples.known_gpu("gpu0", samples.GPU0, divided=True)
    return InventoryMessage(gpus=[msgspec.structs.replace(gpu, **changed)])


def test_a_healthy_node_has_a_line_per_check() -> None:
    assert [(each.result, each.check) for each in examine(healthy())] == [
        (OK, "daemon"),
        (OK, "alive"),
        (OK, "ready"),
        (OK, "gpu0"),
        (OK, "claims"),
        (OK, "cluster"),
        (OK, "events"),
    ]


def test_another_version() -> None:
    node = msgspec.structs.replace(samples.node(), warnings=[], version="2")
    assert found(node=node) == [(WARN, "daemon", "aimd is 2, aimctl 1")]


def test_a_daemon_that_is_not_ready() -> None:
    failing = HealthMessage(status="failing", failing={"ledger": "disk full", "inventory": "no scan"})
    assert found(readiness=failing) == [(FAIL, "ready", "ledger: disk full"), (FAIL, "ready", "inventory: no scan")]
    assert found(health=HealthMessage(status="failing", failing={"loop": "silent"})) == [
        (FAIL, "alive", "loop: silent")
    ]


def test_warnings_of_node_and_inventory_once_each() -> None:
    node = msgspec.structs.replace(samples.node(), version="1", warnings=["a", "b"])
    inventory = InventoryMessage(gpus=[], warnings=["b", "c"])
    assert [each[2] for each in found(node=node, inventory=inventory)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"state": "lost"}, (FAIL, "gpu0", "the driver has the device, but it has no partition")),
        ({"drift": ["the mode file says SPX"]}, (WARN, "gpu0", "the mode file says SPX")),
        ({"draining": True}, (WARN, "gpu0", "draining: no claim is placed there")),
        ({"pending_memory_mode": "NPS4"}, (WARN, "gpu0", "NPS4 is requested, the next driver load applies it")),
    ],
)
def test_gpus(changed, expected) -> None:
    assert found(inventory=with_gpu(**changed)) == [expected]


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (samples.probe(), (OK, "memory by HIP: read by /opt/rocm/lib/libamdhip64.so.7")),
        (samples.probe("no-library", "it is nowhere", None), (WARN, "memory by HIP: no-library: it is nowhere")),
        (
            samples.probe("crashed", "SIGSEGV"),
            (FAIL, "memory by HIP: crashed: SIGSEGV by /opt/rocm/lib/libamdhip64.so.7"),
        ),
    ],
)
def test_how_asking_hip_ended(probe, expected) -> None:
    answers = replace(healthy(), inventory=to_builtins(with_gpu(probe=probe)))
    told = [each for each in examine(answers) if each.message.startswith("memory by HIP")]
    assert [(each.result, each.message) for each in told] == [expected]
    assert told[0].hint or expected[0] == OK


@pytest.mark.parametrize("denied", [False, True])
def test_findings_about_memory(denied) -> None:
    ((result, check, message),) = found(memory=FindingListMessage(findings=[samples.finding(denied=denied)]))
    assert (result, check) == (WARN, "gpu0/1")
    told = "; its model gets no new leases there" if denied else ""
    assert message == f"claim llama uses 26 GiB{told}, since 2023-11-14T22:13:20Z"


def test_hints_are_commands() -> None:
    answers = replace(healthy(), inventory=to_builtins(with_gpu(drift=["x"], draining=True)))
    hints = [each.hint for each in examine(answers) if each.result == WARN]
    assert hints == [
        "aimctl plan set-mode gpu0 DPX/NPS1 tells what is in the way",
        "open it again: aimctl undrain gpu0",
    ]


def test_holders_are_named_per_gpu() -> None:
    inventory = InventoryMessage(gpus=[samples.known_gpu("gpu1", samples.GPU1, divided=False)])
    messages = [each.message for each in examine(replace(healthy(), inventory=to_builtins(inventory)))]
    assert "held by pid 4711 (python3 serve.py), pid 9 (-)" in messages


def test_changes_under_way() -> None:
    plans = ChangeListMessage(plans=[samples.committing()[1]])
    assert found(plans=plans) == [
        (WARN, "plan set-mode-1", "waiting_for_clients; pid 4711 (python3 serve.py) holds gpu1")
    ]


def test_a_gpu_that_needs_an_operator_until_a_later_change() -> None:
    stuck = samples.failed("rollback_failed", "x", state="needs_operator")
    later = msgspec.structs.replace(samples.committing()[-1], name="set-mode-2", created_at=stuck.created_at + 1)
    assert found(plans=ChangeListMessage(plans=[later, stuck])) == []
    earlier = msgspec.structs.replace(later, created_at=stuck.created_at - 1)
    assert found(plans=ChangeListMessage(plans=[stuck, earlier])) == [
        (FAIL, "plan set-mode-1", "gpu1: aimd cannot bring the GPU back by itself")
    ]


def test_claims() -> None:
    claims = ClaimListMessage(claims=[samples.claim(), samples.waiting(), samples.claim("switching", change="room")])
    assert found(claims=claims) == [
        (WARN, "claim bert", "waits for room: 24 GB fit nowhere, 12 GB are free on gpu0/1 (no_room)")
    ]
    findings = examine(replace(healthy(), claims=to_builtins(claims)))
    assert [each.message for each in findings if each.check in ("claims", "claim llama")] == [
        "the mode change room makes room for it",
        "1 of 3 are placed",
    ]


@pytest.mark.parametrize(
    ("kind", "age", "noted"),
    [
        ("ledger_quarantined", 10, True),
        ("ledger_row_damaged", RECENT_SECONDS - 1, True),
        ("ledger_quarantined", RECENT_SECONDS + 1, False),
        ("orphan_found", 10, True),
        ("events_lost", 10, True),
        ("switch_committed", 10, False),
    ],
)
def test_events_of_the_last_day(kind, age, noted) -> None:
    event = EventMessage(sequence=1, at=NOW - age, kind=kind, subject="node", message="it happened")
    notes = found(events=EventListMessage(events=[event], next=1))
    assert [each[:2] for each in notes] == ([(WARN, "events")] if noted else [])
    assert all(f"{kind} node: it happened" in each[2] for each in notes)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        (
            samples.left_behind(),
            (
                "24 GB and 4 slots of partition gpu0/1 are kept for pid 7 (python serve.py) and pid 8 (-) of llama/0: its claim "
                "is released"
            ),
        ),
        (
            msgspec.structs.replace(samples.left_behind(), guarantee=0, released_at=None),
            (
                "24 GB of partition gpu0/1 are kept for pid 7 (python serve.py) and pid 8 (-) of llama/0: its claim is not "
                "there any more"
            ),
        ),
    ],
)
def test_what_is_kept_for_processes_without_their_claim(kept, words) -> None:
    assert found(inventory=with_gpu(left_behind=[kept])) == [(WARN, "gpu0", words)]


def test_on_a_real_node_what_the_caller_may_use_is_looked_at(aimctl, world: World) -> None:
    """Of this machine, so what is found is not known here."""
    checks = [each["check"] for each in json.loads(aimctl("doctor", "-o", "json").stdout)["findings"]]
    assert {"HIP library", "device nodes", "device cgroup"} <= set(checks)


def test_a_library_that_is_not_wanted_is_not_missed(aimctl, world: World) -> None:
    """`memory_probe = "off"`, as in the image of the DaemonSet."""
    off = samples.probe("off", None, None)
    gpus = [msgspec.structs.replace(gpu, probe=off) for gpu in world.inventory.gpus]
    world.inventory = msgspec.structs.replace(world.inventory, gpus=gpus)
    checks = [each["check"] for each in json.loads(aimctl("doctor", "-o", "json").stdout)["findings"]]
    assert "HIP library" not in checks
    assert "device cgroup" in checks


def test_on_the_command_line(aimctl, world: World) -> None:
    world.node = msgspec.structs.replace(world.node, simulated="mi300x:3, driver 7.2")
    result = aimctl("doctor")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == f"ok    daemon: aimd {aimd.__version__}, pid 321, up 1 h 2 min"
    hint = "aimctl plan set-mode gpu1 DPX/NPS1 tells what is in the way"
    assert f"warn  gpu1: the mode file says DPX -> {hint}" in lines
    assert {line[:6] for line in lines} == {"ok    ", "warn  "}
    as_json = json.loads(aimctl("doctor", "-o", "json").stdout)["findings"]
    assert [each["check"] for each in as_json] == [line[6:].partition(":")[0] for line in lines]
    of_units = {"systemd", "aimd.service"}
    assert not of_units & {each["check"] for each in as_json}, "nothing of this machine, whose daemon it is not"


def test_a_failing_check_is_1(aimctl, world: World) -> None:
    world.health["/readyz"] = HealthMessage(status="failing", failing={"ledger": "disk full"})
    result = aimctl("doctor")
    assert result.exit_code == 1
    assert "fail  ready: ledger: disk full -> the daemon's log tells more\n" in result.stdout


def test_recent_means_of_now(aimctl, world: World) -> None:
    world.events = [EventMessage(sequence=1, at=time.time(), kind="ledger_empty", subject="node", message="anew")]
    assert "ledger_empty node: anew" in aimctl("doctor").stdout


def test_without_a_daemon(aimctl, socket_path) -> None:
    result = aimctl("--socket", f"{socket_path}.none", "doctor")
    assert (result.exit_code, result.stderr) == (3, "")
    assert result.stdout.startswith(f"fail  daemon: no aimd answers at {socket_path}.none: No such file or directory")
    assert result.stdout.splitlines()[0].endswith("without it: aimctl doctor --preflight")
    assert "systemd" in result.stdout  # on any machine: at least that there is none


def test_another_daemon_is_an_error(aimctl, world: World) -> None:
    world.overrides["GET /v1/node"] = Raw(b"{}")
    result = aimctl("doctor")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no aimd of this version" in result.stderr


def test_503_that_is_no_health(aimctl, world: World) -> None:
    world.overrides["GET /readyz"] = ProblemMessage(title="No", status=503, detail="too many connections", code="c")
    result = aimctl("doctor")
    assert (result.exit_code, result.stderr) == (3, "error: too many connections\n")


def test_usage(aimctl, world: World, tmp_path) -> None:
    assert aimctl("doctor", "--root", str(tmp_path)).exit_code == 2
    assert aimctl("doctor", "--preflight", "--root", str(tmp_path / "none")).exit_code == 2
    assert world.requests == []


def test_a_preflight_asks_no_daemon(aimctl, world: World, tmp_path) -> None:
    result = aimctl("doctor", "--preflight", "--root", str(tmp_path))
    assert (result.exit_code, world.requests) == (1, [])
    assert result.stdout.startswith("fail  driver: amdgpu is not loaded -> load it: modprobe amdgpu\n")
