"""What the control path does is counted around it, by outcome; what is counted does not change what is done."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.metrics.instruments import Instruments
from aimd.daemon.counting import ChangeWatch, CountedControl, CountedLedger, TimedReconciler, counted_reload, outcome_of
from aimd.daemon.metrics import Pods
from aimd.domain.claim import ClaimSpec
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import HolderRecord, LedgerState, LedgerWrite
from aimd.domain.metering import PodPlace
from aimd.domain.modes import PartitionMode
from aimd.domain.node import NodeSnapshot
from aimd.errors import AimdError, ConfigError, LedgerError, NotFoundError
from aimd.planning import effects as fx
from aimd.planning.policy import Policy
from tests.fakes.node import ADDRESSES, running_node


def counts(meters: Instruments) -> dict[tuple[str, ...], float]:
    """Values that are not 0, by name and label values."""
    families = [*meters.operations.collect(), *meters.collect()]
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if sample.value and not sample.name.endswith(("_created", "_bucket", "_sum"))
    }


def operations(meters: Instruments) -> dict[tuple[str, ...], float]:
    return {key[1:]: value for key, value in counts(meters).items() if key[0] == "aim_scheduler_operations_total"}


def test_operations_by_outcome():
    async def story():
        meters = Instruments()
        async with running_node() as node:
            control = CountedControl(node.loop, meters)
            assert control.snapshot is node.snapshot
            await control.claim("llama", ClaimSpec(1024), uid=0)
            with pytest.raises(AimdError):
                await control.claim("huge", ClaimSpec(1 << 30), uid=0)
            with pytest.raises(NotFoundError):
                await control.release("nobody")
            await control.release("llama")
            wish = [(ADDRESSES[0], PartitionMode.parse("CPX"))]
            assert not (await control.plan(wish)).refusals
            assert (await control.plan([(ADDRESSES[0], PartitionMode.parse("NPS8"))])).refusals
            with pytest.raises(AimdError):
                await control.submit("bad", [(ADDRESSES[0], PartitionMode.parse("NPS8"))], wait_seconds=1, uid=0)
            await control.set_draining(ADDRESSES[1], draining=True)
        assert operations(meters) == {
            ("assign", "ok"): 1,
            ("assign", "refused"): 1,
            ("release", "ok"): 1,
            ("release", "not_found"): 1,
            ("plan", "ok"): 1,
            ("plan", "refused"): 1,
            ("switch", "refused"): 1,
            ("drain", "ok"): 1,
        }

    asyncio.run(asyncio.wait_for(story(), 20))


def test_mode_changes_are_counted_once_when_they_end():
    async def story():
        meters = Instruments()
        watch = ChangeWatch(meters)
        async with running_node() as node:
            await node.switch((1, "CPX/NPS1"))
            following = asyncio.create_task(watch.follow(node.loop))
            await asyncio.sleep(0.05)
            assert operations(meters) == {}, "what had ended before is not counted again"
            await node.switch((0, "CPX/NPS1"))
            await node.switch((0, "SPX/NPS1"), (1, "DPX/NPS1"))
            await node.until(lambda snapshot: len(snapshot.changes) >= 3)
            await asyncio.sleep(0.05)
            following.cancel()
        found = counts(meters)
        assert found["aim_scheduler_operations_total", "switch", "committed"] == 3
        changes = {key[1:]: value for key, value in found.items() if key[0] == "aim_gpu_partition_changes_total"}
        assert changes == {
            (ADDRESSES[0], "SPX/NPS1", "CPX/NPS1", "committed"): 1,
            (ADDRESSES[0], "CPX/NPS1", "SPX/NPS1", "committed"): 1,
            (ADDRESSES[1], "CPX/NPS1", "DPX/NPS1", "committed"): 1,
        }
        seconds = "aim_gpu_partition_change_duration_seconds_count"
        assert (found[seconds, ADDRESSES[0], "committed"], found[seconds, ADDRESSES[1], "committed"]) == (2, 1)

    asyncio.run(asyncio.wait_for(story(), 20))


class Fragile(SqliteLedger):
    full = False

    def load(self) -> LedgerState:
        return replace(super().load(), notes=(NodeEvent("ledger_quarantined", "node", "bad", 0.0),))

    def commit(self, write: LedgerWrite) -> None:
        if self.full:
            raise LedgerError("disk full")
        super().commit(write)


def test_commits_and_recoveries_of_the_ledger(tmp_path):
    meters = Instruments()
    inner = Fragile(tmp_path / "ledger.db", time.time())
    ledger = CountedLedger(inner, meters)
    ledger.load()
    ledger.commit(LedgerWrite(boot_id="b"))
    inner.full = True
    with pytest.raises(LedgerError, match="disk full"):
        ledger.commit(LedgerWrite(boot_id="c"))
    assert list(ledger.events()) == []
    ledger.close()
    found = counts(meters)
    assert (found["aim_ledger_commits_total", "ok"], found["aim_ledger_commits_total", "error"]) == (1, 1)
    assert found["aim_ledger_commit_duration_seconds_count",] == 1
    assert found["aim_ledger_recoveries_total", "ledger_quarantined"] == 1


def test_reloads():
    meters = Instruments()
    event = fx.Reconfigured(Policy(), {}, "", "", {})
    assert counted_reload(lambda: (event, ["a"], []), meters)() == (event, ["a"], [])

    def broken():
        raise ConfigError("no")

    with pytest.raises(ConfigError):
        counted_reload(broken, meters)()
    found = counts(meters)
    assert (found["aim_config_reloads_total", "ok"], found["aim_config_reloads_total", "error"]) == (1, 1)
    assert ("aim_config_last_reload_successful",) not in found


def test_decisions_are_timed_though_they_fail():
    meters = Instruments()
    reconciler = TimedReconciler(Policy(), "boot", 0, meters)
    reconciler.handle(fx.Started(LedgerState(), {}, ""), fx.Instant(0.0, 0.0))
    with pytest.raises(AttributeError):
        reconciler.handle(fx.Scanned(0, object(), None), fx.Instant(0.0, 0.0))
    assert counts(meters)["aim_scheduler_decision_duration_seconds_count",] == 2


def test_every_error_has_an_outcome():
    kinds = [AimdError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__ == "aimd.errors":
            assert outcome_of(kind.__new__(kind)) in ("ok", "refused", "conflict", "failed", "not_found")


def test_each_holder_is_looked_at_once_for_its_pod():
    asked = []

    def pod(pid, start_time):
        asked.append((pid, start_time))
        return "uid-1" if pid < 3 else None

    pods = Pods(pod)
    holders = tuple(HolderRecord("llama", 0, pid, 7, gpu="g", index=2, mode_epoch=0) for pid in (1, 2, 3))
    snapshot = NodeSnapshot(claim_holders=(*holders, replace(holders[0], pid=1, start_time=8, ended_at=1.0)))
    for _ in range(3):
        assert pods.read(snapshot) == (PodPlace("uid-1", "llama", "g", 2),)
    assert asked == [(1, 7), (2, 7), (3, 7)]
    assert pods.read(NodeSnapshot()) == ()
