"""A node's ResourceSlices are kept as somebody decides they should be, whatever others do to them."""

import contextlib
import json

import pytest

from aimd.adapters.kube.objects import ApiObjects
from aimd.adapters.kube.slices import SlicePool
from aimd.adapters.kube.writer import Writer
from tests.fakes.kube_api import NODES, SLICES
from tests.kube.conftest import QUICK
from tests.systemd.machine import until

DRIVER = "gpu.aimd.dev"


def slice_of(number, generation, count, devices, node="a", driver=DRIVER):
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-aimd-{number:03}"},
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": count},
            "devices": [{"name": each} for each in devices],
        },
    }


class Wish:
    """The decision of a test: slices with these devices, of one generation."""

    def __init__(self, *parts):
        self.parts = parts

    def __call__(self, there):
        there = sorted(there, key=lambda each: each["metadata"]["name"])
        pools = {json.dumps(each["spec"]["pool"], sort_keys=True) for each in there}
        devices = tuple(tuple(device["name"] for device in each["spec"]["devices"]) for each in there)
        if devices == self.parts and len(pools) <= 1:
            return None
        generation = 1 + max((each["spec"]["pool"]["generation"] for each in there), default=0)
        return [slice_of(number, generation, len(self.parts), each) for number, each in enumerate(self.parts)]


TWO = Wish(("cpx-0", "cpx-1"), ("spx-0",))


@pytest.fixture
def pools(api, connect):
    """A function that starts a pool of node a; all end with the test."""
    api.put(NODES, {"metadata": {"name": "a", "uid": "node-uid"}})
    with contextlib.ExitStack() as ends:

        def make():
            connection = connect()
            writer = Writer(ApiObjects(connection, "a"), connection, QUICK)
            pool = SlicePool(connection, writer.submit, "a", DRIVER, QUICK)
            writer.start()
            pool.start()
            ends.callback(writer.close)
            ends.callback(pool.close)
            return pool

        yield make


@pytest.fixture
def pool(pools):
    made = pools()
    until(lambda: made.synced, "never synced")
    return made


def there(api):
    """Name, generation and count of all slices."""
    found = sorted(api.all(SLICES), key=lambda each: each["metadata"]["name"])
    pools = [each["spec"]["pool"] for each in found]
    return [
        (each["metadata"]["name"], pool["generation"], pool["resourceSliceCount"])
        for each, pool in zip(found, pools, strict=True)
    ]


def settled(pool, slices):
    until(
        lambda: pool.statistics().published and pool.statistics().slices == slices,
        lambda: f"not published: {pool.statistics()}",
    )


def test_a_pool_is_published(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    assert there(api) == [("a-aimd-000", 1, 2), ("a-aimd-001", 1, 2)]
    found = api.get(SLICES, "a-aimd-000")
    assert found["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "node-uid", "controller": True}
    ]
    assert [each["name"] for each in found["spec"]["devices"]] == ["cpx-0", "cpx-1"]
    assert [each["metadata"]["name"] for each in pool.published()] == ["a-aimd-000", "a-aimd-001"]
    statistics = pool.statistics()
    assert (statistics.generation, statistics.wanted, statistics.vanished) == (1, 2, 0)
    assert statistics.writes == {"create": 2}
    assert all(each.query["fieldManager"] == "aimd" for each in api.asked("create", SLICES))


def test_it_may_be_published_before_anything_is_known(api, pools):
    pool = pools()
    pool.publish(TWO)
    settled(pool, 2)


def test_the_same_again_writes_nothing(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    before = len(api.requests)
    for _ in range(5):
        pool.publish(Wish(*TWO.parts))
    settled(pool, 2)
    assert [each for each in api.requests[before:] if each.verb != "list"] == []


def test_a_change_is_a_generation_of_all_slices(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    pool.publish(Wish(("cpx-0",), ("spx-0",), ("dpx-0",)))
    settled(pool, 3)
    assert there(api) == [(f"a-aimd-00{number}", 2, 3) for number in range(3)]
    pool.publish(Wish(("cpx-0",)))
    settled(pool, 1)
    assert there(api) == [("a-aimd-000", 3, 1)]
    assert pool.statistics().writes == {"create": 3, "update": 3, "delete": 2}
    pool.publish(Wish())
    settled(pool, 0)
    assert there(api) == []


def test_what_vanishes_is_published_again(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    api.remove(SLICES, "a-aimd-001")
    until(lambda: len(there(api)) == 2 and len({each[1:] for each in there(api)}) == 1, lambda: there(api))
    settled(pool, 2)
    assert pool.statistics().vanished == 1


def test_all_of_it_vanishes_as_when_the_kubelet_restarts(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    for name in ("a-aimd-000", "a-aimd-001"):
        api.remove(SLICES, name)
    until(lambda: len(there(api)) == 2 and len({each[1:] for each in there(api)}) == 1, lambda: there(api))
    settled(pool, 2)
    until(lambda: pool.statistics().vanished == 2, pool.statistics)


def test_what_others_change_is_put_right(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    changed = api.get(SLICES, "a-aimd-000")
    changed["spec"]["devices"] = []
    api.put(SLICES, changed)
    until(lambda: there(api)[0][1] == 2, "not put right")
    settled(pool, 2)
    assert [each["name"] for each in api.get(SLICES, "a-aimd-000")["spec"]["devices"]] == ["cpx-0", "cpx-1"]


def test_what_a_former_daemon_published_is_taken_over(api, pools):
    for number, devices in enumerate(TWO.parts):
        api.put(SLICES, slice_of(number, 7, 2, devices))
    pool = pools()
    pool.publish(TWO)
    settled(pool, 2)
    assert there(api) == [("a-aimd-000", 7, 2), ("a-aimd-001", 7, 2)]
    assert pool.statistics().generation == 7
    api.remove(SLICES, "a-aimd-000")
    until(lambda: there(api) == [("a-aimd-000", 8, 2), ("a-aimd-001", 8, 2)], lambda: there(api))


def test_stale_slices_of_other_names_go(api, pool):
    api.put(SLICES, {**slice_of(0, 3, 1, ["old"]), "metadata": {"name": "another-name"}})
    until(lambda: pool.statistics().slices == 1, "not told")
    pool.publish(TWO)
    settled(pool, 2)
    assert there(api) == [("a-aimd-000", 4, 2), ("a-aimd-001", 4, 2)]


def test_slices_of_other_drivers_and_nodes_are_left_alone(api, pool):
    api.put(SLICES, {**slice_of(0, 1, 1, ["x"], driver="nic.example.com"), "metadata": {"name": "nic"}})
    api.put(SLICES, slice_of(0, 1, 1, ["y"], node="b"))
    pool.publish(TWO)
    settled(pool, 2)
    pool.publish(Wish())
    settled(pool, 0)
    assert [each[0] for each in there(api)] == ["b-aimd-000", "nic"]
    assert {each.query["fieldSelector"] for each in api.asked("watch", SLICES)} == {
        "spec.nodeName=a,spec.driver=gpu.aimd.dev"
    }


def test_a_slice_that_cannot_become_ours_is_made_anew(api, pool):
    api.put(
        SLICES,
        slice_of(0, 1, 1, ["x"])
        | {
            "spec": {
                **slice_of(0, 1, 1, ["x"])["spec"],
                "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
            }
        },
    )
    until(lambda: pool.statistics().slices == 1, "not told")
    uid = api.get(SLICES, "a-aimd-000")["metadata"]["uid"]
    pool.publish(TWO)
    settled(pool, 2)
    found = api.get(SLICES, "a-aimd-000")
    assert found["spec"]["pool"]["name"] == "a"
    assert found["metadata"]["uid"] != uid


def test_a_name_that_belongs_to_another_node_is_told(api, pool):
    api.put(SLICES, {**slice_of(0, 1, 1, ["x"], node="b"), "metadata": {"name": "a-aimd-000"}})
    pool.publish(TWO)
    until(lambda: pool.statistics().problem, "no problem is told")
    assert "already exists" in pool.statistics().problem
    assert not pool.statistics().published
    api.remove(SLICES, "a-aimd-000")
    settled(pool, 2)
    assert pool.statistics().problem is None


@pytest.mark.parametrize("verb", ["list", "create", "get", "update", "delete"])
@pytest.mark.parametrize("fault", [{"code": 500}, {"code": 429}, {"code": 409}, {"drop": True}], ids=str)
def test_what_fails_is_tried_again(api, pool, verb, fault):
    pool.publish(Wish(("old",), ("older",), ("oldest",)))
    settled(pool, 3)
    api.remove(SLICES, "a-aimd-001")  # so that there is something to create, to update and to delete
    settled(pool, 3)
    api.fail(verb, NODES if verb == "get" else SLICES, times=3, **fault)
    pool.publish(Wish(("cpx-0", "cpx-1"), ("spx-0",)))
    api.remove(SLICES, "a-aimd-000")
    until(
        lambda: (
            len({each[1:] for each in there(api)}) == 1
            and [each[0] for each in there(api)] == ["a-aimd-000", "a-aimd-001"]
        ),
        lambda: f"{there(api)} {pool.statistics()}",
    )
    settled(pool, 2)


def test_what_is_refused_is_told_and_tried_again_with_the_next_change(api, pool):
    api.fail("create", SLICES, code=422, times=1)
    pool.publish(TWO)
    until(lambda: pool.statistics().problem, "no problem is told")
    assert not pool.statistics().published
    pool.publish(Wish(("cpx-0",)))
    settled(pool, 1)
    assert pool.statistics().problem is None


def test_one_that_vanishes_while_it_is_written(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    api.fail("update", SLICES, code=404)
    pool.publish(Wish(("x",), ("y",)))
    settled(pool, 2)
    assert len({each[1:] for each in there(api)}) == 1


def test_without_its_node_a_slice_has_no_owner(api, pool):
    api.remove(NODES, "a")
    pool.publish(TWO)
    settled(pool, 2)
    assert "ownerReferences" not in api.get(SLICES, "a-aimd-000")["metadata"]


def test_what_is_published_stays_at_the_end(api, pool):
    pool.publish(TWO)
    settled(pool, 2)
    pool.close()
    assert len(there(api)) == 2
