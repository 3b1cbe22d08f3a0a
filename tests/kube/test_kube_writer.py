"""Writes: the newest of a key, again after a failure, never in the way of anybody."""

import itertools
import threading
import time
from dataclasses import replace

import pytest

from aimd.adapters.kube.objects import ApiObjects
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.writer import KEYS, Writer
from aimd.adapters.kube.writing import Verdict, verdict
from aimd.errors import (
    ConflictError,
    DeniedError,
    InvalidInputError,
    NotFoundError,
    ThrottledError,
    UnauthenticatedError,
    UnreachableError,
)
from tests.fakes.kube_api import PARTITIONS, SERVICES, SLICES
from tests.kube.conftest import QUICK
from tests.systemd.machine import until

LLAMA = {"metadata": {"namespace": "default", "name": "llama"}, "status": {"count": 0}}

VERDICTS = [
    (NotFoundError("x"), 0, Verdict(again=False)),
    (InvalidInputError("x"), 0, Verdict(again=False)),
    (ConflictError("x"), 0, Verdict(again=True, seconds=0.05)),
    (ConflictError("x"), 2, Verdict(again=True, seconds=0.2)),
    (ConflictError("x"), 99, Verdict(again=True, seconds=30)),
    (DeniedError("x"), 0, Verdict(again=True, seconds=0.8)),
    (UnauthenticatedError("x"), 1, Verdict(again=True, seconds=1.6, everyone=True, reload=True)),
    (ThrottledError("x", retry_after_seconds=3), 0, Verdict(again=True, seconds=3.8, everyone=True)),
    (ThrottledError("x", retry_after_seconds=999), 0, Verdict(again=True, seconds=300.8, everyone=True)),
    (UnreachableError("x"), 0, Verdict(again=True, seconds=0.8, everyone=True)),
    (UnreachableError("x", code="untrusted"), 0, Verdict(again=True, seconds=0.8, everyone=True, reload=True)),
    (UnreachableError("x", code="server_error"), 9, Verdict(again=True, seconds=30, everyone=True)),
]


@pytest.mark.parametrize(("error", "failures", "expected"), VERDICTS)
def test_verdict(error, failures, expected):
    found = verdict(error, failures, 1.0, Patience())
    assert found.seconds == pytest.approx(expected.seconds)
    assert replace(found, seconds=0) == replace(expected, seconds=0)


@pytest.fixture
def objects(connect):
    return ApiObjects(connect(), "a")


@pytest.fixture
def write(connect, objects):
    """A function that starts a writer; it ends with the test."""
    made = []

    def make(patience=QUICK, **more):
        writer = Writer(objects, connect(), patience, **more)
        writer.start()
        made.append(writer)
        return writer

    yield make
    for writer in made:
        writer.close()


def counting(objects):
    """Adds one to what is there, by its version."""
    service = objects.service("default", "llama")
    patch = {
        "metadata": {"resourceVersion": service["metadata"]["resourceVersion"]},
        "status": {"count": service["status"]["count"] + 1},
    }
    objects.patch_service_status("default", "llama", patch)


def count(api):
    return api.get(SERVICES, "llama", "default")["status"]["count"]


def test_a_work_is_done(api, write):
    api.put(SERVICES, LLAMA)
    writer = write()
    assert writer.submit("llama", counting)
    assert writer.wait_until_idle(5)
    assert count(api) == 1
    assert (writer.statistics().done, writer.statistics().waiting) == (1, 0)


def test_what_is_urgent_comes_first(write):
    writer, gate, done = write(), Gate(), []
    writer.submit("gate", gate)
    gate.reached.wait(5)
    for key, urgent in (("later", False), ("both", True), ("first", True), ("last", False), ("both", False)):
        writer.submit(key, lambda _, key=key: done.append(key), urgent=urgent)
    gate.open.set()
    assert writer.wait_until_idle(5)
    assert done == ["both", "first", "later", "last"]


class Gate:
    """A work that waits to be let through, and tells when it is there."""

    def __init__(self):
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self, objects):
        self.reached.set()
        assert self.open.wait(5)


def test_the_newest_work_of_a_key_is_done_and_the_order_of_keys_kept(write):
    writer, gate, done = write(), Gate(), []
    writer.submit("gate", gate)
    gate.reached.wait(5)
    for key, number in (("a", 1), ("b", 1), ("a", 2), ("c", 1), ("b", 2), ("b", 3)):
        writer.submit(key, lambda _, key=key, number=number: done.append((key, number)))
    assert writer.statistics().waiting == 4  # with the one that is done now
    gate.open.set()
    assert writer.wait_until_idle(5)
    assert done == [("a", 2), ("b", 3), ("c", 1)]


def test_what_comes_while_the_key_is_done_is_done_after_it(write):
    writer, gate, done = write(), Gate(), []
    writer.submit("a", gate)
    gate.reached.wait(5)
    writer.submit("a", lambda _: done.append(2))
    gate.open.set()
    assert writer.wait_until_idle(5)
    assert done == [2]


def test_nobody_waits_for_a_slow_server(api, write):
    api.put(SERVICES, LLAMA)
    api.fail("get", SERVICES, delay=0.4)
    writer = write()
    began = time.monotonic()
    for _ in range(50):
        writer.submit("llama", counting)
    assert time.monotonic() - began < 0.1
    assert writer.wait_until_idle(5)
    assert count(api) in (1, 2)


def test_after_a_conflict_it_is_decided_anew(api, write, caplog):
    api.put(SERVICES, LLAMA)
    writer, seen = write(), []

    def late(objects):
        service = objects.service("default", "llama")
        seen.append(service["status"]["count"])
        assert writer.statistics().problem is None
        if len(seen) < 3:  # another is faster, twice
            api.put(SERVICES, {**LLAMA, "status": {"count": 10 * len(seen)}})
        patch = {"metadata": {"resourceVersion": service["metadata"]["resourceVersion"]}, "status": {"count": -1}}
        objects.patch_service_status("default", "llama", patch)

    writer.submit("llama", late)
    assert writer.wait_until_idle(5)
    assert seen == [0, 10, 20]
    assert count(api) == -1
    assert writer.statistics().retries == {"conflict": 2}
    assert caplog.messages == []


def test_two_writers_lose_nothing(api, write):
    api.put(SERVICES, LLAMA)
    writers = [write(), write()]
    for number in range(20):
        for writer in writers:
            writer.submit(f"{number}", counting)
    assert all(writer.wait_until_idle(20) for writer in writers)
    assert count(api) == 40


@pytest.mark.parametrize("code", [500, 503, 429, 401, 403])
def test_it_is_tried_until_it_succeeds(api, write, code):
    api.put(SERVICES, LLAMA)
    api.fail("patch", SERVICES, code=code, times=4)
    writer = write()
    writer.submit("llama", counting)
    assert writer.wait_until_idle(5)
    assert count(api) == 1
    assert sum(writer.statistics().retries.values()) == 4
    assert writer.statistics().problem is None


def test_an_answer_that_is_none_is_no_answer(api, write):
    """A proxy's page, for example."""
    api.put(SERVICES, LLAMA)
    api.fail("get", SERVICES, code=200, body=b"<html>", times=2)
    writer = write()
    writer.submit("llama", counting)
    assert writer.wait_until_idle(5)
    assert count(api) == 1
    assert writer.statistics().retries == {"garbled": 2}


@pytest.mark.parametrize("code", [404, 422, 400])
def test_what_cannot_succeed_is_given_up(api, write, caplog, code):
    api.put(SERVICES, LLAMA)
    api.fail("patch", SERVICES, code=code, times=1000)
    writer = write()
    writer.submit("llama", counting)
    assert writer.wait_until_idle(5)
    assert len(api.asked("patch", SERVICES)) == 1
    assert (writer.statistics().dropped, writer.statistics().done) == (1, 0)
    assert str(code) in writer.statistics().problem
    assert [str(code) in message for message in caplog.messages] == [True]


def test_every_write_that_is_not_taken_is_in_the_log(api, write, caplog):
    """An object that is not there is no news, and one that waits for its turn has said so once."""
    api.put(SERVICES, LLAMA)
    api.fail("patch", SERVICES, code=422, times=2)
    writer = write()
    for key in ("service default/llama", "service default/other"):
        writer.submit(key, counting)
    assert writer.wait_until_idle(5)
    assert [message.partition(" is given up")[0] for message in caplog.messages] == [
        "the write of service default/llama",
        "the write of service default/other",
    ]


def test_a_work_that_stumbles_over_an_object_ends_nothing(api, write):
    writer, done = write(), []
    writer.submit("odd", lambda _: {}["status"])
    writer.submit("next", lambda _: done.append(1))
    assert writer.wait_until_idle(5)
    assert done == [1]
    assert writer.statistics().dropped == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_says_so(write, caplog):
    writer = write()
    writer.submit("defect", lambda _: 1 // 0)
    until(lambda: "restart aimd" in (writer.statistics().problem or ""), "nobody is told")
    assert "the thread of writes in the cluster has ended" in caplog.text


def test_one_key_that_is_denied_holds_up_no_other(write):
    def denied(_):
        raise DeniedError("not yours")

    writer, done = write(replace(QUICK, first=60.0, longest=60.0), chance=lambda: 1.0), []
    writer.submit("denied", denied)
    writer.submit("b", lambda _: done.append(1))
    until(lambda: done, "b waits")
    assert writer.statistics().waiting == 1


def test_a_server_that_is_down_is_left_alone_by_all_keys(api, write):
    """One request per pause, not one per key."""
    api.put(SERVICES, LLAMA)
    api.fail("get", SERVICES, code=503, times=1000)
    writer = write(replace(QUICK, first=0.2, longest=0.2), chance=lambda: 1.0)
    for number in range(100):
        writer.submit(f"{number}", counting)
    time.sleep(1)
    assert len(api.asked("get", SERVICES)) <= 6
    api.heal()
    assert writer.wait_until_idle(10)
    assert count(api) == 100


def test_failures_in_a_row_make_the_pause_longer_and_a_success_ends_them(api, write):
    api.put(SERVICES, LLAMA)
    api.fail("get", SERVICES, code=503, times=4)
    writer = write(replace(QUICK, first=0.05, longest=10.0), chance=lambda: 1.0)
    writer.submit("llama", counting)
    assert writer.wait_until_idle(10)
    times = [request.at for request in api.asked("get", SERVICES)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    for gap, wanted in zip(gaps, (0.05, 0.1, 0.2, 0.4), strict=True):
        assert wanted <= gap < wanted + 0.3
    api.fail("get", SERVICES, code=503)
    began = time.monotonic()
    writer.submit("llama", counting)
    assert writer.wait_until_idle(10)
    assert time.monotonic() - began < 0.35


def test_a_new_work_does_not_shorten_the_pause_of_its_key(write):
    attempts = []

    def denied(_):
        attempts.append(1)
        raise DeniedError("not yours")

    writer = write(replace(QUICK, first=60.0, longest=60.0), chance=lambda: 1.0)
    writer.submit("a", denied)
    until(lambda: attempts, "not tried")
    until(lambda: writer.statistics().waiting == 1 and writer.statistics().retries, "not waiting")
    for _ in range(10):
        writer.submit("a", denied)
    time.sleep(0.1)
    assert len(attempts) == 1


def test_a_newer_work_takes_over_from_one_that_fails(write):
    writer, gate, done = write(), Gate(), []

    def fails(objects):
        gate(objects)
        raise DeniedError("not yours")

    writer.submit("a", fails)
    gate.reached.wait(5)
    writer.submit("a", lambda _: done.append("newer"))
    gate.open.set()
    assert writer.wait_until_idle(5)
    assert done == ["newer"]


def test_the_queue_is_bounded(write):
    writer, gate = write(), Gate()
    writer.submit("gate", gate)
    gate.reached.wait(5)
    assert all(writer.submit(f"event {number}", lambda _: None, optional=True) for number in range(KEYS // 2))
    assert not writer.submit("one event more", lambda _: None, optional=True)
    assert all(writer.submit(f"{number}", lambda _: None) for number in range(KEYS - KEYS // 2))
    assert not writer.submit("one more", lambda _: None)
    assert writer.submit("0", lambda _: None)  # what waits already can be replaced
    assert writer.statistics().dropped == 2
    gate.open.set()
    assert writer.wait_until_idle(5)
    assert writer.statistics().done == KEYS + 1


def test_what_may_be_lost_is_tried_five_times(write):
    attempts = []

    def denied(_):
        attempts.append(1)
        raise DeniedError("not yours")

    writer = write()
    writer.submit("event", denied, optional=True)
    assert writer.wait_until_idle(5)
    assert len(attempts) == 5


def test_credentials_that_have_ended_are_read_again(api, connect, tmp_path, write):
    api.put(SERVICES, LLAMA)
    connection = connect("first")
    objects = ApiObjects(connection, "a")
    writer = Writer(objects, connection, QUICK)
    writer.start()
    api.tokens = {"second"}
    api.kubeconfig(tmp_path, "second")
    writer.submit("llama", counting)
    assert writer.wait_until_idle(5)
    writer.close()
    assert count(api) == 1


def test_it_ends_at_once(write):
    def denied(_):
        raise DeniedError("not yours")

    writer = write(replace(QUICK, first=60.0, longest=60.0), chance=lambda: 1.0)
    writer.submit("a", denied)
    until(lambda: writer.statistics().retries, "not tried")
    began = time.monotonic()
    writer.close()
    assert time.monotonic() - began < 0.3
    assert not writer._thread.is_alive()


def test_objects(api, objects):
    assert objects.service("default", "llama") is None
    assert objects.node_partitions() is None
    assert objects.node() is None
    assert list(objects.resource_slices()) == []
    api.unserved.add(SLICES)
    assert list(objects.resource_slices()) == []
    made = objects.create_node_partitions({"metadata": {"name": "a"}, "spec": {}})
    assert objects.node_partitions() == made
    objects.patch_node_partitions_status({"status": {"gpus": [1]}, "spec": {"not": "this way"}})
    assert api.get(PARTITIONS, "a")["status"] == {"gpus": [1]}
    assert api.get(PARTITIONS, "a")["spec"] == {}
    with pytest.raises(ConflictError) as raised:
        objects.create_node_partitions({"metadata": {"name": "a"}})
    assert raised.value.code == "already_exists"
    with pytest.raises(NotFoundError):
        objects.patch_service_status("default", "llama", {"status": {}})
