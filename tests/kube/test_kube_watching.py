"""What events make of what is known, and what follows the end of a watch."""

import pytest

from aimd.adapters.kube.patience import Patience, pause
from aimd.adapters.kube.watching import Known, Restart, applied, listed, restart
from aimd.errors import (
    DeniedError,
    GoneError,
    NotFoundError,
    ThrottledError,
    UnauthenticatedError,
    UnreachableError,
)

PATIENCE = Patience()


def item(uid, version, name="x"):
    return {"metadata": {"uid": uid, "resourceVersion": str(version), "name": name}}


def name_of(found):
    return found["metadata"]["name"]


def event(kind, *args):
    return {"type": kind, "object": item(*args)}


KNOWN = Known("100", {"u1": "old"})
NEWS = [
    (event("ADDED", "u2", 101, "new"), "101", {"u1": "old", "u2": "new"}),
    (event("MODIFIED", "u1", 101, "changed"), "101", {"u1": "changed"}),
    (event("MODIFIED", "u2", 101, "new"), "101", {"u1": "old", "u2": "new"}),  # its ADDED was missed
    (event("DELETED", "u1", 101), "101", {}),
    (event("DELETED", "u2", 101), "101", {"u1": "old"}),  # another of the same name
    ({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "120"}}}, "120", {"u1": "old"}),
    (event("ADDED", "u2", 1000, "new"), "1000", {"u1": "old", "u2": "new"}),  # numbers, not text
]


@pytest.mark.parametrize(("told", "version", "things"), NEWS)
def test_news(told, version, things):
    assert applied(KNOWN, told, name_of) == Known(version, things)


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED", "BOOKMARK"])
@pytest.mark.parametrize("version", [100, 99, 20])
def test_what_is_late_or_told_twice_is_no_news(kind, version):
    assert applied(KNOWN, event(kind, "u1", version, "stale"), name_of) is KNOWN


def test_a_late_event_does_not_raise_the_dead():
    gone = applied(KNOWN, event("DELETED", "u1", 105), name_of)
    assert applied(gone, event("MODIFIED", "u1", 104, "ghost"), name_of).things == {}


def test_what_was_known_is_not_changed():
    applied(KNOWN, event("DELETED", "u1", 101), name_of)
    assert KNOWN.things == {"u1": "old"}


@pytest.mark.parametrize(
    ("code", "reason", "kind", "word"),
    [
        (410, "Expired", GoneError, "gone"),
        (504, "Timeout", UnreachableError, "watch_error"),
        (500, "InternalError", UnreachableError, "watch_error"),
        (403, "Forbidden", UnreachableError, "watch_error"),
        (429, "TooManyRequests", ThrottledError, "throttled"),
        (401, "Unauthorized", UnauthenticatedError, "unauthenticated"),
    ],
)
def test_an_error_event(code, reason, kind, word):
    told = {"type": "ERROR", "object": {"kind": "Status", "code": code, "reason": reason, "message": "m"}}
    with pytest.raises(kind) as raised:
        applied(KNOWN, told, name_of)
    assert raised.value.code == word
    assert "m" in raised.value.message


@pytest.mark.parametrize(
    "told",
    [
        None,
        [],
        "ADDED",
        {},
        {"type": "ADDED"},
        {"type": "ADDED", "object": None},
        {"type": "ADDED", "object": {}},
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "101"}}},  # of nothing
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "101", "uid": "u2"}}},  # not translatable
        {"type": "ADDED", "object": {"metadata": {"resourceVersion": "abc", "uid": "u2"}}},
        {"type": "OTHER", "object": item("u2", 101)},
        {"type": "ERROR", "object": "no status"},
        {"type": "ERROR", "object": {"code": "x"}},
    ],
)
def test_garbage(told):
    with pytest.raises(UnreachableError) as raised:
        applied(KNOWN, told, name_of)
    assert raised.value.code == "garbled"


def test_a_list():
    answer = {"metadata": {"resourceVersion": "7"}, "items": [item("u1", 3, "one"), item("u2", 5, "two")]}
    assert listed(answer, name_of) == Known("7", {"u1": "one", "u2": "two"})
    assert listed({"metadata": {"resourceVersion": "7"}, "items": None}, name_of) == Known("7", {})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"items": []},
        {"metadata": {"resourceVersion": "7"}},
        {"metadata": {"resourceVersion": ""}, "items": []},
        {"metadata": {"resourceVersion": "0"}, "items": []},  # a watch from there would begin with everything
        {"metadata": {"resourceVersion": 7}, "items": []},
        {"metadata": {"resourceVersion": "7"}, "items": [{}]},
        {"metadata": {"resourceVersion": "7"}, "items": [None]},
    ],
)
def test_no_list(answer):
    with pytest.raises(UnreachableError) as raised:
        listed(answer, name_of)
    assert raised.value.code == "garbled"


# What ended it, seconds it lived of 300, failures before -> reason, list anew, read credentials, seconds, failures.
ENDS = [
    (None, 300, 5, Restart("ended", False, False, 0.0, 0)),
    (None, 299.5, 5, Restart("ended", False, False, 0.0, 0)),
    (None, 10, 0, Restart("ended_early", False, False, 0.8, 1)),
    (None, 10, 2, Restart("ended_early", False, False, 3.2, 3)),
    (None, 100, 2, Restart("ended_early", False, False, 0.8, 1)),
    (GoneError("x"), 10, 0, Restart("gone", True, False, 0.8, 1)),
    (GoneError("x"), 0, 3, Restart("gone", True, False, 6.4, 4)),
    (UnauthenticatedError("x"), 0, 0, Restart("unauthenticated", False, True, 0.8, 1)),
    (DeniedError("x"), 0, 1, Restart("denied", False, False, 1.6, 2)),
    (NotFoundError("x"), 0, 0, Restart("not_found", True, False, 0.8, 1)),
    (ThrottledError("x"), 0, 0, Restart("throttled", False, False, 0.8, 1)),
    (ThrottledError("x", retry_after_seconds=7), 0, 1, Restart("throttled", False, False, 8.6, 2)),
    (ThrottledError("x", retry_after_seconds=9000), 0, 0, Restart("throttled", False, False, 300.8, 1)),
    (UnreachableError("x"), 0, 4, Restart("unreachable", False, False, 12.8, 5)),
    (UnreachableError("x"), 0, 20, Restart("unreachable", False, False, 30.0, 21)),
    (UnreachableError("x"), 0, 5000, Restart("unreachable", False, False, 30.0, 5001)),
    (UnreachableError("x", code="timed_out"), 120, 4, Restart("timed_out", False, False, 0.8, 1)),
    (UnreachableError("x", code="timed_out"), 59, 1, Restart("timed_out", False, False, 1.6, 2)),
    (UnreachableError("x", code="cut"), 60, 9, Restart("cut", False, False, 0.8, 1)),
    (UnreachableError("x", code="untrusted"), 0, 0, Restart("untrusted", False, True, 0.8, 1)),
    (UnreachableError("x", code="garbled"), 5, 0, Restart("garbled", False, False, 0.8, 1)),
    (UnreachableError("x", code="watch_error"), 5, 0, Restart("watch_error", True, False, 0.8, 1)),
    (UnreachableError("x", code="server_error"), 0, 0, Restart("server_error", False, False, 0.8, 1)),
]


@pytest.mark.parametrize(("error", "lived", "failures", "expected"), ENDS)
def test_what_follows_an_end(error, lived, failures, expected):
    found = restart(error, lived, 300, failures, 1.0, PATIENCE)
    assert found.seconds == pytest.approx(expected.seconds)
    assert found == Restart(expected.reason, expected.relist, expected.reload, found.seconds, expected.failures)


def test_the_pause_has_full_jitter():
    assert pause(0.8, 30, 3, 0.0) == 0
    assert pause(0.8, 30, 3, 0.5) == pytest.approx(3.2)
    assert pause(0.8, 30, 3, 1.0) == pytest.approx(6.4)


def test_a_retry_after_is_waited_for_even_by_the_luckiest():
    assert restart(ThrottledError("x", retry_after_seconds=7), 0, 300, 0, 0.0, PATIENCE).seconds == 7
