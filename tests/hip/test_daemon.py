"""A running daemon whose helper asks HIP: what its own process never does, and what is left when it is killed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimd.sim.client import SimClient
from tests.e2e.programs import Daemon
from tests.hip.simulated import client
from tests.integration.unix_http import ask


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder whose sockets' paths are short enough."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        yield Path(folder)


@pytest.fixture
def start(home: Path):
    """Starts a daemon with this library; it is asked again every tenth of a second."""
    daemons = []

    def started(library: Path, **settings: object) -> Daemon:
        lines = [f"{name} = {value!r}" for name, value in {"probe_seconds": 0.1, **settings}.items()]
        path = home / "aimd.toml"
        path.write_text("\n".join([f'hip_library = "{library}"', *lines, ""]))
        daemons.append(Daemon(home, "mi300x:2", "--config", str(path)))
        daemons[-1].start()
        return daemons[-1]

    yield started
    for daemon in daemons:
        daemon.close()


def helpers(daemon: Daemon) -> list[int]:
    """Pids of the helpers that live and were started by the daemon."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.endswith(b"hip/child.py") for word in words) and str(daemon.pid).encode() in words:
            found.append(int(entry.name))
    return found


def eventually(condition, seconds: float = 15.0):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def test_the_daemon_itself_never_has_hip(stubs, start) -> None:
    library = stubs.build("INIT_MILLISECONDS=30")
    daemon = start(library)
    seen = set()
    deadline = time.monotonic() + 15
    while len(seen) < 5:
        assert time.monotonic() < deadline, daemon.log
        seen |= set(helpers(daemon))
        assert "libamdhip64" not in Path(f"/proc/{daemon.pid}/maps").read_text()
        for descriptor in Path(f"/proc/{daemon.pid}/fd").iterdir():
            try:
                target = str(descriptor.readlink())
            except FileNotFoundError:
                continue
            assert not target.startswith(("/dev/kfd", "/dev/dri")), target
    assert "gpu0: memory by HIP is read" in daemon.log
    assert "gpu1: memory by HIP is read" in daemon.log
    assert daemon.stop() == 0
    assert helpers_gone(seen)


def helpers_gone(pids: set[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_no_thread_of_the_daemon_opens_the_library_or_a_gpu(stubs, home: Path) -> None:
    """By every open(2) of the daemon and of what it starts."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-o", "/dev/null", "true"]).returncode != 0:
        pytest.skip("strace is not there, or may not be used")
    library, trace = stubs.build(), home / "trace"
    (home / "aimd.toml").write_text(f'hip_library = "{library}"\n')
    daemon = Daemon(home, "mi300x:1", "--config", str(home / "aimd.toml"))
    daemon._command = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-s",
        "4096",
        "-e",
        "trace=open,openat,execve",
        "-o",
        str(trace),
        *daemon._command,
    ]
    daemon.start()
    try:
        eventually(lambda: "gpu0: memory by HIP is read" in daemon.log)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    lines = trace.read_text(errors="replace").splitlines()
    users = {line.split()[0] for line in lines if str(library) in line and "open" in line.split("(")[0]}
    started = {line.split()[0] for line in lines if "execve" in line and "hip/child.py" in line}
    assert users
    assert users == started
    assert not [line for line in lines if re.search(r'"/dev/(kfd|dri)', line)]


def test_a_daemon_that_is_killed_leaves_no_helper(stubs, start) -> None:
    daemon = start(stubs.build("STUB_FAULT=FAULT_HANG"))
    with SimClient(daemon.environment["AIMD_SIM_SOCKET"]) as node:
        [helper] = eventually(lambda: [client["pid"] for client in node.status()["clients"]])  # it hangs inside HIP now
    daemon.stop(signal.SIGKILL)
    eventually(lambda: helpers_gone({helper}), 5)


def test_an_operator_is_told_who_is_in_the_way_and_the_switch_waits_for_it(stubs, start) -> None:
    library = stubs.build()
    daemon = start(library)
    eventually(lambda: "gpu1: memory by HIP is read" in daemon.log)
    with client(library, Path(daemon.environment["AIMD_SIM_SOCKET"]), f"0:{1 << 30}") as process:
        planned = daemon.aimctl("plan", "set-mode", "gpu0", "CPX")
        assert f" {process.pid} " in planned.stdout.replace("\n", " \n "), planned.stdout
        refused = daemon.aimctl("set-mode", "gpu0", "CPX", "--wait", "0.3")
        assert refused.returncode != 0
        assert f"pid {process.pid}" in refused.stdout + refused.stderr
    done = daemon.aimctl("set-mode", "gpu0", "CPX", "--wait", "10")
    assert done.returncode == 0, done.stderr


def states(daemon: Daemon) -> list[str]:
    """By the metrics page, the state of each GPU's probe."""
    page = ask(daemon.runtime / "metrics.sock", "/metrics").body.decode()
    return re.findall(r'^aim_gpu_memory_probe_state\{.*state="(.*)"\} 1$', page, re.MULTILINE)


@pytest.mark.parametrize(
    ("library", "state", "told", "verdict"),
    [
        ("STUB_FAULT=FAULT_CRASH", "crashed", "the helper died of SIGSEGV inside HIP", "fail"),
        ("STUB_FAULT=FAULT_FREE", "implausible", "HIP's answer cannot be true: device 0000:05:00.0 has ", "fail"),
        ("STUB_FAULT=FAULT_DEVICES", "implausible", "HIP's answer cannot be true: device 0000:05:00.0 is ", "fail"),
        ("absent", "no-library", "/nowhere/libamdhip64.so: cannot open shared object file", "warn"),
        ("wrong", "wrong-library", "{library}: it has no hipInit, hipGetDeviceCount, ", "fail"),
    ],
)
def test_a_library_that_is_unfit_is_told_once_and_does_no_harm(
    stubs, empty_library: Path, start, library: str, state: str, told: str, verdict: str
) -> None:
    others = {"absent": Path("/nowhere/libamdhip64.so"), "wrong": empty_library}
    path = others[library] if library in others else stubs.build(library)
    told = told.format(library=path)
    daemon = start(path)
    eventually(lambda: states(daemon) == [state] * 2)
    assert f"memory by HIP is {state}: {told}" in daemon.log
    doctor = daemon.aimctl("doctor")
    [line] = [line for line in doctor.stdout.splitlines() if f"memory by HIP: {state}: {told}" in line]
    assert line.startswith(f"{verdict}  ")
    assert " -> " in line, "what can be done"
    assert (doctor.returncode == 0) == (verdict == "warn")
    time.sleep(0.3)
    assert daemon.log.count("memory by HIP is") <= 2
    assert daemon.aimctl("set-mode", "gpu0", "CPX").returncode == 0
    assert daemon.stop() == 0


def test_off_is_off(stubs, start) -> None:
    daemon = start(stubs.build(), memory_probe="off")
    time.sleep(0.5)
    assert helpers(daemon) == []
    assert "HIP" not in daemon.log
