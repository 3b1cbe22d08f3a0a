"""The device fence: when there can be none, what systemd is asked for, and that aimctl exec tells how it went."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from aimd.ctl.environment import render_minor
from aimd.ctl.fencing import Scope, System, enter, obstacle, request
from aimd.ctl.fencing import run as run_command
from aimd.domain.scope import escaped
from aimd.sim.node import SimulatedNode
from aimd.sim.state import new_state
from tests.fakes.api import FakeApi, World
from tests.unit.ctl.test_ctl_environment import GPU0, GPU1, copied_topology
from tests.unit.ctl.test_ctl_exec import aimctl_exec

SCOPE = Scope("aimd-claim-llama-7.99.scope", "llama", 7, 136)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that can fence; its process is in no scope yet."""
    for folder in ("run/systemd/system", "sys/fs/cgroup", "dev/dri", "proc/self"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("sys/fs/cgroup/cgroup.controllers", "dev/kfd"):
        (tmp_path / file).touch()
    moved(tmp_path, "/user.slice/session-1.scope")
    return tmp_path


def moved(root: Path, group: str) -> None:
    (root / "proc/self/cgroup").write_text(f"4:devices:/else\n0::{group}\n")


class FakeSystemd:
    """Takes requests and puts the process where it is to be."""

    def __init__(self, root: Path, group: str = f"/system.slice/{SCOPE.name}", failure: str | None = None) -> None:
        self.asked: list[Sequence[str]] = []
        self._root, self._group, self._failure = root, group, failure

    def __call__(self, words: Sequence[str]) -> str | None:
        self.asked.append(words)
        if self._failure is None:
            moved(self._root, self._group)
        return self._failure


@pytest.mark.parametrize(
    ("missing", "reason"),
    [
        ("run/systemd/system", "systemd does not run here"),
        ("sys/fs/cgroup/cgroup.controllers", "control groups are version 1 here, and fences need version 2"),
        ("dev/kfd", "there is no /dev/kfd here"),
    ],
)
def test_where_there_can_be_no_fence_nobody_is_asked(root: Path, missing: str, reason: str) -> None:
    path = root / missing
    path.rmdir() if path.is_dir() else path.unlink()
    systemd = FakeSystemd(root)
    assert obstacle(System(systemd, root)) == enter(SCOPE, System(systemd, root)) == reason
    assert systemd.asked == []


def test_the_process_is_in_its_scope_afterwards(root: Path) -> None:
    systemd = FakeSystemd(root)
    assert enter(SCOPE, System(systemd, root)) is None
    assert systemd.asked == [request(SCOPE)]


def test_what_is_asked_for() -> None:
    told = " ".join(request(SCOPE))
    assert told.startswith("busctl --system --quiet --allow-interactive-authorization=no --timeout=5 call ")
    assert " StartTransientUnit ssa(sv)a(sa(sv)) aimd-claim-llama-7.99.scope fail 5 PIDs au 1 7 Description s " in told
    assert told.endswith(
        " CollectMode s inactive-or-failed DevicePolicy s closed DeviceAllow a(ss) 2 /dev/kfd rw /dev/char/226:136 rw 0"
    )


def test_systemd_says_no(root: Path) -> None:
    assert enter(SCOPE, System(FakeSystemd(root, failure="systemd says no"), root)) == "systemd says no"


def test_systemd_starts_a_scope_after_its_answer(root: Path) -> None:
    late = threading.Timer(0.1, moved, (root, f"/system.slice/{SCOPE.name}/below"))
    late.start()
    assert enter(SCOPE, System(lambda _words: None, root)) is None
    late.join()


def test_a_scope_that_does_not_come(root: Path) -> None:
    other = FakeSystemd(root, group=f"/system.slice/{SCOPE.name}x")
    assert (
        enter(SCOPE, System(other, root, 0.05))
        == f"systemd was asked for {SCOPE.name} and has not made it in 0.05 seconds"
    )


def test_a_group_of_another_hierarchy_is_no_fence(root: Path) -> None:
    (root / "proc/self/cgroup").write_text(f"1:name=systemd:/system.slice/{SCOPE.name}\n0::/\n")
    assert enter(SCOPE, System(lambda _words: None, root, 0.05)) is not None


def test_rules_that_the_kernel_does_not_apply_are_noticed(root: Path) -> None:
    """A file that can be opened, in the place of another GPU's render node."""
    (root / "dev/dri/renderD128").touch()
    told = enter(SCOPE, System(FakeSystemd(root), root))
    assert told is not None
    assert told.endswith(f"does not apply its device rules: {root}/dev/dri/renderD128 is still open")


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    script = tmp_path / "busctl"
    script.write_text("#!/bin/sh\necho 'Call failed: Access denied.' >&2\nexit 1\n")
    script.chmod(0o755)
    assert run_command([str(script)]) == "systemd says no: Access denied"
    script.write_text("#!/bin/sh\nexit 7\n")
    assert run_command([str(script)]) == "systemd says no: busctl ended with 7"
    script.write_text("#!/bin/sh\nexit 0\n")
    assert run_command([str(script)]) is None
    assert run_command(["no-such-busctl"]) == "no-such-busctl is not installed"


def test_the_render_node_of_a_partition(tmp_path: Path) -> None:
    node = SimulatedNode(new_state("mi300x", 2, "7.2", switch_seconds=0, rebuild_seconds=0))
    node.write(f"bus/pci/drivers/amdgpu/{GPU0}/current_compute_partition", b"DPX")
    root = str(copied_topology(node, tmp_path))
    assert [render_minor(root, place) for place in (f"{GPU0}/0", f"{GPU0}/1", f"{GPU1}/0")] == [128, 129, 136]
    assert render_minor(root, f"{GPU0}/7") is None
    assert render_minor(str(tmp_path / "none"), f"{GPU0}/0") is None


@pytest.mark.parametrize(
    ("options", "reason"),
    [((), "the node is simulated and has no devices"), (("--fence", "none"), "--fence none asks for no fence")],
)
def test_why_there_is_no_fence_is_told_in_a_line(api: FakeApi, socket_path: Path, options, reason) -> None:
    (note,) = aimctl_exec(socket_path, "llama", *options, "--", "true").stderr.splitlines()
    assert note.startswith(f"note: llama is to use 0000:05:00.0/0, by its environment alone: {reason}. ")


def test_nothing_runs_without_a_fence_that_is_required(api: FakeApi, socket_path: Path) -> None:
    result = aimctl_exec(socket_path, "llama", "--fence", "require", "--", "echo", "ran")
    assert (result.returncode, result.stdout) == (4, "")
    assert result.stderr == (
        "error: llama cannot be fenced off on 0000:05:00.0/0: the node is simulated and has no devices\n"
        "hint: --fence auto runs it by its environment alone\n"
    )


def test_gpus_that_are_not_of_this_machine_are_not_fenced(
    api: FakeApi, world: World, socket_path: Path, tmp_path: Path
) -> None:
    """A render node's number in a captured tree may be another device's here."""
    node = SimulatedNode(new_state("mi300x", 1, "7.2", switch_seconds=0, rebuild_seconds=0))
    place = msgspec.structs.replace(world.environments[0], sysfs_root=str(copied_topology(node, tmp_path)))
    world.environments[0] = place
    result = aimctl_exec(socket_path, "llama", "--", "true")
    assert result.returncode == 0
    assert "its GPUs are not those of this machine's /sys" in result.stderr


def test_names_are_those_of_systemd_escape() -> None:
    names = ["llama", "llama-70b", ".x", "a.b:c_d", "a/b", "a b", "a\\b", "é", "a@b", "%n"]
    try:
        told = subprocess.run(["systemd-escape", *names], capture_output=True, text=True, check=True).stdout.split()
    except FileNotFoundError:
        pytest.skip("there is no systemd-escape here")
    assert [escaped(name) for name in names] == told
