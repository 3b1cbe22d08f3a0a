"""A real Prometheus over a real daemon under load: what it has stored is what the load was, counter by counter."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Callable

import pytest

from aimd.domain.metering import BUCKETS_SECONDS
from tests.dashboards.load_scene import CHAT_OBJECTIVE, CHAT_TARGET_SECONDS, FLOORS, GIB, GPUS, SLOTS
from tests.dashboards.load_seen import (
    LOAD_SECONDS,
    OLD_SECONDS,
    PLACES,
    SAMPLE_AGE_SECONDS,
    SCRAPE_SECONDS,
    SLOW_SECONDS,
    Seen,
    key,
    latencies,
)
from tests.dashboards.load_truth import Request, Truth, quantile_bounds


def requests(truth: Truth, choose: Callable[[Request], bool] = lambda _: True) -> Counter[tuple[str, str, str, str]]:
    """By class, model, outcome and partition; of those that had none, their model's only one."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for one in truth.requests:
        if one.model in PLACES and choose(one):
            found[one.klass, one.model, one.outcome, one.partition or PLACES[one.model][0]] += 1
    return found


def well(found: Counter[tuple[str, ...]], place: int = 2) -> Counter[tuple[str, ...]]:
    """With those that came late among those that were released, as clients count them."""
    together: Counter[tuple[str, ...]] = Counter()
    for names, count in found.items():
        together[tuple("released" if n == place and name == "late" else name for n, name in enumerate(names))] += count
    return +together


# -- counters ------------------------------------------------------------------------------------------------------


def test_every_request_is_counted_once_by_its_end(seen: Seen) -> None:
    stored = seen.values("aim_model_requests_total")
    assert well(Counter({names: int(count) for names, count in stored.items()})) == requests(seen.truth)
    assert set(requests(seen.truth)) > {("medium", "embed", how, PLACES["embed"][0]) for how in ("lost", "revoked")}


def test_late_ones_are_those_that_took_longer_than_the_target(seen: Seen) -> None:
    least, most = seen.truth.late("chat", CHAT_TARGET_SECONDS)
    [late] = seen.values('sum(aim_model_requests_total{model="chat",outcome="late"})').values()
    assert least <= late <= most
    assert least > 0
    assert seen.values('sum(aim_model_requests_total{model!="chat",outcome="late"})') == {(): 0}, "no target, none late"


def test_at_each_scrape_exactly_those_that_had_ended(seen: Seen) -> None:
    """No scrape tells of a request too early or forgets one: deltas over any two of them are exact."""
    series = seen.api.samples('aim_model_requests_total{model=~"chat|embed|batch"}', seen.seconds, seen.after)
    scrapes: Counter[float] = Counter()
    by_scrape: dict[float, Counter[tuple[str, ...]]] = {}
    for labels, samples in series:
        for at, value in samples:
            by_scrape.setdefault(at, Counter())[key(labels)] += int(value)
            scrapes[at] += 1
    ended: dict[tuple[str, ...], list[float]] = {}
    begun: dict[tuple[str, ...], list[float]] = {}
    for one in seen.truth.requests:
        if one.model in PLACES:
            name = (one.klass, one.model, one.outcome, one.partition or PLACES[one.model][0])
            ended.setdefault(name, []).append(one.ended)
            begun.setdefault(name, []).append(one.submitted if one.releasing is None else one.releasing)
    ends, begins = ({n: sorted(t) for n, t in times.items()} for times in (ended, begun))
    assert len(by_scrape) >= LOAD_SECONDS / SCRAPE_SECONDS
    for at, counts in by_scrape.items():
        found = well(counts)
        for name in ends:
            least = bisect.bisect_right(ends[name], at - OLD_SECONDS)
            most = bisect.bisect_right(begins[name], at + SLOW_SECONDS)
            if name[2] == "revoked":  # its client notices later
                least, most = 0, len(ends[name])
            assert least <= found[name] <= most, (name, at)


def test_operations(seen: Seen) -> None:
    stored = seen.values("aim_scheduler_operations_total")
    acquires = Counter(one.outcome for one in seen.truth.requests if not one.leased)
    assert +Counter(seen.values("aim_dispatch_denied_total")) == {("unknown_model",): acquires.pop("unknown_model")}
    acquires["granted"] = sum(one.leased for one in seen.truth.requests)
    assert {k[1]: v for k, v in stored.items() if k[0] == "acquire" and v} == acquires
    assert stored["cancel", "ok"] == acquires["cancelled"]
    done = Counter((one.what, one.outcome) for one in seen.truth.operations if one.what != "reload")
    done["switch", "committed"] += 1  # the claim of chat had gpu0 switched
    assert {k: v for k, v in stored.items() if k[0] not in ("acquire", "cancel") and v} == done


def test_mode_changes_and_reloads(seen: Seen) -> None:
    switches = [one for one in seen.truth.operations if one.what == "switch"]
    made = Counter((one.detail["before"], GPUS[2], "committed", one.detail["after"]) for one in switches)
    made["SPX/NPS1", GPUS[0], "committed", "CPX/NPS1"] += 1
    assert seen.values("aim_gpu_partition_changes_total") == made
    assert len(made) == 3, "there and back"
    seconds = seen.values("aim_gpu_partition_change_duration_seconds_sum")[GPUS[2], "committed"]
    assert 0 < seconds < sum(one.ended - one.began for one in switches)
    reloads = sum(one.what == "reload" for one in seen.truth.operations)
    assert seen.values("aim_config_reloads_total") == {("ok",): reloads, ("error",): 0}
    assert reloads > 0


def test_rejections_by_model(seen: Seen) -> None:
    rejected: Counter[tuple[str, ...]] = Counter()
    for one in seen.truth.requests:
        if not one.leased and one.model in PLACES and one.outcome not in ("cancelled", "would_block"):
            rejected[one.model, one.outcome] += 1
    assert {k: v for k, v in seen.values("aim_model_requests_rejected_total").items() if v} == rejected
    assert {why for _, why in rejected} == {"expired", "queue_full_model"}


# -- latencies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", PLACES)
@pytest.mark.parametrize("family", ["aim_model_request_latency_seconds", "aim_model_request_queue_wait_seconds"])
def test_latencies(seen: Seen, model: str, family: str) -> None:
    spans = latencies(seen.truth, family, model)
    where = f'{{model="{model}"}}'
    assert seen.values(f"sum({family}_count{where})") == {(): len(spans)}
    [total] = seen.values(f"sum({family}_sum{where})").values()
    assert sum(low for low, _ in spans) <= total <= sum(high for _, high in spans)
    buckets = seen.values(f"sum by (le) ({family}_bucket{where})")
    delayed = 2 + len(spans) // 30  # frames that a processor in use by others kept waiting, on their way in or out
    for bound in BUCKETS_SECONDS:
        # The core's sketch is true to 1/128: a latency that is close to a bound may be on its other side.
        least = sum(high <= bound * (1 - 1 / 64) for _, high in spans) - delayed
        most = sum(low <= bound * (1 + 1 / 64) for low, _ in spans) + delayed
        assert least <= buckets[(format_bound(bound),)] <= most, bound
    assert buckets["+Inf",] == len(spans)
    for q in (0.5, 0.95, 0.99):
        [value] = seen.values(f"histogram_quantile({q}, sum by (le) ({family}_bucket{where}))").values()
        least, most = quantile_bounds(spans, q, BUCKETS_SECONDS)
        assert least <= value <= most, q


def format_bound(bound: float) -> str:
    return repr(bound)


# -- gauges --------------------------------------------------------------------------------------------------------


def test_slots(seen: Seen) -> None:
    places = {place for model in PLACES.values() for place in model}
    slots = seen.values("aim_scheduler_slots", seen.during)
    assert {place for (place,) in slots} >= places
    assert set(slots.values()) == {SLOTS}
    most = seen.values("max_over_time(aim_scheduler_slots_in_use[30s])", seen.during)[PLACES["embed"][0],]
    assert 2 < most <= SLOTS, "bursts fill it, for less than a scrape"
    assert seen.values("max_over_time(aim_scheduler_slots_in_use[30s])", seen.during)[PLACES["batch"][0],] == 2
    assert seen.values('aim_model_requests_in_flight{model="batch"}', seen.during) == {
        ("low", "batch", PLACES["batch"][0]): 2
    }
    for model in PLACES:
        [busy] = seen.values(f'sum(aim_scheduler_slot_seconds_total{{model="{model}"}})').values()
        assert busy == pytest.approx(seen.truth.slot_seconds(model, 0, math.inf), rel=0.05), model
    assert set(seen.values("aim_scheduler_slots_in_use").values()) == {0}
    assert set(seen.values("aim_scheduler_queue_depth").values()) == {0}


def test_memory(seen: Seen) -> None:
    used = seen.values("aim_gpu_partition_memory_used_bytes", seen.during)
    expected = Counter({(place,): size for place, size in seen.truth.memory.items()})
    assert +Counter({place: int(size) for place, size in used.items()}) == expected
    whole = {place[0]: size for place, size in by_place(seen, "aim_gpu_partition_memory_bytes").items()}
    reserved = by_place(seen, "aim_gpu_partition_memory_allocated_bytes")
    for place, nominal in ((PLACES["chat"][0], 18), (PLACES["chat"][1], 14), (PLACES["batch"][0], 40)):
        share = nominal / math.ceil(whole[place] / GIB)
        assert reserved[place,] == pytest.approx(share * whole[place], abs=1)
    assert set(seen.values("aim_gpu_partition_memory_unattributed_bytes", seen.during).values()) == {0}


def by_place(seen: Seen, family: str) -> dict[tuple[str, ...], float]:
    return seen.values(f"sum by (gpu_id, partition_id) ({family})", seen.during)


def test_utilization_follows_the_leases(seen: Seen) -> None:
    """At each scrape it is what the smoothed load was within the age of a sample."""
    stored = seen.api.samples("aim_gpu_partition_utilization", 20, seen.during)
    shares = {f"{labels['gpu_id']}/{labels['partition_id']}": samples for labels, samples in stored}
    loaded = {place for places in PLACES.values() for place in places}
    for place in loaded:
        assert len(shares[place]) >= 20 / SCRAPE_SECONDS - 2
        for at, value in shares[place]:
            low, high = seen.truth.utilization(place, at, SAMPLE_AGE_SECONDS)
            assert low <= value <= high, (place, at)
    assert seen.values("aim_gpu_partition_utilization", seen.during)[PLACES["batch"][0],] == pytest.approx(
        0.6, abs=0.05
    )
    others = {value for place, samples in shares.items() if place not in loaded for _, value in samples}
    assert others == {0.0}


def test_series_of_a_partition_go_with_it(seen: Seen) -> None:
    """gpu2 has one partition or eight, and at each scrape as many series of them."""
    start, end = seen.truth.began + SCRAPE_SECONDS / 3, seen.during
    ranges = [
        seen.api.query_range(expression, start, end, SCRAPE_SECONDS)["result"][0]["values"]
        for expression in (
            f'count(aim_gpu_partition_memory_bytes{{gpu_id="{GPUS[2]}"}}) or 0 * sum(aim_gpu_partitions)',
            f'sum(aim_gpu_partitions{{gpu_id="{GPUS[2]}"}})',
        )
    ]
    assert ranges[0] == ranges[1]
    assert {value for _, value in ranges[0]} >= {"1", "8"}


def test_free_memory(seen: Seen) -> None:
    """As HIP tells it: less than what is not used by what the driver keeps for itself."""
    free = by_place(seen, "aim_gpu_partition_memory_available_bytes")
    rest = by_place(
        seen, "aim_gpu_partition_memory_bytes - on (gpu_id, partition_id) aim_gpu_partition_memory_used_bytes"
    )
    for place in {place for places in PLACES.values() for place in places}:
        assert rest[place,] - GIB / 4 < free[place,] < rest[place,]


# -- service level -------------------------------------------------------------------------------------------------


def test_service_level(seen: Seen) -> None:
    assert seen.values("aim_model_slo_objective_ratio")["chat",] == CHAT_OBJECTIVE
    assert seen.values("aim_model_slo_latency_target_seconds") == {("chat",): CHAT_TARGET_SECONDS}
    assert seen.values("aim_model_slo_throughput_floor") == {(model,): floor for model, floor in FLOORS.items()}
    good = seen.values("aim_model_slo_good_total")
    bad = seen.values("aim_model_slo_bad_total")
    requests_ = seen.values("sum by (model, outcome) (aim_model_requests_total)")
    for model in ("chat", "embed"):
        assert good[model,] == requests_[model, "released"]
        for (name, reason), count in bad.items():
            assert name != model or count == requests_.get((model, reason), 0), reason
    assert bad["embed", "lost"] == seen.truth.of("embed", "lost") > 0
    burn = sum(count for (model, _), count in bad.items() if model == "chat") / (1 - CHAT_OBJECTIVE)
    burn /= good["chat",] + sum(count for (model, _), count in bad.items() if model == "chat")
    rates = {
        window: rate for (model, window), rate in seen.values("aim_model_slo_burn_rate").items() if model == "chat"
    }
    assert rates.pop("1h") == pytest.approx(burn)
    assert set(rates) == {"5m", "30m", "2h", "6h", "1d", "3d"}
