"""Every kind of event that the code tells is a known one, and the journal's catalog explains each."""

import ast
import re
from pathlib import Path

from aimd.adapters.journal import message_id
from aimd.domain.claim import ClaimState
from aimd.domain.event import KINDS, TROUBLES
from aimd.domain.switch import SwitchState

PROJECT = Path(__file__).parents[2]
CATALOG = PROJECT / "systemd/aimd.catalog"
METERING = PROJECT / "aimd/daemon/metering.py"  # its table of ends is about requests
# What is called with a kind of event as its first argument; what keeps claims and changes has it among the others.
TELLING = {"NodeEvent", "DriverEvent", "_Meaning", "_note", "about"}
KEEPING = {"keep", "_keep"}
TABLES = {"BEGUN", "ENDED"}
# Kinds that are made of a state; a switch is not told of before it begins.
OF_STATES = {
    "claim_": {f"claim_{state}" for state in ClaimState},
    "switch_": {f"switch_{state}" for state in SwitchState if state is not SwitchState.PLANNED},
}
KIND = re.compile(r"[a-z]+(_[a-z]+)*")


def kinds(expression):
    """Those that it may give, as far as they stand in it."""
    if isinstance(expression, ast.JoinedStr):
        yield from OF_STATES.get(getattr(expression.values[0], "value", None), ())
    elif isinstance(expression, ast.IfExp):
        yield from (*kinds(expression.body), *kinds(expression.orelse))
    elif isinstance(expression, ast.Constant) and KIND.fullmatch(str(expression.value)):
        yield expression.value


def told(node):
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
        arguments = node.args[:1] if name in TELLING else node.args if name in KEEPING else []
        yield from (kind for argument in arguments for kind in kinds(argument))
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict) and ast.unparse(node.targets[0]) in TABLES:
        yield from (kind for value in node.value.values for kind in kinds(value))


def kinds_in_code():
    """Where each was found first."""
    found = {}
    for path in sorted({*(PROJECT / "aimd").rglob("*.py")} - {METERING}):
        for node in ast.walk(ast.parse(path.read_text())):
            found.update({kind: path.name for kind in told(node) if kind not in found})
    return found


def test_all_kinds_that_are_told_are_known_and_all_known_ones_are_told():
    found = kinds_in_code()
    assert {kind: name for kind, name in found.items() if kind not in KINDS} == {}
    assert found.keys() >= KINDS


def test_the_catalog_explains_each_kind_under_its_id():
    entries = re.findall(r"^# (\w+)\n-- ([0-9a-f]{32})\nSubject: (.+)$", CATALOG.read_text(), re.MULTILINE)
    assert [(kind, identity) for kind, identity, _ in entries] == [(kind, message_id(kind)) for kind, _, _ in entries]
    assert sorted(kind for kind, _, _ in entries) == sorted(KINDS)
    assert TROUBLES < KINDS
