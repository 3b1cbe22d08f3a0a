"""For each alert a trouble that comes and goes, as Prometheus' own test of rules reads it.

Times are minutes. `quiet` is before the trouble or in a state that looks like it, `firing` in it, `clear` after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ON = {"instance": "node-a", "job": "aimd"}
GPU = ON | {"gpu_id": "0000:05:00.0"}
PLACE = GPU | {"partition_id": "3"}
MODEL = ON | {"model": "llama"}


@dataclass(frozen=True, slots=True)
class Case:
    """Args:
    series: values by series, in promtool's notation, a value a minute.
    labels: of the alert that fires, without name, state and severity.
    """

    alert: str
    series: Mapping[str, str]
    labels: Mapping[str, str]
    quiet: tuple[int, ...]
    firing: tuple[int, ...]
    clear: tuple[int, ...]
    step: str = "1m"


def series(name: str, labels: Mapping[str, str], **more: str) -> str:
    said = ",".join(f'{key}="{value}"' for key, value in {**labels, **more}.items())
    return f"{name}{{{said}}}"


def state(
    alert: str, name: str, labels: Mapping[str, str], bad: float, lasting: int, good: float = 0, **more: str
) -> Case:
    """A gauge that is good for 20 minutes, bad for twice as long as the alert waits and 10 minutes, and good again."""
    length = 2 * lasting + 10
    values = f"{good}x19 {bad}x{length - 1} {good}x60"
    quiet = (19, 20 + lasting - 1) if lasting else (19,)
    return Case(
        alert,
        {series(name, labels, **more): values},
        {**labels, **more},
        quiet,
        (20 + lasting, 20 + length - 1),
        (20 + length + 1, 20 + length + 40),
    )


def counter(alert: str, name: str, labels: Mapping[str, str], window: int, **more: str) -> tuple[Case, ...]:
    """A counter that grows once; series that begin with their first count, of a daemon that was there and of a new one;
    and, which is no trouble, an old daemon with old counts that was not scraped until now.
    """
    told = {**labels, **more}
    where = series(name, labels, **more)
    inside, after = (21, 20 + window - 2), (20 + window + 2, 20 + window + 30)
    build, began = series("aim_build_info", labels), series("process_start_time_seconds", ON)
    return (
        Case(alert, {where: "3x19 4x100"}, told, (19,), inside, after),
        Case(alert, {where: "_x20 1x100", build: "1x200"}, told, (0, 19), inside, after),
        Case(alert, {where: "_x20 1x100", build: "_x20 1x100", began: "_x20 1200x100"}, told, (19,), inside[:1], after),
        Case(alert, {where: "_x20 3x100", build: "_x20 1x100", began: "_x20 -9000x100"}, told, (21, 30), (), after),
    )


def burn(alert: str, bad_name: Mapping[str, str], ratio: float, long: int, short: int) -> tuple[Case, Case]:
    """A hundred requests a step: good ones, then a share of bad ones for as long as the long window, then good ones.

    The second case has the same share of too few requests, and does not fire.
    """
    step = max(1, short // 10)
    before, during, after = long // step, long // step, (long + short) // step
    bad, good = 100 * ratio, 100 * (1 - ratio)

    def values(each: float, other: float) -> str:
        top, end = each * before, each * before + other * during
        return f"0+{each:g}x{before} {top + other:g}+{other:g}x{during - 1} {end + each:g}+{each:g}x{after}"

    told = {"model": "llama"}
    shown = {
        series("aim_model_slo_good_total", MODEL): values(100, good),
        series("aim_model_slo_bad_total", MODEL, **bad_name): values(0, bad),
        series("aim_model_slo_objective_ratio", MODEL): f"0.99x{before + during + after}",
    }
    few = {
        series("aim_model_slo_good_total", MODEL): f"0x{before} 1x{during} 1x{after}",
        series("aim_model_slo_bad_total", MODEL, **bad_name): f"0x{before} 1x{during} 1x{after}",
        series("aim_model_slo_objective_ratio", MODEL): f"0.99x{before + during + after}",
    }
    times = (before * step, (before + during) * step, (before + during) * step + short + 2 * step)
    return (
        Case(alert, shown, told, (times[0] - step,), (times[1],), (times[2],), f"{step}m"),
        Case(alert, few, told, (times[0] + 5 * step, times[1]), (), (), f"{step}m"),
    )


FINDING = {"kind": "over-limit", "model": "llama"}
LOST = {"kind": "ledger_quarantined"}
CPX = {"compute_mode": "CPX", "memory_mode": "NPS1"}
CHANGE = {"from": "SPX/NPS1", "to": "CPX/NPS1", "result": "failed"}
PODS, OWN = {"resource": "pods"}, {"resource": "nodepartitions"}
GIVEN_UP = "aim_kube_writes_dropped_total"
PAGE_LONG, PAGE_SHORT = 60, 5
CASES = (
    state("AimdDown", "up", ON, 0, 2, good=1),
    Case("AimdAbsent", {series("up", ON): "1x19 _x29 1x60"}, {"job": "aimd"}, (19, 33), (35, 48), (50, 100)),
    state("AimdNotReady", "aim_node_ready", ON, 0, 5, good=1),
    state("AimdHealthCheckFailed", "aim_health_check", ON, 0, 5, good=1, check="ledger"),
    Case(
        "AimdRestarting",
        {series("process_start_time_seconds", ON): "100x19 200 300 400x60"},
        ON,
        (19, 21),
        (22, 33),
        (37, 60),
    ),
    state("AimdConfigReloadFailed", "aim_config_last_reload_successful", ON, 0, 5, good=1),
    state("AimdNodeWarnings", "aim_node_warnings", ON, 2, 30),
    state("AimdControlLoopStalled", "aim_control_loop_idle_seconds", ON, 31, 1, good=29),
    *counter("AimdControlLoopFailures", "aim_control_loop_failures_total", ON, 15),
    *counter("AimdCollectorErrors", "aim_collector_errors_total", ON, 15, collector="dispatch"),
    *counter("AimdModelsWithoutLabel", "aim_metrics_label_overflow_total", ON, 15),
    *counter("AimdLedgerCommitErrors", "aim_ledger_commits_total", ON, 10, result="error"),
    state("AimdLedgerRecovered", "aim_ledger_recoveries_total", ON, 1, 0, **LOST),
    state("AimdGpuNotReady", "aim_gpu_state", GPU, 1, 5, state="lost"),
    state("AimdGpuHidden", "aim_gpu_state", GPU, 1, 30, state="hidden"),
    *counter("AimdPartitionChangeFailing", "aim_gpu_partition_changes_total", GPU, 15, **CHANGE),
    *counter(
        "AimdPartitionNeedsOperator",
        "aim_gpu_partition_changes_total",
        GPU,
        15,
        **CHANGE | {"result": "needs_operator"},
    ),
    state("AimdPartitionChangeStuck", "aim_gpu_partition_change_in_progress", GPU, 1, 15),
    state("AimdPartitionDrift", "aim_gpu_partition_drift", GPU, 1, 15),
    state("AimdOrphans", "aim_orphans", ON, 1, 10),
    state("AimdLeftBehind", "aim_left_behind", ON, 1, 30),
    state("AimdMemoryOverReservation", "aim_gpu_partition_memory_finding", PLACE, 1, 5, **FINDING),
    state("AimdMemoryUnattributed", "aim_gpu_partition_memory_unattributed_bytes", PLACE, 2 << 30, 30, good=1 << 30),
    state("AimdMemoryProbeFailing", "aim_gpu_memory_probe_state", GPU, 1, 30, state="crashed"),
    Case(
        "AimdMemoryProbeFailing",  # no HIP here at all: a choice
        {series("aim_gpu_memory_probe_state", GPU, state="no-library"): "1x100"},
        GPU | {"state": "no-library"},
        (90,),
        (),
        (),
    ),
    Case(
        "AimdTelemetryStale",
        {
            series("aim_gpu_partition_utilization", PLACE): "0.5x59 _x40 0.5x60",
            series("aim_gpu_partition_memory_bytes", PLACE, **CPX): "1x200",
        },
        PLACE | CPX,
        (50, 70),
        (90,),
        (105, 150),
    ),
    Case(
        "AimdTelemetryStale",  # the partition itself is gone: nothing is wrong with telemetry
        {
            series("aim_gpu_partition_utilization", PLACE): "0.5x59 _x100",
            series("aim_gpu_partition_memory_bytes", PLACE, **CPX): "1x59 _x100",
        },
        PLACE | CPX,
        (70, 90, 110),
        (),
        (),
    ),
    Case(
        "AimdTelemetryStale",  # a partition of the same place in another mode, of which the driver cannot tell
        {
            series("aim_gpu_partition_utilization", PLACE): "0.5x59 _x100",
            series("aim_gpu_partition_memory_bytes", PLACE, **CPX): "1x59 _x100",
            series("aim_gpu_partition_memory_bytes", PLACE, **CPX | {"memory_mode": "NPS4"}): "_x60 1x100",
        },
        PLACE | CPX,
        (70, 90, 110),
        (),
        (),
    ),
    Case(
        "AimdQueueNearLimit",
        {
            series("aim_scheduler_queue_depth", PLACE, model="llama", **{"class": "high"}): "0x19 50x15 0x40",
            series("aim_scheduler_queue_depth", PLACE, model="llama", **{"class": "low"}): "40x19 40x15 40x40",
            series("aim_scheduler_queue_limit", PLACE): "100x100",
        },
        {key: PLACE[key] for key in ("instance", "gpu_id", "partition_id")},
        (19, 24),
        (25, 34),
        (36, 50),
    ),
    Case(
        "AimdRequestsRejected",
        {
            series("aim_model_requests_total", MODEL, outcome="released"): "0+100x120",
            series("aim_model_requests_rejected_total", MODEL, reason="expired"): "0x19 0+10x39 390x60",
        },
        {"instance": "node-a", "model": "llama"},
        (19, 25),
        (40, 55),
        (75, 100),
    ),
    Case(
        "AimdRequestsRejected",  # clients that ask again and again without waiting do not hide those that wait in vain
        {
            series("aim_model_requests_total", MODEL, outcome="would_block"): "0+1000x120",
            series("aim_model_requests_total", MODEL, outcome="expired"): "0x19 0+10x39 390x60",
            series("aim_model_requests_rejected_total", MODEL, reason="expired"): "0x19 0+10x39 390x60",
        },
        {"instance": "node-a", "model": "llama"},
        (19, 25),
        (40, 55),
        (75, 100),
    ),
    Case(
        "AimdRequestsRejected",  # one of two: too few to wake anybody
        {
            series("aim_model_requests_total", MODEL, outcome="released"): "0+1x120",
            series("aim_model_requests_rejected_total", MODEL, reason="expired"): "0+0.5x120",
        },
        {"instance": "node-a", "model": "llama"},
        (19, 40, 60),
        (),
        (),
    ),
    Case(
        "AimdErrorBudgetBurn1H",  # two nodes serve the model: of both together 5 % are bad, which is no 14.4 %
        {
            series("aim_model_slo_good_total", MODEL): "0+95x200",
            series("aim_model_slo_bad_total", MODEL, reason="failed"): "0x200",
            series("aim_model_slo_good_total", MODEL, instance="node-b"): "0x200",
            series("aim_model_slo_bad_total", MODEL, instance="node-b", reason="failed"): "0+5x200",
            series("aim_model_slo_objective_ratio", MODEL): "0.99x200",
            series("aim_model_slo_objective_ratio", MODEL, instance="node-b"): "0.99x200",
        },
        {"model": "llama"},
        (70, 150),
        (),
        (),
    ),
    Case(
        "AimdErrorBudgetBurn1H",  # the daemon begins anew, and its counters with it: what was bad before stays counted
        {
            series("aim_model_slo_good_total", MODEL): "0+80x60 0+80x60",
            series("aim_model_slo_bad_total", MODEL, reason="failed"): "0+20x60 0+20x60",
            series("aim_model_slo_objective_ratio", MODEL): "0.99x130",
        },
        {"model": "llama"},
        (),
        (50, 59, 64, 100),
        (),
    ),
    state("AimdClusterSyncStale", "aim_kube_synced", ON, 0, 10, good=1, **PODS),
    Case(
        "AimdClusterSyncStale",  # told at minute 20 last, at 60 again
        {series("aim_kube_last_word_timestamp_seconds", ON, **PODS): "0+60x20 1200x39 3600+60x60"},
        ON | PODS,
        (19, 34),
        (36, 59),
        (61, 90),
    ),
    Case(
        "AimdClusterSyncStale",  # the resource itself is missing, as another alert says
        {
            series("aim_kube_synced", ON, **OWN): "0x60",
            series("aim_kube_resource_missing", ON, **OWN): "1x60",
            series("aim_kube_resource_missing", ON, **PODS): "0x60",
        },
        ON | OWN,
        (20, 50),
        (),
        (),
    ),
    state("AimdClusterDisconnected", "aim_kube_watch_connected", ON, 0, 5, good=1, **PODS),
    Case(
        "AimdClusterDisconnected",
        {
            series("aim_kube_watch_connected", ON, **OWN): "0x60",
            series("aim_kube_resource_missing", ON, **OWN): "1x60",
        },
        ON | OWN,
        (20, 50),
        (),
        (),
    ),
    state("AimdClusterResourceMissing", "aim_kube_resource_missing", ON, 1, 10, **OWN),
    state("AimdClusterWritesFailing", "aim_kube_writes_failing", ON, 2, 10, kind="node"),
    *counter("AimdClusterWritesGivenUp", GIVEN_UP, ON, 15, kind="service", reason="invalid"),
    Case(
        "AimdClusterWritesGivenUp",  # an Event that is lost, and an object that went before it was told
        {
            series(GIVEN_UP, ON, kind="event", reason="full"): "0x19 9x60",
            series(GIVEN_UP, ON, kind="service", reason="not_found"): "0x19 9x60",
        },
        ON | {"kind": "service", "reason": "not_found"},
        (19, 25),
        (),
        (),
    ),
    state("AimdClusterPartStopped", "aim_kube_turn_idle_seconds", ON, 61, 1, good=1),
    Case(
        "AimdClusterPartStopped",
        {
            series("aim_kube_turn_idle_seconds", ON): "0x100",
            series("aim_kube_thread_running", ON, part="pods"): "1x100",
            series("aim_kube_thread_running", ON, part="writes"): "1x19 0x20 1x60",
        },
        {"instance": "node-a"},
        (19, 20),
        (21, 38),
        (41, 70),
    ),
    *counter("AimdClusterTurnsFailing", "aim_kube_turn_failures_total", ON, 15),
    state("AimdConflictingManager", "aim_kube_conflicting_managers", ON, 1, 5),
    state("AimdClusterSpecRefused", "aim_kube_spec_refused", ON, 1, 5),
    state("AimdThroughputBelowFloor", "aim_model_slo_met", MODEL, 0, 10, good=1, objective="throughput"),
    *burn("AimdErrorBudgetBurn1H", {"reason": "failed"}, 0.2, 60, 5),
    *burn("AimdErrorBudgetBurn6H", {"reason": "failed"}, 0.08, 360, 30),
    *burn("AimdErrorBudgetBurn1D", {"reason": "failed"}, 0.04, 1440, 120),
    *burn("AimdErrorBudgetBurn3D", {"reason": "failed"}, 0.02, 4320, 360),
    *burn("AimdLatencyBudgetBurn1H", {"reason": "late"}, 0.2, 60, 5),
    *burn("AimdLatencyBudgetBurn6H", {"reason": "late"}, 0.08, 360, 30),
    *burn("AimdLatencyBudgetBurn1D", {"reason": "late"}, 0.04, 1440, 120),
    *burn("AimdLatencyBudgetBurn3D", {"reason": "late"}, 0.02, 4320, 360),
)
