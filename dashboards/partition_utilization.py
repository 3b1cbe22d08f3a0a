"""Dashboard: what the partitions do and who has their memory."""

from __future__ import annotations

from dashboards.board import Board, Panel, Query, Row
from dashboards.words import BAD, BY_PLACE, GPU, GPUS, INSTANCES, NODE, OK, PARTITION, PLAIN, WARN, named, share

FULL = ((None, OK), (0.8, WARN), (0.95, BAD))
PLACE_SLOTS = f"sum by ({BY_PLACE}) (aim_scheduler_slots_in_use{{{GPU}}})"

NODE_ROW = Row(
    "Now",
    (
        Panel(
            "GPUs ready",
            "GPUs of the chosen nodes whose partitions KFD shows.",
            (Query(f'sum(aim_gpu_state{{{NODE},state="ready"}})', "ready"),),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Partitions",
            "Partitions that KFD shows.",
            (Query(f"sum(aim_gpu_partitions{{{GPU}}})", "partitions"),),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Assignments",
            "Replicas of claims that have a place.",
            (Query(f"sum(aim_gpu_partition_assignments{{{GPU}}})", "assignments"),),
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Memory reserved",
            "Share of the partitions' memory that claims have reserved.",
            (
                Query(
                    share(
                        f"sum(aim_gpu_partition_memory_allocated_bytes{{{GPU}}})",
                        f"sum(aim_gpu_partition_memory_bytes{{{GPU}}})",
                    ),
                    "reserved",
                ),
            ),
            unit="percentunit",
            kind="stat",
            width=4,
            height=4,
            most=1,
        ),
        Panel(
            "Mean utilization",
            "Mean of the partitions that tell; absent where the driver cannot say.",
            (Query(f"avg(aim_gpu_partition_utilization{{{GPU}}})", "busy"),),
            unit="percentunit",
            kind="stat",
            width=4,
            height=4,
            most=1,
        ),
        Panel(
            "Slots in use",
            "Leases that run, of those that may.",
            (
                Query(
                    share(f"sum(aim_scheduler_slots_in_use{{{GPU}}})", f"sum(aim_scheduler_slots{{{GPU}}})"), "in use"
                ),
            ),
            unit="percentunit",
            kind="stat",
            width=4,
            height=4,
            most=1,
        ),
    ),
)

BUSY_ROW = Row(
    "Utilization",
    (
        Panel(
            "Utilization of partitions",
            "Mean busy share of each partition's XCCs, of the whole GPU in SPX. Absent, not 0, where the driver cannot say.",
            (Query(named(f"aim_gpu_partition_utilization{{{GPU}}}"), PARTITION),),
            unit="percentunit",
            most=1,
        ),
        Panel(
            "Slots in use by partition",
            "Leases that run, of the partition's slots: how full the dispatcher keeps it, whatever the driver says.",
            (Query(named(share(PLACE_SLOTS, f"sum by ({BY_PLACE}) (aim_scheduler_slots{{{GPU}}})")), PARTITION),),
            unit="percentunit",
            most=1,
        ),
        Panel(
            "Sources of utilization",
            "1: this source tells how busy partitions of the GPU are in its present mode.",
            (
                Query(
                    f"max by (instance, gpu_id, source) (aim_gpu_telemetry_supported{{{GPU}}})", "{{gpu_id}} {{source}}"
                ),
            ),
            kind="state-timeline",
            states=(("0", "cannot tell", WARN), ("1", "tells", OK)),
            steps=((None, WARN), (1, OK)),
        ),
        Panel(
            "Partitions by mode",
            "How many partitions are in which compute and memory mode.",
            (
                Query(
                    f"sum by (compute_mode, memory_mode) (aim_gpu_partition_info{{{GPU}}})",
                    "{{compute_mode}}/{{memory_mode}}",
                ),
            ),
            decimals=0,
            stacked=True,
        ),
    ),
)

MEMORY_ROW = Row(
    "Memory",
    (
        Panel(
            "Memory reserved by partition",
            "Share of each partition that claims, and processes that outlived theirs, have reserved.",
            (
                Query(
                    named(
                        share(
                            f"sum by ({BY_PLACE}) (aim_gpu_partition_memory_allocated_bytes{{{GPU}}})",
                            f"sum by ({BY_PLACE}) (aim_gpu_partition_memory_bytes{{{GPU}}})",
                        )
                    ),
                    PARTITION,
                ),
            ),
            unit="percentunit",
            kind="bargauge",
            most=1,
            steps=((None, PLAIN),),
        ),
        Panel(
            "Memory used by partition",
            "Share of each partition that processes use, as KFD counts it.",
            (
                Query(
                    named(
                        share(
                            f"sum by ({BY_PLACE}) (aim_gpu_partition_memory_used_bytes{{{GPU}}})",
                            f"sum by ({BY_PLACE}) (aim_gpu_partition_memory_bytes{{{GPU}}})",
                        )
                    ),
                    PARTITION,
                ),
            ),
            unit="percentunit",
            kind="bargauge",
            most=1,
            steps=FULL,
        ),
        Panel(
            "Memory of all partitions",
            "Size, what claims have reserved, what processes use, and what is used and reserved by nobody.",
            (
                Query(f"sum(aim_gpu_partition_memory_bytes{{{GPU}}})", "size"),
                Query(f"sum(aim_gpu_partition_memory_allocated_bytes{{{GPU}}})", "reserved"),
                Query(f"sum(aim_gpu_partition_memory_used_bytes{{{GPU}}})", "used"),
                Query(f"sum(aim_gpu_partition_memory_unattributed_bytes{{{GPU}}})", "used by nobody's claim"),
            ),
            unit="bytes",
        ),
        Panel(
            "Memory used by partition over time",
            "Bytes that processes use, as KFD counts them.",
            (Query(named(f"aim_gpu_partition_memory_used_bytes{{{GPU}}}"), PARTITION),),
            unit="bytes",
        ),
    ),
)

CHANGE_ROW = Row(
    "Mode changes",
    (
        Panel(
            "GPUs in a change, drifting, draining",
            "A mode change is planned or runs; wish, mode file and partitions do not agree; no new claims.",
            (
                Query(f"sum(aim_gpu_partition_change_in_progress{{{GPU}}})", "in a mode change"),
                Query(f"sum(aim_gpu_partition_drift{{{GPU}}})", "drifting"),
                Query(f"sum(aim_gpu_draining{{{GPU}}})", "draining"),
                Query(f"sum(aim_gpu_memory_mode_pending{{{GPU}}})", "memory mode waits for a driver load"),
            ),
            decimals=0,
        ),
        Panel(
            "Ended mode changes",
            "Since the daemons began, by modes and result.",
            (
                Query(
                    f"sum by (from, to, result) (aim_gpu_partition_changes_total{{{GPU}}})",
                    "{{from}} to {{to}}: {{result}}",
                ),
            ),
            kind="bargauge",
            decimals=0,
        ),
    ),
)

BOARD = Board(
    "aimd-partition-utilization",
    "aimd / Partition utilization",
    "What the partitions of AMD Instinct GPUs do, who has reserved their memory, and which modes they are in.",
    (NODE_ROW, BUSY_ROW, MEMORY_ROW, CHANGE_ROW),
    (INSTANCES, GPUS),
)
