"""What each panel has to show of the load scene, written down from what its title says and from what the scene did."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import aimd
from aimd.domain.metering import BUCKETS_SECONDS
from tests.dashboards.cluster_values import CLUSTER
from tests.dashboards.expected_values import Bounds, about
from tests.dashboards.load_scene import CHAT_TARGET_SECONDS, FLOORS, GPUS, SLOTS
from tests.dashboards.load_seen import PLACES, SAMPLE_AGE_SECONDS, WINDOW
from tests.dashboards.load_truth import quantile_bounds
from tests.dashboards.panel_look import (
    BAD,
    CPX_BYTES,
    OBJECTIVES,
    SPAN,
    Check,
    Look,
    Values,
    by_model,
    by_place,
    every,
    of_model,
    one_value,
    served,
    well_of_chat,
)

RESERVED_GB = {PLACES["chat"][0]: 18, PLACES["chat"][1]: 14, PLACES["batch"][0]: 40}
GUARANTEES = {"chat": 4, "embed": 0, "batch": 0}
QUEUE_LIMIT = 4096

# -- partition utilization -----------------------------------------------------------------------------------------


def utilization(look: Look, place: str) -> Bounds:
    if not any(place in places for places in PLACES.values()):
        return Bounds(0, 0)
    return Bounds(*look.truth.utilization(place, look.at, SAMPLE_AGE_SECONDS))


def mean_utilization(look: Look) -> Bounds:
    """gpu2's may be absent, after a change and before the next sample."""
    shares = [utilization(look, place) for place in look.sizes]
    return Bounds(sum(one.low for one in shares) / len(shares), sum(one.high for one in shares) / 9)


def slots_by_place(look: Look, place: str) -> Bounds:
    low, high = look.running(lambda one: one.partition == place)
    return Bounds(low / SLOTS, min(high, SLOTS) / SLOTS)


def reserved(look: Look, place: str) -> Bounds:
    return about(RESERVED_GB.get(place, 0) * (1 << 30) / math.ceil(look.sizes[place] / (1 << 30)) / (1 << 30), 1e-6)


def modes(look: Look) -> Values:
    found = Counter("CPX" if size == CPX_BYTES else "SPX" for size in look.sizes.values())
    return {(mode, "NPS1"): about(count) for mode, count in found.items()}


def changes(look: Look) -> Values:
    made = [one.detail for one in look.truth.operations if one.what == "switch"]
    counts = Counter((one["before"], one["after"], "committed") for one in made)
    counts["SPX/NPS1", "CPX/NPS1", "committed"] += 1  # for the claim of chat
    return {name: about(count) for name, count in counts.items()}


def total_reserved(look: Look) -> Bounds:
    return about(sum(reserved(look, place).low * size for place, size in look.sizes.items()), 1e-5)


PARTITIONS: Mapping[str, tuple[Check, ...]] = {
    "GPUs ready": (one_value(3),),
    "Partitions": (one_value(lambda look: about(len(look.sizes))),),
    "Assignments": (one_value(4),),
    "Memory reserved": (one_value(lambda look: total_reserved(look).over(about(sum(look.sizes.values())))),),
    "Mean utilization": (one_value(mean_utilization),),
    "Slots in use": (one_value(lambda look: look.running(served).over(about(SLOTS * len(look.sizes)))),),
    "Utilization of partitions": (by_place(utilization),),
    "Slots in use by partition": (by_place(slots_by_place),),
    "Sources of utilization": (Check(("gpu_id", "source"), lambda _: {(g, "xcp_metrics"): about(1) for g in GPUS}),),
    "Partitions by mode": (Check(("compute_mode", "memory_mode"), modes),),
    "Memory reserved by partition": (by_place(reserved),),
    "Memory used by partition": (by_place(lambda look, p: about(look.truth.memory[p] / look.sizes[p], 1e-9)),),
    "Memory of all partitions": (
        one_value(lambda look: about(sum(look.sizes.values()))),
        one_value(total_reserved),
        one_value(lambda look: about(sum(look.truth.memory.values()))),
        one_value(0),
    ),
    "Memory used by partition over time": (by_place(lambda look, p: about(look.truth.memory[p])),),
    "GPUs in a change, drifting, draining": (one_value(0), one_value(0), one_value(0), one_value(0)),
    "Ended mode changes": (Check(("from", "to", "result"), changes),),
}

# -- model performance ---------------------------------------------------------------------------------------------


def success(look: Look, model: str) -> Bounds:
    done = look.outcomes(look.window, lambda r, how: (r.model,) if how == "released" else None)[model,]
    kept = look.window.rates(lambda r: r.model == model and r.outcome != "cancelled", lambda _: ())[()]
    return done.over(kept)


def buckets(look: Look) -> Values:
    """A frame that a busy processor keeps waiting may put a request into another bucket: two of them are left open."""
    found = {}
    for bound in (*BUCKETS_SECONDS, math.inf):
        spans = [(one.total(), one.ended) for one in look.truth.requests if one.outcome in ("released", "failed")]
        sure = look.window.rate(at for (_, high), at in spans if high <= bound * (1 - 1 / 64))
        may = look.window.rate(at for (low, _), at in spans if low <= bound * (1 + 1 / 64))
        name = "+Inf" if bound == math.inf else repr(bound)
        found[name,] = Bounds(max(0.0, sure.low - 2 / WINDOW), may.high + 2 / WINDOW)
    return found


def waited(look: Look, model: str) -> Bounds:
    """Of the time that requests waited, which is known at their grant, and of that for which leases ran."""
    inner, outer = (
        look.spans(of_model(model), look.at - WINDOW - edge, look.at + edge, wait=True) for edge in (-1.25, 1.25)
    )
    low, high = sum(low for low, _ in inner) * 0.9, sum(high for _, high in outer) * 1.1
    ran = look.window.slots(model)
    return Bounds(low / (low + ran.high * WINDOW), high / (high + ran.low * WINDOW))


def spending(look: Look, model: str, span: float) -> Bounds:
    """Share of the requests of a time that used up the budget; its end is that of a sample, which is seconds old."""
    ratios = []
    for age in range(int(SAMPLE_AGE_SECONDS) + 2):
        since, until = look.at - age - span, look.at - age
        bad, released = (look.truth.of(model, *hows, since=since, until=until) for hows in (BAD, ("released",)))
        well = [r for r in look.truth.requests if well_of_chat(r) and model == "chat" and since < r.ended <= until]
        lates = [sum(r.total()[side] > CHAT_TARGET_SECONDS for r in well) for side in (0, 1)]
        ratios += [(bad + late) / (bad + released) for late in lates]
    return Bounds(min(ratios), max(ratios))


def burn(look: Look) -> Values:
    """In each window the same, since it is longer than the load."""
    windows, found = ("5m", "30m", "1h", "2h", "6h", "1d", "3d"), {}
    for model, objective in OBJECTIVES.items():
        low, high = spending(look, model, math.inf)
        found |= {
            (model, each): Bounds(low / (1 - objective) * 0.98, high / (1 - objective) * 1.02) for each in windows
        }
    return found


def budget_left(look: Look) -> Values:
    found = {}
    for model, objective in OBJECTIVES.items():
        low, high = spending(look, model, SPAN)
        found[model,] = Bounds(*(1 - ratio / (1 - objective) for ratio in (high * 1.2 + 0.01, low * 0.8 - 0.01)))
    return found


def spent(look: Look) -> Values:
    rates = look.outcomes(look.slow, lambda r, how: (r.model, how) if how in BAD and r.model in OBJECTIVES else None)
    return {name: Bounds(rate.low * SPAN - 1, rate.high * SPAN + 1) for name, rate in rates.items()}


def rejections(look: Look) -> Values:
    quietly = ("cancelled", "would_block")
    chosen = lambda r: served(r) and not r.leased and r.outcome not in quietly  # noqa: E731
    return look.window.rates(chosen, lambda r: (r.model, r.outcome))


def given_back(look: Look) -> Values:
    """What a floor is about, late or not: clients know of no difference."""
    return look.window.rates(lambda r: r.model in FLOORS and r.outcome in ("released", "failed"), lambda r: (r.model,))


def waits_by_class(look: Look) -> Values:
    classes = [("chat", "high"), ("embed", "medium"), ("embed", "low"), ("batch", "low")]
    return {one: look.quantile(0.95, lambda r, one=one: (r.model, r.klass) == one, wait=True) for one in classes}


MODELS: Mapping[str, tuple[Check, ...]] = {
    "Requests that ended": (Check(("model",), lambda look: look.window.rates(served, lambda r: (r.model,))),),
    "Outcomes": (Check(("outcome",), lambda look: look.outcomes(look.window, lambda _, how: (how,))),),
    "Success ratio": (by_model(success),),
    "Rejections by reason": (Check(("model", "reason"), rejections),),
    "Latency, median and 99th percentile": (
        by_model(lambda look, model: look.quantile(0.5, of_model(model))),
        by_model(lambda look, model: look.quantile(0.99, of_model(model))),
    ),
    "Latency by class, 95th percentile": (
        Check(
            ("class",),
            lambda look: {
                (k,): look.quantile(0.95, lambda r, k=k: served(r) and r.klass == k) for k in ("high", "medium", "low")
            },
        ),
    ),
    "Wait for a lease, 95th percentile": (Check(("model", "class"), waits_by_class),),
    "Distribution of latency": (Check(("le",), buckets),),
    "Requests in flight": (by_model(lambda look, model: look.running(of_model(model))),),
    "Time waited of the whole": (by_model(waited),),
    "Objective met": (
        Check(
            ("model", "objective"),
            lambda _: {
                ("chat", "latency"): about(0),
                ("embed", "latency"): about(0),
                ("embed", "throughput"): Bounds(0, 1),
                ("chat", "throughput"): Bounds(0, 1),
            },
        ),
    ),
    "Burn rate": (Check(("model", "window"), burn),),
    "Error budget left": (Check(("model",), budget_left),),
    "What used up the budget": (Check(("model", "reason"), spent),),
    "Throughput and its floor": (
        Check(("model",), given_back),
        Check(("model",), lambda _: {(model,): about(floor) for model, floor in FLOORS.items()}),
    ),
    "Latency and its target": (
        Check(("model",), lambda look: {("chat",): look.quantile(0.99, of_model("chat"))}),
        Check(("model",), lambda _: {("chat",): about(CHAT_TARGET_SECONDS)}),
    ),
}

# -- scheduler -----------------------------------------------------------------------------------------------------


def backlog(look: Look, model: str) -> Bounds:
    """Share of the time in which something waited on the one or the other of its partitions."""
    since = look.at - WINDOW
    instants = [since + WINDOW * step / 1500 for step in range(1500)]
    shares = []
    for place in PLACES[model]:
        chosen = [r for r in look.truth.requests if r.model == model and (r.partition or place) == place]
        waits = [(r.submitted, r.granted or r.ended) for r in chosen]
        shares.append(sum(any(begin <= at < end for begin, end in waits) for at in instants) / len(instants))
    return Bounds(max(shares) * 0.75 - 0.1, min(1.001, max(shares) * 1.1 + 0.05))


def beyond(look: Look, model: str) -> Bounds:
    slots, guarantee = look.window.slots(model), GUARANTEES[model]
    return Bounds(slots.low - guarantee, slots.high - guarantee)


def reclaimed(look: Look) -> Values:
    """No longer than the longest wait, and there were some: bursts."""
    waits = look.spans(of_model("chat"), look.at - WINDOW - 2, look.at, wait=True)
    return {("chat",): Bounds(1e-6, quantile_bounds(waits, 1.0, BUCKETS_SECONDS)[1])}


def operations(look: Look) -> Values:
    found = look.window.operations(lambda what, outcome: (what, outcome))
    found = {name: rate for name, rate in found.items() if name[0] != "reload"}
    found |= look.window.grants(lambda _: ("acquire", "granted"))
    found |= look.window.rates(lambda r: served(r) and not r.leased, lambda r: ("acquire", r.outcome))
    return found | look.window.rates(lambda r: r.outcome == "cancelled", lambda _: ("cancel", "ok"))


def denied(look: Look) -> Values:
    return look.window.rates(lambda r: r.outcome == "unknown_model", lambda r: (r.outcome,))


SCHEDULER: Mapping[str, tuple[Check, ...]] = {
    "Waiting requests by class": (
        Check(
            ("class",),
            lambda look: {
                (k,): look.waiting(lambda r, k=k: served(r) and r.klass == k) for k in ("high", "medium", "low")
            },
        ),
    ),
    "Waiting requests by model": (by_model(lambda look, model: look.waiting(of_model(model))),),
    "Queues by partition": (
        by_place(
            lambda look, p: look.waiting(lambda r: served(r) and (r.partition or PLACES[r.model][0]) == p).over(
                about(QUEUE_LIMIT)
            )
        ),
    ),
    "Time with a backlog": (by_model(backlog),),
    "Slots that models had": (by_model(lambda look, model: look.window.slots(model)),),
    "Slots had beyond the guarantee": (by_model(beyond),),
    "Until a guarantee is met, 99th percentile": (Check(("model",), reclaimed),),
    "Partitions that let nobody in": (one_value(0),),
    "Operations": (Check(("operation", "outcome"), operations),),
    "Decisions, 99th percentile": (every(1e-6, 0.25),),
    "Connections of clients": (one_value(4),),
    "Clients turned away": (one_value(0), one_value(0), one_value(0), Check(("outcome",), denied)),
}

# -- node health ---------------------------------------------------------------------------------------------------


def commits(look: Look) -> Values:
    """One at least of each operation, reloads apart."""
    ended = [one.ended for one in look.truth.operations if one.what != "reload"]
    return {("ok",): Bounds(look.window.rate(ended).low, 20)}


HEALTH: Mapping[str, tuple[Check, ...]] = {
    "Daemons ready": (one_value(1),),
    "Since the last restart": (
        one_value(lambda look: Bounds(look.at - look.truth.began, look.at - look.truth.began + 60)),
    ),
    "GPUs not ready": (one_value(0),),
    "Warnings": (one_value(0),),
    "Orphans": (one_value(0),),
    "Left behind": (one_value(0),),
    "Health checks": (
        Check(("check",), lambda _: {(c,): about(1) for c in ("loop", "inventory", "ledger", "dispatch")}),
    ),
    "GPU states": (Check(("state",), lambda _: {("ready",): about(3)}),),
    "Claims": (Check(("state",), lambda _: {("placed",): about(3)}),),
    "Assignments": (Check(("state",), lambda _: {("held",): about(4)}),),
    "Commits of the ledger": (Check(("result",), commits),),
    "Commit until durable, 99th percentile": (every(1e-6, 2.5),),
    "Processor": (one_value(lambda look: about(look.seen.busy, relative=0.3, absolute=0.02)),),
    "Resident memory": (one_value(lambda look: about(look.seen.process.resident_bytes, relative=0.1)),),
    "Event loop too late, 99th percentile": (every(1e-6, 2.5),),
    "Control loop idle": (every(0, 5),),
    "Failures": (one_value(0), every(0, 0), one_value(0)),
    "Open files": (one_value(lambda look: about(look.seen.process.open_files, absolute=6)),),
    "Parts of the metrics page": (every(0, 1),),
    "Versions": (Check(("version", "simulated"), lambda _: {(aimd.__version__, "1"): about(1)}),),
}

VALUES: Mapping[str, Mapping[str, tuple[Check, ...]]] = {
    "partition-utilization": PARTITIONS,
    "model-performance": MODELS,
    "scheduler-metrics": SCHEDULER,
    "node-health": {**HEALTH, **CLUSTER},
}
