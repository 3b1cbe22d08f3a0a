"""The sentences of the contract as examples, each on the reference and on the native core."""

import pytest

from aimd.dispatch.core import NativeCore
from aimd.dispatch.face import Class, End, Fault, Kind, LeaseRecord, Limits, ModelConfig, Outcome, PartitionConfig
from aimd.dispatch.reference import Reference

HIGH, MEDIUM, LOW = Class
AGES = 10**6
LIMITS = Limits(partitions=2, models=4, requests=24, leases=10, connections=3, requests_per_connection=20)


@pytest.fixture(params=[Reference, NativeCore], ids=["reference", "native"])
def make(request):
    """Constructor of a core with one partition 0 of these models, and of a connection 0 of process 1."""

    def core(*models, **partition):
        partition = {"capacity": 1, "queue_cap": 8, "lease_max_ns": AGES, "orphan_grace_ns": 20, **partition}
        core = request.param(LIMITS)
        core.configure(0, 0, PartitionConfig(models or (ModelConfig(0),), **partition))
        core.open(1)
        return core

    return core


def ask(core, request, model=0, klass=MEDIUM, start_by=AGES, now=0, no_wait=False, connection=0):
    return core.acquire(now, connection, request, 0, model, klass, start_by, no_wait)


def outcome(events):
    """What an acquire came to: GRANTED, None while it waits, or another Outcome; of the last event."""
    kind, *fields = events[-1]
    return {Kind.GRANTED: Outcome.GRANTED, Kind.QUEUED: None}.get(kind, fields[-1] if kind == Kind.ENDED else events)


def running(core):
    return [record.lease for record in core.leases()]


def serve(core, count):
    """Release the longest held lease, so many times, 1 ns apart; the requests that this granted, in their order."""
    served = []
    for _ in range(count):
        oldest = min(core.leases(), key=lambda record: record.started).lease
        served += [event[2] for event in core.release(core.snapshot().now + 1, 0, oldest) if event[0] == Kind.GRANTED]
    return served


def test_higher_classes_first_earlier_start_by_first_first_come_first(make):
    core = make()
    ask(core, 0)
    for request, klass, start_by in ((1, LOW, 50), (2, HIGH, 90), (3, HIGH, 80), (4, HIGH, 90), (5, MEDIUM, 10)):
        ask(core, request, klass=klass, start_by=start_by)
    assert serve(core, 5) == [3, 2, 4, 5, 1]


def test_low_is_passed_over_fifteen_times_and_medium_seven(make):
    core = make(ModelConfig(0), queue_cap=19)
    ask(core, 0)
    for request in range(1, 17):
        ask(core, request, klass=HIGH)
    ask(core, 17, klass=MEDIUM)
    ask(core, 18, klass=LOW)
    assert serve(core, 17) == [*range(1, 8), 17, *range(8, 15), 18, 15]


def test_guarantee_beats_a_class_and_a_limit_a_guarantee_of_others(make):
    core = make(ModelConfig(0), ModelConfig(1, guarantee=1, limit=1), capacity=2)
    assert outcome(ask(core, 0)) == outcome(ask(core, 1)) == Outcome.GRANTED  # borrowed freely
    ask(core, 2, klass=HIGH)
    ask(core, 3, model=1, klass=LOW)
    ask(core, 4, model=1, klass=LOW)
    assert serve(core, 1) == [3]  # reclaimed at the release
    assert serve(core, 1) == [2]  # the fourth is above its model's limit


def test_the_largest_missing_share_of_a_guarantee_is_served_first(make):
    core = make(ModelConfig(0, guarantee=3), ModelConfig(1, guarantee=1), ModelConfig(2), capacity=4)
    for request in range(4):
        ask(core, request, model=2)
    for request, model in ((4, 0), (5, 0), (6, 1)):
        ask(core, request, model=model)
    assert serve(core, 3) == [4, 6, 5]  # 3/3 and earlier, 1/1 against 2/3, the rest


def test_excess_is_shared_by_weight(make):
    core = make(ModelConfig(0, weight=3), ModelConfig(1, weight=1), ModelConfig(2), queue_cap=16)
    ask(core, 99, model=2)
    for request in range(8):
        ask(core, request, model=0)
        ask(core, 10 + request, model=1)
    assert sum(request < 10 for request in serve(core, 8)) == 6


def test_nothing_is_granted_at_start_by(make):
    core = make()
    ask(core, 0)
    ask(core, 1, start_by=10)
    ask(core, 2, start_by=11)
    events = core.release(10, 0, running(core)[0])
    assert [event[0:3] for event in events] == [(Kind.ENDED, 0, 1), (Kind.RELEASED, 1 << 16, 1), (Kind.GRANTED, 0, 2)]
    assert outcome(ask(core, 3, start_by=10, now=10)) == Outcome.DEADLINE_PASSED


def test_default_class_and_budget_are_those_of_the_model(make):
    core = make(ModelConfig(0, default_class=LOW, budget_ns=(5, 6, 7)))
    ask(core, 0)
    core.acquire(1, 0, 1, 0, 0)
    assert core.snapshot().partitions[0].models[0].waiting == (0, 0, 1)
    assert core.advance(7) == []
    assert core.advance(8) == [(Kind.ENDED, 0, 1, Outcome.EXPIRED)]


def test_order_of_the_checks(make):
    core = make(ModelConfig(0, queue_cap=2), capacity=1, queue_cap=1)
    lowly = core.open(2, LOW)
    assert outcome(core.acquire(0, 0, 0, 7, 0)) == Outcome.UNKNOWN_PARTITION
    assert outcome(ask(core, 0, model=7)) == Outcome.UNKNOWN_MODEL
    core.drain(0, 0)
    assert outcome(ask(core, 0, connection=lowly, start_by=0)) == Outcome.UNAUTHORISED
    assert outcome(ask(core, 0, klass=LOW, connection=lowly, start_by=0)) == Outcome.DRAINING
    core.undrain(0, 0)
    assert outcome(ask(core, 0, start_by=0)) == Outcome.DEADLINE_PASSED
    assert outcome(ask(core, 0, no_wait=True)) == Outcome.GRANTED
    assert outcome(ask(core, 1, no_wait=True)) == Outcome.WOULD_BLOCK
    assert outcome(ask(core, 1)) is None
    assert outcome(ask(core, 2)) == Outcome.QUEUE_FULL_PARTITION
    assert outcome(ask(core, 2, klass=LOW)) == Outcome.QUEUE_FULL_PARTITION


def test_connection_with_too_much_waiting_is_refused_even_if_it_could_run(make):
    core = make(ModelConfig(0), ModelConfig(1, limit=1), capacity=4, queue_cap=20)
    for request in range(21):
        ask(core, request, model=1)
    assert outcome(ask(core, 30, model=0)) == Outcome.QUEUE_FULL_CONN
    assert outcome(ask(core, 30, model=0, connection=core.open(1))) == Outcome.GRANTED


def test_model_cap_comes_before_that_of_the_partition(make):
    core = make(ModelConfig(0, queue_cap=1), queue_cap=1)
    ask(core, 0)
    ask(core, 1)
    assert outcome(ask(core, 2, klass=HIGH)) == Outcome.QUEUE_FULL_MODEL


def test_lowest_class_newest_first_of_the_model_with_most_is_shed(make):
    core = make(ModelConfig(0), ModelConfig(1), queue_cap=4)
    ask(core, 0)
    for request, model in ((1, 0), (2, 1), (3, 1), (4, 0)):
        ask(core, request, model=model, klass=LOW, start_by=100 - request)
    shed = (Kind.ENDED, 0, 4, Outcome.SHED)
    assert ask(core, 5, klass=MEDIUM) == [shed, (Kind.QUEUED, 0, 5)]
    assert ask(core, 6, klass=MEDIUM)[0] == (Kind.ENDED, 0, 3, Outcome.SHED)
    assert outcome(ask(core, 7, klass=LOW)) == Outcome.QUEUE_FULL_PARTITION


def test_flood_of_others_cannot_keep_a_guaranteed_model_out(make):
    core = make(ModelConfig(0), ModelConfig(1, guarantee=1), queue_cap=2)
    ask(core, 0)
    ask(core, 1, klass=HIGH)
    ask(core, 2, klass=HIGH)
    assert outcome(ask(core, 3, model=1, klass=LOW)) is None
    assert outcome(ask(core, 4, model=1, klass=LOW)) == Outcome.QUEUE_FULL_PARTITION
    # A better one of the model is entitled instead of the third, which is the one of the lowest class now.
    assert ask(core, 5, model=1, klass=MEDIUM) == [(Kind.ENDED, 0, 3, Outcome.SHED), (Kind.QUEUED, 0, 5)]


def test_core_holds_no_more_requests_than_its_limits(make):
    core = make(ModelConfig(0), ModelConfig(1, guarantee=3), capacity=4, queue_cap=20)
    second = core.open(1)
    for request in range(4):
        ask(core, request)
    for request in range(4, 24):
        ask(core, request)
    for request in range(3):
        assert outcome(ask(core, request, model=1, connection=second)) is None
    changed = (ModelConfig(0), ModelConfig(1), ModelConfig(2, guarantee=4))
    core.configure(0, 0, PartitionConfig(changed, 4, 20))  # more are waiting than could come to wait
    assert outcome(ask(core, 3, model=2, connection=second)) is None
    assert outcome(ask(core, 4, model=2, connection=second)) == Outcome.QUEUE_FULL_PARTITION
    core.cancel(0, 0, 23)
    assert outcome(ask(core, 4, model=2, connection=second)) is None


def test_second_release_changes_nothing(make):
    core = make()
    ask(core, 0)
    [lease] = running(core)
    ask(core, 1)
    assert [event[0] for event in core.release(0, 0, lease)] == [Kind.RELEASED, Kind.GRANTED]
    before = core.snapshot()
    assert core.release(0, 0, lease) == [(Kind.REFUSED, 0, lease, Fault.STALE_LEASE)]
    assert core.snapshot() == before


def test_only_the_process_may_release_renew_and_adopt(make):
    core = make()
    other, again = core.open(2), core.open(1)
    ask(core, 0)
    [lease] = running(core)
    for call in (core.release, core.renew, core.adopt):
        assert call(0, other, lease) == [(Kind.REFUSED, other, lease, Fault.NOT_OWNER)]
    assert core.renew(5, again, lease) == [(Kind.RENEWED, lease, 5 + AGES)]
    assert core.release(5, again, lease, ok=False) == [(Kind.RELEASED, lease, 0)]
    assert core.snapshot().partitions[0].models[0].ends[MEDIUM][End.FAILED] == 1


def test_excess_is_not_renewed_while_a_guarantee_waits(make):
    core = make(ModelConfig(0), ModelConfig(1, guarantee=1))
    ask(core, 0)
    [lease] = running(core)
    ask(core, 1, model=1)
    assert core.renew(0, 0, lease) == [(Kind.REFUSED, 0, lease, Fault.RECLAIM)]
    core.cancel(0, 0, 1)
    assert core.renew(0, 0, lease)[0][0] == Kind.RENEWED


def test_lease_is_revoked_at_its_deadline(make):
    core = make(lease_max_ns=100)
    ask(core, 0)
    ask(core, 1)
    assert core.advance(99) == []
    assert [event[0] for event in core.advance(100)] == [Kind.REVOKED, Kind.GRANTED]


@pytest.mark.parametrize(("alive", "wait"), [(True, 20), (False, 0)])
def test_disconnect_holds_the_leases_of_the_living(make, alive, wait):
    core = make(capacity=2)
    ask(core, 0)
    other = core.open(2)
    ask(core, 0, connection=other)
    ask(core, 1, connection=other)
    events = core.disconnect(0, other, alive)
    assert (Kind.ENDED, other, 1, Outcome.CANCELLED) in events
    assert [event[0] for event in events + core.advance(wait) if event[0] == Kind.LOST] == [Kind.LOST]
    assert len(running(core)) == 1


def test_adopted_lease_survives_its_first_connection(make):
    core = make()
    ask(core, 0)
    [lease] = running(core)
    core.disconnect(0, 0, alive=True)
    connection = core.open(1)
    assert core.adopt(10, connection, lease) == [(Kind.ADOPTED, connection, lease)]
    assert core.advance(1000) == []


def test_end_of_a_process_ends_all_that_it_had(make):
    core = make(capacity=2)
    second = core.open(1)
    ask(core, 0)
    ask(core, 0, connection=second)
    ask(core, 1, connection=second)
    core.disconnect(0, 0, alive=True)
    kinds = [event[0] for event in core.exited(0, 1)]
    assert sorted(kinds) == [Kind.ENDED, Kind.LOST, Kind.LOST]
    assert core.snapshot().connections == 0
    with pytest.raises(ValueError, match="connection"):
        ask(core, 2, connection=second)


def test_lowered_capacity_ends_nothing_and_grants_nothing(make):
    core = make(ModelConfig(0), capacity=3)
    for request in range(4):
        ask(core, request)
    assert core.configure(0, 0, PartitionConfig((ModelConfig(0),), capacity=1, queue_cap=8)) == []
    assert serve(core, 3) == [3]


def test_configuration_that_is_refused_changes_nothing(make):
    core = make(ModelConfig(0, guarantee=1))
    before = core.snapshot()
    refused = [
        (0, PartitionConfig((ModelConfig(0, guarantee=2),), capacity=1)),
        (0, PartitionConfig((ModelConfig(0), ModelConfig(0)), queue_cap=4, capacity=1)),
        (0, PartitionConfig((ModelConfig(0, weight=1001),), queue_cap=4, capacity=1)),
        (0, PartitionConfig((ModelConfig(0, limit=0),), queue_cap=4, capacity=1)),
        (0, PartitionConfig((ModelConfig(0),), queue_cap=24, capacity=1)),
        (1, PartitionConfig((ModelConfig(0),), queue_cap=1, capacity=10)),
        (1, PartitionConfig(tuple(ModelConfig(model) for model in range(4)), queue_cap=1, capacity=1)),
    ]
    for partition, config in refused:
        with pytest.raises(ValueError, match="partition"):
            core.configure(5, partition, config)
        assert core.snapshot() == before


def test_model_and_partition_that_go_end_what_waits_and_leave_what_runs(make):
    core = make(ModelConfig(0), ModelConfig(1), capacity=1)
    for request, model in ((0, 0), (1, 0), (2, 1)):
        ask(core, request, model=model)
    gone = core.configure(0, 0, PartitionConfig((ModelConfig(1),), capacity=1, queue_cap=8))
    assert gone == [(Kind.ENDED, 0, 1, Outcome.MODEL_GONE)]
    assert core.remove_partition(0, 0) == [(Kind.ENDED, 0, 2, Outcome.PARTITION_GONE)]
    assert outcome(ask(core, 3)) == Outcome.UNKNOWN_PARTITION
    assert core.release(0, 0, running(core)[0]) == [(Kind.RELEASED, 1 << 16, 1)]
    [place] = core.snapshot().partitions
    assert (place.removed, place.capacity, len(place.models)) == (True, 0, 2)
    core.configure(0, 1, PartitionConfig(capacity=1, queue_cap=1))
    assert [place.partition for place in core.snapshot().partitions] == [1]


def test_restored_leases_count_and_belong_to_their_process(make):
    core = make(ModelConfig(0), capacity=2)
    records = (
        LeaseRecord(9 << 16 | 1, 0, 0, HIGH, 1, started=0, deadline=90),
        LeaseRecord(8 << 16 | 3, 1, 5, LOW, 2, started=0, deadline=90),
    )
    core.restore(0, records)
    assert core.leases() == records
    assert ask(core, 0)[0][3] == 1 << 16  # the lowest free slot
    assert outcome(ask(core, 1)) is None  # never more than the capacity
    assert core.release(1, 0, 9 << 16 | 1)[1][3] == 10 << 16 | 1
    assert core.advance(90) == [(Kind.REVOKED, 8 << 16 | 3)]


def test_wrong_calls_are_refused(make):
    core = make()
    ask(core, 0)
    ask(core, 1)
    core.advance(5)
    core.open(1)
    core.open(1)
    with pytest.raises(ValueError, match="connections"):
        core.open(1)
    with pytest.raises(ValueError, match="time 4 ns lies before 5 ns"):
        core.advance(4)
    with pytest.raises(ValueError, match="request 1 of connection 0"):
        ask(core, 1, now=5)


def test_good_and_bad(make):
    core = make(ModelConfig(0, latency_target_ns=10), queue_cap=1)
    for request, asked, released in ((0, 0, 10), (1, 10, 21), (2, 21, 25)):
        ask(core, request, now=asked)
        core.release(released, 0, running(core)[0], ok=request != 2)
    ask(core, 3, now=30)
    ask(core, 4, now=30)
    ask(core, 5, now=30)
    core.cancel(30, 0, 4)
    [model] = core.snapshot().partitions[0].models
    assert (model.good[MEDIUM], model.bad[MEDIUM]) == (1, 3)  # late, failed, refused; cancelled is neither


def test_time_is_counted(make):
    core = make(ModelConfig(0, guarantee=1, limit=2), ModelConfig(1), capacity=2)
    ask(core, 0, now=10)
    ask(core, 1, now=20)
    ask(core, 2, now=30)
    core.advance(35)
    [model, _] = core.snapshot().partitions[0].models
    assert (model.colour_ns, model.running_ns, model.backlog_ns) == ((10, 10, 15), 40, 5)


def denied(core, *others, now, deny=True):
    models = tuple(ModelConfig(index, denied=deny and index == 0) for index in (0, *others))
    return core.configure(
        now, 0, PartitionConfig(models, capacity=1, queue_cap=8, lease_max_ns=AGES, orphan_grace_ns=20)
    )


def test_a_denied_model_gets_no_lease_and_what_waits_for_it_ends(make):
    core = make(ModelConfig(0), ModelConfig(1))
    assert outcome(ask(core, 1)) is Outcome.GRANTED
    assert outcome(ask(core, 2)) is outcome(ask(core, 3, klass=HIGH)) is outcome(ask(core, 4, model=1)) is None
    ended = denied(core, 1, now=1)
    assert [tuple(event) for event in ended] == [
        (Kind.ENDED, 0, 3, Outcome.MEMORY_OVERRUN),
        (Kind.ENDED, 0, 2, Outcome.MEMORY_OVERRUN),
    ]
    assert len(running(core)) == 1, "leases that run go on"
    assert outcome(ask(core, 5, now=2)) == outcome(ask(core, 6, now=2, no_wait=True)) == Outcome.MEMORY_OVERRUN
    assert serve(core, 1) == [4], "the partition's other models go on"
    cell = core.snapshot().partitions[0].models[0]
    assert sum(count[Outcome.MEMORY_OVERRUN] for count in cell.outcomes) == 4
    assert sum(cell.bad) == 0
    assert denied(core, 1, now=9) == []
    assert denied(core, 1, now=10, deny=False) == []
    assert outcome(ask(core, 7, now=11)) is None, "allowed again"
    assert serve(core, 1) == [7]
