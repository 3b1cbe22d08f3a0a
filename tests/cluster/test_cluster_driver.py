"""Our driver before a real kubelet, containerd and scheduler: found, called, asked again, followed, forgotten."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest

from aimd.adapters.dra.cdi import CdiFiles
from aimd.adapters.dra.driver import KubeletDriver
from aimd.adapters.kube.cluster import KubeCluster
from aimd.domain.dra import DRIVER, ClaimRef, ContainerDevice, DeviceHealth, DeviceNode, Mount, PreparedDevice
from aimd.errors import ConflictError, DeniedError, InvalidInputError
from tests.cluster import pods
from tests.cluster.images import SHELL
from tests.systemd.machine import until

NODE = "node-dra"
READY, FAILED = f"{DRIVER}/partition-ready", f"{DRIVER}/partition-failed"
RESOURCES = "/apis/resource.k8s.io/v1"
SLICES = f"{RESOURCES}/resourceslices"
RULES = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
    {"apiGroups": ["aimd.dev"], "resources": ["nodepartitions"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims"], "verbs": ["get"]},
    {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/status"], "verbs": ["patch", "update"]},
    {
        "apiGroups": ["resource.k8s.io"],
        "resources": ["resourceclaims/driver"],
        "resourceNames": [DRIVER],
        "verbs": ["associated-node:update", "associated-node:patch"],
    },
    {
        "apiGroups": ["resource.k8s.io"],
        "resources": ["resourceslices"],
        "verbs": ["get", "list", "watch", "create", "update", "delete"],
    },
]


class Daemon:
    """Gives each claim what its allocation names, with a device file, a variable and a folder."""

    def __init__(self, claims, files):
        self.claims, self.files = claims, files
        self.prepared, self.unprepared, self.seconds = [], [], []
        self.error = None

    def prepare(self, claim, _deadline):
        began = time.monotonic()
        found = self.claims.claim(claim)
        results = found["status"]["allocation"]["devices"]["results"]
        self.prepared.append((str(claim), *(each["device"] for each in results)))
        if self.error is not None:
            raise self.error
        node = DeviceNode("/dev/kfd", "/dev/null")
        devices = [
            ContainerDevice(
                each["request"],
                (node,),
                {"AIM_PARTITION_ID": each["device"]},
                (Mount("/run/cdi", "/run/aimd"),),
            )
            for each in results
        ]
        ids = self.files.write(claim.uid, devices)
        self.seconds.append(time.monotonic() - began)
        return [
            PreparedDevice(
                each["pool"], each["device"], (each["request"],), (ids[each["request"]],), each.get("shareID")
            )
            for each in results
        ]

    def unprepare(self, claim, _deadline):
        self.unprepared.append(str(claim))
        self.files.remove(claim.uid)


def device(name, *, binding=False):
    conditions = {"bindsToNode": True, "bindingConditions": [READY], "bindingFailureConditions": [FAILED]}
    return {
        "name": name,
        "attributes": {"computeMode": {"string": name.partition("-")[0]}},
        "allowMultipleAllocations": True,
        "capacity": {
            "memory": {
                "value": "24Gi",
                "requestPolicy": {"default": "8Gi", "validRange": {"min": "512Mi", "max": "24Gi", "step": "512Mi"}},
            }
        },
        **(conditions if binding else {}),
    }


def wish(*devices):
    """The decision of the pool with these devices in one slice."""

    def decide(there):
        names = [each["name"] for one in there for each in one["spec"]["devices"]]
        if names == [each["name"] for each in devices] and len(there) == 1:
            return None
        generation = 1 + max((each["spec"]["pool"]["generation"] for each in there), default=0)
        pool = {"name": NODE, "generation": generation, "resourceSliceCount": 1}
        spec = {"driver": DRIVER, "nodeName": NODE, "pool": pool, "devices": list(devices)}
        metadata = {"name": f"{NODE}-aimd-000"}
        return [{"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": metadata, "spec": spec}]

    return decide


@pytest.fixture(scope="module")
def node(passing_node):
    return passing_node(NODE, settings={"syncFrequency": "10s"})


@pytest.fixture(scope="module")
def rights(control_plane):
    """The daemon's service account, with what the driver needs and no more."""
    name, api = "aimd-driver", control_plane.api
    with control_plane.namespace(name) as space:
        role = {"metadata": {"name": name}, "rules": RULES}
        api.create("/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": space}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        api.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        selector = [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]
        api.create(
            f"{RESOURCES}/deviceclasses", {"metadata": {"name": "aimd-partition"}, "spec": {"selectors": selector}}
        )
        yield partial(control_plane.token, "default", space)


@pytest.fixture
def cluster(control_plane, node, rights):
    path = control_plane.kubeconfig_of(f"driver-{time.monotonic_ns()}", rights(node=NODE))
    made = KubeCluster(NODE, Path(path), driver=DRIVER)
    made.start(lambda: None)
    until(lambda: made.devices.synced, lambda: f"never synced: {made.statistics()}")
    yield made
    made.devices.pool.publish(lambda there: () if there else None)
    until(lambda: control_plane.api.get(SLICES)["items"] == [], "slices are left")
    made.close()


@pytest.fixture
def files(node):
    return CdiFiles(node.path("/run/cdi"))


@pytest.fixture
def daemon(cluster, files):
    return Daemon(cluster.devices.claims, files)


@pytest.fixture
def driver(node, daemon):
    made = KubeletDriver(daemon, node.path("/var/lib/kubelet"), known_as=Path("/var/lib/kubelet"), resend_seconds=2)
    began = time.monotonic()
    made.start()
    until(lambda: made.registration, "the kubelet does not find the driver", 20)
    made.found_after = time.monotonic() - began
    yield made
    made.close()


def claim(name, memory="8Gi"):
    exactly = {"deviceClassName": "aimd-partition", "capacity": {"requests": {"memory": memory}}}
    return {"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}}


def user(name, claim_name, script):
    container = {
        "name": "main",
        "image": SHELL,
        "imagePullPolicy": "Never",
        "args": [f"trap exit TERM; {script}"],
        "resources": {"claims": [{"name": "gpu"}]},
    }
    return pods.pod(
        name,
        containers=[container],
        resourceClaims=[{"name": "gpu", "resourceClaimName": claim_name}],
        terminationGracePeriodSeconds=1,
    )


@pytest.fixture
def run(control_plane, namespace):
    """A function that makes a claim and a pod that has it."""

    def make(name, script="sleep 600 & wait", **more):
        control_plane.api.create(f"{RESOURCES}/namespaces/{namespace}/resourceclaims", claim(name, **more))
        pods.created(control_plane.api, namespace, user(name, name, script))
        return partial(pods.phase, control_plane.api, namespace, name)

    return make


def claim_of(control_plane, namespace, name):
    return control_plane.api.get(f"{RESOURCES}/namespaces/{namespace}/resourceclaims/{name}")


def ended(control_plane, namespace, name):
    control_plane.api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}")
    gone = f"/api/v1/namespaces/{namespace}/pods/{name}"
    until(lambda: control_plane.api.find(gone) is None, "the pod does not go", 60)


def test_the_kubelet_finds_the_driver_at_once(driver):
    assert driver.registration.registered, driver.registration
    assert driver.found_after < 2


def test_a_pod_gets_its_device_and_gives_it_back(control_plane, namespace, node, cluster, driver, daemon, run):
    cluster.devices.pool.publish(wish(device("cpx-0")))
    run(
        "llama",
        "env | grep AIM_; ls -l /dev/kfd; cat /run/aimd/* | grep kind; touch /run/aimd/x 2>/dev/null || echo read-only",
    )("Succeeded")
    found = claim_of(control_plane, namespace, "llama")
    assert (f"{namespace}/llama", "cpx-0") in daemon.prepared
    lines = node.logs(namespace, "llama").splitlines()
    assert lines[0] == "AIM_PARTITION_ID=cpx-0"
    assert lines[1].startswith("crw-rw-rw-"), lines
    assert f'"kind": "{DRIVER}/claim"' in lines[2]
    assert lines[-1] == "read-only"
    until(lambda: f"{namespace}/llama" in daemon.unprepared, "not unprepared", 30)
    assert [path.name for path in node.path("/run/cdi").glob(f"{DRIVER}-claim_*")] == []
    assert cluster.devices.claims.claim(ClaimRef(namespace, "llama", found["metadata"]["uid"])) is not None
    print(f"found after {driver.found_after:.2f} s, Prepare with its GET {daemon.seconds[0] * 1000:.1f} ms")


def test_an_error_is_told_to_the_pod_as_it_is(control_plane, namespace, cluster, driver, daemon, run):
    cluster.devices.pool.publish(wish(device("cpx-0")))
    daemon.error = ConflictError("gpu0 is held by pid 5 (python), expected nobody", hint="end it")
    run("llama")
    events = f"/api/v1/namespaces/{namespace}/events"
    until(
        lambda: [
            event["message"]
            for event in control_plane.api.get(events)["items"]
            if "gpu0 is held by pid 5 (python), expected nobody: end it" in event["message"]
        ],
        "no event tells it",
        60,
    )
    daemon.error = None
    ended(control_plane, namespace, "llama")


def test_a_pod_waits_until_its_device_is_ready(control_plane, namespace, cluster, driver, daemon, run):
    cluster.devices.pool.publish(wish(device("spx-0", binding=True)))
    phase = run("llama")
    (waiting,) = until(cluster.devices.waiting, "nobody waits")
    assert (waiting.ref.name, waiting.resource_claims) == ("llama", ("llama",))
    assert [pod for pod in cluster.pods() if pod.ref.namespace == namespace] == []
    found = until(  # the pod is nominated before its claim is allocated, and nothing tells when that is
        lambda: (
            (one := cluster.devices.claims.claim_named(namespace, "llama")).get("status", {}).get("allocation") and one
        ),
        "not allocated",
    )
    ref = ClaimRef(namespace, "llama", found["metadata"]["uid"])
    (result,) = found["status"]["allocation"]["devices"]["results"]
    assert result["bindingConditions"] == [READY]
    identity = {key: result[key] for key in ("driver", "pool", "device", "shareID")}
    condition = {
        "type": READY,
        "status": "True",
        "reason": "Ready",
        "message": "gpu0 is in SPX",
        "lastTransitionTime": "2026-11-25T08:00:00Z",
    }
    version = found["metadata"]["resourceVersion"]
    with pytest.raises(InvalidInputError):
        cluster.devices.claims.apply_devices(ref, [{**identity, "device": "spx-1", "conditions": [condition]}])
    with pytest.raises(ConflictError):
        cluster.devices.claims.apply_devices(ref, [{**identity, "conditions": [condition]}], "1")
    with pytest.raises(ConflictError):
        cluster.devices.claims.apply_devices(ClaimRef(namespace, "llama", "0c5a3c1e-3f0b-4a57-9d1c-4c1d2f4b8a11"), [])
    assert f"{namespace}/llama" not in dict(daemon.prepared)
    told = cluster.devices.claims.apply_devices(ref, [{**identity, "conditions": [condition]}], version)
    phase("Running")
    again = cluster.devices.claims.apply_devices(ref, [{**identity, "conditions": [condition]}])
    assert [each["conditions"][0]["message"] for each in told["status"]["devices"]] == ["gpu0 is in SPX"]
    assert again["status"]["devices"] == told["status"]["devices"]
    until(lambda: cluster.devices.waiting() == (), "it still waits")
    assert (f"{namespace}/llama", "spx-0") in daemon.prepared
    ended(control_plane, namespace, "llama")
    until(lambda: f"{namespace}/llama" in daemon.unprepared, "not unprepared", 30)


def test_two_claims_share_a_device(control_plane, namespace, cluster, driver, daemon, run):
    cluster.devices.pool.publish(wish(device("cpx-0")))
    for each in [run("one", memory="8Gi"), run("two", memory="16Gi")]:
        each("Running")
    shares = [
        claim_of(control_plane, namespace, name)["status"]["allocation"]["devices"]["results"][0]
        for name in ("one", "two")
    ]
    assert [each["consumedCapacity"]["memory"] for each in shares] == ["8Gi", "16Gi"]
    assert len({each["shareID"] for each in shares}) == 2
    for name in ("one", "two"):
        ended(control_plane, namespace, name)
    until(lambda: {f"{namespace}/one", f"{namespace}/two"} <= set(daemon.unprepared), "not unprepared", 30)


def test_the_health_of_a_device_is_seen_at_its_pod(control_plane, namespace, cluster, driver, run):
    cluster.devices.pool.publish(wish(device("cpx-0")))
    driver.publish_health([DeviceHealth(NODE, "cpx-0", True)], time.time())
    phase = run("llama")
    phase("Running")

    def seen():
        (container,) = phase("Running")["status"]["containerStatuses"]
        return json.dumps(container.get("allocatedResourcesStatus") or "")

    driver.publish_health([DeviceHealth(NODE, "cpx-0", False, "ECC errors")], time.time())
    until(lambda: "Unhealthy" in seen(), seen, 30)
    ended(control_plane, namespace, "llama")


def test_a_kubelet_that_restarts_finds_the_driver_again_and_the_slices_are_back(
    control_plane, namespace, node, cluster, driver, daemon, run
):
    cluster.devices.pool.publish(wish(device("cpx-0")))
    run("llama")("Running")
    before = driver.registration.at
    node.stop("kubelet")
    node.start("kubelet")
    until(lambda: driver.registration.at > before, "not found again", 60)
    until(lambda: cluster.devices.pool.statistics().vanished >= 1, "its slices were not deleted", 60)
    until(lambda: control_plane.api.get(SLICES)["items"], "no slices", 10)
    until(node.is_ready, "the node is not ready", 60)
    ended(control_plane, namespace, "llama")
    until(lambda: f"{namespace}/llama" in daemon.unprepared, "not unprepared", 60)
    run("again")("Running")
    ended(control_plane, namespace, "again")


def test_a_driver_that_restarts_within_a_second(control_plane, namespace, node, cluster, driver, daemon, run):
    """The pod goes on, its end is told to the new one, and the slices stay."""
    cluster.devices.pool.publish(wish(device("cpx-0")))
    run("llama")("Running")
    driver.close()
    fresh = KubeletDriver(daemon, node.path("/var/lib/kubelet"), known_as=Path("/var/lib/kubelet"))
    fresh.start()
    try:
        until(lambda: fresh.registration, "not found again", 20)
        assert fresh.registration.registered, fresh.registration
        ended(control_plane, namespace, "llama")
        until(lambda: f"{namespace}/llama" in daemon.unprepared, "not unprepared", 60)
        assert cluster.devices.pool.statistics().vanished == 0
    finally:
        fresh.close()


def test_a_daemon_says_nothing_of_devices_of_other_nodes(control_plane, namespace, rights, cluster, driver, run):
    """By the right that Kubernetes 1.36 asks for, which a token has for its node alone."""
    cluster.devices.pool.publish(wish(device("cpx-0")))
    run("llama")("Running")
    if control_plane.api.find("/api/v1/nodes/node-other") is None:
        control_plane.api.create("/api/v1/nodes", {"metadata": {"name": "node-other"}})
    path = control_plane.kubeconfig_of("other", rights(node="node-other"))
    other = KubeCluster("node-other", Path(path), driver=DRIVER)
    found = claim_of(control_plane, namespace, "llama")
    ref = ClaimRef(namespace, "llama", found["metadata"]["uid"])
    (result,) = found["status"]["allocation"]["devices"]["results"]
    entry = {key: result[key] for key in ("driver", "pool", "device", "shareID")}
    with pytest.raises(DeniedError, match="arbitrary-node:patch"):
        other.devices.claims.apply_devices(ref, [entry])
    other.close()
    cluster.devices.claims.apply_devices(ref, [entry])
    ended(control_plane, namespace, "llama")
