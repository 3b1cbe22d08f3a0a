"""Rates, the ratio of errors, quantiles and means as Prometheus makes them of the load, within what a window leaves open."""

from __future__ import annotations

import math

import pytest

from tests.dashboards.expected_values import Expectation, differences
from tests.dashboards.load_seen import PLACES, WINDOW, Seen, latencies
from tests.dashboards.load_truth import Request

BAD = ("failed", "lost", "revoked", "expired", "queue_full_model")


@pytest.fixture
def expected(seen: Seen) -> Expectation:
    return Expectation(seen.truth, seen.during, WINDOW)


def served(one: Request) -> bool:
    return one.model in PLACES


def test_rates_by_model(seen: Seen, expected: Expectation) -> None:
    found = seen.values(f"sum by (model) (rate(aim_model_requests_total[{WINDOW}s]))", seen.during)
    assert differences(found, expected.rates(served, lambda r: (r.model,))) == {}


def test_rates_by_class_and_outcome(seen: Seen, expected: Expectation) -> None:
    found = seen.values(f"sum by (class, model, outcome) (rate(aim_model_requests_total[{WINDOW}s]))", seen.during)
    together: dict[tuple[str, ...], float] = {}
    for (klass, model, outcome), rate in found.items():
        name = (klass, model, "released" if outcome == "late" else outcome)
        together[name] = together.get(name, 0.0) + rate
    assert differences(together, expected.rates(served, lambda r: (r.klass, r.model, r.outcome))) == {}


def test_the_ratio_of_errors(seen: Seen, expected: Expectation) -> None:
    bad = f'sum by (model) (rate(aim_model_requests_total{{outcome=~"{"|".join(BAD)}"}}[{WINDOW}s]))'
    ratios = seen.values(f"{bad} / sum by (model) (rate(aim_model_requests_total[{WINDOW}s]))", seen.during)
    found = {name: ratio for name, ratio in ratios.items() if not math.isnan(ratio)}  # of no requests there is none
    errors = expected.rates(lambda r: r.outcome in BAD and served(r), lambda r: (r.model,))
    whole = expected.rates(served, lambda r: (r.model,))
    assert differences(found, {name: errors[name].over(whole[name]) for name in errors}) == {}
    assert 0.05 < found["chat",] < 0.2


@pytest.mark.parametrize("model", PLACES)
@pytest.mark.parametrize("q", [0.5, 0.95])
def test_quantiles_of_a_window(seen: Seen, expected: Expectation, model: str, q: float) -> None:
    for family in ("aim_model_request_latency_seconds", "aim_model_request_queue_wait_seconds"):
        rates = f'sum by (le) (rate({family}_bucket{{model="{model}"}}[{WINDOW}s]))'
        [value] = seen.values(f"histogram_quantile({q}, {rates})", seen.during).values()
        bounds = expected.quantile(q, lambda a, b, f=family: latencies(seen.truth, f, model, a, b))
        assert bounds.holds(value), (family, value, bounds)


@pytest.mark.parametrize("model", PLACES)
def test_slots_in_use(seen: Seen, expected: Expectation, model: str) -> None:
    [value] = seen.values(
        f'sum(rate(aim_scheduler_slot_seconds_total{{model="{model}"}}[{WINDOW}s]))', seen.during
    ).values()
    assert expected.slots(model).holds(value), (value, expected.slots(model))


def test_operations_per_second(seen: Seen, expected: Expectation) -> None:
    found = seen.values(
        f'sum by (operation, outcome) (rate(aim_scheduler_operations_total{{operation!~"acquire|cancel"}}[{WINDOW}s]))',
        seen.during,
    )
    wanted = expected.operations(lambda what, outcome: (what, outcome))
    assert differences(found, {name: one for name, one in wanted.items() if name[0] != "reload"}) == {}
