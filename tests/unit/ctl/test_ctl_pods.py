"""Claims that pods have made: whose replica is which pod, in tables and descriptions."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from click.testing import Result

from aimd.protocol.claims import PodMessage
from tests.fakes.api import World
from tests.unit.ctl import samples

NAMES = ("llama-7d9-a", "llama-7d9-b")


@pytest.fixture
def pods(world: World) -> None:
    """The claim default/llama of two pods, beside llama, which none has made."""
    claim = samples.claim(name="default/llama")
    pods = [PodMessage(namespace="default", name=name, uid=f"u-{name}", replica=n) for n, name in enumerate(NAMES)]
    places = [msgspec.structs.replace(each, pod=f"default/{NAMES[each.replica]}") for each in claim.assignments]
    world.claims["default/llama"] = [msgspec.structs.replace(claim, pods=pods, assignments=places)]


def column(table: str, header: str) -> list[str]:
    """Cells may have single spaces, columns are two apart."""
    lines = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in table.splitlines()]
    return [line[lines[0].index(header)] for line in lines[1:]]


@pytest.mark.usefixtures("pods")
def test_wide_tables_name_the_pods(aimctl: Callable[..., Result]) -> None:
    claims = aimctl("get", "claims", "-o", "wide").stdout
    assert dict(zip(column(claims, "NAME"), column(claims, "PODS"), strict=True)) == {
        "default/llama": "default/llama-7d9-a, default/llama-7d9-b",
        **{name: "-" for name in column(claims, "NAME") if name != "default/llama"},
    }
    assignments = aimctl("get", "assignments", "-o", "wide").stdout
    named = dict(zip(column(assignments, "NAME"), column(assignments, "POD"), strict=True))
    assert {name: named[name] for name in ("default/llama/0", "default/llama/1", "llama/0")} == {
        "default/llama/0": "default/llama-7d9-a",
        "default/llama/1": "default/llama-7d9-b",
        "llama/0": "-",
    }


@pytest.mark.usefixtures("pods")
def test_a_claim_is_described_with_its_pods_and_only_then(aimctl: Callable[..., Result]) -> None:
    told = aimctl("describe", "claim", "default/llama").stdout
    section = told[told.index("Pods:") : told.index("Assignments:")]
    assert [line.split() for line in section.splitlines()[1:]] == [
        ["POD", "REPLICA", "UID"],
        ["default/llama-7d9-a", "0", "u-llama-7d9-a"],
        ["default/llama-7d9-b", "1", "u-llama-7d9-b"],
    ]
    assert "Pods:" not in aimctl("describe", "claim", "llama").stdout
