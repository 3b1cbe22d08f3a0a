"""aimctl as a process: what it imports, signals, pipes, permissions, a terminal."""

from __future__ import annotations

import ast
import os
import pty
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import aimd
from tests.fakes.api import FakeApi, World

ROOT = Path(aimd.__file__).parent.parent
NOBODY = 65534


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aimd.ctl", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **more}


def run(*arguments: str, env: dict[str, str] | None = None, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), env=env or environment(), capture_output=True, text=True, timeout=60, **options
    )


def test_a_table(api: FakeApi, socket_path: Path) -> None:
    result = run("get", "gpus", env=environment(AIMD_SOCKET=str(socket_path)))
    assert result.returncode == 0
    assert result.stdout.startswith("NAME   PCI-ADDRESS    MODEL")


def run_as_a_user(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    """As nobody where the tests run as root; the modules are loaded before, since nobody may not read them."""
    program = (
        "import os, sys\nfrom aimd.ctl.main import main\n"
        f"if os.getuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"sys.argv[1:] = {list(arguments)!r}\nmain()"
    )
    return subprocess.run(
        [sys.executable, "-c", program], env=environment(**env), capture_output=True, text=True, timeout=60
    )


def test_a_users_default_socket() -> None:
    result = run_as_a_user("get", "gpus", XDG_RUNTIME_DIR="/nonexistent/user/1000")
    assert (result.returncode, result.stdout) == (3, "")
    assert "/nonexistent/user/1000/aimd/aimd.sock: No such file" in result.stderr


def test_a_user_without_any_directory() -> None:
    result = run_as_a_user("get", "gpus", HOME="")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("error: the path of aimd.sock is unknown: none of XDG_RUNTIME_DIR")


def test_exit_codes_reach_the_shell(api: FakeApi, socket_path: Path) -> None:
    assert run("--socket", f"{socket_path}.none", "get", "gpus").returncode == 3
    assert run("--socket", str(socket_path), "get", "gpus", "gpu9").returncode == 6
    assert run("get", "clouds").returncode == 2
    assert run("--help").returncode == 0


NEVER = {"aiohttp", "asyncio", "kubernetes", "msgspec", "rich", "yaml", "pyroute2", "sqlite3"}
BASE = {"aimd", "aimd.errors", "aimd.exits", "aimd.rundirs"}
LEAVES = {
    "aimd.domain",
    "aimd.domain.budget",
    "aimd.domain.memory",
    "aimd.domain.ranges",
}  # need the standard library and errors alone
# What some commands need beside: the layout file's rules, and the doctor's own package.
MORE = {
    "cluster_findings.py": {"aimd.doctor.finding"},
    "columns.py": LEAVES,
    "slo_columns.py": LEAVES,
    "claiming.py": LEAVES,
    "layouts.py": {"aimd.config"},
    "checking.py": {f"aimd.doctor.{name}" for name in ("finding", "files", "preflight", "reading")}
    | {f"aimd.doctor.{name}" for name in ("commands", "unit_reading", "units")},
    "executing.py": {"aimd.domain.scope"},
    "own.py": {"aimd.dispatch.client.own"},
    "examination.py": {"aimd.doctor.finding", "aimd.doctor.library"},
    "gating.py": {"aimd.dispatch.gate.settings", "aimd.dispatch.gate.server"},  # the latter when the gate runs
}


def imported(*arguments: str) -> set[str]:
    program = (
        "import sys\nfrom aimd.ctl.main import program\n"
        f"try: program({list(arguments)!r}, prog_name='aimctl')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return set(result.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "gpus"),
        ("describe", "gpu", "gpu0"),
        ("set-mode", "gpu1", "DPX"),
        ("claim", "new", "--memory", "24"),
        ("release", "llama"),
        ("drain", "gpu0"),
        ("reload",),
        ("export",),
    ],
)
def test_starts_light(api: FakeApi, socket_path: Path, arguments) -> None:
    modules = imported("--socket", str(socket_path), *arguments)
    assert {name.partition(".")[0] for name in modules} & NEVER == set()
    ours = {name for name in modules if name.partition(".")[0] == "aimd" and not name.startswith("aimd.ctl")}
    assert BASE <= ours <= BASE | LEAVES


def test_yaml_is_imported_for_yaml(api: FakeApi, socket_path: Path) -> None:
    assert "yaml" in imported("--socket", str(socket_path), "get", "gpus", "-o", "yaml")


def test_no_module_of_aimctl_imports_what_is_not_its() -> None:
    """Also inside functions: what only some path imports is not seen by running the others."""
    allowed = re.compile(r"aimd|aimd\.(errors|exits|rundirs|ctl(\..+)?)")
    for path in (ROOT / "aimd" / "ctl").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            ours = {name for name in names if name.partition(".")[0] == "aimd"} - MORE.get(path.name, set())
            assert all(allowed.fullmatch(name) for name in ours), (path.name, ours)
            assert not {"asyncio", "aiohttp", "kubernetes", "msgspec"} & set(names), path.name


@pytest.mark.parametrize("module", ["click", "aimd.ctl.main"])
def test_a_command_imports_its_own_modules_alone(api: FakeApi, socket_path: Path, module) -> None:
    modules = imported("--socket", str(socket_path), "get", "gpus")
    assert module in modules
    assert (
        not {f"aimd.ctl.{name}" for name in ("claiming", "layouts", "checking", "executing", "environment")} & modules
    )


def test_a_reader_that_goes_away(api: FakeApi, world: World, socket_path: Path) -> None:
    world.events = world.events * 5000
    process = subprocess.Popen(
        command("--socket", str(socket_path), "events", "--watch"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_an_output_that_is_full(api: FakeApi, socket_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            command("--socket", str(socket_path), "get", "gpus", "-o", "json"),
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (result.returncode, result.stderr) == (
        1,
        "error: the output could not be written: No space left on device\n",
    )


def interrupt_when_it_says(arguments: list[str], word: bytes, *, stream: str) -> tuple[int, bytes]:
    process = subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while word not in (line := getattr(process, stream).readline()):
        assert line, "it ended too early"
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    return process.returncode, rest


def test_ctrl_c_ends_a_watch(api: FakeApi, world: World, socket_path: Path) -> None:
    world.hold_watch = True
    arguments = command("--socket", str(socket_path), "events", "--watch")
    assert interrupt_when_it_says(arguments, b"driver_reloaded", stream="stdout") == (130, b"")


def test_ctrl_c_leaves_the_change_to_the_daemon_and_says_so(api: FakeApi, world: World, socket_path: Path) -> None:
    world.change, world.hold_watch = world.change[:3], True
    arguments = command("--socket", str(socket_path), "set-mode", "gpu1", "DPX", "--name", "mine")
    code, rest = interrupt_when_it_says(arguments, b"switching", stream="stderr")
    assert code == 130
    assert rest.strip() == b"mine goes on without aimctl; see it with: aimctl describe plan mine"


def test_a_socket_that_this_user_may_not_use(api: FakeApi, socket_path: Path) -> None:
    socket_path.parent.chmod(0o755)
    socket_path.chmod(0o600 if os.getuid() == 0 else 0)
    result = run_as_a_user("--socket", str(socket_path), "get", "gpus")
    assert result.returncode == 4
    assert result.stderr.startswith(f"error: the socket {socket_path} may not be used by this user\nhint: ")


def on_a_terminal(arguments: list[str], **env: str) -> tuple[int, str, str]:
    """Exit code, stdout, and what the terminal at stderr was sent."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        arguments, env=environment(**env), stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # EIO: the other end was closed
                break
            if not piece:
                break
            shown += piece
        stdout = process.stdout.read()
    os.close(ours)
    return process.returncode, stdout, shown.decode()


def test_progress_on_a_terminal_is_live(api: FakeApi, world: World, socket_path: Path) -> None:
    arguments = command("--socket", str(socket_path), "set-mode", "gpu1", "DPX/NPS1", "--name", "mine")
    code, stdout, shown = on_a_terminal(arguments, TERM="xterm", COLUMNS="160")
    assert (code, stdout) == (0, "mine: committed\ngpu1 SPX/NPS1 -> DPX/NPS1\n")
    assert "\x1b[?25l" in shown
    assert shown.index("\x1b[?25l") < shown.rindex("\x1b[?25h"), "the cursor is back"
    assert "gpu1 SPX/NPS1 -> DPX/NPS1" in shown
    assert "committed" in shown


def test_a_dumb_terminal_gets_lines(api: FakeApi, socket_path: Path) -> None:
    arguments = command("--socket", str(socket_path), "set-mode", "gpu1", "DPX/NPS1")
    code, _, shown = on_a_terminal(arguments, TERM="dumb")
    assert code == 0
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 4


def test_a_list_takes_less_than_200_ms(api: FakeApi, socket_path: Path) -> None:
    """Of processor time, the best of five: the machine may be busy, aimctl may not be slow."""
    best = 1e9
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run("--socket", str(socket_path), "get", "gpus", check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best < 0.2
