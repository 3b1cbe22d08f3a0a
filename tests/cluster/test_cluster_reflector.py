"""The Kubernetes adapter before a real API server, with the rights of a node's daemon: its pods, outages, tokens, writes."""

import contextlib
import json
import time
from functools import partial
from pathlib import Path

import pytest

from aimd.adapters.kube import access, resources
from aimd.adapters.kube.cluster import KubeCluster
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.pods import pod as read_pod
from aimd.adapters.kube.reflector import Reflector
from aimd.domain.cluster import ObjectRef
from aimd.errors import ConflictError, DeniedError, GoneError, InvalidInputError, UnauthenticatedError
from tests.cluster import crds, pods
from tests.cluster.authority import Authority, kubeconfig
from tests.cluster.control_plane import API_SERVER, ControlPlane
from tests.systemd.machine import until

K8S = Path(__file__).parents[2] / "k8s"
QUICK = Patience(first=0.1, longest=1.0)
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
PARTITIONS = "/apis/aimd.dev/v1alpha1/nodepartitions"
OWN_RECORD = {"apiVersion": "aimd.dev/v1alpha1", "kind": "NodePartitions", "metadata": {"name": "node-a"}}


@pytest.fixture(scope="module")
def own(cluster_programs, tmp_path_factory):
    """A control plane that may be stopped, with two nodes, our CRDs, roles and the policy of the own node."""
    control_plane = ControlPlane(cluster_programs, tmp_path_factory.mktemp("own"), audit=True)
    try:
        for name in ("gpu-sharing-crd.yaml", "nodepartitions.yaml"):
            crds.install(control_plane, K8S / "crd" / name)
        for path in ("daemonset/base/namespace.yaml", "daemonset/base/rbac.yaml", "policies/own-node.yaml"):
            control_plane.kubectl("apply", "--server-side", "-f", K8S / path)
        for name in ("node-a", "node-b"):
            control_plane.api.create("/api/v1/nodes", {"metadata": {"name": name}})
        account = "/api/v1/namespaces/aimd-system/serviceaccounts/aimd"
        until(lambda: control_plane.api.find(account), "no service account")
        yield control_plane
    finally:
        control_plane.close()


@pytest.fixture
def space(own, request):
    name = request.node.name.replace("_", "-").partition("[")[0][:60].strip("-")
    with own.namespace(name) as made:
        yield made


def token_of_node(own, node="node-a"):
    return own.token("aimd", "aimd-system", node=node)


@pytest.fixture
def token_file(own, tmp_path):
    path = tmp_path / "token"
    path.write_text(token_of_node(own))
    return path


@pytest.fixture
def connection(own, token_file):
    path = own.kubeconfig_of("of-file", token_file)
    connection = Connection(partial(access.of_kubeconfig, path), "aimd/test", QUICK)
    yield connection
    connection.close()


@pytest.fixture
def join(own, token_file):
    """A function that has a node take part with a token bound to it; it ends with the test."""
    with contextlib.ExitStack() as ends:

        def make(node="node-a", on_change=lambda: None, patience=QUICK):
            path = token_file
            if node != "node-a":
                path = token_file.with_name(f"token-{node}")
                path.write_text(token_of_node(own, node))
            cluster = KubeCluster(node, own.kubeconfig_of(f"of-{node}", path), "aimd/test", patience)
            cluster.start(on_change)
            ends.callback(cluster.close)
            until(lambda: cluster.synced, lambda: f"not synced: {cluster.statistics().watches}")
            return cluster

        yield make


def names(cluster, space):
    return sorted(pod.ref.name for pod in cluster.pods() if pod.ref.namespace == space)


def knows(cluster, space, *expected, seconds=30):
    until(lambda: names(cluster, space) == sorted(expected), lambda: f"knows {names(cluster, space)}", seconds)


def place(own, space, name, node, **metadata):
    item = pods.pod(name, nodeName=node)
    item["metadata"] |= metadata
    return pods.created(own.api, space, item)


def remove(own, space, name):
    own.api.delete(f"/api/v1/namespaces/{space}/pods/{name}", at_once=True)


def test_pods_of_one_node_only(own, space, join):
    place(own, space, "before-a", "node-a")
    place(own, space, "before-b", "node-b")
    a, b = join(), join("node-b")
    place(own, space, "after-a", "node-a", annotations={"aimd.dev/gpu-sharing": "enabled"})
    place(own, space, "after-b", "node-b")
    knows(a, space, "after-a", "before-a")
    knows(b, space, "after-b", "before-b")
    found = next(pod for pod in a.pods() if pod.ref.name == "after-a")
    assert found.annotations == {"aimd.dev/gpu-sharing": "enabled"}
    assert found.phase == "Pending"
    assert found.created.endswith("Z")
    remove(own, space, "before-a")
    knows(a, space, "after-a")
    watch = a.statistics().watches[0]
    assert watch.lists == {"first": 1}
    assert watch.restarts == {}


def test_a_pod_that_is_bound_appears(own, space, join):
    """As the scheduler does it, by the binding subresource."""
    cluster = join()
    item = pods.pod("waiting", schedulerName="nobody")
    pods.created(own.api, space, item)
    time.sleep(0.2)
    assert names(cluster, space) == []
    target = {"apiVersion": "v1", "kind": "Node", "name": "node-a"}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "waiting"}, "target": target}
    own.api.create(f"/api/v1/namespaces/{space}/pods/waiting/binding", binding)
    knows(cluster, space, "waiting")


def test_an_outage_is_survived(own, space, join):
    place(own, space, "stays", "node-a")
    place(own, space, "goes", "node-a")
    cluster = join()
    knows(cluster, space, "goes", "stays")
    own.stop(API_SERVER)
    until(lambda: not any(watch.connected for watch in cluster.statistics().watches), "the outage is not noticed")
    done = []
    cluster.write("meanwhile", lambda objects: done.append(objects.node()["metadata"]["name"]))
    time.sleep(1)
    assert names(cluster, space) == ["goes", "stays"]
    assert done == []
    own.start(API_SERVER)
    own.wait_until_ready()
    remove(own, space, "goes")
    place(own, space, "comes", "node-a")
    knows(cluster, space, "comes", "stays")
    until(lambda: done == ["node-a"], "the write is lost")
    until(lambda: all(watch.connected for watch in cluster.statistics().watches), "not connected again")
    statistics = cluster.statistics()
    assert statistics.watches[0].problem is None
    assert statistics.writes.retries["unreachable"] >= 1


def test_a_version_that_etcd_has_forgotten_is_gone(own, connection):
    """The API server's answer, as the reflector takes it: by HTTP here, by an event where its cache has it."""
    lines = connection.follow(resources.pods(), fieldSelector="spec.nodeName=node-a", resourceVersion="1")
    try:
        line = next(iter(lines))
    finally:
        lines.close()
    assert json.loads(line)["object"]["code"] == 410


def test_a_reflector_goes_on_after_a_version_that_is_gone(own, space, connection):
    reflector = Reflector(connection, resources.pods(), "spec.nodeName=node-a", read_pod, QUICK)
    reflector.start(lambda: None)
    until(lambda: reflector.statistics().connected, "not connected")
    reflector._known = type(reflector._known)("1", reflector._known.things)  # as if it had slept for long
    reflector._lines.cut()
    until(lambda: reflector.statistics().restarts.get("gone") == 1, lambda: f"{reflector.statistics()}")
    place(own, space, "new", "node-a")
    until(lambda: "new" in {pod.ref.name for pod in reflector.things()}, "not listed anew")
    reflector.close()
    assert reflector.statistics().lists == {"first": 1, "gone": 1}


def test_a_version_of_the_future_is_not_waited_for(connection):
    with pytest.raises(GoneError):
        connection.ask("list", resources.pods(), fieldSelector="spec.nodeName=node-a", resourceVersion="999999999")


def objects_of(cluster):
    """Its single requests, which its threads make for it otherwise."""
    return cluster._objects


def test_a_rotated_token_file_is_used(own, space, join, token_file):
    """The old token ends with the secret that it is bound to, as one of a deleted pod does; nobody restarts anything."""
    secret = own.api.create("/api/v1/namespaces/aimd-system/secrets", {"metadata": {"name": space}})
    bound = {"apiVersion": "v1", "kind": "Secret", "name": space, "uid": secret["metadata"]["uid"]}
    request = {"spec": {"audiences": ["https://kubernetes.default.svc"], "boundObjectRef": bound}}
    made = own.api.create("/api/v1/namespaces/aimd-system/serviceaccounts/aimd/token", request)
    token_file.write_text(made["status"]["token"])
    cluster = join()
    own.api.delete(f"/api/v1/namespaces/aimd-system/secrets/{space}")
    objects = objects_of(cluster)

    def refused():
        try:
            objects.node()
        except UnauthenticatedError:
            return True
        return False

    until(refused, "the old token is still good", 30)
    token_file.write_text(token_of_node(own))
    assert objects.node()["metadata"]["name"] == "node-a"
    place(own, space, "later", "node-a")
    knows(cluster, space, "later")


def test_certificates_that_do_not_fit_are_read_again(own, token_file, tmp_path):
    """As when the cluster's authority is replaced, which a kubeconfig may hold in itself."""
    path = tmp_path / "kubeconfig"
    stranger = Authority(tmp_path / "stranger")
    kubeconfig(path, own.url, stranger.certificate, token_file)
    cluster = KubeCluster("node-a", path, "aimd/test", QUICK)
    cluster.start(lambda: None)
    try:
        until(lambda: cluster.statistics().watches[0].restarts.get("untrusted", 0) > 1, "a stranger is trusted")
        kubeconfig(path, own.url, own.authority, token_file)
        until(lambda: cluster.synced, lambda: f"not synced: {cluster.statistics().watches}")
    finally:
        cluster.close()


def test_rights_are_enough_and_no_more(own, space, join):
    own.api.create(SERVICES.format(space), service("llama"))
    cluster = join()

    def work(objects):
        objects.create_node_partitions(OWN_RECORD)

    cluster.write("create", work)
    until(cluster.node_partitions, lambda: f"the own record does not come: {cluster.statistics().writes}")
    objects = objects_of(cluster)
    assert objects.node()["metadata"]["name"] == "node-a"
    assert list(objects.resource_slices()) == []
    assert objects.service(space, "none") is None
    objects.patch_service_status(space, "llama", {"status": {"annotations": {"aimd.dev/partition": "x"}}})
    assert objects.service(space, "llama")["status"]["annotations"] == {"aimd.dev/partition": "x"}
    with pytest.raises(DeniedError):
        objects_of(join("node-b")).create_node_partitions({**OWN_RECORD, "metadata": {"name": "node-c"}})
    with pytest.raises(ConflictError) as raised:
        objects.create_node_partitions(OWN_RECORD)
    assert raised.value.code == "already_exists"
    own.api.delete(f"{PARTITIONS}/node-a")
    until(lambda: cluster.node_partitions() is None, "the deleted record is still known")


def service(name):
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "x"}}}},
    }


def test_two_nodes_that_write_one_status_lose_nothing(own, space, join):
    own.api.create(SERVICES.format(space), service("llama"))
    clusters = [join(), join("node-b")]

    def adding(key):
        def work(objects):
            found = objects.service(space, "llama")
            said = (found.get("status") or {}).get("annotations") or {}
            version = found["metadata"]["resourceVersion"]
            count = str(int(said.get("count", "0")) + 1)
            patch = {"metadata": {"resourceVersion": version}, "status": {"annotations": {"count": count, key: "x"}}}
            objects.patch_service_status(space, "llama", patch)

        return work

    for number in range(10):
        for cluster in clusters:
            cluster.write(f"{number}", adding(f"{cluster.node_name}-{number}"))
    path = f"{SERVICES.format(space)}/llama"

    def told():
        return (own.api.get(path).get("status") or {}).get("annotations") or {}

    until(lambda: told().get("count") == "20", lambda: f"{told()}", 30)
    assert len(told()) == 21


def test_a_bad_status_is_told_from_a_bad_day(own, space, join):
    cluster = join()
    objects_of(cluster).create_node_partitions(OWN_RECORD)
    with pytest.raises(InvalidInputError, match="status"):
        objects_of(cluster).patch_node_partitions_status({"status": {"conditions": "none"}})
    own.api.delete(f"{PARTITIONS}/node-a")


def test_events_as_kubectl_shows_them(own, space, join):
    item = place(own, space, "llama", "node-a")
    cluster = join()
    knows(cluster, space, "llama")
    ref = next(pod.ref for pod in cluster.pods() if pod.ref.name == "llama")
    for _ in range(3):
        cluster.tell(ref, "InvalidGpuSharing", "annotation aimd.dev/memory-limit-gb is 'x', expected GB", warning=True)
        time.sleep(0.2)
    node = ObjectRef("v1", "Node", "node-a", own.api.get("/api/v1/nodes/node-a")["metadata"]["uid"])
    cluster.tell(node, "Repartitioned", "gpu0 is CPX/NPS1")
    until(lambda: cluster.statistics().writes.waiting == 0, "not sent")
    shown = " ".join(own.kubectl("describe", "pod", "llama", "-n", space).partition("Events:")[2].split())
    assert "Warning InvalidGpuSharing" in shown
    assert "(x3 over" in shown
    assert "aimd.dev/aimd annotation aimd.dev/memory-limit-gb is 'x', expected GB" in shown
    assert "gpu0 is CPX/NPS1" in own.kubectl("describe", "node", "node-a")
    assert item["metadata"]["uid"] == ref.uid
    assert cluster.statistics().writes.dropped == 0


def test_it_asks_little(own, space, join):
    """Two lists and two watches, whatever else there is in the cluster."""
    cluster = join()
    for number in range(5):
        place(own, space, f"a-{number}", "node-a")
        place(own, space, f"b-{number}", "node-b")
    knows(cluster, space, *(f"a-{number}" for number in range(5)))
    made = cluster.statistics().requests
    assert {key: count for key, count in made.items() if key[0] in ("list", "watch")} == {
        (verb, resource, "200"): 1 for verb in ("list", "watch") for resource in ("pods", "nodepartitions")
    }
    assert cluster.statistics().watches[0].events < 20


@pytest.mark.campaign
def test_bookmarks_keep_a_quiet_watch_alive(own, join):
    """Without them the adapter takes a watch for half-open after two minutes. Takes two and a half."""
    cluster = join(patience=Patience())
    time.sleep(150)
    assert [watch.restarts for watch in cluster.statistics().watches] == [{}, {}]
    assert all(watch.events >= 2 for watch in cluster.statistics().watches)
