"""Pods that get their partition by the scheduler's word: the real daemon, kubelet, containerd and scheduler.

The node's GPUs are simulated, and so are the device files, which are harmless ones.
"""

from __future__ import annotations

import os
import stat
import tempfile
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import crds, pods
from tests.cluster.images import SHELL
from tests.cluster.test_cluster_driver import RULES
from tests.cluster.test_cluster_policies import K8S, ON
from tests.cluster.test_lifecycle import NAMESPACE, NodeDaemon, service, status
from tests.systemd.machine import until

NODE = "node-devices"
RESOURCES = "/apis/resource.k8s.io/v1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
NULL = os.makedev(1, 3)
SECONDS = 60
SHOW = "env | sort; ls /dev/dri; for f in /dev/kfd /dev/dri/*; do : < $f && echo opened $f; done; ls /run/aimd"


@pytest.fixture(scope="module")
def cluster(control_plane):
    """CRDs, the daemons' role, what a driver may beside it, and a class for each mode."""
    for name in ("gpu-sharing-crd.yaml", "nodepartitions.yaml"):
        crds.install(control_plane, K8S / "crd" / name)
    for path in ("daemonset/base/namespace.yaml", "daemonset/base/rbac.yaml"):
        control_plane.kubectl("apply", "--server-side", "-f", K8S / path)
    until(lambda: control_plane.api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/aimd"), "no account")
    api, name = control_plane.api, "aimd-devices"
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    account = {"kind": "ServiceAccount", "name": "aimd", "namespace": NAMESPACE}
    api.create(f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": RULES})
    api.create(f"{RBAC}/clusterrolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [account]})
    for mode in ("CPX", "SPX"):
        chosen = f'device.driver == "gpu.aimd.dev" && device.attributes["gpu.aimd.dev"].computeMode == "{mode}"'
        spec = {"selectors": [{"cel": {"expression": chosen}}]}
        api.create(f"{RESOURCES}/deviceclasses", {"metadata": {"name": f"test-{mode.lower()}"}, "spec": spec})
    yield control_plane
    for path in (f"{RBAC}/clusterrolebindings/{name}", f"{RBAC}/clusterroles/{name}"):
        api.delete(path)
    for mode in ("cpx", "spx"):
        api.delete(f"{RESOURCES}/deviceclasses/test-{mode}")


@pytest.fixture(scope="module")
def kubelet(passing_node):
    return passing_node(NODE, settings={"syncFrequency": "5s"})


@pytest.fixture
def node(cluster, kubelet):
    """The daemon of the node, in CPX; it sees the kubelet's folders as the kubelet does."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        devices = Path(folder) / "dev"
        (devices / "dri").mkdir(parents=True)
        for name in ("kfd", *(f"dri/renderD{minor}" for minor in range(128, 137))):
            os.mknod(devices / name, stat.S_IFCHR | 0o666, NULL)
            (devices / name).chmod(0o666)
        enter = ("nsenter", "-t", str(kubelet.first_pid), "-m", "--", "unshare", "-m")
        within = (*enter, "sh", "-c", 'mount -t proc proc /proc && exec "$@"', "sh")  # of the machine, as with hostPID
        settings = f'devices = true\ndevice_root = "{devices}"\n[layout]\ndefault = "CPX/NPS1"'
        node = NodeDaemon(cluster, NODE, folder, settings=settings, within=within)
        until(lambda: node.daemon.modes() == ["CPX/NPS1"], lambda: node.daemon.log)
        slices = lambda: cluster.api.get(f"{RESOURCES}/resourceslices")["items"]  # noqa: E731
        until(lambda: any(one["spec"]["nodeName"] == NODE for one in slices()), lambda: node.daemon.log)
        yield node
        node.daemon.close()
        for one in slices():
            cluster.api.delete(f"{RESOURCES}/resourceslices/{one['metadata']['name']}")


@pytest.fixture
def start(cluster, namespace):
    """A function that makes a claim and a pod of an InferenceService that has it, and gives what waits for a phase."""

    def make(name, mode, memory, script="sleep 600 & wait"):
        exactly = {"deviceClassName": f"test-{mode}", "capacity": {"requests": {"memory": memory}}}
        claim = {"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "gpu", "exactly": exactly}]}}}
        cluster.api.create(f"{RESOURCES}/namespaces/{namespace}/resourceclaims", claim)
        container = {
            "name": "main",
            "image": SHELL,
            "imagePullPolicy": "Never",
            "args": [f"trap exit TERM; {script}"],
            "resources": {"claims": [{"name": "gpu"}]},
        }
        item = pods.pod(
            name,
            containers=[container],
            resourceClaims=[{"name": "gpu", "resourceClaimName": name}],
            nodeSelector={"kubernetes.io/hostname": NODE},
            terminationGracePeriodSeconds=1,
        )
        labels = {"serving.kserve.io/inferenceservice": name, "component": "predictor"}
        item["metadata"] |= {"annotations": ON, "labels": labels}
        pods.created(cluster.api, namespace, item)
        return partial(pods.phase, cluster.api, namespace, name)

    return make


def ended(cluster, namespace, name):
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    cluster.api.delete(path)
    until(lambda: cluster.api.find(path) is None, "the pod does not go", SECONDS)


def notes(cluster, namespace, name):
    found = cluster.api.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return [each.get("note", "") for each in found if each["regarding"].get("name") == name]


def taints(cluster, name):
    slices = cluster.api.get(f"{RESOURCES}/resourceslices")["items"]
    every = [device for one in slices for device in one["spec"].get("devices") or ()]
    return [taint["key"] for device in every if device["name"] == name for taint in device.get("taints") or ()]


def test_what_a_claim_can_select_by(cluster, node):
    slices = cluster.api.get(f"{RESOURCES}/resourceslices")["items"]
    devices = {device["name"]: device for one in slices for device in one["spec"].get("devices") or ()}
    assert len(devices) == 15
    said = {key: next(iter(value.values())) for key, value in devices["gpu0-cpx-3"]["attributes"].items()}
    known = {"productName": "MI300X", "computeMode": "CPX", "memoryMode": "NPS1", "gpu": "gpu0", "index": 3}
    assert {key: said[key] for key in known} == known
    assert said["resource.kubernetes.io/pciBusID"] == "0000:05:00.0"
    assert said["resource.kubernetes.io/pcieRoot"].startswith("pci0000:")
    assert "driverVersion" in said


def test_two_models_on_one_partition_and_nothing_else_of_the_gpu(cluster, namespace, node, kubelet, start):
    wheres = {name: service(cluster, namespace, name, ON) for name in ("llama", "embed")}
    for name, memory in (("llama", "8Gi"), ("embed", "12Gi")):
        start(name, "cpx", memory, SHOW + "; sleep 600 & wait")("Running")
    for name, memory in (("llama", 8), ("embed", 12)):
        until(
            lambda name=name: "dispatch.sock" in kubelet.logs(namespace, name),
            lambda name=name: kubelet.logs(namespace, name),
        )
        lines = kubelet.logs(namespace, name).splitlines()
        assert "ROCR_VISIBLE_DEVICES=0" in lines
        assert f"AIM_CLAIM={namespace}/{name}" in lines
        (limit,) = (int(line.partition("=")[2]) for line in lines if line.startswith("AIM_MEMORY_LIMIT_BYTES="))
        assert limit == 25767706624 * memory // 24
        assert [line for line in lines if line.startswith("renderD")] == ["renderD128"]
        assert {"opened /dev/kfd", "opened /dev/dri/renderD128"} <= set(lines)

        def told(name=name):
            return (status(cluster, wheres[name]).get("gpuSharing") or {}).get("partitionInfo", {})

        until(lambda told=told: told().get("availableMemoryGB") == 4, lambda told=told: f"{told()} {node.daemon.log}")
        assert (told()["partitionId"], told()["allocatedMemoryGB"]) == ("gpu0/0", memory)
    ended(cluster, namespace, "llama")
    ended(cluster, namespace, "embed")
    until(lambda: node.claims() == {}, lambda: f"{node.claims()}")
    assert list(kubelet.path("/run/cdi").glob("gpu.aimd.dev-*")) == []


def test_an_idle_gpu_is_switched_before_the_pod_is_bound(cluster, namespace, node, start):
    start("llama", "spx", "100Gi")("Running")
    assert node.daemon.modes() == ["SPX/NPS1"]
    ended(cluster, namespace, "llama")
    until(lambda: node.daemon.modes() == ["CPX/NPS1"], "the GPU does not return to its layout", SECONDS)


def test_beside_a_process_that_holds_the_gpu_a_pod_waits_and_runs_when_it_has_left(cluster, namespace, node, start):
    holder = node.daemon.hold("--gpu", "gpu0")
    try:
        tainted = lambda: "gpu.aimd.dev/busy" in taints(cluster, "gpu0-spx-0")  # noqa: E731
        until(tainted, lambda: f"{node.daemon.get('cluster')} {node.daemon.get('gpus')}", SECONDS)
        running = start("llama", "spx", "100Gi")
        until(lambda: notes(cluster, namespace, "llama"), "the scheduler says nothing")
        assert taints(cluster, "gpu0-cpx-3") == []
        assert node.daemon.modes() == ["CPX/NPS1"]
    finally:
        holder.kill()
        holder.wait()
    running("Running")
    assert node.daemon.modes() == ["SPX/NPS1"]
    ended(cluster, namespace, "llama")


def test_a_switch_that_fails_is_told_at_the_pod_which_runs_after_all(cluster, namespace, node, start):
    assert node.daemon.aimd("sim", "fault", "firmware-refusal", "--gpu", "gpu0", "--times", "1").returncode == 0
    running = start("llama", "spx", "100Gi")
    told = lambda: [each for each in notes(cluster, namespace, "llama") if "0000:05:00.0" in each]  # noqa: E731
    until(told, lambda: f"{notes(cluster, namespace, 'llama')} {node.daemon.log}", SECONDS)
    assert "firmware" in told()[0] or "SPX" in told()[0], told()
    running("Running", seconds=180)  # the GPU rests for half a minute, and the scheduler comes again when it likes
    ended(cluster, namespace, "llama")


def test_a_daemon_that_was_killed_knows_its_claims(cluster, namespace, node, kubelet, start):
    start("llama", "cpx", "8Gi")("Running")
    (file,) = kubelet.path("/run/cdi").glob("gpu.aimd.dev-*")
    content = file.read_text()
    node.daemon.stop(9)
    file.unlink()
    node.daemon.start()
    until(lambda: file.exists() and file.read_text() == content, "the container's file is not written again")
    assert [one["pods"][0]["name"] for one in node.claims().values()] == ["llama"]
    ended(cluster, namespace, "llama")
    until(lambda: node.claims() == {}, lambda: f"{node.claims()}")
