"""Which configuration counts: the node's file, or what the cluster asks of the node; and that nothing flips at a restart."""

from __future__ import annotations

from dataclasses import replace

from aimd.config import Config, Kubernetes, Placement
from aimd.daemon.effective import Effective
from aimd.domain.ledger import LedgerState
from aimd.domain.modes import PartitionMode
from aimd.planning.rooms import Repartition
from aimd.planning.sharing.desired import NodeSpec

FILE = Config(layout={"default": "SPX/NPS1"}, kubernetes=Kubernetes(enabled=True))
SPX, CPX = {"default": PartitionMode.parse("SPX/NPS1")}, {"default": PartitionMode.parse("CPX")}
ASKED = NodeSpec(layout=CPX, repartition=Repartition.NEVER)
RIVALS = ("another",)


def begun(config: Config = FILE, digest: str | None = None) -> Effective:
    effective = Effective(config)
    effective.started(LedgerState(layout_digest=digest))
    return effective


def test_without_a_cluster_the_file_counts() -> None:
    started = Effective(replace_kubernetes(False)).started(LedgerState(layout_digest="cluster:x"))
    assert (started.layout, started.layout_digest) == (SPX, FILE.layout_digest())


def replace_kubernetes(enabled: bool) -> Config:
    return Config(layout={"default": "SPX/NPS1"}, kubernetes=Kubernetes(enabled=enabled))


def test_what_the_cluster_asks_for_wins_and_the_file_comes_back() -> None:
    effective = begun()
    event = effective.in_cluster(ASKED, ())
    assert event is not None
    assert (event.layout, event.layout_before, event.digest_before) == (CPX, SPX, FILE.layout_digest())
    assert event.policy.repartition is Repartition.NEVER
    assert effective.in_cluster(ASKED, ()) is None, "nothing is different"
    back = effective.in_cluster(NodeSpec(), ())
    assert back is not None
    assert (back.layout, back.layout_digest, back.digest_before) == (SPX, FILE.layout_digest(), event.layout_digest)
    assert back.policy.repartition is Repartition.WHEN_IDLE


def test_rivals_are_part_of_the_policy() -> None:
    event = begun().in_cluster(NodeSpec(), RIVALS)
    assert event is not None
    assert event.policy.rivals == RIVALS
    assert event.layout_digest == event.digest_before, "the layout is the same"


def test_a_reload_of_the_file_keeps_what_the_cluster_asks_for() -> None:
    effective = begun()
    asked = effective.in_cluster(ASKED, RIVALS)
    assert asked is not None
    event = effective.configured(Config(layout={"default": "DPX"}, placement=Placement(slots_per_partition=9)))
    assert (event.layout, event.layout_digest) == (CPX, asked.layout_digest)
    assert (event.policy.slots_per_partition, event.policy.rivals) == (9, RIVALS)


def test_a_restart_does_not_bring_the_files_layout_in_between() -> None:
    before = begun()
    asked = before.in_cluster(ASKED, ())
    assert asked is not None
    effective = Effective(FILE)
    started = effective.started(LedgerState(layout_digest=asked.layout_digest))
    assert started.layout_digest == asked.layout_digest, "so that the reconciler takes it for known"
    again = effective.in_cluster(ASKED, ())
    assert again is not None
    assert again.layout_digest == again.digest_before


def test_a_restart_hears_that_the_cluster_asks_for_nothing_any_more() -> None:
    asked = begun().in_cluster(ASKED, ())
    assert asked is not None
    effective = Effective(FILE)
    effective.started(LedgerState(layout_digest=asked.layout_digest))
    event = effective.in_cluster(NodeSpec(), ())
    assert event is not None
    assert (event.layout, event.layout_digest, event.digest_before) == (SPX, FILE.layout_digest(), asked.layout_digest)


def test_an_empty_layout_of_the_cluster_is_one() -> None:
    event = begun().in_cluster(replace(ASKED, layout={}), ())
    assert event is not None
    assert event.layout == {}
    assert event.layout_digest.startswith("cluster:")
