"""A daemon that gives up its capabilities has none of them left, and writes root's files all the same."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from aimd.adapters.capabilities import SETS, give_up_capabilities
from aimd.errors import DeniedError
from tests.e2e.programs import AIMD, ROOT, Daemon


def fields(path):
    return dict(line.split(":\t", 1) for line in Path(path).read_text().splitlines() if ":\t" in line)


def test_no_thread_of_the_daemon_has_any_and_it_switches_modes_all_the_same(requires_root, tmp_path):
    assert int(fields("/proc/self/status")["CapEff"], 16), "this test is about nothing"
    daemon = Daemon(tmp_path, "mi300x:1", "--give-up-capabilities")
    try:
        daemon.start()
        threads = list(Path(f"/proc/{daemon.pid}/task").glob("*/status"))
        assert len(threads) > 1
        for thread in threads:
            found = fields(thread)
            assert {name: int(found[name], 16) for name in SETS} == dict.fromkeys(SETS, 0)
            assert found["NoNewPrivs"] == "1"
        switched = daemon.aimctl("set-mode", "gpu0", "CPX")
        assert switched.returncode == 0, switched.stderr
    finally:
        daemon.close()


WRITING = """
import sys
from aimd.adapters.capabilities import give_up_capabilities
give_up_capabilities()
open(sys.argv[1], "w").write("CPX")
open(sys.argv[2], "w").write("CPX")
"""


def test_files_of_root_are_written_and_those_of_others_are_not(requires_root, tmp_path):
    """As the driver has its mode files: 0644, owner root."""
    own, others = tmp_path / "own", tmp_path / "others"
    for path, uid in ((own, 0), (others, 65534)):
        path.touch()
        path.chmod(0o644)
        os.chown(path, uid, uid)
    result = subprocess.run([sys.executable, "-c", WRITING, own, others], cwd=ROOT, capture_output=True, text=True)
    assert "PermissionError" in result.stderr
    assert (own.read_text(), others.read_text()) == ("CPX", "")


def test_who_may_not_give_them_up_is_told_before_anything_else(tmp_path):
    """Without CAP_SETPCAP the bounding set stays, as for an ordinary user."""
    command = [*AIMD, "run", "--give-up-capabilities", "--config", str(tmp_path / "none.toml")]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *command]
    result = subprocess.run(command, cwd="/", env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if "No module named" in result.stderr or "Permission denied" in result.stderr:
        pytest.skip("another user cannot read this checkout")
    assert result.returncode == 4, result.stderr
    assert "capability 0 of the bounding set cannot be given up: Operation not permitted" in result.stderr
    assert "CAP_SETPCAP" in result.stderr


def test_what_is_left_is_no_success(requires_root, tmp_path):
    """A kernel that does not do what it says; in a thread of its own, which the calls are final for."""
    status = tmp_path / "status"
    status.write_text("CapInh:\t0\nCapPrm:\t0\nCapEff:\t0\nCapBnd:\t1\nCapAmb:\t0\nNoNewPrivs:\t1\n")
    told = []

    def given_up():
        try:
            give_up_capabilities(status)  # of this thread alone
        except DeniedError as error:
            told.append(error.message)

    thread = threading.Thread(target=given_up)
    thread.start()
    thread.join()
    assert told == ["capabilities are left in CapBnd, expected none"]


LOOKING = """
import json, os, sys
from aimd.adapters.callers import holder_of
from aimd.adapters.capabilities import give_up_capabilities
from aimd.adapters.processes import command_of, start_time_of
from aimd.adapters.unix.peer import peer_by_pid
pid = int(sys.argv[1])
before = holder_of(pid)
give_up_capabilities()
os.close(os.pidfd_open(pid))
print(json.dumps([before, holder_of(pid), start_time_of(pid) is not None, command_of(pid), peer_by_pid(pid, 0).in_pod]))
"""
WITHOUT = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
AS_USER = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.mark.parametrize(("privileges", "seen"), [((), False), (WITHOUT, True), (AS_USER, False)])
def test_environments_are_all_that_is_not_seen_of_processes(requires_root, privileges, seen):
    """Root without CAP_SYS_PTRACE may read them of root's processes that have no capability either (ptrace(2)).

    Containers usually have some. Their pod is told by their control group, which everybody may read.
    """
    marker = {**os.environ, "AIM_HOLDER": "4194303:7"}  # a holder that has ended
    command = [*privileges, "sh", "-c", "echo up; read _"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=marker) as process:
        assert process.stdout.readline() == "up\n"
        looks = [sys.executable, "-c", LOOKING, str(process.pid)]
        told = json.loads(subprocess.run(looks, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        process.stdin.close()
    holder = [4194303, 7]
    assert told == [holder, holder if seen else None, True, "sh -c echo up; read _", False]
