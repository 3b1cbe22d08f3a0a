"""The test cluster's control plane is a real one: it validates, schedules, and knows who asks by what token."""

import base64
import json
import time

import pytest

from tests.cluster import crds, pods
from tests.cluster.api import RefusedError
from tests.cluster.builds import KUBERNETES
from tests.cluster.control_plane import API_SERVER, SCHEDULER, ControlPlane
from tests.systemd.machine import until


def claims_of(token):
    """What a token says, unchecked."""
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def node(name):
    """A node as an admin may make one, without a kubelet; what is bound to it stays pending."""
    return {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}


@pytest.fixture
def empty_node(control_plane):
    """Ready in the scheduler's eyes until its lease would have to be renewed."""
    control_plane.api.create("/api/v1/nodes", node("paper"))
    status = {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
    }
    control_plane.api.merge("/api/v1/nodes/paper/status", {"status": status})
    control_plane.api.merge("/api/v1/nodes/paper", {"spec": {"taints": None}})
    yield "paper"
    control_plane.api.delete("/api/v1/nodes/paper")


def test_the_version_is_the_one_that_is_pinned(control_plane):
    assert control_plane.api.get("/version")["gitVersion"] == f"v{'.'.join(map(str, KUBERNETES))}"
    assert f"v{'.'.join(map(str, KUBERNETES))}" in control_plane.kubectl("version")


def test_a_pod_is_scheduled(control_plane, namespace, empty_node):
    selector = {"nodeSelector": {"kubernetes.io/hostname": empty_node}, "tolerations": [{"operator": "Exists"}]}
    pods.created(control_plane.api, namespace, pods.pod("waiting", **selector))
    path = f"/api/v1/namespaces/{namespace}/pods/waiting"
    until(lambda: control_plane.api.get(path)["spec"].get("nodeName") == empty_node, "not scheduled")


def test_a_pod_bound_token_names_its_pod_and_its_node(control_plane, namespace, empty_node):
    pods.created(control_plane.api, namespace, pods.pod("holder", nodeName=empty_node))
    claims = claims_of(control_plane.token("default", namespace, pod="holder"))["kubernetes.io"]
    assert (claims["pod"]["name"], claims["node"]["name"], claims["namespace"]) == ("holder", empty_node, namespace)


def whoami(control_plane, token):
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    return control_plane.api_as(token).create(path, review)["status"]["userInfo"]


@pytest.mark.parametrize("bound", ["pod", "node"])
def test_the_api_server_sees_the_node_of_a_bound_token(control_plane, namespace, empty_node, bound):
    pods.created(control_plane.api, namespace, pods.pod("holder", nodeName=empty_node))
    token = control_plane.token("default", namespace, **{bound: {"pod": "holder", "node": empty_node}[bound]})
    user = whoami(control_plane, token)
    assert user["username"] == f"system:serviceaccount:{namespace}:default"
    assert user["extra"]["authentication.kubernetes.io/node-name"] == [empty_node]


def test_an_unbound_token_names_no_node(control_plane, namespace):
    user = whoami(control_plane, control_plane.token("default", namespace))
    assert "authentication.kubernetes.io/node-name" not in user["extra"]


def test_a_token_ends_with_its_pod(control_plane, namespace, empty_node):
    """Ten seconds later: so long the API server remembers that a token is good."""
    pods.created(control_plane.api, namespace, pods.pod("holder", nodeName=empty_node))
    token = control_plane.token("default", namespace, pod="holder")
    whoami(control_plane, token)
    control_plane.api.delete(f"/api/v1/namespaces/{namespace}/pods/holder", at_once=True)

    def refused():
        try:
            whoami(control_plane, token)
        except RefusedError as refused:
            return refused.status == 401
        return False

    until(refused, "the token of a deleted pod is still good")


def test_roles_are_enforced(control_plane, namespace):
    user = control_plane.api_as(control_plane.token("default", namespace))
    with pytest.raises(
        RefusedError, match=f'cannot list resource "pods" in API group "" in the namespace "{namespace}"'
    ):
        user.get(f"/api/v1/namespaces/{namespace}/pods")


def test_nobody_reads_nothing(control_plane):
    with pytest.raises(RefusedError) as refused:
        control_plane.api_as(None).get("/api/v1/pods")
    assert refused.value.status == 403


def test_a_kubeconfig_works_for_kubectl(control_plane, namespace):
    user = control_plane.kubeconfig_of("someone", control_plane.token("default", namespace), namespace)
    assert control_plane.kubectl("auth", "whoami", "-o", "name", user=user)
    assert "Forbidden" in control_plane.attempt("get", "nodes", user=user).stderr


def test_requests_are_written_down(control_plane, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    control_plane.api.create(path, {"metadata": {"name": "noted"}})

    def noted():
        made = [event for event in control_plane.requests_made() if event["requestURI"] == path]
        return [event["verb"] for event in made if event["user"]["username"] == "admin"] == ["create"]

    until(noted, "the audit log has no such request")


@pytest.mark.parametrize("flavour", crds.FLAVOURS)
def test_kserves_own_crd_applies(control_plane, namespace, shared_data, tmp_path, flavour):
    crd = crds.install(control_plane, crds.kserve(shared_data, flavour, tmp_path))
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "llama", "annotations": {"aimd.dev/gpu-sharing": "enabled"}},
        "spec": {
            "predictor": {"containers": [{"name": "main", "image": "none"}]},
            "gpuSharing": {"computeMode": "CPX"},
        },
    }
    try:
        path = f"/apis/serving.kserve.io/v1beta1/namespaces/{namespace}/inferenceservices"
        spec = control_plane.api.create(path, service)["spec"]
        assert ("gpuSharing" in spec) == (flavour == "minimal")  # the full one prunes what it does not know
    finally:
        crds.remove(control_plane, crd)


def test_an_outage_loses_nothing(cluster_programs, tmp_path):
    """The API server comes back on its port with its data, and scheduling goes on."""
    own = ControlPlane(cluster_programs, tmp_path / "own")
    try:
        own.api.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "kept"}})
        own.stop(API_SERVER)
        with pytest.raises(OSError):
            own.api.get("/readyz")
        own.start(API_SERVER)
        own.wait_until_ready()
        assert own.api.get("/api/v1/namespaces/default/configmaps/kept")["metadata"]["name"] == "kept"
        own.stop(SCHEDULER)
        own.start(SCHEDULER)
    finally:
        own.close()


def test_it_is_ready_within_seconds(cluster_programs, tmp_path):
    began = time.monotonic()
    own = ControlPlane(cluster_programs, tmp_path / "own")
    took = time.monotonic() - began
    megabytes = {name: size // 2**20 for name, size in own.memory().items()}
    own.close()
    print(f"ready in {took:.1f} s, megabytes: {megabytes}")
    assert took < 60
    assert sum(megabytes.values()) < 1500
