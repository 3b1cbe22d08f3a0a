"""What `aimctl watch` makes of lists and streams: the missed is told, what waiting does not mend is raised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from aimd.ctl.client import ProblemError
from aimd.ctl.observing import as_message, in_words
from aimd.ctl.sources import Change, Events, Objects, followed
from aimd.errors import DeniedError, UnreachableError
from aimd.protocol.messages import ProblemMessage, to_builtins
from tests.fakes.api import World
from tests.unit.ctl import samples

GONE = ProblemError(410, {"detail": "gone", "code": "generation_gone"})


class ScriptedClient:
    """Answers in the order of the script: an error is raised; a stream's answer is its lines, the last may be one."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.asked: list[str] = []

    def get(self, path: str) -> dict[str, Any]:
        self.asked.append(path)
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stream(self, path: str) -> Iterator[dict[str, Any]]:
        self.asked.append(path)
        for line in self.script.pop(0):
            if isinstance(line, Exception):
                raise line
            yield line


def claims(generation: int, **states: str) -> dict[str, Any]:
    return {"claims": [claim(name, state) for name, state in states.items()], "generation": generation}


def claim(name: str, state: str = "placed") -> dict[str, Any]:
    return to_builtins(samples.claim(state, name=name, reason=None if state == "placed" else "no_room"))


def line(type_: str, generation: int, name: str, state: str = "placed") -> dict[str, Any]:
    return {"type": type_, "generation": generation, "object": claim(name, state)}


def told(source) -> tuple[list[tuple[str, str]], list[str]]:
    """The changes until the script is over (which is an error), and what was told of the daemon."""
    notes: list[str] = []
    changes: list[tuple[str, str]] = []
    stream = followed(source, lambda: notes.append("reached"), lambda: notes.append("lost"), retry_seconds=0)
    with pytest.raises(DeniedError):
        changes.extend((each.type, str(each.object.get("name", each.object.get("sequence")))) for each in stream)
    return changes, notes


END = DeniedError("the script is over")


def test_what_there_is_already_is_no_change() -> None:
    client = ScriptedClient(claims(7, a="placed"), [line("ADDED", 8, "b"), END])
    assert told(Objects(client, "claims")) == ([("ADDED", "b")], ["reached"])
    assert client.asked == ["/v1/claims", "/v1/claims?watch=1&since=7"]


@pytest.mark.parametrize(
    ("end", "notes"),
    [
        ([], ["reached", "lost", "reached"]),
        ([UnreachableError("torn")], ["reached", "lost", "reached"]),
        ([ProblemError(503, {})], ["reached", "lost", "reached"]),
        ([GONE], ["reached", "reached"]),
    ],
)
def test_what_was_missed_is_told_afterwards(end, notes) -> None:
    client = ScriptedClient(
        claims(7, a="placed", b="placed", c="placed"),
        [line("ADDED", 8, "d"), line("DELETED", 9, "c"), *end],
        claims(900, a="pending", d="placed", e="placed"),
        [line("MODIFIED", 901, "e", "pending"), END],
    )
    changes, noted = told(Objects(client, "claims"))
    assert changes == [
        ("ADDED", "d"),
        ("DELETED", "c"),
        ("DELETED", "b"),
        ("MODIFIED", "a"),
        ("ADDED", "e"),
        ("MODIFIED", "e"),
    ]
    assert noted == notes
    assert client.asked[-1] == "/v1/claims?watch=1&since=900"


def test_several_attempts_until_it_is_back() -> None:
    away = UnreachableError("no aimd answers")
    client = ScriptedClient(claims(7), [], away, away, ProblemError(503, {}), claims(8), [END])
    assert told(Objects(client, "claims"))[1] == ["reached", *["lost"] * 4, "reached"]


@pytest.mark.parametrize("error", [UnreachableError("no aimd answers"), ProblemError(503, {}), GONE])
def test_a_daemon_that_was_never_there_is_not_waited_for(error) -> None:
    with pytest.raises(type(error)):
        next(followed(Objects(ScriptedClient(error), "claims"), list, list, 0))


@pytest.mark.parametrize("error", [ProblemError(403, {}), UnreachableError("x", code="answer_malformed")])
def test_what_waiting_does_not_mend_is_raised(error) -> None:
    client = ScriptedClient(claims(7), [error])
    with pytest.raises(type(error)):
        next(followed(Objects(client, "claims"), list, list, 0))


def event(sequence: int) -> dict[str, Any]:
    return {"sequence": sequence, "at": 1.0, "kind": "k", "subject": "s", "message": "m"}


def test_events_go_on_by_their_number() -> None:
    client = ScriptedClient({"events": []}, [event(6)], {"events": [event(7)]}, [event(8), END])
    assert told(Events(client, lambda: 5)) == (
        [("ADDED", "6"), ("ADDED", "7"), ("ADDED", "8")],
        ["reached", "lost", "reached"],
    )
    assert client.asked == [
        "/v1/events?since=5",
        "/v1/events?since=5&watch=1",
        "/v1/events?since=6",
        "/v1/events?since=7&watch=1",
    ]


def test_events_of_a_ledger_begun_anew_are_told_from_the_first() -> None:
    client = ScriptedClient({"events": []}, [], GONE, {"events": [event(1)]}, [END])
    assert told(Events(client, lambda: 5)) == ([("ADDED", "1")], ["reached", "lost", "reached"])
    assert client.asked[2:] == ["/v1/events?since=5", "/v1/events?since=0", "/v1/events?since=1&watch=1"]


# -- lines ---------------------------------------------------------------------------------------------------------


def test_in_words() -> None:
    now, before = to_builtins(samples.claim()), to_builtins(samples.claim("switching", change="c1"))
    assert in_words(Change("claims", "MODIFIED", 8, now, before)) == (
        "state switching -> placed, places - -> gpu0/0, gpu0/1, change c1 -> -"
    )
    assert in_words(Change("claims", "ADDED", 8, now)) == (
        "new: state placed, qos high, memory 24 GB, guarantee 4, replicas 2, places gpu0/0, gpu0/1"
    )
    assert in_words(Change("claims", "DELETED", 8, now, now)) == "gone"
    assert in_words(Change("claims", "MODIFIED", 8, now | {"message": "other"}, now)) is None
    assert in_words(Change("events", "ADDED", None, event(5))) == "k: m"


def test_json_tells_all() -> None:
    now = claim("a")
    assert as_message(Change("claims", "MODIFIED", 8, now, claim("a", "pending"))) == {
        "kind": "claim",
        "type": "MODIFIED",
        "generation": 8,
        "object": now,
    }


def test_the_command_fails_like_others(aimctl, world: World) -> None:
    world.overrides["GET /v1/claims"] = ProblemMessage(title="No", status=403, detail="not you", code="denied")
    result = aimctl("watch", "claims")
    assert (result.exit_code, result.stderr) == (4, "error: not you\n")
    assert aimctl("watch", "clouds").exit_code == 2
    assert aimctl("--socket", "/nonexistent/s", "watch").exit_code == 3
