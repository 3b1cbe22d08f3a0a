"""What the device cgroup of a process lets through, as far as it can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aimd.doctor.device_rules import allows, read_rules, rule_findings
from aimd.doctor.facts import Facts, KfdFacts
from aimd.doctor.finding import OK, WARN

FACTS = Facts("/sys", live=True, uid=0, kernel="7.2.0", kfd=KfdFacts(True, 8, 2))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (["a *:* rwm"], True),
        (["c 1:3 rwm", "c 226:* rw"], True),
        (["c *:* rwm"], True),
        (["c 226:128 rw"], False),
        (["c 226:* r"], False),
        (["b 226:* rwm"], False),
        (["c 2260:* rwm", "nonsense"], False),
        ([], False),
    ],
)
def test_rules(rules: list[str], expected: bool) -> None:
    assert allows(rules, 226) is expected


def cgroup(folder: Path, text: str) -> tuple[Path, Path]:
    proc, root = folder / "proc", folder / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(text)
    (root / "devices" / "pod").mkdir(parents=True)
    (root / "devices" / "pod" / "devices.list").write_text("c 1:3 rwm\nc 226:* rw\n")
    return proc, root


def test_version_1_is_read(tmp_path: Path) -> None:
    proc, root = cgroup(tmp_path, "4:memory:/pod\n3:devices:/pod\n0::/pod\n")
    assert read_rules(proc, root) == ("c 1:3 rwm", "c 226:* rw")


@pytest.mark.parametrize("text", ["0::/pod\n", "3:devices:/elsewhere\n", "", "nonsense\n"])
def test_what_cannot_be_read_is_unknown(tmp_path: Path, text: str) -> None:
    assert read_rules(*cgroup(tmp_path, text)) is None
    assert read_rules(tmp_path / "nowhere", tmp_path) is None


def test_findings() -> None:
    (unread,) = rule_findings(FACTS)
    assert unread.result == OK
    assert unread.message.endswith("(cgroup v2); KFD shows 8 GPU nodes and hides 2")
    (good,) = rule_findings(replace(FACTS, device_rules=("a *:* rwm",)))
    assert (good.result, good.hint) == (OK, None)
    (bad,) = rule_findings(replace(FACTS, device_rules=("c 1:3 rwm",)))
    assert bad.result == WARN
    assert "226" in (bad.hint or "")
    assert list(rule_findings(replace(FACTS, live=False))) == []
