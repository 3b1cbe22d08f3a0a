"""The port that the daemon has: everything together, and nothing of it unless a cluster is configured."""

import os
import subprocess
import sys
import threading

import pytest

from aimd.adapters.kube.cluster import KubeCluster
from aimd.adapters.kube.pods import pod as read_pod
from aimd.domain.cluster import ObjectRef
from aimd.domain.pod import Owner, Pod, PodRef
from aimd.errors import ConfigError
from aimd.ports_cluster import Cluster
from tests.fakes.kube_api import EVENTS, PARTITIONS, PODS, SERVICES
from tests.kube.conftest import QUICK
from tests.systemd.machine import until

POD = {
    "metadata": {
        "namespace": "default",
        "name": "llama-predictor-5d8f-x",
        "uid": "u",
        "creationTimestamp": "2026-11-25T08:00:00Z",
        "labels": {"serving.kserve.io/inferenceservice": "llama"},
        "annotations": {"aimd.dev/gpu-sharing": "enabled"},
        "ownerReferences": [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": "llama-predictor-5d8f",
                "uid": "r",
                "controller": True,
            }
        ],
    },
    "spec": {"nodeName": "a", "resourceClaims": [{"name": "gpu", "resourceClaimName": "llama-gpu"}]},
    "status": {"phase": "Running"},
}


@pytest.fixture
def cluster(api, tmp_path):
    cluster: Cluster = KubeCluster("a", api.kubeconfig(tmp_path), "aimd/1", QUICK)
    yield cluster
    cluster.close()


def test_a_pod():
    ref = PodRef("default", "llama-predictor-5d8f-x", "u")
    assert read_pod(POD) == Pod(
        ref,
        labels={"serving.kserve.io/inferenceservice": "llama"},
        annotations={"aimd.dev/gpu-sharing": "enabled"},
        owners=(Owner("ReplicaSet", "llama-predictor-5d8f", "r"),),
        phase="Running",
        created="2026-11-25T08:00:00Z",
        resource_claims=("llama-gpu",),
    )


def test_a_pod_of_which_little_is_said():
    least = {"metadata": {"namespace": "default", "name": "x", "uid": "u"}}
    assert read_pod(least) == Pod(PodRef("default", "x", "u"))
    ending = {"metadata": {**least["metadata"], "deletionTimestamp": "2026-11-25T08:00:00Z", "labels": None}}
    assert read_pod(ending).deleting


@pytest.mark.parametrize("missing", ["namespace", "name", "uid"])
def test_no_pod(missing):
    metadata = {key: value for key, value in POD["metadata"].items() if key != missing}
    with pytest.raises(KeyError):
        read_pod({**POD, "metadata": metadata})


def test_all_of_it(api, cluster):
    api.put(PODS, POD)
    api.put(PODS, {**POD, "metadata": {**POD["metadata"], "name": "other"}, "spec": {"nodeName": "b"}})
    api.put(PARTITIONS, {"metadata": {"name": "b"}})
    api.put(SERVICES, {"metadata": {"namespace": "default", "name": "llama"}})
    told = []
    cluster.start(lambda: told.append(cluster.synced))
    until(lambda: cluster.synced, "never synced")
    assert [each.ref.name for each in cluster.pods()] == [POD["metadata"]["name"]]
    assert cluster.node_partitions() is None
    assert cluster.node_name == "a"
    until(lambda: api.watches(PARTITIONS) == 1, "not watched")

    def work(objects):
        objects.create_node_partitions({"metadata": {"name": "a"}})
        objects.patch_service_status("default", "llama", {"status": {"gpuSharing": {}}})

    assert cluster.write("node", work)
    until(cluster.node_partitions, "the own NodePartitions are not told")
    assert cluster.node_partitions()["metadata"]["name"] == "a"
    until(lambda: "status" in api.get(SERVICES, "llama", "default"), "not written")
    read = []
    assert cluster.read("service default/llama", lambda objects: read.append(objects.service("default", "llama")))
    until(lambda: read, "not read")
    assert read[0]["status"] == {"gpuSharing": {}}
    cluster.tell(cluster.pods()[0].ref, "Assigned", "gpu0p1")
    cluster.tell(ObjectRef("aimd.dev/v1alpha1", "NodePartitions", "a", "x"), "Boot", "again", warning=True)
    until(lambda: len(api.all(EVENTS)) == 2, "no Events")
    until(lambda: len(told) >= 3, "changes are not told")
    assert told[-1]
    statistics = cluster.statistics()
    assert [watch.resource for watch in statistics.watches] == ["pods", "nodepartitions"]
    assert all(watch.connected for watch in statistics.watches)
    assert statistics.requests["patch", "inferenceservices/status", "200"] == 1
    assert statistics.durations["create", "events"].sum_seconds > 0
    until(lambda: cluster.statistics().writes.done == 3, "not counted")


def test_it_is_not_synced_by_half(api, cluster):
    api.fail("list", PARTITIONS, code=500, times=1000)
    cluster.start(lambda: None)
    until(lambda: cluster.statistics().watches[0].synced, "pods are not listed")
    assert not cluster.synced
    api.heal()
    until(lambda: cluster.synced, "never synced")


def test_its_threads_end_with_it(cluster):
    before = set(threading.enumerate())
    cluster.start(lambda: None)
    own = set(threading.enumerate()) - before
    assert {"aimd-watch-pods", "aimd-watch-nodepartitions", "aimd-cluster-writes", "aimd-cluster-reads"} <= {
        each.name for each in own
    }
    until(lambda: cluster.synced, "never synced")
    cluster.close()
    assert [each.name for each in own if each.name.startswith("aimd-") and each.is_alive()] == []


def test_a_kubeconfig_that_is_missing_stops_the_start(tmp_path):
    with pytest.raises(ConfigError, match="no-such-file"):
        KubeCluster("a", tmp_path / "no-such-file")


def test_one_that_never_began_ends(api, tmp_path):
    KubeCluster("a", api.kubeconfig(tmp_path)).close()
    assert api.requests == []


PROGRAM = """
import importlib, pkgutil, sys
import aimd
for module in pkgutil.walk_packages(aimd.__path__, "aimd."):
    if module.name.startswith(("aimd.cli", "aimd.daemon", "aimd.ports", "aimd.adapters.metrics", "aimd.adapters.http")):
        importlib.import_module(module.name)
print(*sorted(name for name in sys.modules if name.split(".")[0] in ("kubernetes", "urllib3")))
"""


def test_without_a_cluster_the_library_is_not_imported():
    """35 MiB and a third of a second."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=dict(os.environ), capture_output=True, text=True, timeout=60
    )
    assert (result.stdout.strip(), result.returncode) == ("", 0), result.stderr
