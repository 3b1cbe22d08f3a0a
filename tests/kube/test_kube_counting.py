"""What is counted of requests and writes."""

import pytest

from aimd.adapters.kube import resources
from aimd.adapters.kube.counting import RequestCounts, WriteCounts
from aimd.adapters.kube.writer import Writer
from aimd.domain.cluster import DURATION_BOUNDS_SECONDS, WRITE_KINDS
from aimd.errors import ConfigError, ConflictError, InvalidInputError, UnreachableError
from tests.fakes.kube_api import PODS
from tests.kube.conftest import QUICK
from tests.systemd.machine import until


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def writer(connect, clock):
    """Works are given to it as they are: nothing of the API server is asked."""
    writer = Writer(None, connect(), QUICK, clock=clock, wall=lambda: 1e9 + clock.now, chance=lambda: 0.0)
    writer.start()
    yield writer
    writer.close()


def failing(clock, *errors):
    """A work that takes two seconds and fails in these ways before it succeeds."""
    left = list(errors)

    def work(_objects):
        clock.now += 2.0
        if left:
            raise left.pop(0)

    return work


def test_durations_are_of_the_interval_that_they_are_in():
    counts = RequestCounts()
    for seconds in (0.0, 0.005, 0.0051, 10.0, 11.0):
        counts.add("get", "pods", "200", seconds)
    found = counts.durations()["get", "pods"]
    assert found.counts == (2, 1, *[0] * (len(DURATION_BOUNDS_SECONDS) - 3), 1, 1)
    assert found.sum_seconds == pytest.approx(21.0101)


def test_all_kinds_of_writes_are_there_from_the_beginning(writer):
    kinds = writer.statistics().kinds
    assert tuple(kinds) == WRITE_KINDS
    assert {(kind.waiting, kind.failing, kind.done, kind.done_at) for kind in kinds.values()} == {(0, 0, 0, None)}


def test_a_write_lasts_from_when_there_was_something_to_write(writer, clock):
    writer.submit(
        "service default/llama", failing(clock, UnreachableError("x", code="server_error"), ConflictError("x"))
    )
    assert writer.wait_until_idle(5)
    kind = writer.statistics().kinds["service"]
    assert (kind.done, kind.done_at, kind.durations.sum_seconds) == (1, 1e9 + 106.0, 6.0)
    assert kind.retries == {"server_error": 1, "conflict": 1}
    assert writer.statistics().kinds["node"].done == 0


def test_what_comes_while_an_attempt_fails_waits_since_the_first(writer, clock):
    def late(_objects):
        clock.now += 5.0
        writer.submit("node", failing(clock))
        raise UnreachableError("x")

    writer.submit("node", late)
    assert writer.wait_until_idle(5)
    kind = writer.statistics().kinds["node"]
    assert (kind.done, kind.durations.sum_seconds) == (1, 7.0)


def test_what_is_tried_again_now_has_failed_still(writer, clock):
    seen = []

    def work(_objects):
        seen.append(writer.statistics().kinds["node"].failing)
        if len(seen) == 1:
            raise ConflictError("another is faster")

    writer.submit("node", work)
    assert writer.wait_until_idle(5)
    assert seen == [0, 1]
    assert writer.statistics().kinds["node"].failing == 0


def test_events_are_counted_apart_from_records(writer, clock):
    writer.submit("event llama.1", failing(clock, InvalidInputError("x")), optional=True)
    writer.submit("node", failing(clock))
    assert writer.wait_until_idle(5)
    kinds = writer.statistics().kinds
    assert (kinds["event"].dropped, kinds["node"].dropped) == ({"invalid": 1}, {})
    assert (kinds["event"].done, kinds["node"].done) == (0, 1)


def test_what_has_failed_is_told_until_it_succeeds(connect):
    """Also while others succeed."""
    patience, broken = QUICK, [True]
    writer = Writer(None, connect(), patience)
    writer.start()

    def work(_objects):
        if broken:
            raise ConflictError("another is faster")

    try:
        writer.submit("node", work)
        writer.submit("service a/b", lambda _: None)
        until(lambda: writer.statistics().kinds["node"].failing == 1, "the failure is not told")
        until(lambda: writer.statistics().kinds["service"].done == 1, "the other is not done")
        assert writer.statistics().kinds["service"].failing == 0
        broken.clear()
        assert writer.wait_until_idle(5)
        assert writer.statistics().kinds["node"].failing == 0
    finally:
        writer.close()


def test_pauses_add_up(connect, clock):
    writer = Writer(None, connect(), QUICK, chance=lambda: 1.0)
    writer.start()
    try:
        writer.submit("node", failing(clock, UnreachableError("x"), UnreachableError("x"), ConflictError("x")))
        assert writer.wait_until_idle(5)
        assert writer.statistics().pause_seconds == pytest.approx(QUICK.first * 3), (
            "one conflict makes nobody else wait"
        )
    finally:
        writer.close()


@pytest.mark.parametrize(("code", "todo"), [(401, "renew the token"), (403, "compare the roles")])
def test_a_problem_says_what_to_do(api, connect, code, todo):
    api.fail("list", PODS, code=code, times=1000)
    writer = Writer(None, connect(), QUICK)
    writer.start()
    try:
        writer.submit("node", lambda _: writer._connection.ask("list", resources.pods()))
        until(lambda: todo in (writer.statistics().problem or ""), lambda: f"{writer.statistics()}")
    finally:
        writer.close()


def test_keys_of_a_kind_are_one_series():
    counts = WriteCounts()
    for number in range(100):
        counts.done(f"service default/s{number}", 0.1, 1.0)
    assert tuple(counts.read([("node", True), ("node", False)])) == WRITE_KINDS
    assert counts.read([])["service"].done == 100


def test_credentials_that_are_read_again(api, connect, tmp_path):
    connection = connect()
    assert connection.counts.reloads() == {"ok": 0, "error": 0}
    connection.reload()
    (tmp_path / "kubeconfig").write_text("nonsense: [")
    with pytest.raises(ConfigError):
        connection.reload()
    assert connection.counts.reloads() == {"ok": 1, "error": 1}
    assert connection.server == api.url


def test_refusals_by_their_code(api, connect):

    connection = connect()
    for code in (429, 503):
        api.fail("list", PODS, code=code)
        with pytest.raises(UnreachableError):
            connection.ask("list", resources.pods())
    assert connection.counts.requests() == {("list", "pods", "429"): 1, ("list", "pods", "503"): 1}
