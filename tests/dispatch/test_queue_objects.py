"""PriorityQueue as a Python object: any item, reference counts, cycles, errors, size."""

import gc
import pickle
import sys
import weakref

import pytest

from aimd.dispatch import PriorityQueue


class Thing:
    """Can be referred to weakly; compares with nothing."""

    __lt__ = __gt__ = __le__ = __ge__ = None
    __eq__ = None
    __hash__ = None


@pytest.fixture
def without_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_items_are_never_compared():
    queue = PriorityQueue()
    things = [Thing(), Thing(), None, float("nan"), [], "x"]
    for thing in things:
        queue.push(thing)
    assert [id(queue.pop()) for _ in things] == [id(thing) for thing in things]


def test_each_way_out_gives_the_reference_back():
    thing = Thing()
    before = sys.getrefcount(thing)
    queue = PriorityQueue()
    handles = [queue.push(thing, place % 3, place) for place in range(100)]
    assert sys.getrefcount(thing) == before + 100
    for handle in handles[::2]:
        queue.cancel(handle)
    assert sys.getrefcount(thing) == before + 50
    for handle in handles:
        queue.rekey(handle, 1, 1)
        queue.peek()
    assert sys.getrefcount(thing) == before + 50
    for _ in range(20):
        queue.pop()
    assert sys.getrefcount(thing) == before + 30
    del queue
    assert sys.getrefcount(thing) == before


def test_a_refused_push_keeps_nothing():
    thing = Thing()
    before = sys.getrefcount(thing)
    queue = PriorityQueue()
    for priority, deadline in ((2**63, 0), (0, -(2**63) - 1), ("1", 0), (0, None), (1.0, 0)):
        with pytest.raises((OverflowError, TypeError)):
            queue.push(thing, priority, deadline)
    assert sys.getrefcount(thing) == before
    assert len(queue) == 0
    queue._check()


def test_none_keeps_its_count():
    """A slot without an item holds None: that must come out even."""
    queue = PriorityQueue()
    for _ in range(100):
        queue.push("x")
    while queue:
        queue.pop()
    before = sys.getrefcount(None)
    for _ in range(100_000):
        queue.push("x")
        queue.pop()
    assert abs(sys.getrefcount(None) - before) < 1000


def test_a_dropped_queue_drops_its_items(without_collector):
    thing = Thing()
    gone = weakref.ref(thing)
    queue = PriorityQueue()
    queue.push(thing)
    del thing
    assert gone() is not None
    del queue
    assert gone() is None


def test_a_cycle_through_the_queue_is_collected(without_collector):
    thing = Thing()
    gone = weakref.ref(thing)
    thing.queue = PriorityQueue()
    thing.queue.push(thing, 1, 2)
    thing.queue.push(thing.queue)
    del thing
    assert gone() is not None
    gc.collect()
    assert gone() is None


def test_a_queue_used_while_its_cycle_is_collected_does_not_crash(without_collector):
    said = []

    class Last:
        def __del__(self):
            said.append(self.queue.pop())

    queue = PriorityQueue()
    queue.push("first")
    last = Last()
    last.queue = queue
    queue.push(last, 5)
    del queue, last
    gc.collect()
    assert said == ["first"]


def test_a_queue_whose_items_the_collector_took_says_so():
    queue = PriorityQueue()
    handle = queue.push("x")
    (items,) = [thing for thing in gc.get_referents(queue) if isinstance(thing, list)]
    items.clear()
    for use in (queue.pop, queue.peek, lambda: queue.cancel(handle), lambda: queue.push("y")):
        with pytest.raises(RuntimeError, match="cleared by the garbage collector"):
            use()


def test_an_item_that_uses_the_queue_while_it_leaves_sees_it_whole():
    queue = PriorityQueue()
    seen = []

    class Parting:
        def __del__(self):
            queue._check()
            seen.append(len(queue))
            queue.push("from the grave", -1)

    handle = queue.push(Parting())
    for place in range(10):
        queue.push(place)
    queue.cancel(handle)
    assert seen == [10]
    assert queue.pop() == "from the grave"
    queue._check()


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**40])
@pytest.mark.parametrize("name", ["priority", "deadline"])
def test_a_key_too_large_is_refused_by_name(name, value):
    queue = PriorityQueue()
    handle = queue.push("x")
    with pytest.raises(OverflowError, match=f"{name} {value} does not fit a signed 64-bit integer"):
        queue.push("y", **{name: value})
    with pytest.raises(OverflowError, match=name):
        queue.rekey(handle, **{"priority": 0, "deadline": 0, name: value})
    assert len(queue) == 1


def test_a_key_that_is_no_integer_is_refused_by_name():
    queue = PriorityQueue()
    with pytest.raises(TypeError, match="deadline is of type float: expected an int"):
        queue.push("x", deadline=1.5)
    with pytest.raises(TypeError, match="priority is of type str: expected an int"):
        queue.push("x", "1")


@pytest.mark.parametrize("handle", [-1, -5, 0, 1, 1 << 32, (1 << 32) + 1, (1 << 63) - 1, 1 << 63, 1 << 200])
def test_a_number_that_push_never_returned_names_nothing(handle):
    queue = PriorityQueue()
    assert queue.cancel(handle) is False
    kept = queue.push("x")
    queue.cancel(queue.push("y"))  # a free slot, whose generation a made-up handle may hit
    if handle != kept:
        assert queue.cancel(handle) is False
        assert queue.rekey(handle, 0, 0) is False
    assert queue.cancel(kept) is True


@pytest.mark.parametrize("handle", [None, "1", 1.0])
def test_a_handle_that_is_no_integer_is_a_mistake(handle):
    with pytest.raises(TypeError, match="expected what push returned"):
        PriorityQueue().cancel(handle)


def test_an_empty_queue_says_so():
    queue = PriorityQueue()
    assert not queue
    for use in (queue.pop, queue.peek):
        with pytest.raises(IndexError, match="an empty PriorityQueue: expected at least one entry"):
            use()


def test_size_counts_the_heap():
    queue = PriorityQueue()
    empty = sys.getsizeof(queue)
    for place in range(1000):
        queue.push(place)
    assert sys.getsizeof(queue) > empty + 1000 * 40


def test_it_is_generic_and_not_pickled():
    assert PriorityQueue[int].__origin__ is PriorityQueue
    with pytest.raises(TypeError):
        pickle.dumps(PriorityQueue())


def test_a_subclass_may_add_attributes():
    class Named(PriorityQueue):
        pass

    queue = Named()
    queue.name = "n"
    queue.push(1)
    assert queue.pop() == 1
