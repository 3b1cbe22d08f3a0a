"""Arguments out of their range are refused by both cores in the same words, sums end at the last instant, and nothing
is restored into a core that has begun.
"""

from dataclasses import replace
from enum import IntEnum

import pytest

from aimd.dispatch import Kind, LeaseRecord, Limits, ModelConfig, NativeCore, PartitionConfig, Reference, canonical
from aimd.dispatch.bounds import BOUNDS, MAX_DURATION, MAX_ID, MAX_INSTANT, RANGES
from tests.dispatch.test_native_large import Life

SMALL = Limits(partitions=2, models=4, requests=40, leases=8, connections=4, requests_per_connection=30)

GOOD = {
    "advance": {"now": 5},
    "open": {"process": 1, "highest": 0},
    "acquire": {
        "now": 5,
        "connection": 0,
        "request": 2,
        "partition": 0,
        "model": 0,
        "klass": -1,
        "start_by": 100,
        "no_wait": False,
    },
    "release": {"now": 5, "connection": 0, "lease": 1 << 16, "ok": True},
    "renew": {"now": 5, "connection": 0, "lease": 1 << 16},
    "cancel": {"now": 5, "connection": 0, "request": 1},
    "adopt": {"now": 5, "connection": 0, "lease": 1 << 16},
    "disconnect": {"now": 5, "connection": 0, "alive": True},
    "exited": {"now": 5, "process": 1},
    "remove_partition": {"now": 5, "partition": 0},
    "drain": {"now": 5, "partition": 0},
    "undrain": {"now": 5, "partition": 0},
}
ARGUMENTS = [(call, name) for call, arguments in GOOD.items() for name in arguments]


class Sneaky(int):
    """An integer with ideas of its own about what it is."""

    def __index__(self):
        raise AssertionError("asked")

    __int__ = __repr__ = __str__ = __lt__ = __le__ = __gt__ = __ge__ = __index__


class Level(IntEnum):
    ONE = 1


def busy_core(kind):
    """A core with a lease that runs and a request that waits."""
    core = kind(SMALL)
    core.configure(0, 0, PartitionConfig((ModelConfig(0),), capacity=1, queue_cap=20))
    core.open(1)
    core.acquire(0, 0, 0, 0, 0)
    core.acquire(0, 0, 1, 0, 0)
    return core


def error_of(core, call, arguments):
    with pytest.raises(ValueError, match=r"^[^.]+$") as caught:
        getattr(core, call)(**arguments)
    return str(caught.value)


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_an_argument_out_of_its_range_is_refused_in_the_same_words(call, name):
    cores = [busy_core(kind) for kind in (NativeCore, Reference)]
    before = cores[0].snapshot()
    least, most = RANGES[name]
    for wrong in (least - 1, most + 1, 1 << 200, -(1 << 64), 1 << 20_000, 1.0, "1", None, float("nan"), [], object()):
        arguments = {**GOOD[call], name: wrong}
        said = {error_of(core, call, arguments) for core in cores}
        assert len(said) == 1, said
        assert said.pop().startswith(f"{name} is ")
    assert [core.snapshot() for core in cores] == [before, before]


@pytest.mark.parametrize(("call", "name"), ARGUMENTS)
def test_both_ends_of_a_range_are_taken(call, name):
    for value in (*RANGES[name], True, Level.ONE):
        answers = []
        for kind in (NativeCore, Reference):
            core = busy_core(kind)
            try:
                answers.append(getattr(core, call)(**{**GOOD[call], name: value}))
                assert answers[-1] is not None
            except ValueError as error:
                assert " is expected" not in str(error), "taken for out of range"  # noqa: PT017
                answers.append("ValueError")
        first, second = (canonical(answer) if isinstance(answer, list) else answer for answer in answers)
        assert first == second


def test_an_argument_runs_no_code_of_its_own():
    core = busy_core(NativeCore)
    core.advance(Sneaky(7))
    assert core.now == 7
    with pytest.raises(ValueError, match=r"now is -7: an integer from 0 to 9223372036854775807 is expected"):
        core.advance(Sneaky(-7))


@pytest.mark.parametrize("kind", [NativeCore, Reference])
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("wrong", [0, -1, 1 << 31, 1 << 70, 8.0, None])
def test_limits_are_checked_by_both(kind, bound, wrong):
    with pytest.raises(ValueError, match=rf"{bound} of a core's limits is .*: an integer from 1 to {BOUNDS[bound]} is"):
        kind(replace(SMALL, **{bound: wrong}))


@pytest.mark.parametrize("kind", [NativeCore, Reference])
@pytest.mark.parametrize("wrong", [0, 1 << 46, 1 << 64, 1.0, "1"])
def test_the_first_generation_is_checked_by_both(kind, wrong):
    with pytest.raises(
        ValueError, match=r"the first generation is .*: an integer from 1 to 70368744177663 is expected"
    ):
        kind(SMALL, generation=wrong)


@pytest.mark.parametrize("kind", [NativeCore, Reference])
@pytest.mark.parametrize("wrong", [-1, 1 << 63, 1.0, None])
def test_the_time_of_a_configuration_and_of_a_restoration_is_checked(kind, wrong):
    core = kind(SMALL)
    with pytest.raises(ValueError, match=r"^now is "):
        core.configure(wrong, 0, PartitionConfig((ModelConfig(0),)))
    with pytest.raises(ValueError, match=r"^now is "):
        core.restore(wrong, [LeaseRecord(1 << 16, 0, 0, 0, 1, 0, 9)])


@pytest.mark.parametrize("kind", [NativeCore, Reference])
@pytest.mark.parametrize("field", ["lease_max_ns", "orphan_grace_ns", "budget_ns", "latency_target_ns"])
def test_a_duration_is_at_most_half_of_all_time(kind, field):
    for wrong in (MAX_DURATION + 1, MAX_INSTANT, -1):
        value = (1, wrong, 1) if field == "budget_ns" else wrong
        model = field in ("budget_ns", "latency_target_ns")
        config = PartitionConfig(
            (replace(ModelConfig(0), **({field: value} if model else {})),), **({} if model else {field: value})
        )
        with pytest.raises(ValueError, match=rf"{field} is {wrong}: an integer from [01] to 4611686018427387904"):
            kind(SMALL).configure(0, 0, config)


@pytest.mark.parametrize("before_the_end", [0, 1, 10, MAX_DURATION - 1, MAX_DURATION + 1])
def test_sums_end_at_the_last_instant(before_the_end):
    """Deadline, renewal, budget and grace of both cores, at the end of time and as far from it as it can matter."""
    logs = []
    start = MAX_INSTANT - before_the_end
    longest = (MAX_DURATION,) * 3
    for kind in (NativeCore, Reference):
        core = kind(SMALL)
        model = ModelConfig(0, budget_ns=longest, latency_target_ns=MAX_DURATION)
        config = PartitionConfig((model,), 1, 20, lease_max_ns=MAX_DURATION, orphan_grace_ns=MAX_DURATION)
        log = [core.configure(start - 2, 0, config)]
        core.open(1)
        log += [core.acquire(start - 2, 0, number, 0, 0) for number in range(2)]
        log += [core.leases()]
        lease = 1 << 16
        log += [core.renew(start - 1, 0, lease), canonical(core.disconnect(start - 1, 0, alive=True)), core.leases()]
        core.open(1)
        log += [core.adopt(start, 0, lease), core.advance(start), canonical(core.advance(MAX_INSTANT)), core.snapshot()]
        logs.append(log)
    assert logs[0] == logs[1]
    ended = [event for events in logs[0] if isinstance(events, list) for event in events if event[0] == Kind.REVOKED]
    assert len(ended) == 1


def test_lives_that_reach_the_end_of_time():
    ends = []
    for seed in range(6):
        life = Life(seed, clock=17, check_every=5)
        life.now = MAX_INSTANT - 10**15
        life.call("advance")
        life.live(200)  # what comes after the end is refused by both
        ends.append(life.now > MAX_INSTANT)
        assert any(core.now > MAX_INSTANT - 10**15 for core in life.cores)
    assert any(ends)


@pytest.mark.parametrize("kind", [NativeCore, Reference])
def test_nothing_is_restored_once_a_lease_has_begun(kind):
    record = LeaseRecord(5 << 16, 0, 0, 0, 9, 0, 50)
    core = busy_core(kind)
    core.disconnect(1, 0, alive=False)
    assert core.leases() == ()
    assert sum(core.snapshot().partitions[0].models[0].waiting) == 0
    before = core.snapshot()
    with pytest.raises(ValueError, match="restored"):
        core.restore(1, [record])
    assert core.snapshot() == before
    core = kind(SMALL, generation=9)
    core.restore(1, [record])
    core.advance(60)
    assert core.leases() == ()
    with pytest.raises(ValueError, match="restored"):
        core.restore(60, [record])  # whatever it was, it has ended: its id must not return
    fresh = kind(SMALL, generation=9)
    assert fresh.restore(1, []) == []
    fresh.restore(1, [record])  # nothing was


def test_the_raw_calls_below_the_checks_are_safe():
    core = NativeCore(SMALL)
    for wrong in (
        [()],
        [(1 << 16, 0, 0, 0, 1, 0)],
        [(1 << 62, 0, 0, 0, 1, 0, 9)],
        [(1 << 16, 0, 0, 3, 1, 0, 9)],
        [(0,) * 7],
    ):
        with pytest.raises(ValueError, match=r"expected|unpack"):
            core._restore(5, wrong)
    for numbers, models in (((1, 2, 3), ()), ((1, 2, 3, 4), [()]), ((1, 2, 3, 4), [(0, 0, 1, 1, 9, 1, (1, 2), 0)])):
        with pytest.raises(ValueError, match="unpack"):
            core._configure(0, 0, numbers, models)
    assert core.snapshot() == NativeCore(SMALL).snapshot()
    core._check()
    assert core._hint() == 0
    assert MAX_ID == 2**31 - 1
