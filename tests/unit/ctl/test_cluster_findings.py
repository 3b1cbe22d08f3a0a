"""What the doctor says of the cluster: one clear sentence each, and what to do."""

from dataclasses import replace

import pytest

from aimd.ctl.cluster_findings import IDLE_SECONDS, SILENT_SECONDS, cluster_findings
from aimd.doctor.finding import FAIL, OK, WARN
from aimd.domain.cluster import ClusterStanding, KindStatistics, KubeStatistics, WatchStatistics, WriteStatistics
from aimd.protocol.cluster import ClusterMessage, cluster_message
from aimd.protocol.messages import ProblemMessage, to_builtins
from tests.unit.ctl.test_ctl_process import run

NOW = 1700000100.0
NODE = KindStatistics(done=3, done_at=NOW - 60)
PODS = WatchStatistics("pods", connected=True, synced=True, told_at=NOW - 12, objects=3, running=True)
OWN = replace(PODS, resource="nodepartitions", objects=1)
WELL = ClusterStanding(
    "node-a",
    KubeStatistics(
        (PODS, OWN),
        WriteStatistics({"event": KindStatistics(), "node": NODE, "service": KindStatistics()}, running=True),
        server="https://10.0.0.1:6443",
        reads=WriteStatistics(running=True),
    ),
    rivals=(),
)


def found(standing):
    return list(cluster_findings(to_builtins(cluster_message(standing)), NOW))


def wrong(standing):
    """What is not ok; each with something to do."""
    told = [each for each in found(standing) if each.result != OK]
    assert all(each.hint for each in told)
    assert {each.check for each in told} <= {"cluster"}
    return [each[:1] + each[2:3] for each in told]


def with_pods(**changed):
    return replace(WELL, statistics=replace(WELL.statistics, watches=(replace(PODS, **changed), OWN)))


def with_writes(**changed):
    kinds = {**WELL.statistics.writes.kinds, **changed.pop("kinds", {})}
    return replace(WELL, statistics=replace(WELL.statistics, writes=WriteStatistics(kinds, running=True, **changed)))


def test_no_cluster():
    assert [each[:3] for each in found(None)] == [
        (OK, "cluster", "this node takes part in no cluster: [kubernetes] of aimd.toml is not enabled")
    ]
    assert list(cluster_findings(None, NOW)) == []


def test_all_is_well():
    assert [(each.result, each.message) for each in found(WELL)] == [
        (OK, "node node-a of the API server at https://10.0.0.1:6443"),
        (OK, "pods: 3 of this node, last word 12.0 s ago"),
        (OK, "nodepartitions: 1 of this node, last word 12.0 s ago"),
        (OK, "the node's NodePartitions: made sure of 1 min 0 s ago"),
    ]


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        (
            with_pods(connected=False, problem="watch pods: 503"),
            (WARN, "the API server tells of no changes of pods, last word 12.0 s ago: watch pods: 503"),
        ),
        (
            with_pods(connected=False, synced=False, told_at=None, problem="list pods: no connection"),
            (WARN, "pods have not been listed since the daemon began: list pods: no connection"),
        ),
        (
            with_pods(told_at=NOW - SILENT_SECONDS - 1),
            (WARN, "the API server is silent about pods, last word 5 min 1 s ago, expected each minute"),
        ),
        (
            with_pods(missing=True, synced=False, connected=False, told_at=None, problem="list: 404"),
            (WARN, "the API server has no resource pods: list: 404"),
        ),
        (with_pods(running=False, connected=False), (FAIL, "the thread that watches pods has ended")),
        (
            with_writes(kinds={"node": replace(NODE, failing=1, waiting=1)}, problem="patch: 403"),
            (WARN, "the node's NodePartitions cannot be written: patch: 403"),
        ),
        (
            with_writes(kinds={"service": KindStatistics(dropped={"invalid": 2})}),
            (WARN, "2 writes of the status of InferenceServices were given up since the daemon began"),
        ),
        (
            replace(WELL, idle_seconds=IDLE_SECONDS + 1),
            (FAIL, "node and cluster have not been compared for 31.0 s, expected each second"),
        ),
        (
            replace(WELL, failures=2),
            (WARN, "the comparison of node and cluster has ended by a defect 2 times since the daemon began"),
        ),
        (
            replace(WELL, rivals=None),
            (WARN, "it is not known yet whether another manager of partitions is on the node"),
        ),
        (replace(WELL, rivals=("HAMi is here",)), (WARN, "HAMi is here")),
        (
            replace(WELL, refused="layout.gpu0: mode XYZ"),
            (WARN, "the spec of the node's NodePartitions is not carried out: layout.gpu0: mode XYZ"),
        ),
        (
            replace(WELL, pods_refused={"default/llama-0": "memory is -1"}),
            (WARN, "pod default/llama-0 gets no partition: memory is -1"),
        ),
    ],
)
def test_what_is_not_as_it_should_be(standing, expected):
    assert wrong(standing) == [expected]


@pytest.mark.parametrize("ended", ["writes", "reads"])
def test_a_thread_that_has_ended(ended):
    statistics = replace(WELL.statistics, **{ended: replace(getattr(WELL.statistics, ended), running=False)})
    assert wrong(replace(WELL, statistics=statistics)) == [
        (FAIL, "the thread that reads or writes objects of the cluster has ended")
    ]


def test_events_that_are_lost_are_nobody_s_trouble():
    assert wrong(with_writes(kinds={"event": KindStatistics(dropped={"full": 9})})) == []


def test_what_is_not_known_yet_is_one_finding():
    """A node that was never synced does not know of other managers either."""
    standing = replace(with_pods(connected=False, synced=False, told_at=None), rivals=None)
    assert len(wrong(standing)) == 1


def test_a_clock_that_is_behind():
    assert wrong(with_pods(told_at=NOW + 3600)) == []


def test_a_cluster_that_is_away_is_no_failure(api, world, socket_path):
    """The local API goes on, and the node is ready."""
    away = with_pods(connected=False, synced=False, told_at=None, problem="list pods: no connection")
    world.cluster = cluster_message(away)
    told = run("--socket", str(socket_path), "doctor")
    lines = [line for line in told.stdout.splitlines() if line.startswith("warn  cluster: ")]
    assert "list pods: no connection -> see that https://10.0.0.1:6443 answers" in lines[0]
    assert not [line for line in told.stdout.splitlines() if line.startswith("fail  cluster")]
    assert run("--socket", str(socket_path), "doctor", "--probe", "ready").returncode == 0


def test_a_daemon_that_has_no_such_route(api, world, socket_path):
    problem = ProblemMessage(title="Not Found", status=404, detail="no such path", code="not_found")
    world.overrides["GET /v1/cluster"] = problem
    told = run("--socket", str(socket_path), "doctor")
    assert "cluster: " not in told.stdout
    assert "claims" in told.stdout
    assert ClusterMessage(enabled=False) == cluster_message(None)
