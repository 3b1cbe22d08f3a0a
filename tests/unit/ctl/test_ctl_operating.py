"""drain, undrain and reload against the fake API."""

from __future__ import annotations

import json

import pytest

from aimd.protocol.messages import ProblemMessage, ReloadMessage
from tests.fakes.api import Raw, World


def test_drain_tells_who_is_there(aimctl, world: World) -> None:
    result = aimctl("drain", "gpu0", "0000:26:00.0")
    assert (result.exit_code, result.stdout) == (
        0,
        "gpu0: draining, still there: llama/0, llama/1\ngpu1: draining, nothing is placed there\n",
    )
    assert [(each.method, each.target) for each in world.requests if each.method == "PUT"] == [
        ("PUT", "/v1/gpus/gpu0/drain"),
        ("PUT", "/v1/gpus/0000:26:00.0/drain"),
    ]


def test_undrain(aimctl, world: World) -> None:
    aimctl("drain", "gpu0")
    assert aimctl("undrain", "gpu0").stdout == "gpu0: open for claims\n"
    assert world.requests[-1].method == "DELETE"


@pytest.mark.parametrize(("command", "draining"), [("drain", True), ("undrain", False)])
def test_other_formats(aimctl, command, draining) -> None:
    (gpu,) = json.loads(aimctl(command, "gpu1", "-o", "json").stdout)["gpus"]
    assert (gpu["name"], gpu["draining"]) == ("gpu1", draining)
    assert aimctl(command, "gpu1", "-o", "name").stdout == "gpu1\n"


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_all_are_tried_and_the_first_error_counts(aimctl, world: World, command) -> None:
    method = "PUT" if command == "drain" else "DELETE"
    world.overrides[f"{method} /v1/gpus/gpu2/drain"] = ProblemMessage(
        title="No", status=403, detail="no", code="denied"
    )
    result = aimctl(command, "gpu9", "gpu2", "gpu1", "-o", "name")
    assert (result.exit_code, result.stdout) == (6, "gpu1\n")
    assert result.stderr.count("error: ") == 2


@pytest.mark.parametrize("command", ["drain", "undrain"])
def test_a_gpu_is_needed(aimctl, world: World, command) -> None:
    assert (aimctl(command).exit_code, aimctl(command, "..").exit_code, world.requests) == (2, 2, [])


def test_reload(aimctl, world: World) -> None:
    result = aimctl("reload")
    assert (result.exit_code, result.stdout) == (0, "reloaded, nothing has changed\n")
    assert [(each.method, each.target) for each in world.requests] == [("POST", "/v1/reload")]
    world.reload = ReloadMessage(changed=["log_level", "layout"], needs_restart=["sysfs_root"])
    assert aimctl("reload").stdout == (
        "reloaded, changed: log_level, layout\nthese need a restart of aimd to take effect: sysfs_root\n"
    )
    assert aimctl("reload", "-o", "name").stdout == "log_level\nlayout\n"
    assert json.loads(aimctl("reload", "-o", "json").stdout)["needs_restart"] == ["sysfs_root"]


def test_an_invalid_configuration_is_shown_and_is_2(aimctl, world: World) -> None:
    world.overrides["POST /v1/reload"] = ProblemMessage(
        title="Bad request",
        status=400,
        detail="/etc/aimd/aimd.toml: Expected `float`, got `str` - at `$.poll_seconds`",
        code="config_invalid",
        hint="the old configuration stays in force",
    )
    result = aimctl("reload")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: /etc/aimd/aimd.toml: Expected `float`, got `str` - at `$.poll_seconds`\n"
        "hint: the old configuration stays in force\n"
    )


def test_a_strange_answer_is_one_sentence(aimctl, world: World) -> None:
    world.overrides["POST /v1/reload"] = Raw(b"{}")
    assert aimctl("reload").exit_code == 3
