"""A reflector before an API server that goes wrong: what it knows in the end is what is there."""

import itertools
import json
import threading
import time
from dataclasses import replace

import pytest

from aimd.adapters.kube import resources
from aimd.adapters.kube.reflector import Reflector
from tests.fakes.kube_api import NODES, PARTITIONS, PODS, status
from tests.kube.conftest import QUICK
from tests.systemd.machine import until


def pod(name, node="a", **metadata):
    return {"metadata": {"namespace": "default", "name": name, **metadata}, "spec": {"nodeName": node}}


def names(reflector):
    return sorted(each.ref.name for each in reflector.things())


def knows(reflector, *expected):
    until(lambda: reflector.synced and names(reflector) == sorted(expected), lambda: f"knows {names(reflector)}", 5)


def watched(api, times=1):
    """All requests for a watch that were answered, once there are so many and the last stands."""
    until(lambda: answered(api) >= times and api.watches(PODS) == 1, lambda: f"{answered(api)} watches", 5)


def answered(api):
    return sum(request.code == 200 for request in api.asked("watch", PODS))


def restarts(reflector):
    return reflector.statistics().restarts


def test_it_lists_and_follows(api, reflect):
    api.put(PODS, pod("one"))
    api.put(PODS, pod("elsewhere", "b"))
    reflector = reflect()
    knows(reflector, "one")
    watched(api)
    api.put(PODS, pod("two"))
    api.put(PODS, pod("elsewhere2", "b"))
    knows(reflector, "one", "two")
    api.put(PODS, pod("one", annotations={"aimd.dev/gpu-sharing": "enabled"}))
    until(lambda: any(each.annotations for each in reflector.things()), "the change does not arrive")
    api.remove(PODS, "two", "default")
    knows(reflector, "one")
    statistics = reflector.statistics()
    assert (statistics.connected, statistics.synced, statistics.objects) == (True, True, 1)
    assert (statistics.lists, statistics.running, statistics.missing) == ({"first": 1}, True, False)
    assert statistics.events == 3
    assert statistics.restarts == {}
    assert abs(statistics.told_at - time.time()) < 10


def test_what_it_asks(api, reflect):
    api.put(PODS, pod("one"))
    reflect()
    watched(api)
    (listing,), (watch,) = api.asked("list", PODS), api.asked("watch", PODS)
    assert listing.query == {"fieldSelector": "spec.nodeName=a", "resourceVersion": "0"}
    assert watch.query == {
        "fieldSelector": "spec.nodeName=a",
        "resourceVersion": "101",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "60",
        "watch": "1",
    }
    assert watch.agent == "aimd/test"
    assert watch.token == "first"


def test_the_time_of_a_watch_is_drawn(api, reflect):
    reflect(patience=replace(QUICK, watch=(240.0, 480.0)), chance=lambda: 0.25)
    watched(api)
    assert api.asked("watch", PODS)[0].query["timeoutSeconds"] == "300"


def test_it_tells_of_changes_and_of_nothing_else(api, reflect):
    told, made = [], []

    def reflector_knows():
        return sorted(each.ref.name for each in made[0].things()) if made else None

    made.append(reflect(lambda: told.append((reflector_knows(), threading.current_thread().name))))
    watched(api)
    until(lambda: len(told) == 1, "an empty list is not told")
    (reflector,) = made
    api.bookmark(PODS)
    api.say(PODS, b"\n")
    api.say(PODS, {"type": "ADDED", "object": {**pod("late", uid="u", resourceVersion="1")}})
    api.put(PODS, pod("one"))
    until(lambda: len(told) == 2, "the pod is not told")
    assert told[1] == (["one"], "aimd-watch-pods")
    api.put(PODS, {**pod("one"), "status": {"podIP": "10.0.0.1"}})  # it is another version
    until(lambda: len(told) == 3, "that it has changed is not told")
    assert reflector.statistics().events == 4
    assert restarts(reflector) == {}


def test_it_is_synced_after_the_first_list_only(api, reflect):
    api.fail("list", PODS, code=500)
    api.fail("list", PODS, delay=0.2)
    api.put(PODS, pod("one"))
    reflector = reflect()
    until(lambda: reflector.statistics().problem, "no problem is told")
    assert not reflector.synced
    assert reflector.things() == ()
    knows(reflector, "one")
    assert restarts(reflector) == {"server_error": 1}


def test_a_watch_that_ends_goes_on_where_it_was(api, reflect):
    reflector = reflect()
    watched(api)
    api.put(PODS, pod("one"))
    knows(reflector, "one")
    api.end_watches()
    api.put(PODS, pod("two"))
    knows(reflector, "one", "two")
    watched(api, 2)
    assert [request.query["resourceVersion"] for request in api.asked("watch", PODS)] == ["100", "101"]
    assert len(api.asked("list", PODS)) == 1
    assert restarts(reflector) == {"ended_early": 1}


def test_a_bookmark_is_where_it_goes_on(api, reflect):
    reflector = reflect()
    watched(api)
    api.advance(50)
    version = api.bookmark(PODS)
    until(lambda: reflector.statistics().events == 1, "the bookmark does not arrive")
    api.compact()  # without the bookmark all would be lost
    api.cut_watches()
    watched(api, 2)
    assert api.asked("watch", PODS)[1].query["resourceVersion"] == version == "150"
    assert len(api.asked("list", PODS)) == 1


@pytest.mark.parametrize("as_event", [True, False])
def test_a_version_that_is_gone_is_listed_anew(api, reflect, as_event):
    api.put(PODS, pod("one"))
    reflector = reflect()
    watched(api)
    api.fail("watch", PODS, code=503, times=1)
    api.cut_watches()
    api.remove(PODS, "one", "default")
    api.put(PODS, pod("two"))
    api.compact(as_event=as_event)
    knows(reflector, "two")
    assert restarts(reflector)["gone"] == 1
    assert "resourceVersion" not in api.asked("list", PODS)[1].query  # the newest, not what a cache has
    watched(api, 2)


def test_an_endless_410_is_no_storm(api, reflect):
    reflector = reflect(patience=replace(QUICK, first=0.1, longest=0.5), chance=lambda: 1.0)
    api.fail("watch", PODS, code=410, times=1000)
    time.sleep(1)
    assert len(api.asked("list", PODS)) < 8
    api.heal()
    api.put(PODS, pod("one"))
    knows(reflector, "one")


@pytest.mark.parametrize("code", [500, 503, 504, 403, 429])
@pytest.mark.parametrize("verb", ["list", "watch"])
def test_it_outlives_bad_answers(api, reflect, verb, code):
    api.fail(verb, PODS, code=code, times=3)
    reflector = reflect()
    api.put(PODS, pod("one"))
    knows(reflector, "one")
    watched(api)
    (reason,) = restarts(reflector)
    assert reason == {403: "denied", 429: "throttled"}.get(code, "server_error")
    assert restarts(reflector)[reason] == 3
    until(lambda: reflector.statistics().problem is None, "the problem stays")


def test_bad_answers_are_asked_for_less_and_less_often(api, reflect):
    api.fail("list", PODS, code=500, times=1000)
    reflect(patience=replace(QUICK, first=0.05, longest=0.4), chance=lambda: 1.0)
    until(lambda: len(api.asked("list", PODS)) == 6, "it gives up", 5)
    times = [request.at for request in api.asked("list", PODS)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps[0] >= 0.05
    assert gaps[1] >= 0.1
    assert gaps[2] >= 0.2
    assert all(0.4 <= gap < 1 for gap in gaps[3:])


def test_retry_after_is_respected(api, reflect):
    api.fail("list", PODS, code=429, headers={"Retry-After": "1"})
    reflect()
    until(lambda: len(api.asked("list", PODS)) == 2, "it gives up", 5)
    first, second = (request.at for request in api.asked("list", PODS))
    assert second - first >= 1


def test_a_slow_list_is_waited_for(api, reflect):
    api.put(PODS, pod("one"))
    api.fail("list", PODS, delay=0.3)
    reflector = reflect()
    knows(reflector, "one")
    assert restarts(reflector) == {}


def test_a_list_that_does_not_come_is_given_up(api, reflect):
    api.put(PODS, pod("one"))
    api.fail("list", PODS, delay=1.0)
    reflector = reflect()
    knows(reflector, "one")
    assert restarts(reflector) == {"timed_out": 1}


def test_a_half_open_watch_is_given_up(api, reflect):
    reflector = reflect()
    watched(api)
    api.hush()
    api.put(PODS, pod("one"))  # told to nobody
    began = time.monotonic()
    knows(reflector, "one")
    assert time.monotonic() - began < QUICK.silence + 1
    assert restarts(reflector) == {"timed_out": 1}
    assert len(api.asked("list", PODS)) == 1


def test_bookmarks_keep_a_quiet_watch_alive(api, reflect):
    reflector = reflect()
    watched(api)
    for _ in range(6):
        time.sleep(0.2)
        api.advance()
        api.bookmark(PODS)
    assert restarts(reflector) == {}


@pytest.mark.parametrize("partial", [b"", b'{"type": "DELETED", "object": {"metadata": {"uid"'])
def test_a_connection_that_breaks(api, reflect, partial):
    api.put(PODS, pod("one"))
    reflector = reflect()
    watched(api)
    api.cut_watches(partial)
    api.put(PODS, pod("two"))
    knows(reflector, "one", "two")
    assert restarts(reflector) == {"cut": 1}


def test_an_end_in_the_middle_of_a_line(api, reflect):
    reflector = reflect()
    watched(api)
    api.say(PODS, b'{"type": "ADDED"')
    api.end_watches()
    api.put(PODS, pod("one"))
    knows(reflector, "one")
    assert restarts(reflector) == {"cut": 1}


def test_answers_that_do_not_come(api, reflect):
    api.fail("list", PODS, drop=True)
    api.fail("watch", PODS, drop=True, times=2)
    api.put(PODS, pod("one"))
    reflector = reflect()
    knows(reflector, "one")
    watched(api)
    assert restarts(reflector) == {"cut": 3}


def test_lines_in_pieces_and_several_at_once(api, reflect):
    reflector = reflect()
    watched(api)
    lines = b"".join(
        json.dumps({"type": "ADDED", "object": pod(name, uid=name, resourceVersion=version)}).encode() + b"\n"
        for name, version in (("one", "201"), ("two", "202"), ("drei-\u00e4", "203"))
    )
    for start in range(0, len(lines), 50):
        api.say(PODS, lines[start : start + 50])
    knows(reflector, "one", "two", "drei-\u00e4")
    assert restarts(reflector) == {}


@pytest.mark.parametrize("line", [b"no json\n", b"{}\n", b"[1]\n", b"\xff\xfe\n", b'{"type": "ADDED", "object": {}}\n'])
def test_garbage(api, reflect, line):
    reflector = reflect()
    watched(api)
    api.say(PODS, line)
    api.put(PODS, pod("one"))
    knows(reflector, "one")
    assert restarts(reflector) == {"garbled": 1}
    assert len(api.asked("list", PODS)) == 1


@pytest.mark.parametrize(
    "body", [b"no json", b"[]", b'{"items": []}', b'{"metadata": {"resourceVersion": "5"}, "items": [1]}']
)
def test_a_list_of_garbage(api, reflect, body):
    api.put(PODS, pod("one"))
    api.fail("list", PODS, code=200, body=body)
    reflector = reflect()
    knows(reflector, "one")
    assert restarts(reflector) == {"garbled": 1}


def test_events_told_twice_and_late(api, reflect):
    first = api.put(PODS, pod("one"))
    told = []
    reflector = reflect(lambda: told.append(1))
    watched(api)
    api.put(PODS, pod("one", annotations={"a": "b"}))
    api.remove(PODS, "one", "default")
    second = api.put(PODS, pod("two"))
    api.say(
        PODS,
        {"type": "MODIFIED", "object": first},
        {"type": "ADDED", "object": second},
        {"type": "ADDED", "object": second},
        {"type": "DELETED", "object": {**second, "metadata": {**second["metadata"], "resourceVersion": "101"}}},
    )
    until(lambda: reflector.statistics().events == 7, "events are missing")
    assert names(reflector) == ["two"]
    assert len(told) == 4  # the list, and three changes


def test_a_pod_of_the_same_name_is_another(api, reflect):
    before = api.put(PODS, pod("one"))
    reflector = reflect()
    watched(api)
    api.remove(PODS, "one", "default")
    after = api.put(PODS, pod("one"))
    knows(reflector, "one")
    until(lambda: [each.ref.uid for each in reflector.things()] == [after["metadata"]["uid"]], "the old one stays")
    assert before["metadata"]["uid"] != after["metadata"]["uid"]


def test_a_pod_that_is_bound_or_leaves(api, reflect):
    api.put(PODS, pod("one", ""))
    reflector = reflect()
    watched(api)
    api.put(PODS, pod("one", "a"))
    knows(reflector, "one")
    api.put(PODS, pod("one", "b"))
    knows(reflector)


def test_an_error_in_the_watch(api, reflect):
    """Not the version is at fault, but what is behind: all is asked for again."""
    reflector = reflect()
    watched(api)
    api.say(PODS, {"type": "ERROR", "object": status(500, "etcd event received with PrevKv=nil")})
    until(lambda: len(api.asked("list", PODS)) == 2, "not listed anew")
    assert restarts(reflector) == {"watch_error": 1}


def test_nothing_is_forgotten_while_nobody_answers(api, reflect):
    api.put(PODS, pod("one"))
    reflector = reflect()
    watched(api)
    api.fail("*", "*", code=503, times=1000)
    api.cut_watches()
    until(lambda: restarts(reflector).get("server_error", 0) > 2, "it does not try")
    assert names(reflector) == ["one"]
    assert reflector.synced
    statistics = reflector.statistics()
    assert not statistics.connected
    assert "503" in statistics.problem
    api.remove(PODS, "one", "default")
    api.heal()
    knows(reflector)


def test_a_resource_that_is_not_served_is_empty(api, connect, reflect):
    """The CRD may come later, or go."""
    api.unserved.add(PARTITIONS)
    api.put(NODES, {"metadata": {"name": "a"}})
    reflector = reflect(connection=connect(), target=resources.node_partitions())
    until(lambda: reflector.synced, "never synced")
    assert reflector.things() == ()
    missing = reflector.statistics()
    assert (missing.missing, missing.synced, missing.told_at) == (True, False, None)
    api.unserved.clear()
    until(lambda: reflector.statistics().connected, "never connected")
    assert (reflector.statistics().missing, reflector.statistics().synced) == (False, True)
    assert reflector.statistics().lists == {"not_found": 1}
    api.unserved.add(PARTITIONS)
    api.end_watches()
    until(lambda: restarts(reflector).get("not_found", 0) > 3, "not asked again")
    assert reflector.things() == ()
    assert (reflector.statistics().missing, reflector.statistics().synced) == (True, False)
    api.fail("list", PARTITIONS, code=503, times=1000)
    until(lambda: restarts(reflector).get("server_error", 0) > 1, "not asked again")
    assert reflector.statistics().missing, "nobody has said that it is there by now"


def test_a_watch_that_ends_in_its_time_stays_connected(api, reflect):
    """It goes on at once: only what fails after it is a disconnection."""
    patience = replace(QUICK, watch=(1.0, 1.0), first=60.0, longest=60.0)
    reflector = reflect(patience=patience, chance=lambda: 1.0)
    watched(api)
    time.sleep(0.1)
    api.fail("watch", PODS, delay=0.4)
    api.end_watches()
    until(lambda: restarts(reflector).get("ended") == 1, "not ended")
    assert reflector.statistics().connected
    assert reflector.statistics().pause_seconds == 0
    until(lambda: api.watches(PODS) == 1, "not begun again")
    api.fail("*", "*", code=503, times=1000)
    api.cut_watches()
    until(lambda: not reflector.statistics().connected, "the failure is not told")
    assert reflector.statistics().pause_seconds == 60


@pytest.mark.parametrize("state", ["watching", "half-open", "pausing", "listing"])
def test_it_ends_soon(api, reflect, state):
    if state == "pausing":
        api.fail("list", PODS, code=500, times=1000)
    if state == "listing":
        api.fail("list", PODS, delay=1.0)
    patience = replace(QUICK, answer=60.0, silence=60.0, first=60.0, longest=60.0)
    reflector = reflect(patience=patience, chance=lambda: 1.0)
    if state in ("watching", "half-open"):
        watched(api)
    if state == "half-open":
        api.hush()
    until(lambda: state != "pausing" or reflector.statistics().problem, "no problem")
    until(lambda: api.asked("list", PODS), "it does not begin")
    began = time.monotonic()
    reflector.close()
    assert time.monotonic() - began < (1.5 if state == "listing" else 0.3)
    assert not reflector._thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_reflector_that_dies_says_so(reflect, caplog):
    reflector = reflect(lambda: 1 // 0)
    until(lambda: "restart aimd" in (reflector.statistics().problem or ""), "nobody is told")
    assert not reflector.statistics().connected
    until(lambda: not reflector.statistics().running, "it runs")
    assert "the thread that watches pods has ended" in caplog.text


def test_nothing_is_told_after_the_end(api, reflect):
    """The event loop that would be told may be closed."""
    api.fail("list", PODS, delay=0.4)
    told = []
    reflector = reflect(lambda: told.append(1))
    until(lambda: api.asked("list", PODS), "it does not begin")
    reflector.close()
    assert told == []


def test_a_reflector_that_never_began_ends(connect):
    Reflector(connect(), resources.pods(), "x=y", dict).close()
