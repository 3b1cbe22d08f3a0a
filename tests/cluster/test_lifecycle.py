"""A node's daemon in a real cluster: from InferenceService and pod to claim and status, and back to nothing."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest

from tests.cluster import authority, crds, pods
from tests.cluster.test_cluster_policies import K8S, ON, SERVICES, service_with
from tests.e2e.programs import Daemon
from tests.systemd.machine import until

NAMESPACE = "aimd-system"
_numbers = itertools.count(1)
PARTITIONS = "/apis/aimd.dev/v1alpha1/nodepartitions"


@pytest.fixture(scope="module")
def cluster(control_plane):
    """CRDs, policies and the daemons' role."""
    for name in ("gpu-sharing-crd.yaml", "nodepartitions.yaml"):
        crds.install(control_plane, K8S / "crd" / name)
    for path in ("daemonset/base/namespace.yaml", "daemonset/base/rbac.yaml", "policies/own-node.yaml"):
        control_plane.kubectl("apply", "--server-side", "-f", K8S / path)
    until(lambda: control_plane.api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/aimd"), "no account")
    return control_plane


class NodeDaemon:
    """A node without a kubelet, and a daemon with a token that is bound to it.

    `url` is where it finds the API server, `settings` are further ones of [kubernetes].
    """

    def __init__(self, cluster, name, folder, gpus="mi300x:1", url=None, settings="", within=()):
        self.cluster, self.name = cluster, name
        if cluster.api.find(f"/api/v1/nodes/{name}") is None:
            cluster.api.create("/api/v1/nodes", {"metadata": {"name": name}})
        self.token_file = Path(folder) / "token"
        self.renew_token()
        path = Path(folder) / "kubeconfig"
        kubeconfig = authority.kubeconfig(path, url or cluster.url, cluster.authority, self.token_file)
        config = Path(folder) / "aimd.toml"
        config.write_text(
            'poll_seconds = 0.2\n[metrics]\nlisten = "off"\n'
            f'[kubernetes]\nenabled = true\nnode = "{name}"\nkubeconfig = "{kubeconfig}"\n{settings}\n'
        )
        self.daemon = Daemon(Path(folder), gpus, "--config", str(config), within=within)
        self.daemon.start()

    def renew_token(self):
        """One that is bound to the Node as it is now."""
        self.token_file.write_text(self.cluster.token("aimd", NAMESPACE, node=self.name))

    def claims(self):
        return {claim["name"]: claim for claim in self.daemon.get("claims")["claims"]}

    def record(self):
        return self.cluster.api.find(f"{PARTITIONS}/{self.name}")

    def statuses_told(self):
        """Its writes of the record's status; one that changes nothing leaves no trace in the record."""
        path = f"{PARTITIONS}/{self.name}/status"
        return [event for event in self.cluster.requests_made() if event["requestURI"].startswith(path)]

    def pod(self, namespace, name, service, annotations, **spec):
        """As KServe makes it, bound to this node."""
        item = pods.pod(name, nodeName=self.name, **spec)
        labels = {"serving.kserve.io/inferenceservice": service, "component": "predictor"}
        item["metadata"] |= {"annotations": annotations, "labels": labels}
        return self.cluster.api.create(f"/api/v1/namespaces/{namespace}/pods", item)["metadata"]["uid"]

    def close(self):
        self.daemon.close()
        if self.record():
            self.cluster.api.delete(f"{PARTITIONS}/{self.name}")
        self.cluster.api.delete(f"/api/v1/nodes/{self.name}")


@pytest.fixture
def node(cluster):
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        node = NodeDaemon(cluster, f"node-{next(_numbers)}", folder)  # pods of earlier tests end on no kubelet
        yield node
        node.close()


def service(cluster, namespace, name, annotations, sharing=None):
    item = service_with(annotations, sharing)
    item["metadata"] = {"name": name, "annotations": annotations}
    cluster.api.create(SERVICES.format(namespace), item)
    return f"{SERVICES.format(namespace)}/{name}"


def status(cluster, where):
    return cluster.api.get(where).get("status", {})


def condition(cluster, where):
    conditions = status(cluster, where).get("conditions") or []
    return next((each for each in conditions if each["type"] == "GPUPartitionAssigned"), {})


def test_from_a_pod_to_the_status_and_back(cluster, namespace, node):
    where = service(cluster, namespace, "llama", ON | {"aimd.dev/compute-mode": "CPX"})
    uid = node.pod(namespace, "llama-1", "llama", ON | {"aimd.dev/compute-mode": "CPX"})
    until(
        lambda: condition(cluster, where).get("status") == "True", lambda: f"{status(cluster, where)} {node.daemon.log}"
    )
    sharing = status(cluster, where)["gpuSharing"]
    assert sharing["node"] == node.name
    assert sharing["partitionInfo"] == {
        "partitionId": "gpu0/0",
        "computeMode": "CPX",
        "memoryMode": "NPS1",
        "partitionSizeGB": 24,
        "allocatedMemoryGB": 8,
        "availableMemoryGB": 16,
        "podUID": uid,
    }
    claim = node.claims()[f"{namespace}/llama"]
    assert [pod["uid"] for pod in claim["pods"]] == [uid]
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/llama-1", at_once=True)
    until(lambda: node.claims() == {}, "the claim stays")
    until(lambda: "gpuSharing" not in status(cluster, where), lambda: f"{status(cluster, where)}")
    assert condition(cluster, where)["reason"] == "NoPods"


def test_two_models_share_a_partition_and_both_services_say_so(cluster, namespace, node):
    at = {"aimd.dev/partition-id": "gpu0/3", "aimd.dev/compute-mode": "CPX"}
    wheres = {}
    for name, memory in (("llama", "8"), ("embed", "12")):
        said = ON | at | {"aimd.dev/memory-limit-gb": memory}
        wheres[name] = service(cluster, namespace, name, said)
        node.pod(namespace, f"{name}-1", name, said)
    for name, memory in (("llama", 8), ("embed", 12)):

        def told(where=wheres[name]):
            return (status(cluster, where).get("gpuSharing") or {}).get("partitionInfo", {})

        until(lambda told=told: told().get("availableMemoryGB") == 4, lambda told=told: f"{told()}")
        assert (told()["partitionId"], told()["allocatedMemoryGB"]) == ("gpu0/3", memory)


def test_what_the_service_declares_wins_and_its_class_takes_effect_at_once(cluster, namespace, node):
    sharing = {"enabled": True, "memoryLimitGB": 4, "qosPriority": "low"}
    where = service(cluster, namespace, "llama", ON, sharing)
    node.pod(namespace, "llama-1", "llama", ON)
    until(lambda: condition(cluster, where).get("status") == "True", lambda: node.daemon.log)
    claim = node.claims()[f"{namespace}/llama"]
    assert (claim["memory_gb"], claim["qos"]) == (4, "low")
    cluster.api.merge(where, {"spec": {"gpuSharing": {"qosPriority": "high"}}})
    cluster.api.merge(f"/api/v1/namespaces/{namespace}/pods/llama-1", {"metadata": {"labels": {"touched": "yes"}}})
    until(lambda: node.claims()[f"{namespace}/llama"]["qos"] == "high", "the class stays")


def test_a_mistake_is_told_on_the_pod_and_in_the_condition(cluster, namespace, node):
    said = ON | {"aimd.dev/memory-limit-gb": "8", "aimd.dev/partition-id": "gpu7/0"}
    where = service(cluster, namespace, "llama", said)
    node.pod(namespace, "llama-1", "llama", said)
    until(lambda: condition(cluster, where).get("reason") == "InvalidGpuSharing", lambda: f"{status(cluster, where)}")
    words = "annotation aimd.dev/partition-id is gpu7/0: GPU 'gpu7' is not on this node"
    assert words in condition(cluster, where)["message"]

    def told():
        found = cluster.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
        return [each["note"] for each in found if each["reason"] == "InvalidGpuSharing"]

    until(told, "no event on the pod")
    assert words in told()[0]
    assert node.claims() == {}


def test_a_pod_that_does_not_fit_waits_and_says_why(cluster, namespace, node):
    said = ON | {"aimd.dev/memory-limit-gb": "150"}
    where = service(cluster, namespace, "llama", said)
    for number in (1, 2):
        node.pod(namespace, f"llama-{number}", "llama", said)
    until(lambda: condition(cluster, where).get("reason") == "NoRoom", lambda: f"{status(cluster, where)}")
    waiting = [e for e in status(cluster, where)["gpuSharing"]["assignments"].values() if "partitionId" not in e]
    placed = [e for e in status(cluster, where)["gpuSharing"]["assignments"].values() if "partitionId" in e]
    assert (len(waiting), len(placed)) == (1, 1)
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/{placed[0]['pod']}", at_once=True)
    until(lambda: condition(cluster, where).get("status") == "True", lambda: f"{status(cluster, where)}")


def test_a_deployment_without_kserve(cluster, namespace, node):
    item = pods.pod("web-5d8f-x", nodeName=node.name)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f", "uid": "u", "controller": True}
    item["metadata"] |= {"annotations": ON, "labels": {"pod-template-hash": "5d8f"}, "ownerReferences": [owner]}
    cluster.api.create(f"/api/v1/namespaces/{namespace}/pods", item)
    until(lambda: f"deployment/{namespace}/web" in node.claims(), lambda: f"{node.claims()}")


def test_the_nodes_record(cluster, namespace, node):
    until(lambda: (node.record() or {}).get("status"), lambda: node.daemon.log)
    record = node.record()
    assert record["metadata"]["ownerReferences"][0]["kind"] == "Node"
    assert record["status"]["gpus"][0]["model"] == "MI300X"
    assert {c["type"]: c["status"] for c in record["status"]["conditions"]} == {
        "PartitioningReady": "True",
        "Repartitioning": "False",
        "ConflictingManager": "False",
        "HardwareHealthy": "True",
    }
    assert node.name in cluster.kubectl("get", "np")


def test_a_layout_of_the_record_is_applied_and_stays_over_a_restart(cluster, namespace, node):
    until(lambda: (node.record() or {}).get("status"), lambda: node.daemon.log)
    cluster.api.merge(f"{PARTITIONS}/{node.name}", {"spec": {"layout": {"default": "CPX/NPS1"}}})
    until(lambda: node.record()["status"]["modes"] == "1xCPX/NPS1", lambda: f"{node.record()} {node.daemon.log}")
    changes = len(node.daemon.get("plans")["plans"])
    node.daemon.stop()
    told = len(node.statuses_told())
    node.daemon.start()
    until(lambda: len(node.statuses_told()) > told, "it says nothing after its start")
    assert len(node.daemon.get("plans")["plans"]) == changes
    cluster.api.merge(f"{PARTITIONS}/{node.name}", {"spec": {"layout": {"default": "SPX/NPS1"}}})
    until(lambda: node.record()["status"]["modes"] == "1xSPX/NPS1", lambda: f"{node.record()} {node.daemon.log}")


def test_beside_another_manager_no_mode_is_changed(cluster, namespace, node):
    slices = "/apis/resource.k8s.io/v1/resourceslices"
    pool = {"name": node.name, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.amd.com", "nodeName": node.name, "pool": pool, "devices": [{"name": "gpu-0"}]}
    cluster.api.create(slices, {"metadata": {"name": "rival"}, "spec": spec})
    try:
        node.daemon.stop()
        node.daemon.start()  # it looks at once, and then every minute
        kinds = lambda: {c["type"]: c for c in (node.record() or {}).get("status", {}).get("conditions", [])}  # noqa: E731
        until(lambda: kinds().get("ConflictingManager", {}).get("status") == "True", lambda: f"{kinds()}")
        refused = node.daemon.aimctl("set-mode", "gpu0", "CPX")
        assert refused.returncode != 0
        assert "gpu.amd.com" in refused.stderr
    finally:
        cluster.api.delete(f"{slices}/rival")


def test_killed_and_started_again_it_comes_to_the_same(cluster, namespace, node):
    where = service(cluster, namespace, "llama", ON)
    for number in (1, 2, 3):
        node.pod(namespace, f"llama-{number}", "llama", ON)
    until(
        lambda: condition(cluster, where).get("message", "").startswith("3 pods"), lambda: f"{status(cluster, where)}"
    )
    before = node.claims()[f"{namespace}/llama"]["assignments"]
    node.daemon.stop(9)
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/llama-2", at_once=True)
    node.daemon.start()
    until(lambda: len(node.claims()[f"{namespace}/llama"]["pods"]) == 2, "the pod that went meanwhile is kept")
    after = node.claims()[f"{namespace}/llama"]["assignments"]
    assert [one for one in before if one["replica"] != 1] == after
    until(
        lambda: condition(cluster, where).get("message", "").startswith("2 pods"), lambda: f"{status(cluster, where)}"
    )


def test_a_service_whose_last_pod_went_while_the_daemon_was_away_is_told(cluster, namespace, node):
    where = service(cluster, namespace, "llama", ON)
    node.pod(namespace, "llama-1", "llama", ON)
    until(lambda: condition(cluster, where).get("status") == "True", lambda: f"{status(cluster, where)}")
    node.daemon.stop(9)
    cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/llama-1", at_once=True)
    node.daemon.start()
    until(lambda: condition(cluster, where).get("reason") == "NoPods", lambda: f"{status(cluster, where)}")


def assignments(cluster, where):
    return (status(cluster, where).get("gpuSharing") or {}).get("assignments") or {}


def test_what_a_node_said_that_is_gone_is_removed_by_another_of_the_service(cluster, namespace, node):
    """Its daemon can write no more; the summary goes over to a pod that is there."""
    where = service(cluster, namespace, "llama", ON)
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        other = NodeDaemon(cluster, f"node-{next(_numbers)}", folder)
        gone = other.pod(namespace, "llama-2", "llama", ON)
        until(lambda: gone in assignments(cluster, where), lambda: other.daemon.log)
        other.daemon.stop(9)
        uid = node.pod(namespace, "llama-1", "llama", ON)
        until(lambda: set(assignments(cluster, where)) == {gone, uid}, lambda: f"{status(cluster, where)}")
        assert status(cluster, where)["gpuSharing"]["node"] == other.name
        cluster.api.delete(f"/api/v1/namespaces/{namespace}/pods/llama-2", at_once=True)
        other.close()
    pod = f"/api/v1/namespaces/{namespace}/pods/llama-1"
    cluster.api.merge(pod, {"metadata": {"labels": {"touched": "yes"}}})
    until(lambda: set(assignments(cluster, where)) == {uid}, lambda: f"{status(cluster, where)} {node.daemon.log}")
    assert status(cluster, where)["gpuSharing"]["node"] == node.name
    assert status(cluster, where)["annotations"] == {"aimd.dev/partition": f"{node.name}/gpu0/0"}
    assert condition(cluster, where)["message"] == f"1 pod on {node.name}/gpu0/0"


def test_what_kserve_drops_when_a_pod_becomes_ready_is_put_back(cluster, namespace, node):
    where = service(cluster, namespace, "llama", ON)
    uid = node.pod(namespace, "llama-1", "llama", ON)
    until(lambda: uid in assignments(cluster, where), lambda: node.daemon.log)
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    cluster.api.merge(f"/api/v1/namespaces/{namespace}/pods/llama-1/status", {"status": {"conditions": [ready]}})
    item = cluster.api.get(where)
    del item["status"]["gpuSharing"]
    cluster.api.replace(f"{where}/status", item)
    assert assignments(cluster, where) == {}
    until(lambda: uid in assignments(cluster, where), lambda: f"{status(cluster, where)} {node.daemon.log}")


def test_a_restart_repeats_no_event(cluster, namespace, node):
    where = service(cluster, namespace, "llama", ON)
    node.pod(namespace, "llama-1", "llama", ON)
    events = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    told = lambda: [each for each in cluster.api.get(events)["items"] if each["reason"] == "PartitionAssigned"]  # noqa: E731
    until(told, lambda: node.daemon.log)
    for count, number in ((2, 15), (3, 9)):
        node.daemon.stop(number)
        node.daemon.start()
        second = node.pod(namespace, f"second-{number}", "llama", ON)
        until(lambda second=second: second in assignments(cluster, where), lambda: node.daemon.log)
        until(lambda count=count: len(told()) == count, lambda: f"{told()}")  # it comes after the status
    assert all("series" not in each or each["series"] is None for each in told())
