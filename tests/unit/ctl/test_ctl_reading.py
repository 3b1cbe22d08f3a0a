"""get, describe, events and version against the fake API."""

from __future__ import annotations

import json

import pytest
import yaml

import aimd
from aimd.protocol.messages import ProblemMessage, to_builtins
from tests.fakes.api import Raw, World
from tests.unit.ctl import samples


@pytest.mark.parametrize(
    ("arguments", "first_column"),
    [
        (("gpus",), ["gpu0", "gpu1", "gpu2"]),
        (("gpu",), ["gpu0", "gpu1", "gpu2"]),
        (("gpus", "gpu1"), ["gpu1"]),
        (("gpus", "GPU1"), ["gpu1"]),
        (("gpu", "0000:26:00.0"), ["gpu1"]),
        (("partitions",), ["gpu0/0", "gpu0/1", "gpu1/0", "gpu2/0"]),
        (("partitions", "gpu0"), ["gpu0/0", "gpu0/1"]),
        (("partitions", "0000:05:00.0/1"), ["gpu0/1"]),
        (("partition", "gpu1/0"), ["gpu1/0"]),
        (("plans",), ["set-mode-0"]),
        (("plan", "set-mode-0"), ["set-mode-0"]),
        (("claims",), ["llama", "bert"]),
        (("claim", "llama"), ["llama"]),
        (("assignments",), ["llama/0", "llama/1"]),
        (("assignments", "llama"), ["llama/0", "llama/1"]),
        (("assignments", "bert"), []),
        (("assignment", "llama/1"), ["llama/1"]),
        (("events",), ["1", "2", "5"]),
        (("events", "node"), ["1", "5"]),
        (("events", "gpu1"), ["2"]),
        (("events", "0000:26:00.0"), ["2"]),
        (("events", "gpu7"), []),
        (("node",), ["node"]),
    ],
)
def test_get(aimctl, arguments, first_column) -> None:
    names = aimctl("get", *arguments, "-o", "name")
    assert (names.exit_code, names.output.split()) == (0, first_column)
    table = aimctl("get", *arguments)
    assert (table.exit_code, len(table.stdout.splitlines())) == (0, 1 + len(first_column))
    wide = aimctl("get", *arguments, "-o", "wide")
    assert len(wide.stdout.splitlines()) == len(table.stdout.splitlines())
    as_json, as_yaml = aimctl("get", *arguments, "-o", "json"), aimctl("get", *arguments, "-o", "yaml")
    assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout)


def test_json_is_the_message(aimctl) -> None:
    assert json.loads(aimctl("get", "gpus", "-o", "json").stdout) == to_builtins(samples.inventory())


def test_the_daemon_is_asked_as_it_wants_to_be(aimctl, world: World) -> None:
    aimctl("get", "gpus", "0000:26:00.0")
    aimctl("describe", "plan", "a b/c?d")
    aimctl("get", "gpus", "..")
    aimctl("get", "partitions", "../0")
    assert [(each.method, each.target, each.host) for each in world.requests] == [
        ("GET", "/v1/gpus/0000:26:00.0", "aimd"),
        ("GET", "/v1/plans/a%20b%2Fc%3Fd", "aimd"),
    ]


def test_warnings_do_not_meet_a_pipe(aimctl) -> None:
    result = aimctl("get", "gpus")
    assert "warning" not in result.stdout
    assert result.stderr == "warning: gpu2: mem_banks cannot be read\n"
    assert aimctl("get", "gpus", "-o", "json").stderr == ""
    assert aimctl("get", "node").stderr == "warning: the ledger was rebuilt\n"


@pytest.mark.parametrize(
    ("what", "name"),
    [("gpu", "gpu1"), ("partition", "gpu1/0"), ("claim", "llama"), ("model", "llama"), ("plan", "set-mode-0")],
)
def test_describe(aimctl, what, name) -> None:
    text = aimctl("describe", what, name)
    assert text.exit_code == 0
    assert text.stdout.splitlines()[0].split() == ["Name:", name]
    assert aimctl("describe", what, name, "-o", "wide").stdout == text.stdout
    assert json.loads(aimctl("describe", what, name, "-o", "json").stdout)["name"] == name
    assert yaml.safe_load(aimctl("describe", what, name, "-o", "yaml").stdout)["name"] == name
    assert aimctl("describe", what, name, "-o", "name").stdout == f"{name}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "gpus", "gpu9"),
        ("get", "partitions", "gpu9"),
        ("get", "partitions", "gpu0/9"),
        ("get", "claims", "nothing"),
        ("get", "assignments", "nothing"),
        ("get", "assignments", "llama/7"),
        ("get", "gpus", "gpu9", "--watch"),
        ("get", "partitions", "gpu9/1", "--watch"),
        ("describe", "claim", "nothing"),
        ("describe", "plan", "nothing"),
        ("get", "models", "nothing"),
        ("describe", "model", "nothing"),
    ],
)
def test_what_is_not_there_is_6(aimctl, arguments) -> None:
    result = aimctl(*arguments)
    assert (result.exit_code, result.stdout) == (6, "")
    error, hint = result.stderr.splitlines()
    assert error.endswith("does not exist")
    assert hint == "hint: aimctl get gpus lists what there is"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("get", "clouds"),
        ("get", "node", "here"),
        ("get", "node", "--watch"),
        ("get", "partitions", "gpu0/x"),
        ("get", "assignments", "llama/x"),
        ("describe", "assignment", "llama/0"),
        ("describe", "partition", "gpu0"),
        ("describe", "gpu"),
        ("get", "gpus", ""),
        ("get", "gpus", "-o", "xml"),
        ("--timeout", "0", "get", "gpus"),
        ("--timeout", "nan", "get", "gpus"),
        ("top", "--interval", "nan"),
        ("top", "--interval", "0.1"),
        (
            "gate",
            "--model",
            "llama",
            "--listen",
            "127.0.0.1:9",
            "--upstream",
            "http://127.0.0.1:1",
            "--patience",
            "nan",
        ),
        ("--timeout", "inf", "get", "gpus"),
        ("--timeout", "1e300", "get", "gpus"),
        ("set-mode", "gpu0", "CPX", "--wait", "nan"),
        ("events", "--since", "-1"),
    ],
)
def test_usage_is_2_and_asks_nothing(aimctl, world: World, arguments) -> None:
    assert (aimctl(*arguments).exit_code, world.requests) == (2, [])


@pytest.mark.parametrize(("status", "code"), [(400, 2), (403, 4), (404, 6), (409, 5), (422, 1), (500, 1), (503, 3)])
def test_problems(aimctl, world: World, status, code) -> None:
    world.overrides["GET /v1/node"] = ProblemMessage(
        title="No", status=status, detail="the node is \x1b[2Jnot for you", code="some_code", hint="ask nicely"
    )
    result = aimctl("get", "node")
    assert result.exit_code == code
    assert result.stderr == "error: the node is \N{REPLACEMENT CHARACTER}[2Jnot for you\nhint: ask nicely\n"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": null, "refusals": [1, {}], "blockers": 3}'])
def test_a_problem_without_words(aimctl, world: World, body) -> None:
    world.overrides["GET /v1/node"] = Raw(body, status=503)
    result = aimctl("get", "node")
    assert (result.exit_code, result.stderr) == (3, "error: the daemon answered 503 without a reason\n")


def test_events_in_pages(aimctl, world: World) -> None:
    world.page = 2
    answer = json.loads(aimctl("events", "-o", "json").stdout)
    assert ([event["sequence"] for event in answer["events"]], answer["next"]) == ([1, 2, 5], 5)
    assert [each.target for each in world.requests] == [f"/v1/events?since={since}" for since in (0, 2, 5)]


def test_events_since(aimctl) -> None:
    assert aimctl("events", "--since", "1", "-o", "name").stdout == "2\n5\n"


def test_watched_events_of_a_gpu(aimctl) -> None:
    assert aimctl("get", "events", "gpu1", "--watch", "-o", "name").stdout == "2\n"


EVENT_LINES = """\
TIME                   SUBJECT        KIND                       MESSAGE
2023-11-14T22:13:21Z   0000:26:00.0   mode_changed               SPX/NPS1 to DPX/NPS1
2023-11-14T22:13:22Z   node           driver_reloaded            rescanned
"""


def test_watched_events_as_a_table(aimctl) -> None:
    result = aimctl("events", "--since", "1", "--watch")
    assert result.stdout == EVENT_LINES
    assert result.exit_code == 3
    assert result.stderr.startswith("error: aimd ended the stream\n")


def test_watched_events_in_other_formats(aimctl) -> None:
    wide = aimctl("events", "--watch", "-o", "wide").stdout.splitlines()
    assert wide[0].startswith("SEQUENCE   TIME")
    assert wide[3].startswith("5          2023")
    assert aimctl("events", "--watch", "-o", "name").stdout == "1\n2\n5\n"
    lines = aimctl("events", "--watch", "-o", "json").stdout.splitlines()
    assert [json.loads(line) for line in lines] == [to_builtins(event) for event in samples.events()]
    documents = list(yaml.safe_load_all(aimctl("events", "--watch", "-o", "yaml").stdout))
    assert documents == [to_builtins(event) for event in samples.events()]


def test_a_torn_stream_is_not_shown_as_an_event(aimctl, world: World) -> None:
    world.abort = True
    result = aimctl("events", "--watch", "-o", "name")
    assert (result.exit_code, result.stdout) == (3, "1\n2\n5\n")
    assert "Traceback" not in result.stderr


def test_version(aimctl) -> None:
    result = aimctl("version", "-o", "json")
    assert json.loads(result.stdout) == {"aimctl": aimd.__version__, "aimd": "0.1.0", "api": "v1"}
    assert aimctl("version", "-o", "name").stdout == "0.1.0\n"


def test_version_without_a_daemon_tells_aimctls_own(aimctl, socket_path) -> None:
    result = aimctl("--socket", f"{socket_path}.none", "version")
    assert result.stdout.splitlines()[1].split() == [aimd.__version__, "-", "-"]
    assert result.exit_code == 3
