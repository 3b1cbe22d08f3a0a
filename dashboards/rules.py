"""Recording and alert rules. Severity `page` wakes somebody, `ticket` is for the working day.

The job of the scrape configuration is called aimd (dashboards/prometheus.yml).
"""

from __future__ import annotations

from dashboards import burn
from dashboards.rule import Alert, Group, grew

# Clients that would not have waited, or do not want the lease any more, were not rejected.
WANTED = 'aim_model_requests_total{outcome!~"cancelled|would_block"}[10m]'

DAEMON = (
    Alert(
        "AimdDown",
        'up{job="aimd"} == 0',
        "2m",
        "page",
        "aimd on {{ $labels.instance }} does not answer",
        "Its metrics could not be read for 2 minutes. Leases that run go on, and new requests wait until it is back.",
    ),
    Alert(
        "AimdAbsent",
        'absent(up{job="aimd"})',
        "10m",
        "page",
        "Prometheus knows no node of job {{ $labels.job }}",
        "For 10 minutes it had nothing to scrape: no other alert of these can fire.",
    ),
    Alert(
        "AimdNotReady",
        "aim_node_ready == 0",
        "5m",
        "page",
        "aimd on {{ $labels.instance }} is not ready",
        "The daemon runs, and its inventory of GPUs is not complete for 5 minutes: claims are refused.",
    ),
    Alert(
        "AimdHealthCheckFailed",
        'aim_health_check{check!~"inventory|loop"} == 0',  # these have alerts of their own, above and below
        "5m",
        "page",
        "aimd on {{ $labels.instance }} fails its check {{ $labels.check }}",
        "/readyz or /healthz of the daemon says for 5 minutes that this check is not passed, and why.",
    ),
    Alert(
        "AimdRestarting",
        'changes(process_start_time_seconds{job="aimd"}[15m]) > 2',
        "",
        "page",
        "aimd on {{ $labels.instance }} has restarted {{ $value }} times in 15 minutes",
        "It ends again and again. Each time clients of the dispatch socket wait until it is back.",
    ),
    Alert(
        "AimdConfigReloadFailed",
        "aim_config_last_reload_successful == 0",
        "5m",
        "ticket",
        "aimd on {{ $labels.instance }} runs with its old configuration",
        "The last reload was refused: aimd.toml has a mistake. The settings of before are in force.",
    ),
    Alert(
        "AimdNodeWarnings",
        "aim_node_warnings > 0",
        "30m",
        "ticket",
        "aimd on {{ $labels.instance }} has {{ $value }} warnings",
        "Something of the node could not be made out, or of the configuration not be carried out, for 30 minutes.",
    ),
    Alert(
        "AimdControlLoopStalled",
        "aim_control_loop_idle_seconds > 30",
        "1m",
        "page",
        "The control loop of aimd on {{ $labels.instance }} has ended no turn for {{ $value | humanizeDuration }}",
        "Claims and mode changes are not handled. Leases are, by a thread of their own.",
    ),
    Alert(
        "AimdControlLoopFailures",
        grew("aim_control_loop_failures_total", 15),
        "",
        "ticket",
        "aimd on {{ $labels.instance }} could not handle an event",
        "This is a defect of aimd; the journal has a traceback.",
    ),
    Alert(
        "AimdCollectorErrors",
        grew("aim_collector_errors_total", 15),
        "",
        "ticket",
        "A part of the metrics of aimd on {{ $labels.instance }} is missing: {{ $labels.collector }}",
        "It could not be read; what dashboards show of it is old or absent.",
    ),
    Alert(
        "AimdModelsWithoutLabel",
        grew("aim_metrics_label_overflow_total", 15),
        "",
        "ticket",
        "There are more models on {{ $labels.instance }} than have metrics of their own",
        "Those that came last are added up under model=other, and none of their objectives is watched.",
    ),
    Alert(
        "AimdLedgerCommitErrors",
        grew('aim_ledger_commits_total{result!="ok"}', 10),
        "",
        "ticket",
        "aimd on {{ $labels.instance }} could not write its ledger",
        "A commit failed and is tried again. While none succeeds AimdHealthCheckFailed pages: no claim is taken.",
    ),
    Alert(
        "AimdLedgerRecovered",
        "aim_ledger_recoveries_total > 0",
        "",
        "ticket",
        "The ledger of aimd on {{ $labels.instance }} had to be repaired: {{ $labels.kind }}",
        "It was damaged when the daemon began. What could be read was kept, the old file put aside.",
    ),
)

PARTITIONS = (
    Alert(
        "AimdGpuNotReady",
        'aim_gpu_state{state=~"lost|gone"} == 1',
        "5m",
        "page",
        "GPU {{ $labels.gpu_id }} on {{ $labels.instance }} is {{ $labels.state }}",
        "It has had no partitions for 5 minutes; models that were on it have no place.",
    ),
    Alert(
        "AimdGpuHidden",
        'aim_gpu_state{state="hidden"} == 1',
        "30m",
        "ticket",
        "GPU {{ $labels.gpu_id }} on {{ $labels.instance }} is hidden from aimd",
        "The device cgroup of the daemon keeps it away; nothing is placed there.",
    ),
    Alert(
        "AimdPartitionChangeFailing",
        grew('aim_gpu_partition_changes_total{result="failed"}', 15),
        "",
        "ticket",
        "A mode change of GPU {{ $labels.gpu_id }} on {{ $labels.instance }} has failed",
        "From {{ $labels.from }} to {{ $labels.to }}. The GPU is in the mode of before.",
    ),
    Alert(
        "AimdPartitionNeedsOperator",
        grew('aim_gpu_partition_changes_total{result="needs_operator"}', 15),
        "",
        "page",
        "GPU {{ $labels.gpu_id }} on {{ $labels.instance }} is stuck between two modes",
        "Its change from {{ $labels.from }} to {{ $labels.to }} has failed, and it could not be brought back either.",
    ),
    Alert(
        "AimdPartitionChangeStuck",
        "aim_gpu_partition_change_in_progress == 1",
        "15m",
        "ticket",
        "A mode change of GPU {{ $labels.gpu_id }} on {{ $labels.instance }} does not end",
        "It waits for 15 minutes, as a rule for processes that hold the GPU. Other changes of the node wait behind it.",
    ),
    Alert(
        "AimdPartitionDrift",
        "aim_gpu_partition_drift == 1",
        "15m",
        "ticket",
        "GPU {{ $labels.gpu_id }} on {{ $labels.instance }} is not in the mode that it should be in",
        "Wish, mode file and partitions do not agree for 15 minutes: it is in use, or something else switches it.",
    ),
    Alert(
        "AimdOrphans",
        "aim_orphans > 0",
        "10m",
        "ticket",
        "{{ $value }} dead processes keep places on {{ $labels.instance }}",
        "They were found dead and their grace period should be over; their memory stays reserved.",
    ),
    Alert(
        "AimdLeftBehind",
        "aim_left_behind > 0",
        "30m",
        "ticket",
        "{{ $value }} processes on {{ $labels.instance }} go on without a claim",
        "Their claims were released 30 minutes ago; what they use stays reserved until they end.",
    ),
    Alert(
        "AimdMemoryOverReservation",
        'aim_gpu_partition_memory_finding{kind="over-limit"} == 1',
        "5m",
        "ticket",
        "Model {{ $labels.model }} uses more memory than it has reserved on {{ $labels.gpu_id }}/{{ $labels.partition_id }}",
        "On {{ $labels.instance }}, for 5 minutes: its neighbours on the partition may run out of memory.",
    ),
    Alert(
        "AimdMemoryUnattributed",
        "aim_gpu_partition_memory_unattributed_bytes > 1073741824",
        "30m",
        "ticket",
        "{{ $value | humanize1024 }}B of {{ $labels.gpu_id }}/{{ $labels.partition_id }} are used by nobody's claim",
        "On {{ $labels.instance }}, for 30 minutes, by processes without a claim or of one that is elsewhere.",
    ),
    Alert(
        "AimdMemoryProbeFailing",
        'aim_gpu_memory_probe_state{state=~"wrong-library|no-device|failed|timed-out|crashed|implausible"} == 1',
        "30m",
        "ticket",
        "HIP does not tell the free memory of GPU {{ $labels.gpu_id }} on {{ $labels.instance }}: {{ $labels.state }}",
        "For 30 minutes. What is free is worked out from the counters of KFD alone.",
    ),
    Alert(
        "AimdTelemetryStale",
        # Memory has the modes as labels: a partition of another mode is another one, and may not have telemetry.
        "aim_gpu_partition_memory_bytes\n"
        "and on (instance, gpu_id, partition_id, compute_mode, memory_mode) aim_gpu_partition_memory_bytes offset 1h\n"
        "and on (instance, gpu_id, partition_id) aim_gpu_partition_utilization offset 1h\n"
        "unless on (instance, gpu_id, partition_id) aim_gpu_partition_utilization",
        "15m",
        "ticket",
        "The driver does not tell any more how busy {{ $labels.gpu_id }}/{{ $labels.partition_id }} is",
        "On {{ $labels.instance }}: an hour ago it did, in the same mode ({{ $labels.compute_mode }}).",
    ),
)

DISPATCH = (
    Alert(
        "AimdQueueNearLimit",
        "sum by (instance, gpu_id, partition_id) (aim_scheduler_queue_depth)"
        " / on (instance, gpu_id, partition_id) aim_scheduler_queue_limit > 0.8",
        "5m",
        "ticket",
        "The queue of {{ $labels.gpu_id }}/{{ $labels.partition_id }} on {{ $labels.instance }} is nearly full",
        "{{ $value | humanizePercentage }} of the requests that may wait do so for 5 minutes; at 100% others are refused.",
    ),
    Alert(
        "AimdRequestsRejected",
        "sum by (instance, model) (rate(aim_model_requests_rejected_total[10m]))"
        f" / sum by (instance, model) (rate({WANTED})) > 0.05\n"
        f"and on (instance, model) sum by (instance, model) (increase({WANTED})) >= {burn.LEAST_REQUESTS}",
        "10m",
        "ticket",
        "{{ $value | humanizePercentage }} of the requests of {{ $labels.model }} on {{ $labels.instance }} get no lease",
        "For 10 minutes more than 5% of those that would have waited ended without a lease.",
    ),
    Alert(
        "AimdThroughputBelowFloor",
        'aim_model_slo_met{objective="throughput"} == 0',
        "10m",
        "ticket",
        "Model {{ $labels.model }} on {{ $labels.instance }} is served more slowly than its claim asks for",
        "While requests waited in the last hour, fewer a second ended than the claim's floor.",
    ),
)

CLUSTER = (
    Alert(
        "AimdClusterSyncStale",
        # Where the resource itself is missing there is an alert of its own.
        "(aim_kube_synced == 0 or time() - aim_kube_last_word_timestamp_seconds > 300)\n"
        "unless on (instance, resource) aim_kube_resource_missing == 1",
        "10m",
        "page",
        "aimd on {{ $labels.instance }} does not know what the cluster wants of it ({{ $labels.resource }})",
        "For 10 minutes it has not been told, or never was since it began: new pods get no partition. What is placed goes on.",
    ),
    Alert(
        "AimdClusterDisconnected",
        "aim_kube_watch_connected == 0\nunless on (instance, resource) aim_kube_resource_missing == 1",
        "5m",
        "ticket",
        "The API server does not tell aimd on {{ $labels.instance }} of {{ $labels.resource }}",
        "For 5 minutes every attempt has failed; a watch that ends in its time is none.",
    ),
    Alert(
        "AimdClusterResourceMissing",
        "aim_kube_resource_missing == 1",
        "10m",
        "ticket",
        "The cluster of {{ $labels.instance }} has no {{ $labels.resource }}",
        "The API server does not know the resource for 10 minutes: its CRD is not installed, or was removed.",
    ),
    Alert(
        "AimdClusterWritesFailing",
        "aim_kube_writes_failing > 0",
        "10m",
        "ticket",
        "aimd on {{ $labels.instance }} cannot write to the cluster ({{ $labels.kind }})",
        "For 10 minutes the last attempt of {{ $value }} writes has failed: what the cluster shows of the node is old.",
    ),
    Alert(
        "AimdClusterWritesGivenUp",
        grew('aim_kube_writes_dropped_total{kind!="event",reason!="not_found"}', 15),
        "",
        "ticket",
        "aimd on {{ $labels.instance }} has given up a write to the cluster ({{ $labels.kind }}, {{ $labels.reason }})",
        "The API server or a policy does not accept it; it is not tried again until something changes.",
    ),
    Alert(
        "AimdClusterPartStopped",
        "aim_kube_turn_idle_seconds > 60 or on (instance) min by (instance) (aim_kube_thread_running) == 0",
        "1m",
        "page",
        "A part of aimd on {{ $labels.instance }} that follows the cluster has stopped",
        "New pods get no partition, or nothing is written. Leases and claims go on. This is a defect of aimd.",
    ),
    Alert(
        "AimdClusterTurnsFailing",
        grew("aim_kube_turn_failures_total", 15),
        "",
        "ticket",
        "aimd on {{ $labels.instance }} could not compare its node with the cluster",
        "It is tried again, later and later. This is a defect of aimd; the journal has a traceback.",
    ),
    Alert(
        "AimdConflictingManager",
        "aim_kube_conflicting_managers > 0",
        "5m",
        "ticket",
        "Something else manages the partitions of {{ $labels.instance }}",
        "{{ $value }} other managers were found on the node: aimd changes no mode there, so that they do not fight.",
    ),
    Alert(
        "AimdClusterSpecRefused",
        "aim_kube_spec_refused == 1",
        "5m",
        "ticket",
        "The NodePartitions of {{ $labels.instance }} ask for what is not carried out",
        "For 5 minutes their spec has had a mistake, or could not be carried out as things are.",
    ),
)

GROUPS = (
    Group("aimd-daemon", DAEMON),
    Group("aimd-partitions", PARTITIONS),
    Group("aimd-dispatch", DISPATCH),
    Group("aimd-cluster", CLUSTER),
    Group("aimd-slo-recordings", burn.RECORDINGS),
    Group("aimd-slo", burn.ALERTS),
)
ALERTS = tuple(rule for group in GROUPS for rule in group.rules if isinstance(rule, Alert))
