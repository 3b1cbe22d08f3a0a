"""`aimctl get slo` and `describe slo`: tables and description as golden text, models without an objective, formats."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from aimd.ctl.slo_columns import describe_slo, eaten
from aimd.errors import UnreachableError
from aimd.protocol.claims import SloMessage
from aimd.protocol.messages import to_builtins
from tests.unit.ctl import samples

TABLE = """\
NAME    TARGET   OBJECTIVE   GOOD      LATENCY   FLOOR   THROUGHPUT   BURN-1H   BURN-3D   ALERT    MOSTLY
llama   0.25 s   0.99        90.91 %   missed    -       unknown      9.09      9.09      ticket   late
"""

DESCRIBED = """\
Name:               llama
Latency:            0.25 s
Objective:          0.99 of requests well and in time
Throughput:         -
In the last hour:   90.91 % good: missed
Releases:           - while something waited: unknown
Alert:              ticket
Counted since:      2023-11-14T22:13:20Z
Good and bad:       110 and 11
Burn rates of the error budget:
  WINDOWS        LONG   SHORT   THRESHOLD   SEVERITY   FIRING
  1 h & 5 min    9.09   -       14.4        page       no
  6 h & 30 min   9.09   8       6           page       yes
  1 d & 2 h      9.09   8       3           ticket     yes
  3 d & 6 h      9.09   8       1           ticket     yes
What used it up:
  REASON    REQUESTS   SHARE
  late      5          45.5 %
  expired   4          36.4 %
  failed    2          18.2 %
"""


def payload(**changed: Any) -> Any:
    return to_builtins(msgspec.structs.replace(samples.model(), **changed))


def test_the_table_has_models_with_objectives_alone(aimctl) -> None:
    assert aimctl("get", "slo").stdout == TABLE
    assert aimctl("get", "slo", "llama").stdout == TABLE
    assert aimctl("get", "slo", "-o", "name").stdout == "llama\n"


def test_the_wide_table(aimctl) -> None:
    header = aimctl("get", "slo", "-o", "wide").stdout.splitlines()[0].split()
    assert header[-6:] == ["BURN-6H", "BURN-1D", "BURN-3D", "ALERT", "BAD", "MOSTLY"]


def test_described(aimctl) -> None:
    assert aimctl("describe", "slo", "llama").stdout == DESCRIBED


def test_json_is_the_api_s(aimctl) -> None:
    assert json.loads(aimctl("get", "slo", "llama", "-o", "json").stdout) == payload()
    assert [one["name"] for one in json.loads(aimctl("get", "slo", "-o", "json").stdout)["models"]] == ["llama"]
    assert json.loads(aimctl("describe", "slo", "llama", "-o", "json").stdout) == payload()


@pytest.mark.parametrize("command", ["get", "describe"])
def test_a_model_without_an_objective(aimctl, command) -> None:
    result = aimctl(command, "slo", "bert")
    assert result.exit_code == 6
    assert result.stderr.startswith(
        "error: model 'bert' has no objective, expected one whose claim has\nhint: aimctl claim"
    )


def test_watched_models_without_an_objective_are_left_out(aimctl) -> None:
    header, *rows = aimctl("get", "slo", "--watch").stdout.splitlines()
    assert header.split()[:4] == ["TYPE", "NAME", "TARGET", "OBJECTIVE"]
    assert rows[0].split()[:5] == ["ADDED", "llama", "0.25", "s", "0.99"]
    assert {row.split()[1] for row in rows} == {"llama"}
    assert set(aimctl("get", "slo", "llama", "--watch", "-o", "name").stdout.split()) == {"llama"}
    assert aimctl("get", "slo", "bert", "--watch", "-o", "name").stdout == ""


def test_an_objective_of_throughput_alone() -> None:
    kept = msgspec.structs.replace(samples.compliance(None), throughput="met", released_per_second=12.5)
    told = describe_slo(payload(slo=SloMessage(throughput_floor=5.0), compliance=kept))
    assert "Throughput:         5 releases/s while something waits\n" in told
    assert "Releases:           12.5/s while something waited: met\n" in told
    assert "Alert:              none\n" in told


def test_before_anything_was_read() -> None:
    told = describe_slo(payload(traffic=None, compliance=None))
    assert told.endswith("Counted since:   not yet: nothing was read of it so far\n")
    assert eaten(payload(traffic=None)) == {}


def test_nothing_bad() -> None:
    good = msgspec.structs.replace(samples.flow(), outcomes={"granted": 120}, ends={"ok": 120}, good=120, bad=0)
    told = describe_slo(payload(traffic=msgspec.structs.replace(samples.traffic(), whole=good)))
    assert told.endswith("What used it up: nothing\n")


def test_something_that_is_no_model() -> None:
    with pytest.raises(UnreachableError, match="no aimd of this version"):
        describe_slo({"name": "x"})
