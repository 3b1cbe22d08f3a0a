"""A node in its cluster after a day with a bit of everything."""

from __future__ import annotations

from aimd.domain.cluster import (
    DURATION_BOUNDS_SECONDS,
    ClusterStanding,
    Durations,
    KindStatistics,
    KubeStatistics,
    WatchStatistics,
    WriteStatistics,
)


def durations(**counts: int) -> Durations:
    """Counts by the number of the bucket, `b0` the first."""
    every = tuple(counts.get(f"b{number}", 0) for number in range(len(DURATION_BOUNDS_SECONDS) + 1))
    return Durations(every, sum(every) / 64)


PODS = WatchStatistics(
    "pods",
    connected=True,
    synced=True,
    told_at=1700000050.5,
    objects=12,
    lists={"first": 1, "gone": 1},
    events=345,
    restarts={"ended": 200, "gone": 1, "timed_out": 2},
    pause_seconds=3.25,
    running=True,
)
PARTITIONS = WatchStatistics(
    "nodepartitions",
    missing=True,
    restarts={"not_found": 4},
    pause_seconds=40.0,
    problem="list nodepartitions: 404",
    running=True,
)
WRITES = WriteStatistics(
    {
        "event": KindStatistics(
            waiting=2, done=9, done_at=1700000040.0, dropped={"full": 1}, durations=durations(b3=9)
        ),
        "node": KindStatistics(
            waiting=1, failing=1, done=20, done_at=1699999000.0, retries={"server_error": 3}, durations=durations(b1=20)
        ),
        "service": KindStatistics(
            done=5,
            done_at=1700000045.0,
            dropped={"invalid": 1},
            retries={"conflict": 2},
            durations=durations(b0=4, b11=1),
        ),
    },
    events_held_back=7,
    pause_seconds=12.5,
    problem="patch nodepartitions/status node-a: 503",
    running=True,
)


def standing() -> ClusterStanding:
    statistics = KubeStatistics(
        (PODS, PARTITIONS),
        WRITES,
        {("list", "pods", "200"): 2, ("patch", "nodepartitions/status", "503"): 3, ("watch", "pods", "429"): 1},
        {("list", "pods"): durations(b2=1, b4=1), ("watch", "pods"): durations(b0=1)},
        {"ok": 1, "error": 0},
        "https://10.0.0.1:6443",
        WriteStatistics({"service": KindStatistics(waiting=1, done=3)}, pause_seconds=0.5, running=True),
    )
    return ClusterStanding(
        "node-a",
        statistics,
        rivals=("a device plugin offers amd.com/gpu on the node",),
        refused="layout.gpu0: mode XYZ is unknown",
        pods_refused={"default/llama-predictor-0": "aimd.dev/memory-limit-gb is -1, expected a number above 0"},
        idle_seconds=0.25,
        failures=1,
    )
