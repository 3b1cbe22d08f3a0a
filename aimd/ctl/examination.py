"""From the daemon's answers to findings: what an operator should know and do. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aimd.ctl.cluster_findings import cluster_findings
from aimd.ctl.columns import gigabytes
from aimd.ctl.fields import UNKNOWN, flag, item, items, number, required, text, texts
from aimd.ctl.session import blocker_lines
from aimd.ctl.tables import duration, moment
from aimd.doctor.finding import FAIL, OK, WARN, Finding
from aimd.doctor.library import probe_finding

RECENT_SECONDS = 86400.0
# Events of the ledger that an operator should have seen. Beside them: every event whose kind begins with `ledger_`.
NOTABLE = ("orphan_found", "orphan_released", "events_lost", "wish_refused")

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the daemon was asked; each is a message of the API. `now` is seconds since the epoch.

    `cluster` is None of a daemon that is too old to tell of it.
    """

    version: str
    now: float
    health: Object
    readiness: Object
    node: Object
    inventory: Object
    memory: Object
    claims: Object
    plans: Object
    events: Object
    cluster: Object | None


def examine(answers: Answers) -> list[Finding]:
    """All findings, those about the daemon first."""
    return [
        *_daemon(answers),
        *_health("alive", answers.health),
        *_health("ready", answers.readiness),
        *_warnings(answers),
        *(finding for gpu in items(answers.inventory, "gpus") for finding in _gpu(gpu)),
        *_probes(items(answers.inventory, "gpus")),
        *_memory(items(answers.memory, "findings")),
        *_plans(items(answers.plans, "plans")),
        *_claims(items(answers.claims, "claims")),
        *cluster_findings(answers.cluster, answers.now),
        *_events(items(answers.events, "events"), answers.now),
    ]


def _daemon(answers: Answers) -> Iterator[Finding]:
    running, uptime = text(answers.node, "version"), duration(number(answers.node, "uptime_seconds"))
    if running == answers.version:
        yield Finding(OK, "daemon", f"aimd {running}, pid {text(answers.node, 'pid')}, up {uptime}")
    else:
        message = f"aimd is {running}, aimctl {answers.version}"
        yield Finding(WARN, "daemon", message, "restart the daemon after an upgrade: models go on meanwhile")


def _health(check: str, message: Object) -> Iterator[Finding]:
    failing = item(message, "failing")
    for name in failing:
        yield Finding(FAIL, check, f"{name}: {text(failing, name)}", "the daemon's log tells more")
    if not failing:
        yield Finding(OK, check, text(message, "status"))


def _warnings(answers: Answers) -> Iterator[Finding]:
    said = dict.fromkeys([*texts(answers.node, "warnings"), *texts(answers.inventory, "warnings")])
    for warning in said:
        yield Finding(WARN, "node", warning)


_ABSENT = {
    "lost": ("the driver has the device, but it has no partition", "dmesg tells why; reload the driver or reboot"),
    "hidden": ("the device cgroup hides its partitions from aimd", "allow the daemon the devices char 226:* rw"),
    "gone": ("it has left the bus, or the driver does not have it", "dmesg tells why; bind it again or reboot"),
}


def _gpu(gpu: Object) -> Iterator[Finding]:
    name = text(gpu, "name")
    absence = _ABSENT.get(text(gpu, "state"))
    if absence is not None:
        yield Finding(FAIL, name, *absence)
    for sentence in texts(gpu, "drift"):
        wish = text(gpu, "wish")
        hint = f"aimctl plan set-mode {name} {wish if wish != UNKNOWN else 'MODE'} tells what is in the way"
        yield Finding(WARN, name, sentence, hint)
    if flag(gpu, "draining"):
        yield Finding(WARN, name, "draining: no claim is placed there", f"open it again: aimctl undrain {name}")
    if required(gpu, "pending_memory_mode") is not None:
        message = f"{text(gpu, 'pending_memory_mode')} is requested, the next driver load applies it"
        yield Finding(WARN, name, message, "stop the GPU's users and reload amdgpu")
    for left in items(gpu, "left_behind"):
        yield Finding(WARN, name, _kept(left), "it is free when they end; aimd never signals any")
    holders = [f"pid {text(each, 'pid')} ({text(each, 'command')})" for each in items(gpu, "holders")]
    yield Finding(OK, name, f"held by {', '.join(holders)}" if holders else "no process holds it")


def _kept(left: Object) -> str:
    pids = " and ".join(f"pid {text(each, 'pid')} ({text(each, 'command')})" for each in items(left, "processes"))
    released, slots = required(left, "released_at") is not None, number(left, "guarantee")
    amount = gigabytes("memory_gb")(left) + (f" and {slots} slots" if slots else "")
    where = f"of partition {text(left, 'partition_name')}"
    why = "its claim is released" if released else "its claim is not there any more"
    return f"{amount} {where} are kept for {pids} of {text(left, 'name')}: {why}"


def _probes(gpus: list[dict[str, Any]]) -> Iterator[Finding]:
    """How asking HIP has ended; once for all GPUs of which the same is to be said."""
    alike: dict[Finding, list[str]] = {}
    for gpu in gpus:
        if required(gpu, "probe") is not None:
            probe = item(gpu, "probe")
            library = f" by {text(probe, 'library')}" if required(probe, "library") is not None else ""
            found = probe_finding("", text(probe, "state"), required(probe, "message"))
            alike.setdefault(found._replace(message=f"{found.message}{library}"), []).append(text(gpu, "name"))
    for found, names in alike.items():
        yield found._replace(check="all GPUs" if 1 < len(names) == len(gpus) else ", ".join(names))


def _memory(found: list[dict[str, Any]]) -> Iterator[Finding]:
    for each in found:
        denied = "; its model gets no new leases there" if flag(each, "denied") else ""
        message = f"{text(each, 'message')}{denied}, since {moment(number(each, 'since'))}"
        hint = f"aimctl describe partition {text(each, 'partition_name')} tells who uses what"
        yield Finding(WARN, text(each, "partition_name"), message, hint)


def _plans(plans: list[dict[str, Any]]) -> Iterator[Finding]:
    latest: dict[str, Object] = {}
    for change in sorted(plans, key=lambda each: number(each, "created_at") or 0.0):
        latest.update(dict.fromkeys(item(change, "wishes"), change))
        if not flag(change, "final"):
            waits = "".join(f"; {line}" for line in blocker_lines(change))
            message = f"{text(change, 'state')}{waits}"
            yield Finding(WARN, _plan(change), message, f"follow it: aimctl describe plan {text(change, 'name')}")
    stuck = {text(each, "name"): each for each in latest.values() if text(each, "state") == "needs_operator"}
    for name, stopped in stuck.items():
        message = f"{', '.join(item(stopped, 'wishes'))}: aimd cannot bring the GPU back by itself"
        hint = f"aimctl describe plan {name} tells why; reload the driver or reboot"
        yield Finding(FAIL, _plan(stopped), message, hint)


def _plan(change: Object) -> str:
    return f"plan {text(change, 'name')}"


def _claims(claims: list[dict[str, Any]]) -> Iterator[Finding]:
    for claim in claims:
        check = f"claim {text(claim, 'name')}"
        if text(claim, "state") == "pending":
            message = f"waits for room: {text(claim, 'message')} ({text(claim, 'reason')})"
            yield Finding(WARN, check, message, "release others, or ask for less")
        elif text(claim, "state") == "switching":
            yield Finding(OK, check, f"the mode change {text(claim, 'change')} makes room for it")
    placed = sum(text(claim, "state") == "placed" for claim in claims)
    yield Finding(OK, "claims", f"{placed} of {len(claims)} are placed")


def _events(events: list[dict[str, Any]], now: float) -> Iterator[Finding]:
    recent = [event for event in events if (number(event, "at") or 0.0) > now - RECENT_SECONDS]
    noted = [event for event in recent if text(event, "kind").startswith("ledger_") or text(event, "kind") in NOTABLE]
    for event in noted:
        message = (
            f"{moment(number(event, 'at'))} {text(event, 'kind')} {text(event, 'subject')}: {text(event, 'message')}"
        )
        yield Finding(WARN, "events", message)
    if not noted:
        yield Finding(OK, "events", "the ledger has nothing notable of the last 24 hours")
