"""What the kubelet asks for claims: results of each, calls at once, in turn, too late, given up, and at the end."""

import threading
import time

import grpc
import pytest

from aimd.adapters.dra import plugin
from aimd.errors import ConflictError, InvalidInputError
from tests.systemd.machine import until

A, B, C = (("default", name, f"uid-{name}") for name in "abc")


@pytest.fixture
def driver(drive, kubelet):
    driver = drive()
    kubelet.register()
    return driver


def test_prepare(driver, kubelet, daemon):
    devices = kubelet.prepare(A)["uid-a"].devices
    (device,) = devices
    assert (device.pool_name, device.device_name) == ("node-a", "cpx-a")
    assert list(device.request_names) == ["gpu"]
    assert list(device.cdi_device_ids) == ["gpu.aimd.dev/claim=uid-a-gpu"]
    assert device.share_id == "share-1"
    assert daemon.begun == [("prepare", "a")]
    ((operation, code, seconds),) = daemon.called
    assert (operation, code) == ("prepare", "ok")
    assert 0 <= seconds < 5


def test_unprepare(driver, kubelet, daemon):
    assert {uid: answer.error for uid, answer in kubelet.unprepare(A, B).items()} == {"uid-a": "", "uid-b": ""}
    assert sorted(daemon.begun) == [("unprepare", "a"), ("unprepare", "b")]


def test_no_claims(driver, kubelet):
    assert kubelet.prepare() == {}
    assert kubelet.unprepare() == {}


def test_one_bad_claim_of_a_call_does_not_fail_the_others(driver, kubelet, daemon):
    daemon.errors["b"] = ConflictError("gpu0 is held\nby pid 5", hint="end it")
    answers = kubelet.prepare(A, B, C)
    assert {uid: answer.error for uid, answer in answers.items()} == {
        "uid-a": "",
        "uid-b": "gpu0 is held by pid 5: end it",
        "uid-c": "",
    }
    assert [len(answers[uid].devices) for uid in ("uid-a", "uid-b", "uid-c")] == [1, 0, 1]
    assert sorted(code for _, code, _ in daemon.called) == ["conflict", "ok", "ok"]
    assert kubelet.unprepare(B)["uid-b"].error == "gpu0 is held by pid 5: end it"


def test_an_error_fits_into_an_event(driver, kubelet, daemon):
    daemon.errors["a"] = InvalidInputError("x" * 5000)
    assert kubelet.prepare(A)["uid-a"].error == "x" * 1000


@pytest.mark.parametrize("claim", [("", "a", "u"), ("default", "", "u"), ("default", "a", "")])
def test_a_claim_without_a_name_is_refused(driver, kubelet, daemon, claim):
    assert "expected all three" in kubelet.prepare(claim, B)[claim[2]].error
    assert daemon.begun == [("prepare", "b")]


def test_the_claims_of_a_call_are_worked_for_at_once(driver, kubelet, daemon):
    go = [daemon.hold("a"), daemon.hold("b")]
    call = kubelet.begin("Prepare", A, B)
    until(lambda: len(daemon.begun) == 2, "one waits for the other")
    go[0]()
    go[1]()
    assert set(call.result().claims) == {"uid-a", "uid-b"}


def test_many_calls_at_once(driver, kubelet, daemon):
    claims = [("default", f"n{number}", f"u{number}") for number in range(40)]
    go = [daemon.hold(name) for _, name, _ in claims]
    calls = [kubelet.begin("Prepare", each) for each in claims]
    until(lambda: len(daemon.begun) == 40, lambda: f"{len(daemon.begun)} of 40 have begun")
    for each in go:
        each()
    assert [each.result().claims[uid].error for each, (_, _, uid) in zip(calls, claims, strict=True)] == [""] * 40


def test_calls_for_the_same_claim_come_one_after_the_other(driver, kubelet, daemon):
    go = daemon.hold("a")
    first = kubelet.begin("Prepare", A)
    until(lambda: daemon.begun, "not begun")
    others = []
    for operation in ("Unprepare", "Prepare", "Unprepare"):
        others.append(kubelet.begin(operation, A))
        until(lambda: len(driver._calls._queues["uid-a"]) == len(others) + 1, "not in the queue")
    assert kubelet.prepare(B)["uid-b"].error == ""  # another claim has its own turn
    assert daemon.begun == [("prepare", "a"), ("prepare", "b")]
    go()
    for call in (first, *others):
        assert call.result().claims["uid-a"].error == ""
    del daemon.begun[1]
    assert daemon.begun == [(name, "a") for name in ("prepare", "unprepare", "prepare", "unprepare")]
    until(lambda: not driver._calls._queues, "claims are kept")


def test_what_takes_too_long_is_an_error_before_the_kubelet_gives_up(driver, kubelet, daemon):
    go = daemon.hold("a")
    began = time.monotonic()
    answers = kubelet.prepare(A, B, seconds=2)
    assert time.monotonic() - began < 2
    assert answers["uid-a"].error == "the claim is not done with in time, the kubelet is to ask again"
    assert answers["uid-b"].error == ""
    assert (daemon.called[0][1], daemon.called[1][1]) == ("timed_out", "ok")
    again = kubelet.prepare(A, seconds=1)  # the first work still runs
    assert "not done with in time" in again["uid-a"].error
    go()
    assert kubelet.prepare(A)["uid-a"].error == ""
    assert [name for _, name in daemon.begun].count("a") == 2  # what was too late to begin did not


def test_the_deadline_is_below_that_of_the_kubelet(driver, kubelet, daemon):
    now = time.monotonic()
    kubelet.prepare(A)
    assert now + 39 < daemon.deadlines["a"] < time.monotonic() + 40
    kubelet.prepare(B, seconds=20)
    assert daemon.deadlines["b"] < time.monotonic() + 18.1
    assert plugin.LONGEST_SECONDS == 40


def test_a_kubelet_that_gives_up_a_call(driver, kubelet, daemon):
    go = daemon.hold("a")
    first = kubelet.begin("Prepare", A)
    until(lambda: daemon.begun, "not begun")
    second = kubelet.begin("Prepare", A)
    until(lambda: len(driver._calls._queues["uid-a"]) == 2, "not in the queue")
    first.cancel()
    second.cancel()
    until(lambda: not driver._calls._running, "the threads of calls that were given up still wait")
    until(lambda: len(driver._calls._queues["uid-a"]) == 1, "what nobody waits for is still to begin")
    go()
    until(lambda: not driver._calls._queues, "claims are kept")
    assert daemon.begun == [("prepare", "a")]
    assert kubelet.prepare(A)["uid-a"].error == ""


def test_a_kubelet_that_disappears_takes_no_thread_with_it(driver, kubelet, daemon):
    daemon.hold("a")
    calls = [kubelet.begin("Prepare", A) for _ in range(plugin_threads())]
    until(lambda: daemon.begun, "not begun")
    kubelet.close()
    until(lambda: all(call.done() for call in calls), "calls go on")
    until(lambda: not driver._calls._running, "the threads of calls still wait")
    kubelet.register()
    assert kubelet.prepare(B)["uid-b"].error == ""


def plugin_threads():
    from aimd.adapters.dra.driver import THREADS

    return THREADS


def test_the_end_lets_a_call_that_is_nearly_done_end(driver, kubelet, daemon):
    go = daemon.hold("a")
    call = kubelet.begin("Prepare", A)
    until(lambda: daemon.begun, "not begun")
    closing = threading.Thread(target=driver.close)
    closing.start()
    until(lambda: driver._calls._closing, "not closing")
    assert kubelet.prepare(B)["uid-b"].error == "aimd is stopping, the kubelet is to ask again"
    go()
    assert call.result().claims["uid-a"].error == ""
    closing.join(5)
    assert not closing.is_alive()
    assert ("prepare", "b") not in daemon.begun


def test_the_end_in_the_middle_of_a_call_that_takes_long(driver, kubelet, daemon):
    daemon.hold("a")
    call, waits = kubelet.begin("Prepare", A, B), None
    until(lambda: len(daemon.begun) == 2, "not begun")
    waits = kubelet.begin("Prepare", A)
    until(lambda: len(driver._calls._queues["uid-a"]) == 2, "not in the queue")
    began = time.monotonic()
    driver.close()
    assert time.monotonic() - began < 5
    assert call.result().claims["uid-a"].error == "aimd is stopping, the kubelet is to ask again"
    assert call.result().claims["uid-b"].error == ""
    assert waits.result().claims["uid-a"].error == "aimd is stopping, the kubelet is to ask again"
    with pytest.raises(grpc.RpcError):
        kubelet.prepare(C, seconds=2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_fails_its_claim_alone_and_at_once(driver, kubelet, daemon):
    daemon.errors["a"] = RuntimeError("a defect")
    began = time.monotonic()
    answers = kubelet.prepare(A, B)
    assert time.monotonic() - began < 5
    assert "a defect in aimd" in answers["uid-a"].error
    assert answers["uid-b"].error == ""
