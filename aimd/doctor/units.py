"""From the facts of the units to findings: how the daemon is started, and why it is not. Pure."""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Iterable

from aimd.doctor.finding import FAIL, OK, WARN, Finding
from aimd.doctor.unit_facts import SERVICE, SOCKETS, ModeFile, Service, UnitFacts

CHECK = "systemd"
LOOK = "journalctl -u aimd -b tells more"
START = "systemctl start aimd"
SOCKETS_UP = f"systemctl enable --now {' '.join(SOCKETS)}"
# Exit codes of the daemon, and those of systemd for what it could not set up (systemd.exec(5), "Process exit codes").
EXITS = {
    2: ("the configuration or the command line is not valid", f"aimd check-config /etc/aimd/aimd.toml, then {START}"),
    203: ("its program cannot be executed", "install the package again"),
    216: ("its group is not there", "systemd-sysusers makes it"),
    217: ("its user is not there", "systemd-sysusers makes it"),
    226: ("its sandbox cannot be set up", "in a container, it needs the right to mount"),
    233: ("its runtime directory cannot be made", "look at /run"),
    238: ("its state directory cannot be made", "look at /var/lib"),
    243: ("its credentials cannot be loaded", "look at /etc/aimd/kubeconfig"),
}
RESULTS = {
    "watchdog": ("its control loop or dispatch thread hung, and the watchdog ended it", f"report it; {LOOK}"),
    "timeout": ("it was not ready, or did not end, in time", LOOK),
    "oom-kill": ("the kernel ended it for lack of memory", "look at MemoryMax= and the node's memory"),
    "start-limit-hit": ("it was started too often", f"systemctl reset-failed aimd, then {START}"),
    "resources": ("systemd could not set it up", LOOK),
    "protocol": ("it ended before it was ready", LOOK),
}


def unit_findings(facts: UnitFacts) -> list[Finding]:
    """All checks of the units; one line where there is no systemd or no unit."""
    if not facts.booted:
        return [Finding(OK, CHECK, "it does not run here: something else starts aimd")]
    if facts.failure is not None:
        return [Finding(WARN, CHECK, f"it does not tell of the units: {facts.failure}", "ask as root")]
    service = facts.service
    if service is None or service.load == "not-found":
        return [Finding(OK, CHECK, f"{SERVICE} is not installed: something else starts aimd")]
    return [*_service(service, facts), *_history(service, facts), *_sockets(facts), *_mode_files(facts)]


def _service(service: Service, facts: UnitFacts) -> Iterable[Finding]:
    if service.load != "loaded":
        hint = "systemctl unmask aimd" if service.load == "masked" else "systemctl status aimd tells why"
        yield Finding(FAIL, SERVICE, f"it cannot be started: it is {service.load}", hint)
    elif service.active == "failed" or service.sub == "auto-restart":
        yield _failed(service, facts)
    elif service.active == "active":
        status = f": {service.told}" if service.told else ""
        yield Finding(OK, SERVICE, f"active since {service.since or 'now'}, pid {service.pid}{status}")
    elif service.active == "inactive":
        waiting = any(each.active == "active" for each in facts.sockets)
        how = "its sockets start it for the first client" if waiting else "nothing starts it"
        yield Finding(OK if waiting else WARN, SERVICE, f"not started; {how}", None if waiting else START)
    else:
        yield Finding(WARN, SERVICE, f"{service.active} ({service.sub})", LOOK)
    if service.load == "loaded" and service.enabled == "disabled":
        yield Finding(WARN, SERVICE, "it is not started with the system", "systemctl enable aimd")


def _failed(service: Service, facts: UnitFacts) -> Finding:
    """One line that says what systemd knows, what it means and the daemon's own last word."""
    if service.result == "exit-code":
        ended = f"exit code {service.status}"
        why, hint = EXITS.get(service.status, ("", LOOK))
    else:
        ended = f"{service.result}, {_signal(service)}" if service.code in ("killed", "dumped") else service.result
        why, hint = RESULTS.get(service.result, ("", LOOK))
    again = f"; started again {service.restarts} times" if service.restarts else ""
    # Exit codes from 200 on are systemd's own: the daemon has not run, and its last words are of another time.
    ran = service.result == "exit-code" and service.status < 200
    said = [line for line in facts.last_lines if not line.startswith("hint: ")] if ran else []
    last = f"; its last words: {said[-1]}" if said else ""
    state = "fails to start" if service.sub == "auto-restart" else "has failed"
    return Finding(FAIL, SERVICE, f"it {state} ({ended}){': ' + why if why else ''}{again}{last}", hint)


def _signal(service: Service) -> str:
    try:
        return signal.Signals(service.status).name
    except ValueError:
        return f"signal {service.status}"


def _history(service: Service, facts: UnitFacts) -> Iterable[Finding]:
    """What the watchdog and others have ended in this boot."""
    if facts.failures is None:
        restarts = f"{service.restarts} restarts" if service.restarts else "no restart"
        message = f"{restarts} since it was started; the journal, which tells why, cannot be read"
        yield Finding(WARN if service.restarts else OK, "restarts", message, "ask as root or in group systemd-journal")
        return
    by_watchdog = [at for result, at in facts.failures if result == "watchdog"]
    others = [(result, at) for result, at in facts.failures if result != "watchdog"]
    if by_watchdog:
        message = f"the watchdog ended it {_times(len(by_watchdog))} since the boot, last at {_moment(by_watchdog[-1])}"
        yield Finding(WARN, "watchdog", message, "report it: journalctl -u aimd -b has the threads' stacks")
    if others:
        kinds = ", ".join(dict.fromkeys(result for result, _ in others))
        message = f"it failed {_times(len(others))} since the boot ({kinds}), last at {_moment(others[-1][1])}"
        yield Finding(WARN, "restarts", message, LOOK)
    if not facts.failures:
        yield Finding(OK, "restarts", "neither the watchdog nor a fault has ended it since the boot")


def _sockets(facts: UnitFacts) -> Iterable[Finding]:
    for each in facts.sockets:
        if each.load != "loaded":
            yield Finding(WARN, each.name, f"it is {each.load}: clients do not wait over a restart", SOCKETS_UP)
        elif each.active == "failed":
            hint = f"systemctl status {each.name} tells why; {SOCKETS_UP}"
            yield Finding(FAIL, each.name, f"it has failed ({each.result}): nothing listens there", hint)
        elif each.active != "active":
            message = f"it is {each.active}: no client starts the daemon, none waits over a restart"
            yield Finding(WARN, each.name, message, SOCKETS_UP)
        elif not each.present:
            message = f"it listens on {each.path}, but this file is not there: no client finds it"
            yield Finding(FAIL, each.name, message, f"systemctl stop aimd {each.name}, then {SOCKETS_UP}")
        else:
            yield Finding(OK, each.name, f"listens on {each.path}" if each.path else "listens")


def _mode_files(facts: UnitFacts) -> Iterable[Finding]:
    if not facts.user_known:
        yield Finding(FAIL, "unit's user", f"there is no user {facts.user}", "systemd-sysusers makes it")
        return
    offered = [each for each in facts.mode_files if each.offered]
    denied = [each for each in offered if not each.writable]
    for name in dict.fromkeys(each.name for each in denied):
        yield _denied(name, [each for each in denied if each.name == name], facts.user)
    if offered and not denied:
        yield Finding(OK, "mode files", f"user {facts.user} of the unit may write all {len(offered)}")


def _denied(name: str, files: list[ModeFile], user: str) -> Finding:
    first = files[0]
    gpus = first.gpu if len(files) == 1 else f"{first.gpu} and {len(files) - 1} more"
    message = f"user {user} of the unit may not write {name} of {gpus}: {first.owner}:{first.group} {first.mode:04o}"
    return Finding(FAIL, "mode files", message, "/usr/lib/aimd/partition-files, as root, gives them to its group")


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _moment(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
