"""What systemd tells of the daemon's units: read from its tools' words, and turned into findings."""

from __future__ import annotations

import grp
import json
import os
import pwd
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from aimd.doctor.commands import Ran
from aimd.doctor.commands import run as run_command
from aimd.doctor.finding import FAIL, OK, WARN, Finding
from aimd.doctor.unit_facts import ModeFile, Service, Socket, UnitFacts
from aimd.doctor.unit_reading import FAILURES, LAST, SHOW, mode_files, read_unit
from aimd.doctor.units import unit_findings

SHOWN = """\
Id=aimd.service
LoadState=loaded
ActiveState=active
SubState=running
Result=success
ExecMainCode=0
ExecMainStatus=0
NRestarts=2
MainPID=321
UnitFileState=enabled
StatusText=8 GPUs, 8 partitions, 0 assigned
ActiveEnterTimestamp=Wed 2026-11-25 07:00:00 UTC
User=aimd
Group=aimd

Listen=/run/aimd/aimd.sock (Stream)
Id=aimd.socket
LoadState=loaded
ActiveState=active
SubState=running
Result=success
UnitFileState=enabled

Id=aimd-dispatch.socket
LoadState=not-found
ActiveState=inactive
SubState=dead
Result=success
"""
RUNNING = Service(
    "loaded", "active", "running", "success", since="Wed 07:00", pid=321, told="8 GPUs", enabled="enabled"
)
LISTENS = (Socket("aimd.socket", "loaded", "active", "success", "/run/aimd/aimd.sock"),)
FIT = UnitFacts(booted=True, service=RUNNING, sockets=LISTENS, user="aimd", group="aimd")


class FakeTools:
    """systemctl and journalctl, by command line."""

    def __init__(self, shown: Ran = Ran(SHOWN), failures: Ran = Ran(""), last: Ran = Ran("")) -> None:  # noqa: B008
        self._answers = {SHOW: shown, FAILURES: failures, LAST: last}

    def __call__(self, words: Sequence[str]) -> Ran:
        return self._answers[tuple(words)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    return tmp_path


def told(**changed) -> list[Finding]:
    """What is not ok."""
    return [each for each in unit_findings(replace(FIT, **changed)) if each.result != OK]


def of_service(last_lines: tuple[str, ...] = (), **changed) -> Finding:
    (found,) = told(service=replace(RUNNING, **changed), last_lines=last_lines)
    return found


def failed(result: str, **changed) -> Finding:
    last = changed.pop("last_lines", ())
    return of_service(last, **{"active": "failed", "sub": "failed", "result": result, **changed})


# -- reading ---------------------------------------------------------------------------------------------------


def test_a_system_without_systemd_is_not_asked(tmp_path: Path) -> None:
    def nobody(words: Sequence[str]) -> Ran:
        raise AssertionError(words)

    assert read_unit(nobody, tmp_path) == UnitFacts(booted=False)


def test_units_are_read(root: Path) -> None:
    facts = read_unit(FakeTools(last=Ran("first\nlast\n")), root)
    assert facts.service == Service(
        "loaded", "active", "running", "success", "0", 0, 2, "enabled", "8 GPUs, 8 partitions, 0 assigned",
        "Wed 2026-11-25 07:00:00 UTC", 321,
    )  # fmt: skip
    present = Path("/run/aimd/aimd.sock").exists()
    assert facts.sockets == (
        Socket("aimd.socket", "loaded", "active", "success", "/run/aimd/aimd.sock", present),
        Socket("aimd-dispatch.socket", "not-found", "inactive", "success"),
    )
    assert (facts.user, facts.group, facts.last_lines, facts.failures) == ("aimd", "aimd", ("first", "last"), ())


def test_how_the_main_process_ended(root: Path) -> None:
    shown = SHOWN.replace("ExecMainCode=0\nExecMainStatus=0", "ExecMainCode=3\nExecMainStatus=6")
    service = read_unit(FakeTools(Ran(shown)), root).service
    assert service is not None
    assert (service.code, service.status) == ("dumped", 6)


def test_systemd_that_does_not_answer(root: Path) -> None:
    assert read_unit(FakeTools(Ran("", "no bus")), root) == UnitFacts(booted=True, failure="no bus")
    assert read_unit(FakeTools(Ran("\n")), root).failure == "systemctl show says nothing of aimd.service"


def test_failures_of_the_journal(root: Path) -> None:
    entries = [
        {"UNIT_RESULT": "watchdog", "__REALTIME_TIMESTAMP": "1700000000000000"},
        {"MESSAGE": "of another kind"},
        {"UNIT_RESULT": "exit-code", "__REALTIME_TIMESTAMP": "1700000100500000"},
    ]
    text = "\n".join([*(json.dumps(entry) for entry in entries), "no JSON"])
    facts = read_unit(FakeTools(failures=Ran(text)), root)
    assert facts.failures == (("watchdog", 1700000000.0), ("exit-code", 1700000100.5))
    assert read_unit(FakeTools(failures=Ran("", "No journal files were opened")), root).failures is None


@pytest.mark.parametrize(
    ("mode", "writable", "offered"),
    [(0o644, True, True), (0o464, False, True), (0o444, False, False), (0o446, False, True), (0o664, True, True)],
)
def test_the_first_class_that_fits_is_the_one_that_counts(tmp_path: Path, mode, writable, offered) -> None:
    """The caller owns the file; an ordinary user's name stands for it."""
    path = tmp_path / "0000:05:00.0/current_compute_partition"
    path.parent.mkdir()
    path.touch()
    user, group = "nobody", "nogroup"
    if os.getuid() == 0:
        os.chown(path, pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
    else:
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(path.stat().st_gid).gr_name
    path.chmod(mode)
    (found,) = mode_files(tmp_path, user, group)
    assert found == ModeFile("0000:05:00.0", path.name, mode, user, group, writable, offered)


def test_a_group_may_write_what_is_given_to_it(tmp_path: Path) -> None:
    path = tmp_path / "0000:05:00.0/current_memory_partition"
    path.parent.mkdir()
    path.touch()
    path.chmod(0o664)
    group = grp.getgrgid(path.stat().st_gid).gr_name
    assert [each.writable for each in mode_files(tmp_path, "nobody", group)] == [True]
    path.chmod(0o644)
    assert [each.writable for each in mode_files(tmp_path, "nobody", group)] == [False]
    assert [each.writable for each in mode_files(tmp_path, "root", "root")] == [True]


def test_commands(tmp_path: Path) -> None:
    assert run_command(["no-such-tool"]) == Ran("", "no-such-tool is not installed")
    assert run_command(["sh", "-c", "echo words"]) == Ran("words\n")
    assert run_command(["sh", "-c", "echo some; echo first >&2; echo last >&2; exit 1"]) == Ran("some\n", "last")
    assert run_command(["sh", "-c", "exit 3"]) == Ran("", "sh ended with 3")


# -- findings --------------------------------------------------------------------------------------------------


def test_a_fit_unit_has_a_line_per_check() -> None:
    file = ModeFile("0000:05:00.0", "current_compute_partition", 0o664, "root", "aimd", writable=True)
    assert [each[:3] for each in unit_findings(replace(FIT, mode_files=(file,)))] == [
        (OK, "aimd.service", "active since Wed 07:00, pid 321: 8 GPUs"),
        (OK, "restarts", "neither the watchdog nor a fault has ended it since the boot"),
        (OK, "aimd.socket", "listens on /run/aimd/aimd.sock"),
        (OK, "mode files", "user aimd of the unit may write all 1"),
    ]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (UnitFacts(booted=False), (OK, "systemd", "it does not run here: something else starts aimd")),
        (
            UnitFacts(booted=True, failure="no bus"),
            (WARN, "systemd", "it does not tell of the units: no bus"),
        ),
        (
            UnitFacts(booted=True, service=Service("not-found", "inactive", "dead", "success")),
            (OK, "systemd", "aimd.service is not installed: something else starts aimd"),
        ),
    ],
)
def test_where_there_is_nothing_to_look_at_one_line_says_so(facts, expected) -> None:
    assert [each[:3] for each in unit_findings(facts)] == [expected]


def test_a_unit_that_is_masked() -> None:
    found = of_service(load="masked", active="inactive")
    assert found == Finding(FAIL, "aimd.service", "it cannot be started: it is masked", "systemctl unmask aimd")


def test_a_unit_that_is_not_started() -> None:
    stopped = replace(RUNNING, active="inactive", sub="dead")
    assert told(service=stopped) == []
    (found, _) = told(service=stopped, sockets=(replace(LISTENS[0], active="inactive"),))
    assert found == Finding(WARN, "aimd.service", "not started; nothing starts it", "systemctl start aimd")


def test_a_unit_that_is_not_started_with_the_system() -> None:
    found = of_service(enabled="disabled")
    assert (found.message, found.hint) == ("it is not started with the system", "systemctl enable aimd")


def test_a_unit_between_two_states() -> None:
    assert of_service(active="activating", sub="start").message == "activating (start)"


def test_why_a_start_has_failed() -> None:
    found = failed(
        "exit-code", code="exited", status=2, last_lines=("before", "error: gpus: unknown key", "hint: read")
    )
    assert found == Finding(
        FAIL,
        "aimd.service",
        "it has failed (exit code 2): the configuration or the command line is not valid; its last words: error: gpus: unknown "
        "key",
        "aimd check-config /etc/aimd/aimd.toml, then systemctl start aimd",
    )


def test_an_exit_code_of_systemds_own_has_no_last_line() -> None:
    found = failed("exit-code", code="exited", status=203, last_lines=("of another time",))
    assert found.message == "it has failed (exit code 203): its program cannot be executed"


def test_an_exit_code_that_nothing_is_known_of() -> None:
    assert failed("exit-code", code="exited", status=1).message == "it has failed (exit code 1)"


def test_a_unit_that_is_started_again_and_again() -> None:
    found = failed("signal", active="activating", sub="auto-restart", code="killed", status=11, restarts=7)
    assert found.message == "it fails to start (signal, SIGSEGV); started again 7 times"
    assert "signal 99" in failed("signal", code="killed", status=99).message


@pytest.mark.parametrize("result", ["watchdog", "timeout", "oom-kill", "start-limit-hit", "resources", "protocol"])
def test_results_have_a_meaning_and_a_hint(result) -> None:
    found = failed(result)
    assert found.message.startswith(f"it has failed ({result}): ")
    assert found.hint


def test_what_the_watchdog_and_others_have_ended() -> None:
    history = (
        ("watchdog", 1700000000.0),
        ("exit-code", 1700000050.0),
        ("watchdog", 1700000100.0),
        ("signal", 1700000150.0),
    )
    assert [each[:3] for each in told(failures=history)] == [
        (WARN, "watchdog", "the watchdog ended it 2 times since the boot, last at 2023-11-14T22:15:00Z"),
        (WARN, "restarts", "it failed 2 times since the boot (exit-code, signal), last at 2023-11-14T22:15:50Z"),
    ]
    (once,) = told(failures=history[:1])
    assert "ended it once since" in once.message


def test_a_journal_that_cannot_be_read() -> None:
    assert told(failures=None) == []
    (found,) = told(failures=None, service=replace(RUNNING, restarts=3))
    assert found.message == "3 restarts since it was started; the journal, which tells why, cannot be read"


@pytest.mark.parametrize(
    ("changed", "result", "message"),
    [
        ({"load": "not-found"}, WARN, "it is not-found: clients do not wait over a restart"),
        ({"active": "failed", "result": "resources"}, FAIL, "it has failed (resources): nothing listens there"),
        ({"active": "inactive"}, WARN, "it is inactive: no client starts the daemon, none waits over a restart"),
        (
            {"present": False},
            FAIL,
            "it listens on /run/aimd/aimd.sock, but this file is not there: no client finds it",
        ),
    ],
)
def test_sockets(changed, result, message) -> None:
    (found,) = told(sockets=(replace(LISTENS[0], **changed),))
    assert found[:3] == (result, "aimd.socket", message)
    assert found.hint


def test_mode_files_that_the_units_user_may_not_write() -> None:
    denied = ModeFile("0000:05:00.0", "current_compute_partition", 0o644, "root", "root", writable=False)
    other = replace(denied, gpu="0000:27:00.0")
    read_only = replace(denied, name="current_memory_partition", mode=0o444, offered=False)
    (found,) = told(mode_files=(denied, other, read_only))
    assert found[:3] == (
        FAIL,
        "mode files",
        "user aimd of the unit may not write current_compute_partition of 0000:05:00.0 and 1 more: root:root 0644",
    )
    assert [each.result for each in unit_findings(replace(FIT, mode_files=(read_only,)))].count(FAIL) == 0


def test_a_user_that_is_not_there() -> None:
    (found,) = told(user_known=False)
    assert found == Finding(FAIL, "unit's user", "there is no user aimd", "systemd-sysusers makes it")
