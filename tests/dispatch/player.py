"""Seeded random lives of cores: the moves of the state machine without hypothesis, and adversarial patterns.

Faster by an order of magnitude than the state machine, so that campaigns and deliberate faults use it; what it finds is
repeated by its seed and not made smaller.
"""

import random

from aimd.dispatch.face import ModelConfig, PartitionConfig
from tests.dispatch.lockstep import LIMITS, UNKNOWN, Lockstep

AGES = 1_000_000
STEPS = (0, 0, 0, 0, 1, 1, 2, 7, 60)
WAITS = (AGES, AGES + 1, AGES + 3, 40, 10, 3, 2, 1, 0, -1)
CLASSES = (0, 1, 2, 0, 1, 2, -1)
MODELS = (0, 1, 2, 3, 0, 1, 2, 3, 0, 1, UNKNOWN)
BLOCKS = (1, 1, 2, 5, 1, 0, 1000, 1)
WEIGHTS = (1, 1, 2, 3, 7, 999, 1000)


def random_config(dice, roomy=False):
    """A configuration, mostly an acceptable one; a roomy one has no tight caps and no short lives."""
    capacity = dice.randint(1, 5)
    models = []
    for model in range(dice.randint(1, 4)):
        limit = dice.choice((None, None, 1, 2, 3, 9))
        guarantee = min(dice.choice((0, 0, 1, 1, 2)), limit or capacity)
        cap = 100 if roomy else dice.choice((100, 100, 5, 1, 0))
        models.append(
            ModelConfig(model, guarantee, limit, dice.choice(WEIGHTS), cap, dice.randint(0, 2), (5, 15, 60), 20)
        )
    return PartitionConfig(
        tuple(models),
        capacity,
        queue_cap=100 if roomy else dice.choice((30, 6, 4, 3, 2, 1, 0)),
        lease_max_ns=AGES if roomy else dice.choice((AGES, AGES, 100, 30)),
        orphan_grace_ns=dice.choice((20, 5)),
    )


def begin(factories, dice, roomy=False, limits=LIMITS):
    desk = Lockstep(factories, limits)
    while not desk.move_configure(0, 0, random_config(dice, roomy)):
        pass
    for highest in (0, 0, 0, 1):
        desk.move_open(highest)
    return desk


def play(factories, seed, steps):
    """A life of all moves; AssertionError says what was found."""
    dice = random.Random(seed)
    desk = begin(factories, dice)
    moves = [
        (30, acquire),
        (3, burst),
        (20, release),
        (4, lambda desk, dice, now: desk.move_renew(now, dice.randrange(16))),
        (2, lambda desk, dice, now: desk.move_stale(now, dice.choice(NAMES), dice.randrange(16))),
        (2, lambda desk, dice, now: desk.move_foreign(now, dice.choice(NAMES), dice.randrange(16))),
        (4, lambda desk, dice, now: desk.move_cancel(now, dice.randrange(64))),
        (2, lambda desk, dice, now: desk.move_disconnect(now, dice.randrange(16), dice.random() < 0.5)),
        (4, reopen),
        (1, lambda desk, dice, now: desk.move_exited(now, dice.randrange(16))),
        (3, lambda desk, dice, now: desk.move_advance(now + dice.randrange(150))),
        (1, lambda desk, dice, now: desk.move_configure(now, dice.choice((0, 0, 1, 2)), random_config(dice))),
        (1, lambda desk, dice, now: desk.move_remove(now, dice.choice((0, 1, 1, 2)))),
        (1, lambda desk, dice, now: desk.move_drain(now, dice.choice((0, 1, 2)), dice.random() < 0.3)),
        (0.5, lambda desk, dice, now: desk.move_restart(now)),
    ]
    chosen = dice.choices([move for _, move in moves], [weight for weight, _ in moves], k=steps)
    for number, move in enumerate(chosen):
        move(desk, dice, desk.now + dice.choice(STEPS))
        if number % 5 == 2:
            desk.move_snapshot(BLOCKS[number // 5 % len(BLOCKS)])
        if number % 50 == 33:
            desk.move_wrong(desk.now, number // 50)
    return desk


NAMES = ("release", "renew", "adopt")


def acquire(desk, dice, now):
    partition, model = dice.choice((0, 0, 0, 1, 2)), dice.choice(MODELS)
    klass, wait = dice.choice(CLASSES), dice.choice(WAITS)
    desk.move_acquire(now, dice.randrange(16), partition, model, klass, wait, dice.random() < 0.1)


def burst(desk, dice, now):
    for _ in range(dice.randint(2, 12)):
        desk.move_acquire(now, dice.randrange(16), 0, dice.randrange(4), dice.randrange(3), AGES + dice.randrange(9))


def release(desk, dice, now):
    desk.move_release(now, dice.randrange(16), dice.random() < 0.9)


def reopen(desk, dice, now):
    if dice.random() < 0.5:
        desk.move_open_again(dice.randrange(16), dice.choice((0, 0, 1, 2)))
    else:
        desk.move_open(dice.choice((0, 0, 1, 2)))


def play_saturated(factories, seed, steps):
    """Releases drive all grants while models keep entries in several classes: credit, fairness and guarantees.

    Arrivals come in a period, which a counter modulo something would resonate with. Now and then a model stays away,
    or holds its leases until it is at its limit and then gets rid of them first, or a weight changes.
    """
    dice = random.Random(seed)
    desk = begin(factories, dice, roomy=True)
    config = desk.configs[0]
    names = [model.model for model in config.models]
    plan = [(dice.choice(names), dice.randrange(3)) for _ in range(dice.choice((2, 3, 5, 16, 17)))]
    room = dice.choice((4, 8, 30, 60))
    absent = holder = None
    for step in range(steps):
        if dice.random() < 0.05:
            absent, holder = dice.choice([*names, None, None]), dice.choice([*names, None])
        if dice.random() < 0.02:
            desk.move_configure(desk.now, 0, reweighted(config, dice))
        model, klass = plan[step % len(plan)] if step % 3 else (dice.choice(names), dice.randrange(3))
        if model != absent and len(desk.monitor.waits) < room:
            desk.move_acquire(desk.now, step, 0, model, klass, AGES - dice.randrange(9) * (dice.random() < 0.3))
        if len(desk.monitor.waits) > room // 2 or dice.random() < 0.5:
            release_unless_held(desk, dice, holder, held=step // 20 % 2)
    return desk


def release_unless_held(desk, dice, holder, held):
    """Release a lease: none of the holder's if they are held, else rather one of them."""
    leases = desk.leases
    theirs = [index for index, lease in enumerate(leases) if desk.monitor.runs[lease].model == holder]
    others = [index for index in range(len(leases)) if index not in theirs]
    chosen = others if held else (theirs or others)
    if chosen:
        desk.move_release(desk.now, dice.choice(chosen), ok=True)


def play_rivals(factories, seed, steps):
    """Models with entries of one class all the time: fairness (T5).

    In turns one of them stays away, or sits at a low limit that is raised later, or weights change: none of these may
    earn it a credit or a debt.
    """
    dice = random.Random(seed)
    desk = Lockstep(factories)
    desk.move_open(0)
    names = range(dice.randint(2, 3))
    klass = dice.randrange(3)
    capacity = dice.randint(2, 4)
    weights = {name: dice.choice(WEIGHTS) for name in names}
    absent = None
    for step in range(steps):
        if step % 20 == 0:
            absent, stuck = dice.choice([*names, None]), dice.choice([*names, None])
            weights[dice.choice(names)] = dice.choice(WEIGHTS)
            models = tuple(
                ModelConfig(name, limit=1 if name == stuck else None, weight=weights[name]) for name in names
            )
            desk.move_configure(desk.now, 0, PartitionConfig(models, capacity, 100, AGES, 5))
        for name in names:
            while name != absent and len(desk.monitor.places[0].cells[name].lanes[klass]) < 3:
                desk.move_acquire(desk.now, 0, 0, name, klass, AGES)
        desk.move_release(desk.now, dice.randrange(capacity), ok=True)
    return desk


def play_comebacks(factories, seed, steps):
    """MEDIUM's only eligible entry leaves when its turn comes and is back when LOW's has come, as often as it can.

    Another model at its limit keeps a MEDIUM entry, so that the class is never without one and keeps its passes.
    """
    dice = random.Random(seed)
    desk = Lockstep(factories)
    desk.move_open(0)
    models = (ModelConfig(0), ModelConfig(1, limit=1), ModelConfig(2))
    desk.move_configure(0, 0, PartitionConfig(models, 2, 100, AGES, 5))
    for model, klass in ((1, 1), (1, 1), (0, 0), (0, 0), (2, 2), (2, 2)):
        desk.move_acquire(0, 0, 0, model, klass, AGES)
    for _ in range(steps):
        lanes, waited = desk.monitor.places[0].cells[0].lanes, desk.monitor.places[0].waited
        hidden = waited[1] >= 7 and waited[2] < 15 and dice.random() < 0.95
        if hidden and lanes[1]:
            desk.cancel(desk.now, *next(iter(lanes[1])))
        elif not hidden and not lanes[1]:
            desk.move_acquire(desk.now, 0, 0, 0, 1, AGES)
        for model, klass in ((0, 0), (2, 2)):
            if not desk.monitor.places[0].cells[model].lanes[klass]:
                desk.move_acquire(desk.now, 0, 0, model, klass, AGES)
        held = [run.model for run in desk.monitor.runs.values()]
        desk.move_release(desk.now, next(index for index, model in enumerate(held) if model != 1), ok=True)
    return desk


LIVES = (play, play_saturated, play_rivals, play_comebacks)


def reweighted(config, dice):
    models = tuple(
        ModelConfig(
            model.model, model.guarantee, model.limit, dice.choice(WEIGHTS), model.queue_cap, model.default_class
        )
        for model in config.models
    )
    return PartitionConfig(models, config.capacity, config.queue_cap, config.lease_max_ns, config.orphan_grace_ns)
