"""What a node's daemon may do with its token, and what it may not: RBAC and the policy of its own node, as they are."""

from __future__ import annotations

import pytest

from tests.cluster import crds, pods
from tests.cluster.api import RefusedError
from tests.cluster.test_cluster_policies import K8S, ON, SERVICES, service_with
from tests.systemd.machine import until

PARTITIONS = "/apis/aimd.dev/v1alpha1/nodepartitions"
NAMESPACE = "aimd-system"


def record(name):
    return {"apiVersion": "aimd.dev/v1alpha1", "kind": "NodePartitions", "metadata": {"name": name}}


@pytest.fixture(scope="module")
def cluster(control_plane):
    """Two nodes without kubelets, each with a pod of the daemon's service account."""
    for name in ("gpu-sharing-crd.yaml", "nodepartitions.yaml"):
        crds.install(control_plane, K8S / "crd" / name)
    for path in ("daemonset/base/namespace.yaml", "daemonset/base/rbac.yaml", "policies/own-node.yaml"):
        control_plane.kubectl("apply", "--server-side", "-f", K8S / path)
    account = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/aimd"
    until(lambda: control_plane.api.find(account), "no service account")
    for name in ("node-a", "node-b"):
        control_plane.api.create("/api/v1/nodes", {"metadata": {"name": name}})
        item = pods.pod(f"aimd-{name}", nodeName=name, serviceAccountName="aimd")
        control_plane.api.create(f"/api/v1/namespaces/{NAMESPACE}/pods", item)
    unbound = control_plane.api_as(control_plane.token("aimd", NAMESPACE))

    def in_force():
        try:
            unbound.create(PARTITIONS, record("node-a"), dryRun="All")
        except RefusedError as refused:
            return "bound to no node" in refused.message
        return False

    until(in_force, "the policy is not in force")
    yield control_plane
    for name in ("node-a", "node-b"):
        if control_plane.api.find(f"{PARTITIONS}/{name}"):
            control_plane.api.delete(f"{PARTITIONS}/{name}")
        control_plane.api.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/aimd-{name}", at_once=True)
        control_plane.api.delete(f"/api/v1/nodes/{name}")


@pytest.fixture(params=["pod", "node"])
def daemon(cluster, request):
    """Speaks as node-a's daemon: by the token of its pod, or by one bound to the node as under systemd."""
    bound = {"pod": {"pod": "aimd-node-a"}, "node": {"node": "node-a"}}[request.param]
    return cluster.api_as(cluster.token("aimd", NAMESPACE, **bound))


def refused(call, *arguments, **named):
    with pytest.raises(RefusedError) as error:
        call(*arguments, **named)
    return error.value.message


def test_it_writes_its_own_nodes_record(daemon, cluster):
    if cluster.api.find(f"{PARTITIONS}/node-a"):
        cluster.api.delete(f"{PARTITIONS}/node-a")
    daemon.create(PARTITIONS, record("node-a"))
    daemon.merge(f"{PARTITIONS}/node-a/status", {"status": {"gpuCount": 8}})
    assert daemon.get(f"{PARTITIONS}/node-a")["status"] == {"gpuCount": 8}
    assert daemon.get(PARTITIONS, watch="true", fieldSelector="metadata.name=node-a", timeoutSeconds=1)


def test_it_writes_no_other_nodes_record(daemon, cluster):
    words = "node node-a may write its own NodePartitions only, not those of node-b"
    assert words in refused(daemon.create, PARTITIONS, record("node-b"))
    cluster.api.apply(f"{PARTITIONS}/node-b", record("node-b"))
    assert words in refused(daemon.merge, f"{PARTITIONS}/node-b", {"spec": {"layout": {"gpu0": "CPX"}}})
    assert words in refused(daemon.merge, f"{PARTITIONS}/node-b/status", {"status": {"gpuCount": 8}})
    assert "cannot delete" in refused(daemon.delete, f"{PARTITIONS}/node-b")
    cluster.api.delete(f"{PARTITIONS}/node-b")


def test_an_unbound_token_writes_nothing(cluster):
    unbound = cluster.api_as(cluster.token("aimd", NAMESPACE))
    assert "bound to no node" in refused(unbound.create, PARTITIONS, record("node-a"))


def test_an_administrator_is_not_concerned(cluster):
    cluster.api.apply(f"{PARTITIONS}/node-b", {**record("node-b"), "spec": {"layout": {"default": "CPX"}}})
    cluster.api.delete(f"{PARTITIONS}/node-b")


def test_of_services_it_changes_the_status_alone(daemon, cluster, namespace):
    path = SERVICES.format(namespace)
    where = f"{path}/{cluster.api.create(path, service_with(ON))['metadata']['name']}"
    assert daemon.get(where)
    daemon.merge(f"{where}/status", {"status": {"gpuSharing": {"node": "node-a"}}})
    assert "cannot patch" in refused(daemon.merge, where, {"metadata": {"annotations": {"x": "y"}}})
    assert "cannot list" in refused(daemon.get, path)
    assert "cannot delete" in refused(daemon.delete, where)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/secrets"),
        ("GET", "/api/v1/configmaps"),
        ("GET", "/api/v1/nodes"),
        ("PATCH", "/api/v1/nodes/node-a"),
        ("POST", "/api/v1/namespaces/default/pods"),
        ("DELETE", "/api/v1/namespaces/default/pods/x"),
        ("POST", "/api/v1/namespaces/default/pods/x/exec"),
        ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles"),
    ],
)
def test_what_it_has_no_business_with(daemon, method, path):
    body = {} if method in ("POST", "PATCH") else None
    with pytest.raises(RefusedError) as error:
        daemon.ask(method, path, body, "application/merge-patch+json" if method == "PATCH" else "application/json")
    assert error.value.status == 403
