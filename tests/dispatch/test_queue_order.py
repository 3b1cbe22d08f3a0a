"""PriorityQueue against a list that is sorted before each question; invariants of the compiled structure each time."""

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aimd.dispatch import PriorityQueue

LEAST, MOST = -(2**63), 2**63 - 1
# Few values, so that ties are common; the ends, so that the sign and the last bit count.
KEYS = st.one_of(st.integers(-2, 2), st.sampled_from([LEAST, LEAST + 1, MOST - 1, MOST]), st.integers(LEAST, MOST))


class QueueAgainstSortedList(RuleBasedStateMachine):
    """`entries` maps each handle to (priority, deadline, insertion, item)."""

    def __init__(self):
        super().__init__()
        self.queue = PriorityQueue()
        self.entries = {}
        self.pushed = 0
        self.gone = set()

    def handle(self, data):
        return data.draw(st.sampled_from(sorted(self.entries)))

    def first(self):
        return min(self.entries, key=lambda handle: self.entries[handle][:3])

    @rule(priority=KEYS, deadline=KEYS)
    def push(self, priority, deadline):
        item = object()
        handle = self.queue.push(item, priority, deadline)
        assert handle not in self.entries
        assert handle not in self.gone
        self.entries[handle] = (priority, deadline, self.pushed, item)
        self.pushed += 1

    @rule(count=st.integers(1, 40), seed=st.integers(0, 2**16))
    def push_many(self, count, seed):
        numbers = random.Random(seed)
        for _ in range(count):
            self.push(numbers.randrange(3), numbers.randrange(8))

    @precondition(lambda self: self.entries)
    @rule()
    def pop(self):
        handle = self.first()
        assert self.queue.pop() is self.entries.pop(handle)[3]
        self.gone.add(handle)

    @precondition(lambda self: self.entries)
    @rule(data=st.data())
    def cancel(self, data):
        handle = self.handle(data)
        assert self.queue.cancel(handle) is True
        del self.entries[handle]
        self.gone.add(handle)

    @precondition(lambda self: self.entries)
    @rule(data=st.data(), priority=KEYS, deadline=KEYS)
    def rekey(self, data, priority, deadline):
        handle = self.handle(data)
        assert self.queue.rekey(handle, priority, deadline) is True
        self.entries[handle] = (priority, deadline, *self.entries[handle][2:])

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def ask_for_what_left(self, data):
        handle = data.draw(st.sampled_from(sorted(self.gone)))
        assert self.queue.cancel(handle) is False
        assert self.queue.rekey(handle, 0, 0) is False

    @invariant()
    def agrees(self):
        self.queue._check()
        assert len(self.queue) == len(self.entries)
        assert bool(self.queue) is bool(self.entries)
        if self.entries:
            assert self.queue.peek() is self.entries[self.first()][3]

    def teardown(self):
        while self.entries:
            self.pop()
        with pytest.raises(IndexError, match="expected at least one entry"):
            self.queue.pop()


TestQueueAgainstSortedList = QueueAgainstSortedList.TestCase
TestQueueAgainstSortedList.settings = settings(
    max_examples=100, stateful_step_count=50, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 59, 60, 61, 62, 1000, 20_000])
def test_leaves_in_sorted_order(count):
    numbers = random.Random(count)
    queue = PriorityQueue()
    keys = [(numbers.randrange(3), numbers.randrange(count), place) for place in range(count)]
    for key in keys:
        queue.push(key, key[0], key[1])
    queue._check()
    assert [queue.pop() for _ in range(count)] == sorted(keys)


def test_equal_entries_leave_in_order_of_insertion():
    queue = PriorityQueue()
    for place in range(300):
        queue.push(place)
    assert [queue.pop() for _ in range(300)] == list(range(300))


def test_a_rekeyed_entry_keeps_its_rank_of_insertion():
    queue = PriorityQueue()
    first = queue.push("first", 5)
    queue.push("second")
    assert queue.rekey(first, 0, 0)
    assert queue.pop() == "first"


def test_operations_in_the_middle_of_a_large_queue():
    numbers = random.Random(7)
    queue = PriorityQueue()
    entries = {}
    for place in range(5000):
        key = (numbers.randrange(3), numbers.randrange(1 << 40), place)
        entries[queue.push(key, *key[:2])] = key
    for handle in numbers.sample(sorted(entries), 4000):
        if numbers.random() < 0.5:
            assert queue.cancel(handle)
            del entries[handle]
        else:
            old = entries[handle]
            entries[handle] = (numbers.randrange(3), numbers.randrange(1 << 40), old[2])
            assert queue.rekey(handle, *entries[handle][:2])
    queue._check()
    assert [queue.pop()[2] for _ in range(len(entries))] == [key[2] for key in sorted(entries.values())]


def test_a_slot_whose_generations_are_used_up_is_not_used_again():
    queue = PriorityQueue()
    queue._start_generation(2**31 - 3)
    handles = []
    for place in range(5):
        handles.append(queue.push(place))
        assert queue.pop() == place
        queue._check()
    assert len(set(handles)) == 5
    assert handles[0] >> 32 == 2**31 - 3
    assert handles[1] & 0xFFFFFFFF == 0
    assert handles[2] & 0xFFFFFFFF == 1
    assert max(handles) < 2**63
    assert not any(queue.cancel(handle) for handle in handles)
