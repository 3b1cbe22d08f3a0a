"""The reconciler under random events, results, kills and reboots; the desk checks each effect (see its docstring).

The long run: .venv/bin/pytest -m campaign tests/property/test_reconciler_machine.py
"""

from __future__ import annotations

import errno

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aimd.domain.modes import ComputeMode
from aimd.domain.plan import Reason
from aimd.domain.switch import SwitchState as S
from aimd.planning import effects as fx
from tests.unit.planning.desk import NPS_POLICY, Desk
from tests.unit.planning.paper import ADDRESSES, PaperNode, holder

GPUS = 3
MODES = ("SPX", "DPX", "QPX", "CPX", "SPX/NPS1", "QPX/NPS4", "CPX/NPS4", "NPS4", "NPS1", "TPX", "NPS8")
OUTCOMES = (
    "done",
    "refused",
    "nothing",
    "dead",
    errno.EBUSY,
    errno.EPERM,
    errno.EINVAL,
    errno.EACCES,
    errno.EIO,
    errno.ENODEV,
)
EVENTS = ("driver_reloaded", "driver_unloaded", "gpu_added", "gpu_removed", "gpu_reset", "events_lost")
wishes = st.dictionaries(st.integers(0, GPUS - 1), st.sampled_from(MODES), min_size=1).map(lambda w: tuple(w.items()))


class Life(RuleBasedStateMachine):
    """Lives of daemons over one node and one ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.boot = 1
        self.layout: tuple[dict[str, str], str] = ({}, "")

    @initialize(
        layout=st.one_of(st.just({}), st.dictionaries(st.sampled_from(["default", "gpu1"]), st.sampled_from(MODES)))
    )
    def begin(self, layout):
        self.desk = Desk(PaperNode(*["SPX/NPS1"] * GPUS), NPS_POLICY)
        self.layout = (layout, repr(sorted(layout.items())) if layout else "")
        self.start()

    def start(self) -> None:
        self.desk.start(*self.layout, boot=f"boot-{self.boot}")

    # -- clients --------------------------------------------------------------------------------------------------

    @rule(asked=wishes, name=st.sampled_from("abcdef"), wait=st.sampled_from([None, 0.0, 1.0]))
    def submit(self, asked, name, wait):
        self.desk.submit(*asked, name=name, wait=wait)

    # -- results --------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.desk.asked)
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), kill=st.integers(0, 30))
    def answer(self, data, outcome, kill):
        """One of the effects is answered, oldest more often; a small `kill` ends the daemon while it reacts."""
        effect = data.draw(st.sampled_from(self.desk.asked))
        if isinstance(effect, fx.WriteMode):
            self.desk.node.outcomes.append(outcome)
        self.desk.asked.remove(effect)
        self.desk.tell(self.desk.result(effect), cut=kill if kill < 6 else None)
        if kill < 6:
            self.start()

    @rule(most=st.integers(1, 30))
    def go_on(self, most):
        for _ in range(most):
            if self.desk.asked:
                self.desk.answer(self.desk.asked[0])

    @rule(age=st.integers(0, 3), code=st.sampled_from((0, errno.EIO, errno.EBUSY)), kind=st.integers(0, 4))
    def unexpected(self, age, code, kind):
        """A result that nobody waits for; at age 0 with the present token, but perhaps of the wrong kind."""
        token = max((effect.token for effect in self.desk.asked if not isinstance(effect, fx.Poll)), default=1) - age
        if kind == 0 and age == 0:
            return  # a write that ended well and was never made: that cannot be told apart
        events = (
            fx.WriteEnded(token, code, 0.1),
            fx.Drained(token),
            fx.HoldersSeen(token, ()),
            fx.Woken(token),
            fx.Scanned(token, None, "unstable"),
        )
        self.desk.tell(events[kind])

    # -- the world ------------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from(EVENTS), number=st.integers(0, GPUS - 1))
    def driver_event(self, kind, number):
        self.desk.tell(fx.DriverChanged(kind, ADDRESSES[number] if kind.startswith("gpu") else None))

    @rule()
    def poll(self):
        self.desk.tell(fx.PollDue())

    @rule(told=st.booleans(), accepted=st.booleans())
    def reload(self, told, accepted):
        self.desk.node.firmware_accepts_memory = accepted
        self.desk.node.reload()
        if told:
            self.desk.tell(fx.DriverChanged("driver_reloaded", None))

    @rule(number=st.integers(0, GPUS - 1), mode=st.sampled_from([ComputeMode.SPX, ComputeMode.CPX]))
    def somebody_else_switches(self, number, mode):
        paper = self.desk.node.gpus[ADDRESSES[number]]
        paper.file = paper.compute = mode
        self.desk.node.generation += 1

    @rule(pids=st.sets(st.integers(1, 4)), number=st.integers(0, GPUS - 1))
    def holders_change(self, pids, number):
        self.desk.node.holders = [holder(pid, number) for pid in pids]

    @rule(failures=st.integers(0, 3), in_reset=st.booleans())
    def scans_fail(self, failures, in_reset):
        self.desk.node.scan_failures = failures
        self.desk.node.in_reset = in_reset

    @rule(number=st.integers(0, GPUS - 1), there=st.booleans())
    def device_comes_or_goes(self, number, there):
        self.desk.node.gpus[ADDRESSES[number]].on_the_bus = there
        self.desk.node.generation += 1

    @rule(seconds=st.sampled_from([0.5, 6.0]))
    def time_passes(self, seconds):
        self.desk.pass_time(seconds)

    @rule()
    def restart(self):
        self.start()

    @rule()
    def reboot(self):
        self.boot += 1
        self.desk.node.holders = []
        self.desk.node.reload()
        self.start()

    # -- promises -------------------------------------------------------------------------------------------------

    @invariant()
    def what_ended_says_why(self):
        for change in self.desk.ledger.changes.values():
            for switch in change.switches:
                if switch.state is S.COMMITTED:
                    assert switch.reason is None
                elif switch.final:
                    assert switch.reason is not None
                    assert switch.message

    def teardown(self):
        """When the world is kind again, everything ends: nothing hangs, and what is shown is what is durable."""
        made = self.desk
        node = made.node
        node.outcomes.clear()
        node.holders, node.scan_failures, node.in_reset, node.firmware_accepts_memory = [], 0, False, True
        for paper in node.gpus.values():
            paper.on_the_bus = True
        for _ in range(2):
            node.reload()
            made.tell(fx.DriverChanged("driver_reloaded", None))
            made.run()
            for _ in range(6):
                made.pass_time(NPS_POLICY.wish_retry_seconds)
                made.poll()
            if not any(status.pending_memory for status in made.snapshot.gpus):
                break
        for change in made.ledger.changes.values():
            assert change.current is None, f"never ended: {change}"
        assert not any(status.change for status in made.snapshot.gpus)
        assert [f"{s.gpu.mode}" for s in made.snapshot.gpus] == node.modes()
        refused = {event.subject for event in made.ledger.events if event.kind == "wish_refused"}
        for status in made.snapshot.gpus:
            unwished = [text for text in status.drift if text.startswith("wished")]
            assert not unwished or status.gpu.pci_address in refused, f"{unwished} although nothing is in the way"
        assert Reason.ROLLBACK_FAILED not in {  # only what ends a switch is told by that reason
            s.reason for c in made.ledger.changes.values() for s in c.switches if s.state is S.FAILED
        }


class TestLife(Life.TestCase):
    settings = settings(max_examples=100, stateful_step_count=50)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
class TestManyLives(Life.TestCase):
    settings = settings(max_examples=5000, stateful_step_count=60, derandomize=False)
