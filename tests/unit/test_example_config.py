"""systemd/aimd.toml names every setting with its default, and is valid with and without its comment marks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, get_args, get_origin

import msgspec
import tomli

from aimd.config import Config, parse_config

EXAMPLE = (Path(__file__).parents[2] / "systemd" / "aimd.toml").read_text()
# A setting or a table's name behind a mark that is not followed by a blank: prose has one.
UNCOMMENTED = re.sub(r"^#(?=[\w\[\"])", "", EXAMPLE, flags=re.MULTILINE)
# What has no meaningful default to show: an example stands there instead.
EXAMPLES_ONLY = {"operators", "hip_library", "layout", "dispatch.allow", "kubernetes.node", "kubernetes.kubeconfig"}


def settings(struct: type[msgspec.Struct]) -> dict[str, object]:
    """Every setting by its dotted name, with its default."""
    found = {}
    for field in msgspec.structs.fields(struct):
        kind = get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            found |= {f"{field.name}.{name}": value for name, value in settings(kind).items()}
        else:
            found[field.name] = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return found


def flattened(table: dict, prefix: str = "") -> dict[str, object]:
    found = {}
    for name, value in table.items():
        inner = isinstance(value, dict) and f"{prefix}{name}" not in EXAMPLES_ONLY
        found |= flattened(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def test_as_it_is_it_changes_nothing() -> None:
    assert parse_config(EXAMPLE, "aimd.toml") == Config()


def test_uncommented_it_is_valid() -> None:
    config = parse_config(UNCOMMENTED, "aimd.toml")
    assert config.operators == ["alice", 1000]
    assert [str(mode) for mode in config.modes().values()] == ["SPX/NPS1", "CPX/NPS1", "DPX/?"]


def test_every_setting_is_there_with_its_default() -> None:
    expected, shown = settings(Config), flattened(tomli.loads(UNCOMMENTED))
    assert shown.keys() == expected.keys()
    assert {name: shown[name] for name in shown.keys() - EXAMPLES_ONLY} == {
        name: expected[name] for name in expected.keys() - EXAMPLES_ONLY
    }


def test_every_setting_is_explained_above_it() -> None:
    lines = EXAMPLE.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#\w+ = ", line) and lines[number - 1] != "#[layout]":
            assert lines[number - 1].startswith(("# ", "#default", "#gpu0")), line
