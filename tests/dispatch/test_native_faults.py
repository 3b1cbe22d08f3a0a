"""Deliberate faults in the native sources, each built and shown to be caught: `pytest -m campaign` with this file.

A fault replaces one text that occurs once. The same build without a fault must pass first, or nothing would be shown.
"""

import pytest

from tests.dispatch.builds import build, copy_sources, run_tests

CORE_TESTS = (
    "tests/dispatch/test_core_ranges.py",
    "tests/dispatch/test_native_reentrancy.py",
    "tests/dispatch/test_native_expiry.py",
    "tests/dispatch/test_native_core.py",
    "tests/dispatch/test_native_large.py",
    "tests/dispatch/test_native_lockstep.py::test_seeded_lives",
)
QUEUE_TESTS = ("tests/dispatch/test_queue_order.py", "tests/dispatch/test_queue_objects.py")

FAULTS = {
    "drop the green tier": ("rule.pxi", "green = partition.hungry.top != 0", "green = False"),
    "ignore limits": ("rule.pxi", "if model.run < model.limit:", "if True:"),
    "ignore capacity": ("rule.pxi", "if partition.run >= partition.capacity:", "if partition.run > partition.capacity:"),
    "largest missing share upside down": ("rule.pxi", "or missing > best_missing or", "or missing < best_missing or"),
    "off by one in the credit": ("rule.pxi", "LOW_CREDIT = 15", "LOW_CREDIT = 16"),
    "credit kept when a lane is empty": ("lease.pxi", "        model.waited[klass] = 0\n", "        pass\n"),
    "credit of the class itself grows": ("rule.pxi", "    waited[chosen] = 0\n", "    waited[chosen] -= 1\n"),
    "forget the weight": ("rule.pxi", "= tag + model.step", "= tag + TAG_SCALE"),
    "forget the remainder of the weight": ("rule.pxi", "model.carry[klass] += model.rest", "pass"),
    "bank idle time": ("rule.pxi", "tag = max(core.models[index].tags[klass], virtual)", "tag = core.models[index].tags[klass]"),
    "tags are not lowered": ("rule.pxi", "max(core.models[index].tags[klass] - low, 0)", "core.models[index].tags[klass]"),
    "forget the rule of a changed weight": (
        "configuration.pxi",
        "min(model.tags[klass], partition.tags[klass] + model.step)",
        "model.tags[klass]",
    ),
    "first come, first served": ("lane.pxi", "when >= core.requests[lane.tail].timer.when:", "True:"),
    "ties by slot": ("heap.pxi", "heap.ties[a.slot].seq < heap.ties[b.slot].seq", "a.slot > b.slot"),
    "a removed node never rises": ("heap.pxi", "if place and heap_before(heap, &last", "if False and heap_before(heap, &last"),
    "a chunk is not given back": ("heap.pxi", "        heap.pool.free_count += 1\n", "        pass\n"),
    "expire one nanosecond late": ("wheel.pxi", "heap_node(&wheel.due, 0).when <= now:", "heap_node(&wheel.due, 0).when < now:"),
    "a bucket stays marked": ("wheel.pxi", "            if timer.next == NONE and bucket != BEYOND:", "            if False:"),
    "sleep too long": ("wheel.pxi", "    if when < wheel.next:\n", "    if wheel.next == NEVER:\n"),
    "beyond the horizon and forgotten": ("wheel.pxi", "    if wheel.heads[BEYOND] == NONE:", "    if True:"),
    "release of an ended lease": ("lease.pxi", "not core.leases[slot].live or core.leases[slot].id != lease", "not core.leases[slot].live"),
    "an id names two leases": ("lease.pxi", "    lease.id += 1 << SLOT_BITS\n", ""),
    "grants do not follow an end": ("lease.pxi", "    set_add(&core.dirty, partition.rank)\n    model", "    model"),
    "leak on disconnect": ("calls.pxi", "        if alive:\n            orphan", "        if True:\n            orphan"),
    "an adopted orphan is lost": ("calls.pxi", "    core.leases[slot].lost_at = NEVER\n", ""),
    "reclaim at the guarantee": ("calls.pxi", "model.run > model.guarantee:", "model.run >= model.guarantee:"),
    "any process may release": (
        "calls.pxi",
        "core.leases[slot].process != core.connections[connection].process",
        "False",
    ),
    "shed an entitled entry": ("admission.pxi", "lane_youngest(core, lane, lane.count - most)", "lane_youngest(core, lane, 0)"),
    "shed the oldest": ("lane.pxi", "core.requests[in_order].seq > core.requests[late].seq", "core.requests[in_order].seq < core.requests[late].seq"),
    "refuse an entitled arrival": ("admission.pxi", "entitled = would_be_entitled(core, index, klass, start_by)", "entitled = False"),
    "entitled although later": ("lane.pxi", "if heap_node(&lane.late, place).when <= when:", "if heap_node(&lane.late, place).when < when:"),
    "shed without need": ("admission.pxi", "if entitled and model.waiting < model.guarantee - model.run:", "if False:"),
    "a hash table with holes": ("table.pxi", "            table.cells[hole] = table.cells[place]\n            hole = place\n", "            pass\n"),
    "not the lowest number": ("bits.pxi", "middle = (high << 6) | lowest_bit(numbers.middle[high])", "middle = (high << 6) | highest_bit(numbers.middle[high])"),
    "a torn snapshot": ("statistics.pxi", "    if statistics.freezing:\n", "    if False:\n"),
    "a swept heap out of order": ("heap.pxi", "    while place:\n        place -= 1\n        heap_sift_down", "    while place > 1:\n        place -= 1\n        heap_sift_down"),
    "a swept heap keeps its chunks": ("heap.pxi", "    while chunk > heap_chunks_of(kept):", "    while False:"),
    "a sweep takes one too many": ("heap.pxi", "if heap_node(heap, place).when > now:", "if heap_node(heap, place).when > now + 1:"),
    "few are swept, and one is left": ("lane.pxi", "        while lane.swept:\n", "        while lane.swept > 1:\n"),
    "a model that lost entries is not looked at": ("calls.pxi", "        model_changed(core, model, counters_write(core, model), False)\n", "        pass\n"),
    "sums wrap": ("wheel.pxi", "return now + wait if wait <= NEVER - now else NEVER", "return <int64_t>(<uint64_t>now + <uint64_t>wait)"),
    "restore although something has run": ("reading.pxi", "if core.begun or core.waiting:", "if core.running or core.waiting:"),
    "the carry of a sum is lost": ("statistics.pxi", "    counters.latency_sum[sketch][1] += counters", "    counters.latency_sum[sketch][1] += 0 * counters"),
    "a finalizer within a call": ("core.pyx", "self.collecting = PyGC_Disable()", "self.collecting = False"),
    "the model of the last acquire, though there is none": ("calls.pxi", "not core.models[index].used or ", ""),
    "the model of the last acquire, on whichever partition": ("calls.pxi", " or core.partitions[place].id != partition", ""),
    "a call within a call": ("calls.pxi", "return flag_take(&core.entered)", "return True"),
    "a refused call keeps the core": ("core.pyx", "        if self.collecting:\n            PyGC_Enable()\n        core_leave", "        if self.core.event_count:\n            core_leave"),
    "an argument out of its range": ("core.pyx", "if overflow == 0 and least <= number <= most:", "if overflow == 0:"),
    "a later snapshot is read by an earlier one": ("core.pyx", "if epoch != self.core.statistics.epoch:", "if False:"),
    "time of yesterday": ("statistics.pxi", "    counters.since = now\n", "    counters.since = now - 1\n"),
}  # fmt: skip

QUEUE_FAULTS = {
    "ties by chance": ("heapkey.pxi", "(a->key == b->key) & (a->seq < b->seq)", "(a->key == b->key) & 0"),
    "a handle names two entries": ("queue.pyx", "self.slots[slot].generation += 1", "pass"),
    "the last node does not rise": ("queue.pyx", "while place > top:", "while False:"),
    "a removed node never rises": ("queue.pyx", "if place and node_before(&last", "if False and node_before(&last"),
    "three children": ("heapkey.pxi", "left ^ ((left ^ right) & swap)", "left"),
    "an item kept": ("queue.pyx", "        Py_DECREF(item) ", "        pass  # "),
    "a worn slot used again": ("queue.pyx", "if self.slots[slot].generation >= LAST_GENERATION:", "if False:"),
}


ENDS_OF_PYTEST = (2, 3, 4, 5)  # it could not collect, failed itself, was called wrongly, found no test


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Sources whose build passes the tests that are to catch the faults."""
    tree = tmp_path_factory.mktemp("faults")
    copy_sources(tree)
    build(tree, CFLAGS="-O0")
    result = run_tests(tree, "-o", "timeout=300", *CORE_TESTS, *QUEUE_TESTS)
    assert result.returncode == 0, f"the faultless build fails:\n{result.stdout[-3000:]}{result.stderr[-3000:]}"
    return tree


def is_caught(tree, name, old, new, tests):
    source = tree / "native" / name
    text = source.read_text()
    assert text.count(old) == 1, f"the fault's text occurs {text.count(old)} times in {name}"
    source.write_text(text.replace(old, new))
    try:
        build(tree, CFLAGS="-O0")
        result = run_tests(tree, "-o", "timeout=300", *tests)
        assert result.returncode not in ENDS_OF_PYTEST, result.stdout[-3000:] + result.stderr[-3000:]
        return result.returncode != 0
    finally:
        source.write_text(text)


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_core_is_caught(tree, fault):
    assert is_caught(tree, *FAULTS[fault], CORE_TESTS)


@pytest.mark.campaign
@pytest.mark.timeout(0)
@pytest.mark.parametrize("fault", QUEUE_FAULTS)
def test_a_fault_of_the_queue_is_caught(tree, fault):
    assert is_caught(tree, *QUEUE_FAULTS[fault], QUEUE_TESTS)
