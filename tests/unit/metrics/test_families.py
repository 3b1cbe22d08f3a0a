"""What is unknown is absent, names of models are bounded, and what is reserved is what placement counts."""

from dataclasses import replace

import pytest

from aimd.adapters.metrics import slo_families
from aimd.adapters.metrics.collector import NodeCollector
from aimd.adapters.metrics.family import Family, as_metric
from aimd.adapters.metrics.instruments import Instruments
from aimd.adapters.metrics.labels import ModelLabels
from aimd.adapters.metrics.model_families import folded
from aimd.adapters.metrics.view import View
from aimd.domain.accounting import FindingKind, MemoryBoard, MemoryFinding, PartitionAccount, ProbedGpu
from aimd.domain.budget import budget_eaters
from aimd.domain.claim import Assignment, Claim, ClaimSpec, QosClass, Slo
from aimd.domain.gpu import Gpu, Holder, Partition
from aimd.domain.ledger import HolderRecord
from aimd.domain.metering import BUCKETS_SECONDS, ClassMeter, DispatchReading, Histogram, ModelMeter
from aimd.domain.node import GpuStatus, NodeSnapshot
from aimd.domain.partition import PartitionKey
from aimd.domain.probe import PartitionMemory, ProbeReport, ProbeState
from aimd.domain.reserved import reserved_on
from aimd.domain.slo import Counted, Objective
from aimd.planning.slo import WINDOWS, compliance_of

GPU = "0000:05:00.0"
KEY = PartitionKey(GPU, 0, 0)
MIB = 1 << 20


def seen(view, collector=None):
    """Values of all series, by name and label values."""
    collector = collector or NodeCollector(Instruments(), process=False)
    metrics = [as_metric(one) if isinstance(one, Family) else one for one in collector.families(view)]
    return {
        (s.name, *s.labels.values()): s.value
        for metric in metrics
        for s in metric.samples
        if not s.name.endswith("_created")
    }


def snapshot(*partitions, **fields):
    return NodeSnapshot(gpus=(GpuStatus(0, Gpu(GPU, None, tuple(partitions))),), **{"ready": True, **fields})


def names(found, prefix="aim_"):
    return {key[0] for key in found if key[0].startswith(prefix)}


def test_what_is_not_known_of_a_partition_has_no_series():
    found = seen(View("1", snapshot(Partition(0, None, None, None))))
    unknown = {
        "aim_gpu_partition_memory_bytes",
        "aim_gpu_partition_utilization",
        "aim_gpu_partition_compute_units",
        "aim_gpu_partition_memory_allocated_bytes",
        "aim_gpu_partition_memory_available_bytes",
        "aim_gpu_total_memory_bytes",
        "aim_gpu_telemetry_supported",
    }
    assert not unknown & names(found)
    assert found["aim_gpu_partition_info", GPU, "0", "gpu0", "", "", "", "0"] == 1


def test_a_node_that_could_not_be_read_uses_an_unknown_amount():
    there = Partition(0, 128, 8, 8 * MIB)
    for known, unknown in (((0, 3), 0), ((None, None), 2)):
        found = seen(View("1", snapshot(there, memory=account(*known))))
        absent = {"aim_gpu_partition_memory_used_bytes", "aim_gpu_partition_memory_unattributed_bytes"} - names(found)
        assert len(absent) == unknown
    assert "aim_gpu_partition_memory_used_bytes" not in names(seen(View("1", snapshot(there, ready=False))))


@pytest.mark.parametrize("state", ProbeState)
def test_how_asking_hip_has_ended_is_one_state_and_free_memory_is_of_the_present_mode(state):
    there = Partition(0, 128, 8, 8 * MIB)
    partitions = (PartitionMemory(0, MIB, 8 * MIB),) if state is ProbeState.READ else ()
    report = ProbeReport(GPU, state, partitions=partitions)
    for epoch in (0, 7):
        board = MemoryBoard(gpus={GPU: ProbedGpu(report, 1.0, epoch), "0000:27:00.0": ProbedGpu(report, 1.0, 0)})
        found = seen(View("1", snapshot(there, memory=board)))
        states = {key: value for key, value in found.items() if key[0] == "aim_gpu_memory_probe_state"}
        assert {key[2] for key, value in states.items() if value} == {state.value}
        assert len(states) == len(ProbeState), "a GPU that is not there has none"
        free = found.get(("aim_gpu_partition_memory_available_bytes", GPU, "0"))
        assert free == (MIB if state is ProbeState.READ and epoch == 0 else None)


def test_without_the_dispatch_service_nothing_is_told_of_it():
    found = seen(View("1", snapshot(), unreadable=frozenset({"dispatch"})))
    assert found["aim_collector_errors_total", "dispatch"] == 1
    assert not {key for key in found if key[0].startswith(("aim_dispatch", "aim_model", "aim_scheduler_slot"))}
    assert ("aim_scheduler_operations_total", "acquire", "granted") not in found
    assert ("aim_scheduler_operations_total", "assign", "ok") in found


def test_errors_of_parts_add_up():
    collector = NodeCollector(Instruments(), process=False)
    for count in (1, 2, 3):
        found = seen(View("1", snapshot(), unreadable=frozenset({"pods"})), collector)
        assert found["aim_collector_errors_total", "pods"] == count


def account(used, unattributed):
    """A board with the account of the first partition."""
    return MemoryBoard({(GPU, 0): PartitionAccount(GPU, 0, 0, 8 * MIB, 0, used, unattributed)})


def test_memory_used_is_that_of_the_account():
    """A snapshot's holders have no figures: they change all the time."""
    holders = (Holder(1, "a", frozenset({GPU})), Holder(2, "b", frozenset({GPU})))
    there = Partition(0, 1, 1, 8 * MIB), Partition(1, 2, 1, 8 * MIB)
    found = seen(View("1", snapshot(*there, holders=holders, memory=account(16, 5))))
    assert found["aim_gpu_partition_memory_used_bytes", GPU, "0"] == 16
    assert found["aim_gpu_partition_memory_unattributed_bytes", GPU, "0"] == 5
    assert ("aim_gpu_partition_memory_used_bytes", GPU, "1") not in found
    assert found["aim_gpu_holders", GPU] == 2


def test_findings_about_memory():
    kinds = ((FindingKind.OVER_LIMIT, "llama"), (FindingKind.DRIFT, None))
    findings = tuple(MemoryFinding(kind, GPU, 0, 0, claim, "x", 1.0) for kind, claim in kinds)
    found = seen(View("1", snapshot(Partition(0, 1, 1, 100), findings=findings)))
    assert found["aim_gpu_partition_memory_finding", GPU, "0", "over-limit", "llama"] == 1
    assert found["aim_gpu_partition_memory_finding", GPU, "0", "drift", ""] == 1


def test_processes_that_stay_keep_their_reservation_once_for_each_replica():
    claim = Claim("llama", 0, ClaimSpec(100), 1.0, assignments=(Assignment("llama", 0, GPU, 0, 100, 0, 0),))
    holder = HolderRecord("llama", 0, 10, 1, gpu=GPU, index=0, mode_epoch=0, memory_units=100)
    gone = replace(holder, claim="old", memory_units=40, released_at=5.0)
    holders = (
        holder,
        gone,
        replace(gone, pid=11),
        replace(gone, claim="older", pid=12, ended_at=6.0),
        replace(holder, replica=1, pid=13),
    )
    assert reserved_on(snapshot(claims=(claim,), claim_holders=holders)) == {KEY: 100 + 40 + 100}


# -- labels --------------------------------------------------------------------------------------------------


def test_the_first_models_keep_their_labels_and_the_rest_share_one():
    labels = ModelLabels(2)
    labels.keep(["a", "b", "c", "d"])
    assert [labels.of(name) for name in "abcd"] == ["a", "b", "other", "other"]
    assert labels.overflows == 2
    labels.keep(["a", "b", "c", "d"])
    assert labels.overflows == 2, "the same models, not further ones"
    labels.keep(["b", "c", "d"])
    assert [labels.of(name) for name in "abcd"] == ["other", "b", "c", "other"]
    labels.keep(["b", "c"])
    labels.keep(["b", "c", "d"])
    assert labels.overflows == 3


def test_a_model_called_other_shares_that_label():
    labels = ModelLabels()
    labels.keep(["other", "a"])
    assert (labels.of("other"), labels.overflows) == ("other", 1)


def meter(model, released, waiting=0, qos=QosClass.HIGH):
    histogram = Histogram((0,) * len(BUCKETS_SECONDS) + (released,), released * 0.5)
    return ModelMeter(
        KEY, model, {qos: ClassMeter(1, waiting, {"released": released}, histogram, histogram)}, 2.0, 1.0, histogram
    )


def test_models_that_share_a_label_are_added_up():
    labels = ModelLabels(1)
    labels.keep(["a", "b", "c"])
    found = folded([meter("a", 1), meter("b", 2, 5), meter("c", 3, qos=QosClass.LOW), meter("c", 4)], labels)
    assert found["a", GPU, "0"] == meter("a", 1)
    other = found["other", GPU, "0"]
    high = other.classes[QosClass.HIGH]
    assert (high.running, high.waiting, high.ended["released"], high.total.counts[-1]) == (2, 5, 6, 6)
    assert other.classes[QosClass.LOW].ended == {"released": 3}
    assert (other.slot_seconds, other.reclaim.sum_seconds) == (6.0, 4.5)


def test_three_hundred_models_make_a_bounded_page():
    claims = tuple(Claim(f"m{n:03}", 0, ClaimSpec(1, slo=Slo(0.1)), float(n)) for n in range(300))
    reading = DispatchReading(
        models=tuple(meter(claim.name, 1) for claim in claims), rejected={c.name: {"shed": 1} for c in claims}
    )
    found = seen(View("1", snapshot(claims=claims), dispatch=reading))
    models = {key[1] for key in found if key[0] == "aim_model_requests_total"}
    assert len(models) == 257
    assert found["aim_model_requests_total", "other", GPU, "0", "high", "released"] == 44
    assert found["aim_model_requests_rejected_total", "other", "shed"] == 44
    assert found["aim_metrics_label_overflow_total",] == 44
    assert ("aim_model_slo_objective_ratio", "other") not in found


# -- service level -------------------------------------------------------------------------------------------


def test_reasons_of_the_bad_ones_add_up_to_them():
    found = budget_eaters({"granted": 9, "expired": 2, "cancelled": 4}, {"ok": 5, "failed": 1, "lost": 3}, 8)
    assert found == {"lost": 3, "expired": 2, "late": 2, "failed": 1}
    assert sum(found.values()) == 8


def test_a_burn_rate_for_each_window():
    found = slo_families.burn_rates(compliance_of(Objective(0.9), lambda seconds: Counted(good=1, bad=seconds)))
    assert list(found) == sorted({seconds for long, short, *_ in WINDOWS for seconds in (long, short)})
    assert [slo_families.window_text(seconds) for seconds in found] == ["5m", "30m", "1h", "2h", "6h", "1d", "3d"]
    assert found[300] == 300 / 301 / (1 - 0.9)
