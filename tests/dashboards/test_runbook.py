"""The runbook: an entry per alert, and commands, options and settings that exist."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from aimd import cli
from aimd.ctl.main import COMMANDS, program
from dashboards import generate
from dashboards.rules import ALERTS

TEXT = (generate.HERE / "runbook.md").read_text()
SPANS = sorted(set(re.findall(r"`([^`]+)`", TEXT)))
OF_OTHERS = {"--gpu-memory-utilization"}


def test_every_alert_has_an_entry() -> None:
    entries = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
    assert list(entries) == [alert.name for alert in ALERTS]
    for name, entry in entries.items():
        found = re.findall(r"^\*\*(\w+)\*\* \S", entry, re.MULTILINE)
        assert found == ["Means", "Impact", "Look", "Do"], name


@pytest.mark.parametrize("span", [span for span in SPANS if span.startswith("aimctl ")])
def test_commands_of_aimctl_are_taken(span: str) -> None:
    _, name, *rest = shlex.split(span.replace("<", "").replace(">", ""))
    command = program.get_command(click.Context(program), name)
    assert command is not None, span
    if rest:
        command.make_context(name, rest)


@pytest.mark.parametrize("span", [span for span in SPANS if span.startswith("aimd ")])
def test_commands_of_aimd_exist(span: str) -> None:
    assert shlex.split(span)[1] in cli.main.commands


def test_options_that_are_named_alone_exist() -> None:
    named = {span for span in SPANS if span.startswith("--")} - OF_OTHERS
    commands = [program.get_command(click.Context(program), name) for name in COMMANDS]
    options = {option for command in commands if command for one in command.params for option in one.opts}
    assert named
    assert named <= options
