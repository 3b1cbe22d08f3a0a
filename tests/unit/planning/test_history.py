"""Traffic from readings: windows, counters that begin anew, clocks, models that go and come."""

from __future__ import annotations

import pytest

from aimd.domain.claim import Claim, ClaimSpec, QosClass, Slo
from aimd.domain.partition import PartitionKey
from aimd.domain.traffic import Counts, Quantiles, Reading, Stage
from aimd.planning.history import TrafficHistory, counted_between
from aimd.planning.latency_window import LatencyWindow, quantiles
from aimd.planning.stream import Growth, together

P0, P1 = PartitionKey("0000:05:00.0", 0, 1), PartitionKey("0000:05:00.0", 1, 1)
HIGH, LOW = QosClass.HIGH, QosClass.LOW
SLO = Slo(0.1, 0.99)
WALL = 1_700_000_000.0


def claim(name="llama", slo=SLO, created_at=1.0):
    return Claim(name, 0, ClaimSpec(1024, slo=slo), created_at)


def reading(at, granted=0, *, begun=0.0, bad=0, running=0, waiting=0, cells=None, outcomes=None, backlog=0.0, qos=HIGH):
    counts = Counts(
        running, waiting, {"granted": granted, **(outcomes or {})}, {"ok": granted - running}, granted - running, bad
    )
    return Reading(at, begun, {qos: counts}, backlog, {(Stage.QUEUE, qos): cells or {}}, 16)


class Desk:
    """A history that is told readings; a second of the wall clock is one of the monotonic one, but for `step`."""

    def __init__(self, *claims, first_number=0):
        self.history = TrafficHistory(lambda cell: cell / 1000, first_number)
        self.claims = claims or (claim(),)
        self.step = 0.0

    def tell(self, at, **readings):
        places = {name: dict(each) for name, each in readings.items()}
        return self.history.read(self.claims, places, at, WALL + at + self.step)

    def llama(self, at, *parts):
        board = self.tell(at, llama=dict(zip((P0, P1), parts, strict=False)))
        return board.models["llama"]


def counts(traffic):
    return traffic.whole.counts


def test_first_reading_counts_from_the_beginning_of_its_counters():
    whole = Desk().llama(10.0, reading(10.0, 30, begun=5.0, running=2, waiting=7)).whole
    assert (counts(whole).granted, counts(whole).running, counts(whole).waiting) == (30, 2, 7)
    assert whole.whole.grants_per_second == 6.0
    assert whole.since == WALL + 5.0


def test_rates_are_of_the_last_minute():
    desk = Desk()
    for second in range(2, 102, 2):
        desk.llama(float(second), reading(float(second), second * 10))
    for second in range(102, 132, 2):
        traffic = desk.llama(float(second), reading(float(second), 1000, outcomes={"expired": second - 100}))
    flow = traffic.whole.whole
    assert flow.grants_per_second == pytest.approx(300 / 60)
    assert flow.rejected_per_second == pytest.approx(30 / 60)
    assert flow.counts.granted == 1000


def test_idle_models_are_told_anew_when_something_changes():
    desk, found = Desk(), {}

    def tell(seconds, granted=9, bad=1, **more):
        for second in seconds:
            found[second] = desk.llama(
                float(second), reading(float(second), granted, bad=bad, cells={5: granted}, **more)
            )
            assert found[second].whole.whole.latencies[Stage.QUEUE].count == (9 if second < 62 else granted - 9)
        return found[seconds[-1]].whole

    tell(range(2, 400, 2))
    assert found[60].whole.whole.grants_per_second == pytest.approx(9 / 60)
    assert found[62].whole.whole.grants_per_second == 0
    assert found[200].whole is found[202].whole, "it is made once"
    assert found[300].whole.compliance.burns[0].short == pytest.approx(10)
    assert found[398].whole.compliance.burns[0].short is None
    assert found[398].whole.compliance.burns[0].long == pytest.approx(10)
    assert counts(tell([400], waiting=1)).waiting == 1
    tell(range(402, 500, 2), waiting=1)
    assert tell([500], 12, waiting=1).whole.grants_per_second == pytest.approx(3 / 60)


def test_idle_models_between_samples_that_are_far_apart():
    desk = Desk()
    for second in range(2, 100, 7):
        whole = desk.llama(float(second), reading(float(second), 9)).whole
        assert (whole.whole.grants_per_second == 0) == (second >= 62)
    desk.claims = (claim(slo=Slo()),)
    assert desk.llama(101.0, reading(101.0, 9)).whole.compliance is None


@pytest.mark.parametrize(
    ("outcome", "rejected"),
    [
        ("queue_full_model", 1),
        ("deadline_passed", 1),
        ("expired", 1),
        ("shed", 1),
        ("draining", 1),
        ("cancelled", 0),
        ("would_block", 0),
        ("granted", 0),
    ],
)
def test_what_is_rejected(outcome, rejected):
    assert Counts(outcomes={outcome: 1}).rejected == rejected


def test_counters_that_began_anew_are_counted_from_there():
    """Also where they are larger than before: that shows by their age alone."""
    desk = Desk()
    desk.llama(10.0, reading(10.0, 100, cells={5: 100}))
    whole = desk.llama(12.0, reading(12.0, 170, begun=11.0, cells={5: 170})).whole
    assert counts(whole).granted == 270
    assert whole.whole.latencies[Stage.QUEUE].count == 270
    whole = desk.llama(14.0, reading(14.0, 175, begun=11.0, cells={5: 175})).whole
    assert counts(whole).granted == 275


def test_growth_between_readings():
    growth = counted_between(reading(10.0, 5, backlog=1.0), reading(12.5, 9, backlog=2.0, waiting=3, cells={1: 2}))
    assert (growth.at, growth.span, growth.backlog_seconds) == (12.5, 2.5, 1.0)
    assert growth.classes[HIGH] == Counts(0, 3, {"granted": 4}, {"ok": 4}, 4, 0)
    assert growth.cells[Stage.QUEUE, HIGH] == {1: 2}
    anew = counted_between(reading(10.0, 5, backlog=9.0), reading(12.5, 9, begun=12.0, backlog=0.25))
    assert (anew.span, anew.backlog_seconds, anew.classes[HIGH].granted) == (0.5, 0.25, 9)


def test_rounding_of_the_beginning_is_no_new_beginning():
    desk = Desk()
    desk.llama(10.0, reading(10.0, 100, begun=1.0))
    assert counts(desk.llama(12.0, reading(12.0, 101, begun=1.0000001)).whole).granted == 101


def test_a_late_sample_belongs_to_its_time():
    """The daemon was stopped for five minutes: the rate is of these, not of the window."""
    desk = Desk()
    desk.llama(10.0, reading(10.0, 0))
    assert desk.llama(310.0, reading(310.0, 600)).whole.whole.grants_per_second == 2.0


def test_a_step_of_the_wall_clock_changes_nothing():
    desk = Desk()
    desk.llama(10.0, reading(10.0, 10))
    desk.step = -86_400.0
    whole = desk.llama(12.0, reading(12.0, 12)).whole
    assert (whole.since, counts(whole).granted, whole.whole.grants_per_second) == (WALL, 12, 1.0)


def test_a_clock_that_goes_back_begins_anew():
    desk = Desk()
    desk.llama(100.0, reading(100.0, 100))
    whole = desk.llama(50.0, reading(50.0, 20)).whole
    assert counts(whole).granted == 20
    assert whole.whole.grants_per_second == pytest.approx(0.4)
    assert desk.llama(150.0, reading(150.0, 20)).whole.whole.grants_per_second == 0


def test_a_model_that_leaves_a_partition_keeps_its_history_as_a_whole():
    desk = Desk()
    desk.llama(60.0, reading(60.0, 60, bad=40), reading(60.0, 30))
    desk.tell(62.0)
    found = desk.llama(120.0, reading(120.0, 5, begun=100.0))
    assert counts(found.whole).granted == 95
    assert counts(found.places[P0]).granted == 5
    assert set(found.places) == {P0}
    assert found.whole.compliance.burns[0].long == pytest.approx(100 * 40 / 135)
    assert found.places[P0].compliance.burns[0].long == 0
    assert found.places[P0].since == WALL + 100.0


def test_a_claim_made_again_is_another_model():
    desk = Desk(claim(created_at=1.0))
    desk.llama(10.0, reading(10.0, 10))
    desk.claims = (claim(created_at=11.0),)
    assert counts(desk.llama(12.0, reading(12.0, 3, begun=11.0)).whole).granted == 3


def test_a_released_model_is_gone_and_others_are_passed_over():
    desk = Desk()
    desk.llama(10.0, reading(10.0, 10))
    desk.claims = ()
    assert desk.tell(12.0, llama={P0: reading(12.0, 12)}).models == {}
    desk.claims = (claim(),)
    assert counts(desk.llama(14.0, reading(14.0, 3, begun=13.0)).whole).granted == 3


def test_a_claim_without_partitions_is_not_known_rather_than_idle():
    assert Desk().tell(10.0).models == {}


def test_partitions_and_classes_add_up():
    found = Desk().llama(
        10.0,
        reading(10.0, 10, cells={1: 5}, waiting=1),
        reading(10.0, 30, cells={1: 1, 9: 4}, waiting=2, qos=LOW, bad=2, outcomes={"shed": 2}),
    )
    whole = found.whole
    assert (counts(whole).granted, counts(whole).waiting, counts(whole).bad) == (40, 3, 2)
    assert (whole.slots, found.places[P1].slots) == (32, 16)
    assert counts(whole).outcomes == {"granted": 40, "shed": 2}
    assert whole.whole.grants_per_second == 4.0
    assert {qos: flow.counts.granted for qos, flow in whole.classes.items()} == {
        HIGH: 10,
        QosClass.MEDIUM: 0,
        LOW: 30,
    }
    assert whole.whole.latencies[Stage.QUEUE] == Quantiles(10, 0.001, 0.009, 0.009)
    assert whole.classes[LOW].latencies[Stage.QUEUE].p50 == 0.009
    assert whole.whole.latencies[Stage.SERVICE] == Quantiles()


def test_partitions_with_a_short_backlog_each_are_no_backlog_of_the_model():
    parts = [Growth(60.0, 60.0, {}, 18.0), Growth(60.0, 60.0, {}, 24.0)]
    assert together(parts, 60.0, 60.0).backlog_seconds == 24.0
    assert together([Growth(60.0, 60.0, {}, 60.0)], 60.0, 2.0).backlog_seconds == 2.0
    assert together([], 60.0, 2.0) == Growth(60.0, 2.0, {})


def test_boards_are_numbered_on():
    desk = Desk(first_number=41)
    assert [desk.tell(float(at)).number for at in (1, 2)] == [42, 43]


@pytest.mark.parametrize(
    ("slo", "judged"),
    [(Slo(), False), (Slo(latency_seconds=1.0), True), (Slo(objective=0.5), True), (Slo(throughput_floor=1.0), True)],
)
def test_without_objectives_there_is_no_verdict(slo, judged):
    found = Desk(claim(slo=slo)).llama(10.0, reading(10.0, 10))
    assert (found.whole.compliance is not None) == judged


def test_burn_needs_readings_and_not_zeros():
    burns = Desk().llama(10.0, reading(10.0, 0)).whole.compliance.burns
    assert [burn.long for burn in burns] == [None] * 4


def test_latencies_leave_the_window():
    window = LatencyWindow(60.0)
    window.add(10.0, {3: 2})
    window.add(40.0, {3: 1, 4: 1})
    window.add(69.0, {})
    assert window.cells == {3: 3, 4: 1}
    window.add(70.0, {})
    assert window.cells == {3: 1, 4: 1}
    window.add(100.0, {})
    assert window.cells == {}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({}, (0, None, None, None)),
        ({7: 1}, (1, 7, 7, 7)),
        ({1: 50, 2: 45, 3: 5}, (100, 1, 2, 3)),
        ({3: 5, 2: 45, 1: 50}, (100, 1, 2, 3)),
        ({1: 49, 2: 46, 3: 4, 4: 1}, (100, 2, 2, 3)),
        ({1: 1, 2: 1}, (2, 1, 2, 2)),
    ],
)
def test_quantiles(cells, expected):
    assert quantiles(cells, lambda cell: cell) == Quantiles(*expected)
