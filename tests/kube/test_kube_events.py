"""Events: told once and counted, limited per object, never in the way."""

import pytest

from aimd.adapters.kube.events import EventRecorder
from aimd.adapters.kube.objects import ApiObjects
from aimd.adapters.kube.tally import BURST, FORGOTTEN_SECONDS, KEPT, REFILL_SECONDS, Tally
from aimd.adapters.kube.writer import Writer
from aimd.domain.cluster import ObjectRef
from tests.fakes.kube_api import EVENTS
from tests.kube.conftest import QUICK
from tests.systemd.machine import until

POD = ObjectRef("v1", "Pod", "llama-predictor-1", "uid-1", "default")
OWN = ObjectRef("aimd.dev/v1alpha1", "NodePartitions", "a", "uid-2")


class Clock:
    """Seconds since the epoch, as far as the test wants."""

    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def writer(connect):
    connection = connect()
    writer = Writer(ApiObjects(connection, "a"), connection, QUICK)
    yield writer
    writer.close()


@pytest.fixture
def recorder(connect, writer, clock):
    writer.start()
    return EventRecorder(ApiObjects(connect(), "a"), writer, "a", wall=clock)


def test_an_event(api, recorder, writer):
    recorder.tell(POD, "PartitionRefused", "annotation aimd.dev/memory-limit-gb is 'x'", warning=True)
    assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("llama-predictor-1.")
    regarding = {"apiVersion": "v1", "kind": "Pod", "namespace": "default", "name": POD.name, "uid": POD.uid}
    assert event["regarding"] == regarding
    assert (event["type"], event["reason"]) == ("Warning", "PartitionRefused")
    assert event["note"] == "annotation aimd.dev/memory-limit-gb is 'x'"
    assert (event["reportingController"], event["reportingInstance"]) == ("aimd.dev/aimd", "a")
    assert event["eventTime"] == "2027-01-15T08:00:00.000000Z"
    assert "series" not in event


def test_the_same_again_is_counted(api, recorder, writer, clock):
    for _ in range(4):
        recorder.tell(POD, "Refused", "no room")
        clock.now += 10
        assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["series"] == {"count": 4, "lastObservedTime": "2027-01-15T08:00:30.000000Z"}
    assert len(api.asked("create", EVENTS)) == 1


def test_what_comes_before_it_is_sent_is_sent_as_one(api, recorder, writer):
    api.fail("create", EVENTS, delay=0.2)
    for _ in range(10):
        recorder.tell(POD, "Refused", "no room")
    assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["series"]["count"] == 10
    assert len(api.requests) <= 3


def test_another_reason_message_or_object_is_another_event(api, recorder, writer):
    other = ObjectRef("v1", "Pod", "llama-predictor-1", "uid-3", "default")
    for about, reason, message in ((POD, "A", "x"), (POD, "B", "x"), (POD, "A", "y"), (other, "A", "x")):
        recorder.tell(about, reason, message)
    assert writer.wait_until_idle(5)
    told = [(each["regarding"]["uid"], each["reason"], each["note"]) for each in api.all(EVENTS)]
    assert told == [("uid-1", "A", "x"), ("uid-1", "B", "x"), ("uid-1", "A", "y"), ("uid-3", "A", "x")]


def test_of_an_object_without_a_namespace(api, recorder, writer):
    recorder.tell(OWN, "Repartitioning", "gpu0 to CPX")
    assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["metadata"]["namespace"] == "default"
    assert "namespace" not in event["regarding"]


def test_a_long_message_is_cut_between_characters(api, recorder, writer):
    recorder.tell(POD, "Refused", "a" + "ä" * 2000)
    assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["note"] == "a" + "ä" * 511


def test_an_answer_that_is_lost_makes_no_second_event_and_counts_nothing(api, recorder, writer):
    api.fail("create", EVENTS, lost=True)
    recorder.tell(POD, "Refused", "no room")
    until(lambda: len(api.asked("create", EVENTS)) > 1, "not tried again")
    until(lambda: len(api.all(EVENTS)) == 1, "not made")
    assert writer.wait_until_idle(5)
    assert "series" not in api.all(EVENTS)[0]
    assert api.asked("patch", EVENTS) == []


def test_what_an_earlier_process_has_told_is_counted(api, connect, recorder, writer, clock):
    """So a pod has one Event of a refusal, however often the daemon is started."""
    recorder.tell(POD, "Refused", "no room")
    assert writer.wait_until_idle(5)
    clock.now += 30
    again = EventRecorder(ApiObjects(connect(), "a"), writer, "a", wall=clock)
    again.tell(POD, "Refused", "no room")
    assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["series"] == {"count": 2, "lastObservedTime": "2027-01-15T08:00:30.000000Z"}
    again.tell(POD, "Refused", "no room")
    assert writer.wait_until_idle(5)
    assert len(api.all(EVENTS)) == 1


def test_an_event_that_has_expired_is_made_anew(api, recorder, writer, clock):
    recorder.tell(POD, "Refused", "no room")
    assert writer.wait_until_idle(5)
    api.remove(EVENTS, api.all(EVENTS)[0]["metadata"]["name"], "default")
    for _ in range(2):  # one finds out, the next is heard
        clock.now += 60
        recorder.tell(POD, "Refused", "no room")
        assert writer.wait_until_idle(5)
    (event,) = api.all(EVENTS)
    assert event["series"]["count"] == 3


def test_too_many_are_held_back_and_counted(api, recorder, writer):
    for number in range(BURST + 10):
        recorder.tell(POD, "Refused", f"reason {number}")
    recorder.tell(OWN, "Other", "of another object")
    assert writer.wait_until_idle(5)
    assert len(api.all(EVENTS)) == BURST + 1
    assert recorder.held_back == 10


def test_a_server_without_events_is_given_up(api, recorder, writer):
    api.fail("create", EVENTS, code=403, times=1000)
    recorder.tell(POD, "Refused", "no room")
    assert writer.wait_until_idle(5)
    assert len(api.asked("create", EVENTS)) == 5


def test_the_allowance_comes_back():
    tally = Tally()
    allowed = [tally.told(POD, "A", str(number), 1000.0, warning=False)[1] for number in range(BURST + 1)]
    assert allowed == [True] * BURST + [False]
    assert not tally.told(POD, "A", "x", 1000.0 + REFILL_SECONDS - 1, warning=False)[1]
    assert tally.told(POD, "A", "x", 1000.0 + REFILL_SECONDS, warning=False)[1]
    assert not tally.told(POD, "A", "x", 1000.0 + REFILL_SECONDS, warning=False)[1]


def test_a_clock_that_goes_back_gives_and_takes_nothing():
    tally = Tally()
    tally.told(POD, "A", "x", 1_800_000_000.0, warning=False)
    story, allowed = tally.told(POD, "A", "x", 10.0, warning=False)
    assert (story.count, allowed) == (2, True)


def test_after_an_hour_it_is_news_again():
    tally = Tally()
    first, _ = tally.told(POD, "A", "x", 1000.0, warning=False)
    again, _ = tally.told(POD, "A", "x", 1000.0 + FORGOTTEN_SECONDS, warning=False)
    anew, _ = tally.told(POD, "A", "x", 1001.0 + 2 * FORGOTTEN_SECONDS, warning=False)
    assert again is first
    assert anew is not first
    assert anew.count == 1


def test_memory_is_bounded():
    tally = Tally()
    for number in range(3 * KEPT):
        about = ObjectRef("v1", "Pod", "x", str(number), "default")
        tally.told(about, "A", "x", 1000.0, warning=False)
    assert len(tally._stories) == len(tally._allowances) == KEPT
