"""Layout files and a running daemon: what apply makes of them, what assert, diff and export say, what is refused.

The daemon is the real program on a simulated node, aimctl runs in the test's process (and as a program where its exit
code or its patience is the point). What a file means is written down as a table of modes, not computed from it.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aimd.config import parse_layout
from aimd.ctl.main import program
from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state, restore
from tests.e2e.programs import AIMCTL, Daemon
from tests.fakes.node import ADDRESSES, FAST
from tests.integration.unix_http import ask

NOTHING = "nothing to do: the GPUs are in this layout\n"
SECONDS = 15
MODEL, COUNT, PROFILE = "mi300x", 4, "7.2"
SETTINGS = "poll_seconds = 0.05\n[switching]\nwait_seconds = 5\nwish_retry_seconds = 0.2\n"
WITH_MEMORY_MODES = f"allow_memory_mode_change = true\n{SETTINGS}"
FRESH = ["SPX/NPS1"] * COUNT


class Node:
    """A daemon on four MI300X, and aimctl with layouts that are written as lines."""

    def __init__(self, home: Path, settings: str) -> None:
        (home / "aimd.toml").write_text(settings)
        self.daemon = Daemon(home, f"{MODEL}:{COUNT}", "--config", str(home / "aimd.toml"))
        self.file = home / "layout.toml"
        self.state_file = self.daemon.state / "sim.json"
        self.daemon.state.mkdir(parents=True)
        SimulatedNode(new_state(MODEL, COUNT, PROFILE, load_seconds=0.005, **FAST), self.state_file)
        self.daemon.start()

    def layout(self, *lines: str) -> str:
        self.file.write_text("\n".join(["[layout]", *lines]) + "\n")
        return str(self.file)

    def aimctl(self, *arguments: str) -> Result:
        return CliRunner().invoke(program, ["--socket", str(self.daemon.socket), *arguments])

    def plans(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.daemon.get("plans")["plans"]
        return found

    def state(self) -> tuple[list[str], list[str | None], list[str]]:
        """Modes of the GPUs, their wishes, and the names of all changes."""
        gpus = self.daemon.get("gpus")["gpus"]
        wishes = [gpu["wish"] for gpu in gpus]
        return self.daemon.modes(), wishes, [plan["name"] for plan in self.plans()]

    def hardware(self) -> list[str]:
        state = restore(self.state_file.read_bytes())
        return [f"{gpu.compute}/{gpu.memory}" for gpu in state.gpus]

    def reboot(self) -> None:
        """While no daemon runs: all GPUs are in SPX/NPS1 then, and the boot has another id."""
        node = SimulatedNode.open(self.state_file, new_state(MODEL, COUNT, PROFILE))
        before = node.boot_id
        node.act(lambda driver, now: driver.reboot(now))
        assert node.boot_id != before
        assert self.hardware() == FRESH

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.state(), self.daemon.log)
            time.sleep(0.01)


@pytest.fixture(scope="module")
def module_node() -> Iterator[Node]:
    yield from _node(SETTINGS)


@pytest.fixture
def node() -> Iterator[Node]:
    yield from _node(SETTINGS)


@pytest.fixture
def memory_node() -> Iterator[Node]:
    """aimd may ask for memory modes there."""
    yield from _node(WITH_MEMORY_MODES)


def _node(settings: str) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        made = Node(Path(folder), settings)
        yield made
        made.daemon.close()


def shown(result: Result) -> list[list[str]]:
    """The lines of the table of differences, word by word."""
    table, *_ = result.stdout.split("\n\n")
    return [line.split() for line in table.splitlines()[1:]]


# -- there and back ----------------------------------------------------------------------------------------------------

# A layout, what it means for the four GPUs that are in the modes of the line before, and the GPUs that differ then.
ROUNDS: list[tuple[tuple[str, ...], list[str], list[str]]] = [
    (
        ('default = "CPX"', 'gpu1 = "DPX/NPS1"', '"0000:47:00.0" = "QPX"', 'gpu3 = "SPX/NPS1"'),
        ["CPX/NPS1", "DPX/NPS1", "QPX/NPS1", "SPX/NPS1"],
        ["gpu0", "gpu1", "gpu2"],
    ),
    (
        ('GPU3 = "qpx"', 'gpu0 = "NPS1"'),
        ["CPX/NPS1", "DPX/NPS1", "QPX/NPS1", "QPX/NPS1"],
        ["gpu3"],
    ),
    (
        ('"0000:27:00.0" = "CPX"', 'default = "DPX/NPS1"'),
        ["DPX/NPS1", "CPX/NPS1", "DPX/NPS1", "DPX/NPS1"],
        ["gpu0", "gpu1", "gpu2", "gpu3"],
    ),
]


def test_there_and_back(node: Node, tmp_path: Path) -> None:
    """Each of three mixed layouts: diff, apply, assert, diff, apply again, export; the first export brings all back."""
    first = tmp_path / "first.toml"
    assert node.aimctl("export", "-f", str(first)).exit_code == 0
    for number, (lines, meant, differing) in enumerate(ROUNDS, 1):
        path, before = node.layout(*lines), node.state()
        diff, check = node.aimctl("diff", "-f", path), node.aimctl("assert", "-f", path)
        assert (diff.exit_code, check.exit_code) == (1, 1)
        assert [words[0] for words in shown(diff)] == differing == [words[0] for words in shown(check)]
        assert diff.stdout.count("compute   0000:") == len(differing)
        assert node.state() == before, "neither changes anything"

        applied = node.aimctl("apply", "-f", path, "--name", f"round-{number}")
        assert (applied.exit_code, applied.stdout.splitlines()[0]) == (0, f"round-{number}: committed")
        assert node.daemon.modes() == node.hardware() == meant
        after = node.state()
        assert after[2] == [*before[2], f"round-{number}"], "one change for all"
        for command in ("assert", "diff"):
            result = node.aimctl(command, "-f", path)
            assert (result.exit_code, result.output) == (0, "")
        for name in ("another", f"round-{number}"):
            again = node.aimctl("apply", "-f", path, "--name", name)
            assert (again.exit_code, again.output) == (0, NOTHING)
        assert node.state() == after, "twice is once"

        exported = {address: str(mode) for address, mode in parse_layout(node.aimctl("export").stdout, "x").items()}
        assert exported == dict(zip(ADDRESSES, meant, strict=False))
    assert node.aimctl("apply", "-f", str(first)).exit_code == 0
    assert node.daemon.modes() == node.hardware() == FRESH
    assert node.aimctl("assert", "-f", str(first)).exit_code == 0


def test_a_layout_outlives_daemons_and_reboots(node: Node) -> None:
    """Within a boot the modes stay and nothing is done; after a reboot they are made anew."""
    lines, meant, _ = ROUNDS[0]
    path = node.layout(*lines)
    assert node.aimctl("apply", "-f", path).exit_code == 0
    for number in (signal.SIGTERM, signal.SIGKILL):
        before = node.state()
        node.daemon.stop(number)
        node.daemon.start()
        assert node.aimctl("apply", "-f", path).stdout == NOTHING
        assert node.state() == before
    exported = node.aimctl("export").stdout

    node.daemon.stop()
    node.reboot()
    node.daemon.start()
    node.until(lambda: node.daemon.modes() == meant and all(plan["final"] for plan in node.plans()))
    assert node.hardware() == meant
    assert node.aimctl("assert", "-f", path).exit_code == 0
    assert node.aimctl("export").stdout == exported
    assert node.aimctl("apply", "-f", path).stdout == NOTHING
    kinds = [event["kind"] for event in node.daemon.get("events")["events"]]
    assert kinds.count("rebooted") == 1
    assert [plan["origin"] for plan in node.plans()] == ["client", "wish"]


def test_memory_modes_come_with_a_driver_load(memory_node: Node) -> None:
    """apply asks for the mode and waits, meanwhile it is pending and not met; after a reboot the same again.

    gpu1 is in its compute mode when it is asked for, but the driver load chooses that anew for the whole hive.
    """
    node = memory_node
    assert node.aimctl("apply", "-f", node.layout('gpu1 = "QPX"'), "--name", "qpx").exit_code == 0
    path = node.layout('default = "CPX/NPS4"', 'gpu1 = "QPX"')
    before, meant = node.daemon.modes(), ["CPX/NPS4", "QPX/NPS4", "CPX/NPS4", "CPX/NPS4"]
    command = [*AIMCTL, "apply", "-f", path, "--name", "nps"]
    applying = subprocess.Popen(command, env=node.daemon.environment, stdout=subprocess.PIPE, text=True)
    try:
        node.until(lambda: [plan["state"] for plan in node.plans()] == ["committed", "awaiting_reload"])
        for what in ("assert", "diff"):
            result = node.aimctl(what, "-f", path)
            assert result.exit_code == 1
            assert [(words[0], words[-1]) for words in shown(result)] == [(f"gpu{n}", "NPS4") for n in (0, 2, 3)]
        again = node.aimctl("apply", "-f", path)
        assert again.exit_code == 1
        assert again.stderr.count("NPS4 is already requested and cannot be cancelled (memory_mode_pending)") == 3
        assert "reload the amdgpu driver" in again.stderr
        assert (node.daemon.modes(), applying.poll()) == (before, None)

        assert node.daemon.aimd("sim", "reload").returncode == 0
        told, _ = applying.communicate(timeout=SECONDS)
        assert (applying.returncode, told.splitlines()[0]) == (0, "nps: committed")
    finally:
        applying.kill()
        applying.communicate()
    assert node.daemon.modes() == node.hardware() == meant
    assert node.aimctl("assert", "-f", path).exit_code == 0
    assert node.aimctl("apply", "-f", path).stdout == NOTHING
    exported = node.aimctl("export").stdout

    node.daemon.stop()
    node.reboot()
    node.daemon.start()
    states = ["committed", "committed", "awaiting_reload", "committed"]  # the last: gpu1 needs no load to be in QPX
    node.until(lambda: [plan["state"] for plan in node.plans()] == states)
    assert node.aimctl("assert", "-f", path).exit_code == 1
    assert node.daemon.aimd("sim", "reload").returncode == 0
    node.until(lambda: node.daemon.modes() == meant)
    assert node.aimctl("export").stdout == exported
    kinds = [event["kind"] for event in node.daemon.get("events")["events"]]
    assert "wish_refused" not in kinds, "what is waited for is not refused"


def test_a_gpu_comes_back_to_its_layout_when_a_claim_has_left(node: Node) -> None:
    """Also to the mode that it was in when the layout was applied."""
    path = node.layout('gpu0 = "SPX/NPS1"')
    assert "nothing to do, the GPUs are in these modes" in node.aimctl("apply", "-f", path).stdout
    assert node.aimctl("apply", "-f", path).stdout == NOTHING
    wanted = {"memory_gb": 24, "compute_mode": "CPX", "partition": "gpu0/0"}
    assert ask(node.daemon.socket, "/v1/claims/llama", "PUT", wanted).status == 202
    node.until(lambda: node.daemon.get("claims", "llama")["state"] == "placed")
    assert node.daemon.modes() == ["CPX/NPS1", *FRESH[1:]]
    assert node.aimctl("assert", "-f", path).exit_code == 1
    assert ask(node.daemon.socket, "/v1/claims/llama", "DELETE").status == 200
    node.until(lambda: node.daemon.modes() == FRESH)
    assert node.aimctl("assert", "-f", path).exit_code == 0


# -- refused -----------------------------------------------------------------------------------------------------------

GOOD = 'gpu2 = "CPX"'  # beside each bad wish one that could be carried out
# Lines beside GOOD, exit codes of apply and diff, and what both say.
REFUSED = {
    "a mode that the model has not": (
        ('gpu1 = "TPX"',),
        (1, 1),
        (
            "GPU 0000:27:00.0 does not offer TPX with memory mode NPS1 (mode_not_available)",
            "it offers SPX, DPX, QPX, CPX there",
        ),
    ),
    "a memory mode that the policy does not allow": (
        ('gpu1 = "CPX/NPS4"',),
        (1, 1),
        (
            "GPU 0000:27:00.0 is in NPS1, NPS4 was wished, and changing memory modes is not allowed (memory_mode_disabled)",
            "set allow_memory_mode_change = true in aimd.toml",
        ),
    ),
    "a GPU that the node has not": (
        ('gpu4 = "CPX"', '"0000:99:00.0" = "CPX"'),
        (6, 6),
        ("layout.toml names 0000:99:00.0, gpu4, which this node has not", "aimctl get gpus lists what there is"),
    ),
    "no TOML": (("gpu1 = CPX",), (2, 2), ("layout.toml is no TOML: Invalid value (at line 3, column 8)",)),
    "no mode": (('gpu1 = "XPX"',), (2, 2), ("layout.gpu1: mode 'XPX' names 'XPX', which is no partition mode",)),
    "a name twice": (('gpu1 = "CPX"', 'GPU1 = "DPX"'), (2, 2), ("layout: gpu1 is named twice",)),
    "another table": (
        ("[placement]", 'repartition = "never"'),
        (2, 2),
        ("placement is unknown, expected one of layout",),
    ),
}


@pytest.mark.parametrize(("lines", "codes", "words"), REFUSED.values(), ids=REFUSED)
def test_a_layout_that_is_refused_changes_nothing(
    module_node: Node, lines: tuple[str, ...], codes: tuple[int, int], words: tuple[str, ...]
) -> None:
    node = module_node
    path, before = node.layout(GOOD, *lines), node.state()
    for command, code in zip(("apply", "diff"), codes, strict=True):
        result = node.aimctl(command, "-f", path)
        assert result.exit_code == code, result.output
        assert [each for each in words if each not in result.output] == [], result.output
        assert "Traceback" not in result.output
        assert not result.stderr or len([x for x in result.stderr.splitlines() if x.startswith("error: ")]) == 1
    assert node.aimctl("assert", "-f", path).exit_code == codes[1]
    assert node.state() == before
    assert node.hardware() == before[0]


def test_memory_modes_that_a_hive_cannot_have_together(memory_node: Node) -> None:
    """gpu0 is in its mode already: what the layout says of it counts all the same."""
    node = memory_node
    path, before = node.layout('gpu0 = "NPS1"', 'gpu1 = "CPX/NPS4"'), node.state()
    for command in ("apply", "diff"):
        result = node.aimctl(command, "-f", path)
        assert result.exit_code == 1
        assert (
            "share one memory mode, the wishes are 0000:05:00.0 NPS1, 0000:27:00.0 NPS4 (memory_mode" in result.output
        )
    assert node.state() == before
    assert [gpu["pending_memory_mode"] for gpu in node.daemon.get("gpus")["gpus"]] == [None] * COUNT


def test_exit_codes_of_the_program(module_node: Node, tmp_path: Path) -> None:
    """0 the same, 1 it differs, 2 no layout, 3 no daemon: what a script sees."""
    node = module_node
    same, other, bad = (tmp_path / name for name in ("same", "other", "bad"))
    same.write_text(node.aimctl("export").stdout)
    other.write_text('[layout]\ngpu3 = "DPX"\n')
    bad.write_text("[layout]\ngpu3\n")
    codes = [node.daemon.aimctl("diff", "-f", str(path)).returncode for path in (same, other, bad)]
    assert codes == [0, 1, 2]
    assert node.daemon.aimctl("--socket", str(tmp_path / "none"), "diff", "-f", str(same)).returncode == 3


def test_a_gpu_with_claims(node: Node) -> None:
    """Refused with the claims' names, and nothing else is done either; with --drain they are placed again."""
    for name in ("llama", "mistral"):
        answer = ask(node.daemon.socket, f"/v1/claims/{name}", "PUT", {"memory_gb": 12, "partition": "gpu1/0"})
        assert answer.status in (200, 201), answer
    path, before = node.layout(GOOD, 'gpu1 = "CPX"'), node.state()
    for command, code in (("diff", 1), ("apply", 5)):
        result = node.aimctl(command, "-f", path)
        assert result.exit_code == code
        assert "GPU 0000:27:00.0 is in use by claims: llama, mistral (gpu_in_use)" in result.output
        assert "with --drain" in result.output
    assert node.state() == before
    answer = ask(node.daemon.socket, "/v1/claims/llama", "DELETE")
    assert answer.status == 200
    assert "is in use by claims: mistral (gpu_in_use)" in node.aimctl("apply", "-f", path).output
    planned = node.aimctl("diff", "-f", path, "--drain")
    assert (planned.exit_code, "refused" in planned.output) == (1, False)
    assert node.aimctl("apply", "-f", path, "--drain").exit_code == 0
    assert node.daemon.modes() == node.hardware() == ["SPX/NPS1", "CPX/NPS1", "CPX/NPS1", "SPX/NPS1"]
    node.until(lambda: node.daemon.get("claims", "mistral")["state"] == "placed")


def test_a_gpu_that_a_process_holds(node: Node) -> None:
    """Named and waited for; then it is busy. What was switched before it stays, what comes after is not tried."""
    holder = node.daemon.hold("--gpu", "gpu1")
    try:
        path = node.layout('gpu0 = "DPX"', 'gpu1 = "CPX"', 'gpu3 = "CPX"')
        node.until(lambda: f"{holder.pid} " in node.aimctl("diff", "-f", path).stdout)
        diff = node.aimctl("diff", "-f", path)
        assert diff.exit_code == 1
        assert "These processes would be waited for:" in diff.stdout
        result = node.aimctl("apply", "-f", path, "--wait", "0.2")
        assert result.exit_code == 5, result.output
        assert f"GPU 0000:27:00.0 is in use by pid {holder.pid}" in result.stdout
        assert "(gpu_busy)" in result.stdout
        assert "0000:65:00.0 SPX/NPS1 -> CPX/NPS1: not tried" in result.stdout
        assert holder.poll() is None, "nobody was signalled"
        assert node.daemon.modes() == node.hardware() == ["DPX/NPS1", "SPX/NPS1", "SPX/NPS1", "SPX/NPS1"]
        assert [words[0] for words in shown(node.aimctl("assert", "-f", path))] == ["gpu1", "gpu3"]
    finally:
        holder.kill()
        holder.communicate()
    assert node.aimctl("apply", "-f", path, "--wait", "5").exit_code == 0
    assert node.daemon.modes() == node.hardware() == ["DPX/NPS1", "CPX/NPS1", "SPX/NPS1", "CPX/NPS1"]
