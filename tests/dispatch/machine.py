"""Hypothesis state machine over any list of cores: `machine(Reference, Native)` compares their logs step by step.

The first core is watched by the monitor (T1 to T7); the others must answer exactly as the first one does.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from aimd.dispatch.face import ModelConfig, PartitionConfig
from tests.dispatch.lockstep import LIMITS, UNKNOWN, Lockstep

AGES = 1_000_000
STEPS = st.sampled_from((0, 0, 0, 0, 0, 1, 2, 7, 60))
WAITS = st.sampled_from((AGES, AGES, AGES + 1, AGES + 3, 40, 10, 3, 1, 0, -1))
CLASSES = st.sampled_from((0, 1, 2, 0, 1, 2, -1))
INDEX = st.integers(0, 15)
PARTITIONS = st.sampled_from((0, 0, 0, 0, 1, 2))
MODELS = st.sampled_from((0, 1, 2, 3, 0, 1, 2, 3, 0, 1, UNKNOWN))
NAMES = st.sampled_from(("release", "renew", "adopt"))


@st.composite
def configs(draw):
    """Mostly acceptable ones: guarantees may come to more than the capacity."""
    capacity = draw(st.integers(1, 5))
    models = []
    for model in range(draw(st.integers(1, 4))):
        limit = draw(st.sampled_from((None, None, 1, 2, 3, 9)))
        guarantee = min(draw(st.sampled_from((0, 0, 1, 1, 2, 3))), limit or capacity)
        weight = draw(st.sampled_from((1, 1, 2, 3, 7, 999, 1000)))
        cap = draw(st.sampled_from((100, 100, 5, 1, 0)))
        default = draw(st.integers(0, 2))
        denied = draw(st.sampled_from((False, False, False, True)))
        waits = (5, 15, 60)
        models.append(
            ModelConfig(model, guarantee, limit, weight, cap, default, waits, latency_target_ns=20, denied=denied)
        )
    return PartitionConfig(
        tuple(models),
        capacity,
        queue_cap=draw(st.sampled_from((30, 30, 6, 3, 1, 0))),
        lease_max_ns=draw(st.sampled_from((AGES, AGES, 100, 30))),
        orphan_grace_ns=draw(st.sampled_from((20, 5))),
    )


def machine(*factories, limits=LIMITS):
    """A state machine whose cores are made by these, called with the limits and the first generation."""

    class DispatchMachine(RuleBasedStateMachine):
        def __init__(self):
            super().__init__()
            self.desk = Lockstep(factories, limits)

        @initialize(config=configs())
        def begin(self, config):
            self.desk.move_configure(0, 0, config)
            for highest in (0, 0, 0, 1):
                self.desk.move_open(highest)

        @rule(
            step=STEPS,
            index=INDEX,
            partition=PARTITIONS,
            model=MODELS,
            klass=CLASSES,
            wait=WAITS,
            no_wait=st.sampled_from((False, False, False, True)),
        )
        def acquire(self, step, index, partition, model, klass, wait, no_wait):
            self.desk.move_acquire(self.desk.now + step, index, partition, model, klass, wait, no_wait)

        @rule(start=INDEX, stride=st.integers(1, 11), count=st.integers(2, 12), wait=WAITS)
        def burst(self, start, stride, count, wait):
            for number in range(start, start + count * stride, stride):
                self.desk.move_acquire(self.desk.now, number % 5, 0, number % 4, number % 3, wait + number % 7)

        @rule(count=st.integers(1, 24), index=INDEX)
        def serve(self, count, index):
            """Releases in a row: what waits is granted, one after the other."""
            for number in range(count):
                self.desk.move_release(self.desk.now, index + number, ok=True)

        @rule(step=STEPS, index=INDEX, ok=st.booleans())
        def release(self, step, index, ok):
            self.desk.move_release(self.desk.now + step, index, ok)

        @rule(step=STEPS, index=INDEX)
        def renew(self, step, index):
            self.desk.move_renew(self.desk.now + step, index)

        @rule(step=STEPS, name=NAMES, index=INDEX)
        def stale(self, step, name, index):
            self.desk.move_stale(self.desk.now + step, name, index)

        @rule(step=STEPS, name=NAMES, index=INDEX)
        def foreign(self, step, name, index):
            self.desk.move_foreign(self.desk.now + step, name, index)

        @rule(step=STEPS, index=INDEX)
        def cancel(self, step, index):
            self.desk.move_cancel(self.desk.now + step, index)

        @rule(step=STEPS, index=INDEX, alive=st.booleans())
        def disconnect(self, step, index, alive):
            self.desk.move_disconnect(self.desk.now + step, index, alive)

        @rule(index=INDEX, again=st.booleans(), highest=st.sampled_from((0, 0, 1, 2)))
        def open(self, index, again, highest):
            if again:
                self.desk.move_open_again(index, highest)
            else:
                self.desk.move_open(highest)

        @rule(step=STEPS, index=INDEX)
        def exited(self, step, index):
            self.desk.move_exited(self.desk.now + step, index)

        @rule(step=st.integers(0, 150))
        def advance(self, step):
            self.desk.move_advance(self.desk.now + step)

        @rule(step=STEPS, partition=PARTITIONS, config=configs())
        def configure(self, step, partition, config):
            self.desk.move_configure(self.desk.now + step, partition, config)

        @rule(step=STEPS, partition=st.sampled_from((1, 1, 2, 0)))
        def remove(self, step, partition):
            self.desk.move_remove(self.desk.now + step, partition)

        @rule(step=STEPS, partition=PARTITIONS, draining=st.sampled_from((False, False, True)))
        def drain(self, step, partition, draining):
            self.desk.move_drain(self.desk.now + step, partition, draining)

        @rule(blocks=st.sampled_from((0, 1, 2, 5, 1000)))
        def snapshot(self, blocks):
            self.desk.move_snapshot(blocks)

        @rule(index=INDEX)
        def wrong(self, index):
            self.desk.move_wrong(self.desk.now, index)

        @rule(step=STEPS)
        def restart(self, step):
            self.desk.move_restart(self.desk.now + step)

    return DispatchMachine
