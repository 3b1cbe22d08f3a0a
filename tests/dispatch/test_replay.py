"""The replay's clock, baselines and score, by hand and against each other; what it shows of any busy trace."""

from dataclasses import replace

import pytest

from aimd.dispatch.values import SECOND, Class
from aimd.errors import InvalidInputError
from aimd.replay.baselines import Baseline, By, Rule
from aimd.replay.comparison import OURS, POLICIES, RULES, compare, policy
from aimd.replay.run import Run
from aimd.replay.score import Score
from aimd.replay.trace import Row
from aimd.replay.workload import Assumptions, Mix, Request, Survey, requests, survey
from tests.dispatch.traces import made_up, write

HIGH, MEDIUM, LOW = Class


def run(policy_, workload, stretch=1.0):
    """The score of a workload under a policy."""
    found = Run(policy_, stretch)
    for request in workload:
        found.arrive(request)
    found.end()
    return found.score


def workload(*lines):
    """Requests from (arrival, service, class, patience), in seconds."""
    return [
        Request(number, arrival * SECOND, service * SECOND, klass, 0, patience * SECOND)
        for number, (arrival, service, klass, patience) in enumerate(lines)
    ]


# One slot. LOW 0 runs until 4. Then wait: LOW 1 (by 14), HIGH 2 (by 20), HIGH 3 (by 13), HIGH 4 (by 9, lasts 6: hopeless).
CROWD = workload((0, 4, LOW, 10), (1, 3, LOW, 13), (2, 3, HIGH, 18), (2, 3, HIGH, 11), (3, 6, HIGH, 6))


@pytest.mark.parametrize(
    ("name", "met", "late"),
    [
        ("prototype", [2, 0, 1], [1, 0, 1]),  # 2 at 4, 3 at 7, 4 at 10 (late), 1 at 16 (late)
        ("fifo", [2, 0, 2], [0, 0, 0]),  # 1 at 4, 2 at 7, 4 gone at 9, 3 at 10
        ("class-fifo", [2, 0, 2], [0, 0, 0]),  # 2 at 4, 3 at 7, 4 gone at 9, 1 at 10
        ("class-edf", [2, 0, 1], [1, 0, 0]),  # 4 at 4 (late), 3 at 10, 2 at 13, 1 gone at 14
        ("edf", [2, 0, 1], [1, 0, 1]),  # 4 at 4 (late), 3 at 10, 1 at 13 (late), 2 at 16
        ("class-start-by", [2, 0, 2], [0, 0, 0]),  # 4 gone at 3, 3 at 4, 2 at 7, 1 at 10
        ("aimd", [2, 0, 2], [0, 0, 0]),
    ],
)
def test_crowd_of_five_by_hand(name, met, late):
    score = run(policy(name, 1, Survey(requests=5)), CROWD)
    assert (score.met, score.late, score.arrived) == (met, late, [3, 0, 2])


def test_what_ends_at_the_instant_of_an_arrival_ends_before_it():
    """So that LOW, which waits already, gets the slot, and not HIGH, which arrives when it is gone."""
    lines = workload((0, 2, HIGH, 2), (1, 2, LOW, 3), (2, 2, HIGH, 4))
    assert run(policy("prototype", 1, Survey()), lines).met == [2, 0, 1]


@pytest.mark.parametrize("name", POLICIES)
def test_request_is_in_time_at_its_deadline_only_if_it_was_granted_before_the_last_instant(name):
    """Service 2, patience 2: granted at once it ends in time. The core and start_by say that an instant is too late."""
    score = run(policy(name, 1, Survey(requests=1)), workload((0, 2, HIGH, 2)))
    exact = name in {"class-start-by", "aimd", "aimd-models"}
    assert score.met == [0 if exact else 1, 0, 0]


def test_arrivals_are_stretched_and_services_and_deadlines_are_not():
    lines = workload((0, 4, HIGH, 4), (4, 4, HIGH, 6))
    rule = Rule(by_class=True, order=By.ARRIVAL, dropped=By.NEVER)
    assert run(Baseline(rule, 1), lines, stretch=0.5).met == [2, 0, 0]
    assert run(Baseline(rule, 1), lines, stretch=0.25).met == [1, 0, 0]


def test_gap_counts_grants_to_others_while_one_waits():
    score = Score()
    for klass in (LOW, HIGH, HIGH, HIGH):
        score.arrives(klass)
    score.grants(HIGH, met=True)
    score.grants(HIGH, met=True)
    score.expires(LOW)  # nobody of the class waits: the gap is over
    score.arrives(LOW)
    score.grants(HIGH, met=False)
    score.grants(LOW, met=True)
    assert score.longest_gap == [0, 0, 2]
    assert (score.met, score.late, score.expired(LOW)) == ([2, 0, 1], [1, 0, 0], 1)


@pytest.mark.parametrize("seed", range(4))
def test_core_and_heap_agree_when_there_is_one_class(tmp_path, seed):
    """Without classes nothing is left of the rule but start_by, and that a heap can do, too: two clocks, one score."""
    trace = made_up(tmp_path / "a.csv", 1500, seed)
    assumed = Assumptions(mixes=(Mix("a", (0, 100, 0)),))
    _, (heap, core) = compare(
        [trace], assumed, [seed], [1.4], ["class-start-by", OURS], 3, by_clock=False, begins=lambda _: None
    )
    assert heap.score == core.score
    assert heap.score.expired(MEDIUM) > 100


def test_busy_trace_keeps_high_and_passes_nobody_over_for_long(tmp_path):
    trace = made_up(tmp_path / "a.csv", 4000)
    _, results = compare(
        [trace], Assumptions(), [1, 2], [1.0, 2.0], list(POLICIES), 8, by_clock=False, begins=lambda _: None
    )
    scores = {(result.policy, result.load): result.score for result in results}
    ours = scores[OURS, 2.0]
    assert ours.met_percent(HIGH) > 99.9
    assert ours.longest_gap[LOW] == 15
    assert ours.longest_gap[MEDIUM] in {7, 8}
    assert scores["class-edf", 2.0].longest_gap[LOW] > 100
    order = ["edf", "class-edf", "class-fifo", OURS]
    percents = [scores[name, 2.0].met_percent() for name in order]
    assert percents == sorted(percents)
    for result in results:
        assert sum(result.score.arrived) == 8000
        assert min(result.score.expired(klass) for klass in Class) >= 0
    assert scores["prototype", 2.0].expired(LOW) == 0


@pytest.mark.parametrize(
    ("name", "order"), [(OURS, [0, 4, 5, 6, 7, 1, 2, 3]), ("aimd-models", [0, 4, 5, 1, 6, 2, 7, 3])]
)
def test_trace_is_one_model_by_deadline_or_its_models_take_turns(name, order):
    """One slot, four requests of a model with late deadlines, then four of one with early ones, all at once."""
    core = policy(name, 1, Survey(requests=8, models=["late", "early"]))
    granted = []
    for number in range(8):
        seconds = 100 if number < 4 else 50
        granted += core.arrive(0, Request(number, 0, SECOND, HIGH, number // 4, seconds * SECOND), seconds * SECOND)
    for now in range(1, 8):
        granted += core.finish(now * SECOND, granted[-1][1])
    assert [number for number, _ in granted] == order


def test_each_seed_draws_otherwise_and_alike_each_time():
    rows = [Row(n, 100, 10, None, "m", None) for n in range(50)]
    first, again, other = (list(requests(rows, Assumptions(), seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_class_and_patience_are_drawn_in_the_shares_that_are_told():
    assumed = Assumptions(prompt_ms=0, output_ms=1, budget_seconds=(1, 10, 100), mixes=(Mix("x*", (20, 30, 50)),))
    drawn = list(requests([Row(n, 0, 1000, None, "xy", None) for n in range(20_000)], assumed, 5))
    shares = [sum(request.klass == klass for request in drawn) / 20_000 for klass in Class]
    assert shares == pytest.approx([0.2, 0.3, 0.5], abs=0.015)
    patience = {(request.klass, (request.patience_ns - 2 * SECOND) // SECOND) for request in drawn}
    assert patience == {(0, 1), (0, 3), (1, 10), (1, 30), (2, 100), (2, 300)}
    thrice = sum((request.patience_ns - 2 * SECOND) // SECOND in {3, 30, 300} for request in drawn)
    assert thrice / 20_000 == pytest.approx(1 / 3, abs=0.015)


def test_what_the_trace_says_is_not_drawn_and_leaves_the_others_as_they_were():
    rows = [Row(n, 100, 10, None, "m", None) for n in range(50)]
    told = [
        replaced if n == 7 else row
        for n, row in enumerate(rows)
        for replaced in [row._replace(klass=LOW, deadline_ns=9)]
    ]
    plain, changed = (list(requests(each, Assumptions(), 3)) for each in (rows, told))
    assert changed[7] == plain[7]._replace(klass=LOW, patience_ns=9)
    assert changed[:7] + changed[8:] == plain[:7] + plain[8:]
    assert plain[0].service_ns == 132_000_000  # 100 x 0.12 ms + 10 x 12 ms


def test_load_is_service_time_over_what_the_slots_can_serve():
    rows = [Row(n * SECOND, 0, 1000, None, "m", None) for n in range(11)]  # 12 s each, in 10 s
    sums = survey(rows, Assumptions(), 1.0, 4)
    assert sums.stretch(1.5, 4) * 10 * 4 * 1.5 == pytest.approx(11 * 12)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "the trace has no requests"),
        ([Row(5, 1, 1, None, "m", None)] * 3, "the trace has no span of time"),
        ([Row(n, 0, 0, None, "m", None) for n in range(3)], "the trace has no tokens"),
        ([Row(n, 10**9, 10**9, None, "m", None) for n in range(100)], "keeps a slot busy for 1.21e+09 s"),
        ([Row(n, 1, 1, None, f"m{n}", None) for n in range(1025)], "more than 1024 models, 'm1024' is one too many"),
    ],
)
def test_trace_that_cannot_be_brought_to_a_load(rows, said):
    with pytest.raises(InvalidInputError, match=said.replace("+", r"\+")):
        survey(rows, Assumptions(), 0.8, 16)


def test_mix_that_matches_no_model_is_told():
    rows = [Row(n, 1, 1, None, "conv", None) for n in range(2)]
    with pytest.raises(InvalidInputError, match=r"mix cod\* matches no model, expected a pattern for one of conv"):
        survey(rows, Assumptions(mixes=(Mix("cod*", (0, 0, 100)),)), 0.8, 16)


def test_first_mix_that_matches_counts():
    assumed = replace(Assumptions(), mixes=(Mix("a*", (1, 0, 99)), Mix("*", (0, 100, 0))))
    assert [assumed.mix(name) for name in ("ab", "b")] == [(1, 0, 99), (0, 100, 0)]


def test_trace_that_grows_while_it_is_read_is_told(tmp_path):
    trace = write(tmp_path / "a.csv", "1,1,1", "2,1,1")

    def grow(_sums):
        write(trace, "1,1,1", "2,1,1", "3,1,1")

    with pytest.raises(InvalidInputError, match="changed while it was read, expected the 2 requests"):
        compare([trace], Assumptions(), [1], [1.0], ["edf"], 1, by_clock=False, begins=grow)


def test_policies_are_all_described():
    assert list(POLICIES)[: len(RULES)] == list(RULES)
    assert OURS in POLICIES
