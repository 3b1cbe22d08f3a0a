"""Lists that go on."""

from __future__ import annotations

import json

import pytest
import yaml

from aimd.ctl.columns import EVENTS
from aimd.ctl.watching import StreamTable
from aimd.protocol.messages import ProblemMessage, to_builtins
from tests.fakes.api import World
from tests.unit.ctl import samples

CLAIMS = """\
TYPE       NAME           STATE                 QOS      MEMORY    GUARANTEE   REPLICAS   PLACES           REASON
ADDED      llama          placed                high     24 GB     4           2          gpu0/0, gpu0/1   -
ADDED      bert           pending               high     24 GB     4           1          -                no_room
MODIFIED   llama          placed                high     24 GB     4           2          gpu0/0, gpu0/1   -
DELETED    llama          placed                high     24 GB     4           2          gpu0/0, gpu0/1   -
"""


@pytest.mark.parametrize("kind", ["gpus", "partitions", "claims", "assignments", "models", "plans"])
def test_a_watch_prints_what_there_is_and_then_changes(aimctl, world: World, kind) -> None:
    result = aimctl("get", kind, "--watch")
    assert world.requests[-1].target == f"/v1/{kind}?watch=1"
    header, *lines = result.stdout.splitlines()
    assert header.split()[:2] == ["TYPE", "NAME"]
    assert [line.split()[0] for line in lines[-3:]] == ["ADDED", "MODIFIED", "DELETED"]
    assert result.exit_code == 3, "a stream without end has ended"
    assert result.stderr.startswith("error: aimd ended the stream\n")


def test_columns_stay_aligned_though_cells_come_later(aimctl) -> None:
    lines = [line.rstrip() for line in aimctl("get", "claims", "--watch").stdout.splitlines()]
    assert lines[1:] == CLAIMS.splitlines()[1:]
    assert lines[0].split() == CLAIMS.splitlines()[0].split()


def test_a_wider_cell_widens_the_lines_after_it() -> None:
    table = StreamTable(EVENTS, wide=False)
    event = to_builtins(samples.events()[0])
    before = table.row(event).index("3 GPUs")
    assert table.row(event | {"subject": "a-plan-with-a-long-name"}).index("3 GPUs") == before + 11
    assert table.row(event).index("3 GPUs") == before + 11


def test_watched_objects_in_other_formats(aimctl) -> None:
    lines = [json.loads(line) for line in aimctl("get", "claims", "--watch", "-o", "json").stdout.splitlines()]
    assert [(line["type"], line["generation"], line["object"]["name"]) for line in lines] == [
        ("ADDED", 7, "llama"),
        ("ADDED", 8, "bert"),
        ("MODIFIED", 9, "llama"),
        ("DELETED", 10, "llama"),
    ]
    assert list(yaml.safe_load_all(aimctl("get", "claims", "--watch", "-o", "yaml").stdout)) == lines
    assert aimctl("get", "claims", "--watch", "-o", "name").stdout == "llama\nbert\nllama\nllama\n"
    assert "LIMIT" in aimctl("get", "claims", "--watch", "-o", "wide").stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("gpus", "GPU1"), ["gpu1"]),
        (("gpus", "0000:05:00.0"), ["gpu0", "gpu0", "gpu0"]),
        (("partitions", "gpu1"), ["gpu1/0"]),
        (("partition", "0000:05:00.0/0"), ["gpu0/0", "gpu0/0", "gpu0/0"]),
        (("claims", "bert"), ["bert"]),
        (("claims", "not-yet-there"), []),
        (("assignments", "llama/1"), ["llama/1"]),
        (("assignments", "llama"), ["llama/0", "llama/1", "llama/0", "llama/0"]),
        (("plans", "set-mode-0"), ["set-mode-0"] * 3),
        (("models", "bert"), ["bert"]),
        (("events", "node"), ["1", "5"]),
    ],
)
def test_a_name_chooses(aimctl, arguments, names) -> None:
    assert aimctl("get", *arguments, "--watch", "-o", "name").stdout.split() == names


def test_get_events_watch_is_events_watch(aimctl) -> None:
    assert aimctl("get", "events", "--watch").stdout == aimctl("events", "--watch").stdout


def test_a_generation_that_is_gone_is_told(aimctl, world: World) -> None:
    world.overrides["GET /v1/claims"] = ProblemMessage(
        title="Gone", status=410, detail="generation 3 is gone", code="generation_gone", hint="begin anew"
    )
    result = aimctl("get", "claims", "--watch")
    assert (result.exit_code, result.stderr) == (1, "error: generation 3 is gone\nhint: begin anew\n")
