"""The programs as their users meet them: processes, options, formats, exit codes, signals, captures."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from aimd import __version__
from tests.e2e.captures import below, mi308x_topology, write
from tests.e2e.programs import AIMCTL, AIMD, ROOT, SECONDS, Daemon

STRANGER = 65534
FORMATS = ("table", "wide", "json", "yaml", "name")
ADDRESSES = [f"0000:{bus}:00.0" for bus in ("05", "27", "47", "65", "85", "a7", "c7", "e5")]


@pytest.fixture(scope="module")
def one() -> Iterator[Daemon]:
    """A daemon for tests that change nothing."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        daemon = Daemon(Path(folder))
        daemon.start()
        yield daemon
        daemon.close()


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        yield Path(folder)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon of one's own."""
    begun: list[Daemon] = []

    def begin(node: str = "mi300x:2", *options: str) -> Daemon:
        begun.append(Daemon(home, node, *options))
        begun[-1].start()
        return begun[-1]

    yield begin
    for daemon in begun:
        daemon.close()


def one_sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a program: first its sentence, perhaps a hint below it, never a traceback."""
    lines = result.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


# -- looking ---------------------------------------------------------------------------------------------------


def test_the_daemon_says_when_it_is_ready(home: Path) -> None:
    daemon = Daemon(home, "mi300x:8")
    line = daemon.start()
    assert line == (
        f"aimd is ready: simulated node mi300x:8, driver 7.2, 8 GPUs, 8 partitions, API on {home}/run/aimd/aimd.sock"
    )
    daemon.close()


@pytest.mark.parametrize("what", ["gpus", "partitions", "plans", "events", "node"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_get_in_every_format(one: Daemon, what: str, fmt: str) -> None:
    result = one.aimctl("get", what, "-o", fmt)
    assert (result.returncode, result.stderr) == (0, "")
    if fmt == "json":
        assert isinstance(json.loads(result.stdout), dict)
    elif fmt == "yaml":
        assert yaml.safe_load(result.stdout).keys() == one.get(what).keys()
    elif fmt in ("table", "wide"):
        assert result.stdout.splitlines()[0].isupper()


def test_the_table_of_gpus(one: Daemon) -> None:
    header, *rows = one.aimctl("get", "gpus").stdout.splitlines()
    assert header.split()[:4] == ["NAME", "PCI-ADDRESS", "MODEL", "MODE"]
    assert [row.split()[:4] for row in rows] == [
        [f"gpu{number}", address, "MI300X", "SPX/NPS1"] for number, address in enumerate(ADDRESSES)
    ]


def test_names_are_one_a_line(one: Daemon) -> None:
    assert one.aimctl("get", "gpus", "-o", "name").stdout.splitlines() == [f"gpu{n}" for n in range(8)]
    assert one.aimctl("get", "partitions", "-o", "name").stdout.splitlines() == [f"gpu{n}/0" for n in range(8)]


def test_describe(one: Daemon) -> None:
    result = one.aimctl("describe", "gpu", "gpu3")
    assert result.returncode == 0
    assert ADDRESSES[3] in result.stdout
    assert "SPX, DPX, QPX, CPX" in result.stdout
    partition = json.loads(one.aimctl("describe", "partition", "gpu3/0", "-o", "json").stdout)
    assert (partition["render_minor"], partition["memory_bytes"]) == (152, 206141652992)


def test_version(one: Daemon) -> None:
    result = one.aimctl("version", "-o", "json")
    assert json.loads(result.stdout) | {"aimctl": __version__, "aimd": __version__} == json.loads(result.stdout)
    assert one.aimd("--version").stdout == f"aimd, version {__version__}\n"


def test_plan_changes_nothing(one: Daemon) -> None:
    result = one.aimctl("plan", "set-mode", "gpu0", "CPX/NPS1", "gpu7", "DPX")
    assert result.returncode == 0
    assert [line.split()[1:4] for line in result.stdout.splitlines()[1:]] == [
        [ADDRESSES[0], "SPX/NPS1", "CPX/NPS1"],
        [ADDRESSES[7], "SPX/NPS1", "DPX/NPS1"],
    ]
    assert one.modes() == ["SPX/NPS1"] * 8
    assert one.get("plans")["plans"] == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(one: Daemon) -> None:
    command = ["curl", "--silent", "--fail", "--unix-socket", str(one.socket), "http://aimd/v1/partitions"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(json.loads(answer.stdout)["partitions"]) == 8


# -- exit codes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("get", "gpus", "gpu0"), 0, ""),
        (("plan", "set-mode", "gpu0", "SPX"), 0, ""),
        (("set-mode", "gpu0", "TPX"), 1, "does not offer TPX"),
        (("set-mode", "gpu0", "CPX/NPS4"), 1, "allow_memory_mode_change"),
        (("set-mode", "gpu0"), 2, "come in pairs"),
        (("set-mode", "gpu0", "XPX"), 2, "'XPX'"),
        (("get", "clouds"), 2, "clouds"),
        (("get", "gpus", "gpu8"), 6, "gpu8"),
        (("set-mode", "gpu8", "CPX"), 6, "gpu8"),
        (("describe", "plan", "none"), 6, "none"),
        (("--socket", "/nonexistent/aimd.sock", "get", "gpus"), 3, "no aimd answers"),
    ],
)
def test_exit_codes(one: Daemon, arguments: tuple[str, ...], code: int, words: str) -> None:
    result = one.aimctl(*arguments)
    assert result.returncode == code, result
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_plan_that_would_be_refused(one: Daemon) -> None:
    result = one.aimctl("plan", "set-mode", "gpu0", "TPX")
    assert result.returncode == 1
    assert "mode_not_available" in result.stdout


def test_a_daemon_that_does_not_answer(start) -> None:
    daemon = start()
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        result = daemon.aimctl("--timeout", "0.3", "get", "gpus")
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert result.returncode == 7
    assert "did not answer within 0.3 s" in result.stderr


# -- changing --------------------------------------------------------------------------------------------------


def test_set_mode(start) -> None:
    daemon = start()
    result = daemon.aimctl("set-mode", "gpu0", "CPX/NPS1", "gpu1", "DPX", "--name", "mine")
    assert result.returncode == 0, result
    assert result.stdout.splitlines()[0] == "mine: committed"
    assert daemon.modes() == ["CPX/NPS1", "DPX/NPS1"]
    assert len(daemon.get("partitions")["partitions"]) == 10
    again = daemon.aimctl("set-mode", "gpu0", "CPX/NPS1", "gpu1", "DPX", "--name", "mine", "-o", "json")
    assert (again.returncode, json.loads(again.stdout)["state"]) == (0, "committed")
    taken = daemon.aimctl("set-mode", "gpu0", "SPX", "--name", "mine")
    assert taken.returncode == 5
    kinds = [event["kind"] for event in daemon.get("events")["events"]]
    assert kinds.count("switch_committed") == 2


def test_a_firmware_that_refuses(start) -> None:
    daemon = start()
    assert daemon.aimd("sim", "fault", "firmware-refusal", "--gpu", "gpu1").returncode == 0
    result = daemon.aimctl("set-mode", "gpu1", "CPX/NPS1")
    assert result.returncode == 1
    assert "firmware_refused" in result.stdout + result.stderr
    assert daemon.modes() == ["SPX/NPS1", "SPX/NPS1"]
    assert [gpu["drift"] for gpu in daemon.get("gpus")["gpus"]] == [[], []]


def test_a_process_in_the_way_is_named(start) -> None:
    daemon = start()
    holder = daemon.hold("--gpu", "gpu1", "--", "sleep", "600")
    try:
        plan = daemon.aimctl("plan", "set-mode", "gpu1", "CPX/NPS1")
        assert plan.returncode == 0
        assert re.search(rf"^{holder.pid}\s+sleep 600\s", plan.stdout, re.MULTILINE), plan.stdout
        assert "sleep 600" not in daemon.aimctl("plan", "set-mode", "gpu0", "CPX").stdout
        began = time.monotonic()
        result = daemon.aimctl("set-mode", "gpu1", "CPX/NPS1", "--wait", "0.5")
        assert time.monotonic() - began < 10
        assert result.returncode == 5
        assert f"pid {holder.pid} (sleep 600)" in result.stdout + result.stderr
        assert daemon.modes() == ["SPX/NPS1", "SPX/NPS1"]
        assert daemon.aimctl("set-mode", "gpu0", "CPX").returncode == 0, "the other GPU is free"
    finally:
        holder.kill()
        holder.communicate()
    assert daemon.aimctl("set-mode", "gpu1", "CPX/NPS1", "--wait", "10").returncode == 0
    assert daemon.modes() == ["CPX/NPS1", "CPX/NPS1"]


def test_an_older_driver_lets_any_process_be_in_the_way(start) -> None:
    daemon = start("mi300x:2", "--profile", "6.12")
    holder = daemon.hold("--gpu", "gpu1", "--", "sleep", "600")
    try:
        row = daemon.aimctl("plan", "set-mode", "gpu0", "CPX").stdout.splitlines()[-1]
        assert re.fullmatch(rf"{holder.pid} +sleep 600 +{ADDRESSES[0]} +{ADDRESSES[1]}", row), row
        result = daemon.aimctl("set-mode", "gpu0", "CPX", "--wait", "0.3")
        assert result.returncode == 5
        assert f"pid {holder.pid}" in result.stdout + result.stderr
    finally:
        holder.kill()
        holder.communicate()


def test_a_memory_mode_waits_for_the_driver(start, home: Path) -> None:
    config = home / "aimd.toml"
    config.write_text("allow_memory_mode_change = true\n")
    daemon = start("mi300x:2", "--config", str(config))
    assert daemon.aimctl("set-mode", "gpu0", "QPX/NPS4", "--name", "nps", "--no-follow").returncode == 0
    wait_until(lambda: daemon.get("plans", "nps")["state"] == "awaiting_reload")
    assert [gpu["pending_memory_mode"] for gpu in daemon.get("gpus")["gpus"]] == ["NPS4", "NPS4"]
    assert daemon.aimd("sim", "reload").returncode == 0
    wait_until(lambda: daemon.get("plans", "nps")["final"])
    assert daemon.get("plans", "nps")["state"] == "committed"
    assert daemon.modes() == ["QPX/NPS4", "CPX/NPS4"]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# -- life of the daemon ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start, number: int) -> None:
    daemon = start()
    sockets, kept = {"aimd.sock", "dispatch.sock", "sim.sock"}, {"leases", "leases.names"}
    there = {entry.name for entry in daemon.runtime.iterdir()}
    assert sockets | kept <= there
    assert daemon.stop(number) == 0
    left = {entry.name for entry in daemon.runtime.iterdir()}
    assert left == kept | {"aimd.lock"}, "unlinking a lock is a race; leases outlive the daemon"
    assert "Traceback" not in daemon.log


def test_a_second_daemon_is_refused(start) -> None:
    daemon = start()
    directories = ("--state-dir", str(daemon.state), "--runtime-dir", f"{daemon.runtime}-2")
    second = daemon.aimd("run", "--simulate", "mi300x:2", *directories)
    assert second.returncode == 5
    assert one_sentence(second) == f"error: another aimd uses the directory {daemon.state}"
    assert daemon.aimctl("get", "gpus").returncode == 0, "the first one goes on"


def test_modes_survive_a_restart(start) -> None:
    daemon = start()
    assert daemon.aimctl("set-mode", "gpu1", "CPX", "--name", "before").returncode == 0
    boot = daemon.get("node")["boot_id"]
    epochs = [gpu["mode_epoch"] for gpu in daemon.get("gpus")["gpus"]]
    assert daemon.stop() == 0
    assert "10 partitions" not in daemon.start()
    assert daemon.modes() == ["SPX/NPS1", "CPX/NPS1"]
    assert [gpu["mode_epoch"] for gpu in daemon.get("gpus")["gpus"]] == epochs, "no mode has changed meanwhile"
    assert daemon.get("gpus", "gpu1")["wish"] == "CPX"
    assert daemon.get("plans", "before")["state"] == "committed"
    assert daemon.get("node")["boot_id"] == boot


@pytest.mark.parametrize("running", [True, False])
def test_a_reboot_resets_modes_and_wishes_bring_them_back(start, running: bool) -> None:
    daemon = start()
    assert daemon.aimctl("set-mode", "gpu1", "CPX").returncode == 0
    boot = daemon.get("node")["boot_id"]
    if running:
        assert daemon.aimd("sim", "reset").returncode == 0
        assert daemon.stop() == 0
    else:
        assert daemon.stop() == 0
        result = daemon.aimd("sim", "reset", "--state-dir", str(daemon.state))
        assert (result.returncode, result.stdout) == (0, f"simulated node in {daemon.state}/sim.json rebooted\n")
    daemon.start()
    assert daemon.get("node")["boot_id"] != boot
    wait_until(lambda: daemon.modes() == ["SPX/NPS1", "CPX/NPS1"])
    wait_until(lambda: all(plan["final"] for plan in daemon.get("plans")["plans"]))
    assert [plan["origin"] for plan in daemon.get("plans")["plans"]] == ["client", "wish"]


def test_the_layout_is_applied_at_the_start(start, home: Path) -> None:
    config = home / "aimd.toml"
    config.write_text('[layout]\ndefault = "DPX"\ngpu1 = "CPX/NPS1"\n')
    daemon = start("mi300x:3", "--config", str(config))
    wait_until(lambda: daemon.modes() == ["DPX/NPS1", "CPX/NPS1", "DPX/NPS1"])
    wait_until(lambda: not any(gpu["drift"] for gpu in daemon.get("gpus")["gpus"]))


def test_a_damaged_ledger_is_told_and_the_daemon_starts(start) -> None:
    daemon = start()
    assert daemon.aimctl("set-mode", "gpu1", "CPX").returncode == 0
    assert daemon.stop() == 0
    (daemon.state / "ledger.db").write_bytes(b"garbage" * 1000)
    daemon.start()
    assert daemon.modes() == ["SPX/NPS1", "CPX/NPS1"], "modes come from the hardware"
    assert [event["kind"] for event in daemon.get("events")["events"]] == ["ledger_quarantined"]
    assert (daemon.state / "ledger.db.bad-1").exists()
    assert "ledger_quarantined" in daemon.log


@pytest.mark.parametrize("model", ["mi300a:4", "mi308x:8", "mi325x:1", "mi350x:2", "mi355x:2"])
def test_other_models(start, model: str) -> None:
    daemon = start(model)
    name, count = model.upper().split(":")
    assert [gpu["model"] for gpu in daemon.get("gpus")["gpus"]] == [name] * int(count)
    assert daemon.aimctl("set-mode", "gpu0", "CPX").returncode == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--simulate", "mi999x:8"), "mi999x:8"),
        (("--simulate", "mi300x"), "expected MODEL:COUNT"),
        (("--simulate", "mi300x:0"), "mi300x:0"),
        (("--simulate", "mi300x:2", "--profile", "5.4"), "5.4"),
        (("--simulate", "mi300x:2", "--sysfs-root", "/sys"), "--simulate and --sysfs-root exclude each other"),
        (("--profile", "7.2"), "--profile is that of a simulated node"),
        (("--simulate", "mi300x:2", "--config", "/nonexistent.toml"), "/nonexistent.toml cannot be read"),
        (("--simulate", "mi300x:2", "--state-dir", "/proc/aimd"), "/proc/aimd cannot be made"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(home: Path, options: tuple[str, ...], words: str) -> None:
    daemon = Daemon(home)
    directories = ("--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state))
    result = daemon.aimd("run", *directories, *options)
    assert result.returncode == 2
    assert words in one_sentence(result)


def test_a_node_without_the_driver_is_served_all_the_same(home: Path) -> None:
    """The API tells what is missing; the driver may be loaded later."""
    (home / "sys").mkdir()
    (home / "aimd.toml").write_text(f'sysfs_root = "{home}/sys"\npoll_seconds = 0.05\n')
    daemon = Daemon(home)
    directories = ("--runtime-dir", str(daemon.runtime), "--state-dir", str(daemon.state))
    process = subprocess.Popen(
        [*AIMD, "run", "--config", f"{home}/aimd.toml", *directories],
        env=daemon.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(daemon.socket.exists)
        node = daemon.get("node")
        assert (node["ready"], node["gpu_count"]) == (False, 0)
        assert node["warnings"][0].startswith(f"{home}/sys/class/kfd/kfd/topology cannot be read (No such file or")
        assert "driver is not loaded" in node["warnings"][0]
        write(home / "later", below("class/kfd/kfd/topology", mi308x_topology()))
        (home / "later/class").rename(home / "sys/class")  # at once, as a driver that is looked at after its load
        wait_until(lambda: daemon.get("node")["ready"])
        assert daemon.get("node")["partition_count"] == 8
    finally:
        process.terminate()
        _, told = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert "aimd is ready: node, 2 GPUs, 8 partitions" in told


# -- a user without privileges -------------------------------------------------------------------------------------

# As root: with all modules loaded before, since that user may not read where they are installed.
AS_USER = """
import contextlib, os, pkgutil, sys
import aimd
uid, program, *arguments = sys.argv[1:]
if os.getuid() == 0:
    for module in pkgutil.walk_packages(aimd.__path__, "aimd."):
        with contextlib.suppress(ImportError):  # what is not compiled, or needs libfuse
            "__main__" in module.name or __import__(module.name)
    import difflib, encodings.ascii, encodings.idna, encodings.latin_1, pwd, yaml
    os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
sys.argv = [program, *arguments]
if program == "aimd":
    from aimd.cli import main
else:
    from aimd.ctl.main import main
main()
"""


class User:
    """Somebody without privileges, with a home and a runtime directory as a login gives them."""

    def __init__(self, home: Path, uid: int) -> None:
        self.uid = uid
        self.runtime = home / f"run-{uid}"
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "HOME": str(home / f"home-{uid}"),
            "XDG_RUNTIME_DIR": str(self.runtime),
        }
        for path in (self.runtime, home / f"home-{uid}"):
            path.mkdir(mode=0o755)
            if os.getuid() == 0:
                os.chown(path, uid, uid)

    def command(self, program: str, *arguments: str) -> list[str]:
        return [sys.executable, "-c", AS_USER, str(self.uid), program, *arguments]

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = self.command(program, *arguments)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=SECONDS * 2)


def test_the_first_try_needs_no_root(home: Path) -> None:
    home.chmod(0o755)
    user = User(home, STRANGER if os.getuid() == 0 else os.getuid())
    process = subprocess.Popen(
        user.command("aimd", "run", "--simulate", "mi300x:8"), env=user.environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if "9855" not in line)  # another daemon's address for metrics
        assert line.endswith(f"8 GPUs, 8 partitions, API on {user.runtime}/aimd/aimd.sock\n"), line
        assert user.run("aimctl", "get", "gpus", "-o", "name").stdout.splitlines() == [f"gpu{n}" for n in range(8)]
        result = user.run("aimctl", "set-mode", "gpu0", "CPX/NPS1")
        assert result.returncode == 0, result.stderr
        assert user.run("aimd", "sim", "fault", "busy").returncode == 0
        state = Path(user.environment["HOME"], ".local/state/aimd")
        assert sorted(path.name for path in state.glob("*.db")) == ["ledger.db"]
        assert (state.stat().st_uid, state.stat().st_mode & 0o777) == (user.uid, 0o700)
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)
    assert process.returncode == 0


@pytest.mark.usefixtures("requires_root")
def test_another_user_looks_and_does_not_touch(start, home: Path) -> None:
    daemon = start()
    home.chmod(0o755)
    user = User(home, STRANGER)
    user.environment |= {"AIMD_SOCKET": str(daemon.socket), "AIMD_SIM_SOCKET": str(daemon.runtime / "sim.sock")}
    assert user.run("aimctl", "get", "gpus", "-o", "name").stdout == "gpu0\ngpu1\n"
    assert user.run("aimctl", "plan", "set-mode", "gpu0", "CPX").returncode == 0
    result = user.run("aimctl", "set-mode", "gpu0", "CPX")
    assert result.returncode == 4
    assert f"uid {STRANGER} may read but not change the node" in result.stderr
    assert user.run("aimd", "sim", "fault", "busy").returncode == 4
    assert daemon.modes() == ["SPX/NPS1", "SPX/NPS1"]


def test_aimctl_needs_the_daemon_alone(one: Daemon) -> None:
    """No variable but the socket's, and none of the simulator's."""
    result = subprocess.run(
        [*AIMCTL, "--socket", str(one.socket), "get", "node", "-o", "json"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert json.loads(result.stdout)["ready"] is True


def test_the_socket_is_everybodys(one: Daemon) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(one.socket))
    assert one.socket.stat().st_mode & 0o777 == 0o666
