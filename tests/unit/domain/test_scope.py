"""Names of scopes: made for a holder, and told back from the path of a control group."""

from __future__ import annotations

import pytest

from aimd.domain.scope import MOST_NAME, escaped, holder_of_scope, scope_name

NAME = r"aimd-claim-llama\x2d70b-4711.88.scope"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("llama", "llama"),
        ("llama-70b", r"llama\x2d70b"),
        ("team/llama", "team-llama"),
        (".hidden.x", r"\x2ehidden.x"),
        ("a b@c%d", r"a\x20b\x40c\x25d"),
        ("é", r"\xc3\xa9"),
        ("a\\b", r"a\x5cb"),
        ("a:b_c", "a:b_c"),
    ],
)
def test_what_a_units_name_cannot_carry_is_escaped(text, expected) -> None:
    assert escaped(text) == expected


def test_a_name_tells_claim_and_holder() -> None:
    assert scope_name("llama-70b", 4711, 88) == NAME


def test_a_long_name_is_cut_before_an_escape_and_keeps_its_number() -> None:
    name = scope_name("-" * 200, 4194304, 2**40)
    assert len(name) <= MOST_NAME
    assert name.endswith(r"\x2d-4194304.1099511627776.scope")
    assert holder_of_scope(f"/system.slice/{name}") == (4194304, 2**40)


@pytest.mark.parametrize(
    "path",
    [
        f"/system.slice/{NAME}",
        f"/system.slice/{NAME}/workers/3",
        f"/../../system.slice/{NAME}",
    ],
)
def test_processes_of_a_scope(path) -> None:
    assert holder_of_scope(path) == (4711, 88)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/system.slice/aimd.service",
        "/system.slice/aimd-claim-llama-4711.scope",
        "/system.slice/aimd-claim-llama-0.88.scope",
        "/system.slice/aimd-claim-llama-4711.88.service",
        f"/system.slice/x{NAME}",
        f"/system.slice/{NAME}x",
        # Whoever has a part of the tree of his own can make any name there.
        f"/user.slice/user-1000.slice/user@1000.service/{NAME}",
        f"/user.slice/user-1000.slice/user@1000.service/system.slice/{NAME}",
        f"/system.slice/other.service/{NAME}",
        f"/kubepods.slice/pod.slice/system.slice/{NAME}",
        NAME,
    ],
)
def test_no_other_control_group_tells_of_a_holder(path) -> None:
    assert holder_of_scope(path) is None
