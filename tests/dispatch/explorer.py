"""All states of small instances that a number of moves can reach, each watched by the monitor.

States are told apart by what decides the future: who waits in which order, who runs, the counters of credit and the
tags relative to V. Deadlines and the life of leases are left to the random lives. The native core cannot be copied: it
lives each history again from its beginning, and must answer as the reference did and be whole at its end.
"""

import pickle
from itertools import product

from aimd.dispatch.face import Limits, ModelConfig, PartitionConfig, canonical
from aimd.dispatch.reference import Reference
from tests.dispatch.lockstep import Lockstep

AGES = 1_000_000
LIMITS = Limits(partitions=1, models=4, requests=30, leases=4, connections=1, requests_per_connection=20)


def config_of(capacity, shares):
    """A partition whose models have these (guarantee, limit, weight)."""
    models = tuple(ModelConfig(model, *share) for model, share in enumerate(shares))
    return PartitionConfig(models, capacity, queue_cap=2)


def instances(models, capacities=(1, 2, 3), weights=(1, 2)):
    """Configurations of so many models: every guarantee and limit within the capacity, weights by turns."""
    for capacity in capacities:
        each = [(g, limit) for g in range(capacity + 1) for limit in range(max(g, 1), capacity + 1)]
        for shares in product(each, repeat=models):
            if sum(guarantee for guarantee, _ in shares) <= capacity:
                weighted = ((g, limit, weights[index % len(weights)]) for index, (g, limit) in enumerate(shares))
                yield config_of(capacity, tuple(weighted))


def moves(models, classes):
    """All calls that may be made in a state, as (name, arguments of a function of this module)."""
    yield from ((arrive, model, klass) for model in range(models) for klass in classes)
    yield from ((release, model) for model in range(models))
    yield (cancel_oldest,)


def arrive(desk, model, klass):
    desk.move_acquire(0, 0, 0, model, klass, AGES)


def release(desk, model):
    """Give back the oldest lease of the model; False when it has none."""
    for index, lease in enumerate(desk.leases):
        if desk.monitor.runs[lease].model == model:
            desk.move_release(0, index, ok=True)
            return True
    return False


def cancel_oldest(desk):
    if not desk.monitor.waits:
        return False
    desk.move_cancel(0, 0)
    return True


def key_of(desk):
    """What decides the future of the core."""
    core = desk.cores[0]
    place = core.partitions[0]
    models = [
        (
            tuple(max(tag - base, -1) for tag, base in zip(model.tags, place.tags, strict=True)),
            tuple(model.carry),
            tuple(model.waited),
            tuple(model.running),
        )
        for model in place.models.values()
    ]
    waiting = tuple((entry.model.config.model, entry.klass) for entry in core.waiting.values())
    return tuple(models), tuple(place.waited), waiting


class Recorded(Reference):
    """The reference, which remembers what it was told and what it said."""

    def __init__(self, *args):
        super().__init__(*args)
        self.journal = []

    def note(self, name, args, answer):
        self.journal.append((name, args, canonical(answer) if isinstance(answer, list) else answer))
        return answer

    def advance(self, *args):
        return self.note("advance", args, super().advance(*args))

    def open(self, *args):
        return self.note("open", args, super().open(*args))

    def configure(self, *args):
        return self.note("configure", args, super().configure(*args))

    def acquire(self, *args):
        return self.note("acquire", args, super().acquire(*args))

    def release(self, *args):
        return self.note("release", args, super().release(*args))

    def cancel(self, *args):
        return self.note("cancel", args, super().cancel(*args))


def replayed(factory, core):
    """A core of another kind that lived what this recorded one did, and answered as it did."""
    other = factory(LIMITS, 1)
    for name, args, answer in core.journal:
        said = getattr(other, name)(*args)
        said = canonical(said) if isinstance(said, list) else said
        assert said == answer, f"{name}{args}: {said} instead of {answer}"
    assert other.snapshot() == core.snapshot()
    return other


def explore(factory, config, depth, classes=(0, 2), look=lambda core: None):
    """The number of states within `depth` moves of a core of which the first model has all that it may have.

    `look` is called with the core after each move in each state. AssertionError where a promise breaks.
    """
    desk = Lockstep([factory], LIMITS)
    desk.move_configure(0, 0, config)
    desk.move_open(0)
    for _ in range(config.capacity):
        arrive(desk, 0, 2)
    seen = {key_of(desk)}
    frontier = [pickle.dumps(desk)]
    for _ in range(depth):
        found = []
        for state in frontier:
            for move, *args in moves(len(config.models), classes):
                desk = pickle.loads(state)
                if move(desk, *args) is False:
                    continue
                look(desk.cores[0])
                if (key := key_of(desk)) not in seen:
                    seen.add(key)
                    found.append(pickle.dumps(desk))
        frontier = found
    return len(seen)


def credit_states(credit):
    """All (MEDIUM, LOW) counters that `credit(lanes, waited)` reaches, whatever is eligible and whatever leaves.

    They are the grants in a row that passed the class over while it was eligible, so that their bounds are T4.
    A class takes part, has entries that cannot run (its counter stays), or has none (its counter is 0).
    """
    seen, frontier = set(), [(0, 0, 0)]
    while frontier:
        state = frontier.pop()
        if state in seen:
            continue
        seen.add(state)
        assert state[1] <= 8, "T4: MEDIUM passed over more than 8 times"
        assert state[2] <= 15, "T4: LOW passed over more than 15 times"
        for roles in product(("lane", "red", "gone"), repeat=3):
            waited = [0 if role == "gone" else value for role, value in zip(roles, state, strict=True)]
            lanes = [klass for klass in range(3) if roles[klass] == "lane"]
            if lanes:
                credit(lanes, waited)
            frontier.append((0, *waited[1:]))
    return {(medium, low) for _, medium, low in seen}
