"""The DaemonSet and its image on a real node: started by the kubelet, asked from other pods, replaced under load."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.cluster import aimd_image, pods
from tests.cluster.daemon_set import (
    LABELS,
    NAMESPACE,
    PODS,
    DaemonSet,
    pod_processes,
    user_pod_spec,
)
from tests.cluster.test_cluster_policies import ON
from tests.cluster.test_lifecycle import PARTITIONS, condition, service, status
from tests.systemd.machine import Simulation, until

PYTHON = "/opt/aimd/bin/python"
LOAD = Path(__file__).parents[1] / "systemd" / "load.py"
HOLDING = Path(__file__).parents[1] / "systemd" / "holding.py"
CLIENTS = 8
UPDATES = 2
LONGEST_WAIT_SECONDS = 45  # of the 60 that the clients would wait; what it takes is printed
GPU_NODE = "node-gpu"


@pytest.fixture(scope="module")
def image(node_tools):
    began = time.monotonic()
    made = aimd_image.archive()
    print(f"the image takes {time.monotonic() - began:.1f} s")
    return made


@pytest.fixture(scope="module")
def gpu_node(passing_node, image):
    began = time.monotonic()
    node = passing_node(GPU_NODE, labels=LABELS, also=(image,))
    print(f"the node takes {time.monotonic() - began:.1f} s")
    return node


@pytest.fixture(scope="module")
def simulation(gpu_node, requires_fuse):
    """In the node, whose pids it is to know."""
    simulation = Simulation(gpu_node.shared / "gpus", "mi300x:2", within=gpu_node.command())
    yield simulation
    simulation.close()


@pytest.fixture(scope="module")
def daemon_set(control_plane, gpu_node, simulation, tmp_path_factory):
    began = time.monotonic()
    daemon_set = DaemonSet(control_plane, gpu_node, tmp_path_factory.mktemp("overlay"), simulation)
    print(f"the DaemonSet takes {time.monotonic() - began:.1f} s")
    yield daemon_set
    daemon_set.close()


@pytest.fixture
def make_predictor(control_plane, namespace, daemon_set, simulation):
    """A function that makes an InferenceService and, as KServe would, the Deployment of its predictor: gives the
    service's path and its only pod, which runs.
    """
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    made = []

    def make(name, *words, annotations=ON, **more):
        where = service(control_plane, namespace, name, annotations)
        labels = {"app": f"isvc.{name}-predictor", "component": "predictor"} | {
            "serving.kserve.io/inferenceservice": name
        }
        template = {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": user_pod_spec(simulation, *words, **more),
        }
        spec = {"replicas": 1, "selector": {"matchLabels": {"app": labels["app"]}}, "template": template}
        control_plane.api.create(
            deployments, {"metadata": {"name": f"{name}-predictor", "labels": labels}, "spec": spec}
        )
        made.append(name)
        running = lambda: (  # noqa: E731
            control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"app={labels['app']}")["items"]
        )
        (pod,) = until(running, "the Deployment makes no pod")
        return where, pods.phase(control_plane.api, namespace, pod["metadata"]["name"], "Running")

    yield make
    for name in made:
        control_plane.api.delete(f"{deployments}/{name}-predictor")
    gone = lambda: not control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]  # noqa: E731
    until(gone, "a predictor's pod stays", pods.SECONDS_TO_RUN)


def inside(pod, *words):
    """The arguments of kubectl that run a command in a pod."""
    metadata = pod["metadata"]
    return ["-n", metadata["namespace"], "exec", "-i", metadata["name"], "--", *words]


def script(pod, path, *arguments):
    """Those that run a Python script of the tests there."""
    return inside(pod, PYTHON, "-I", "-c", path.read_text(), *map(str, arguments))


def claims(daemon_set):
    return {claim["name"]: claim for claim in json.loads(daemon_set.aimctl("get", "claims", "-o", "json"))["claims"]}


def test_the_kubelet_starts_it_and_has_nothing_to_complain_of(control_plane, daemon_set):
    pod = daemon_set.pod()
    (container,) = pod["status"]["containerStatuses"]
    assert (container["ready"], container["started"], container["restartCount"]) == (True, True, 0)
    assert pod["spec"]["nodeName"] == GPU_NODE
    assert daemon_set.complaints() == []
    record = until(lambda: (control_plane.api.find(f"{PARTITIONS}/{GPU_NODE}") or {}).get("status"), daemon_set.story)
    assert [gpu["model"] for gpu in record["gpus"]] == ["MI300X", "MI300X"]
    looked_over = control_plane.attempt(*inside(pod, "aimctl", "doctor")).stdout  # the simulation has no device nodes
    assert "ok    ready: ok" in looked_over
    assert "HIP library" not in looked_over  # which the image has not, on purpose


def test_it_has_no_capability_left_in_any_thread(daemon_set):
    (process,) = daemon_set.processes().values()
    threads = sorted(process.glob("task/*/status"))
    assert len(threads) > 2
    for thread in threads:
        fields = dict(line.split(":\t", 1) for line in thread.read_text().splitlines() if ":\t" in line)
        told = {name: fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs")}
        assert {name: int(value, 16) for name, value in told.items()} == dict.fromkeys(told, 0) | {"NoNewPrivs": 1}
        assert fields["Uid"].split() == ["0"] * 4


def test_root_in_another_pod_is_no_operator(control_plane, namespace, daemon_set, simulation):
    spec = user_pod_spec(simulation, "aimctl", "drain", "gpu0", security={"privileged": True, "runAsUser": 0})
    for name, more in (("root", {}), ("of-the-node", {"hostPID": True, "hostNetwork": True})):
        item = {"metadata": {"name": name}, "spec": {**spec, **more, "restartPolicy": "Never"}}
        pods.created(control_plane.api, namespace, item)
        assert pods.exit_code(control_plane.api, namespace, name) == 4
        assert "runs in a pod, and pods change nothing on the node" in daemon_set.node.logs(namespace, name)
    assert "gpu0: draining" in daemon_set.aimctl("drain", "gpu0")  # who is in the daemon's own pod may
    daemon_set.aimctl("undrain", "gpu0")


SERVING = """
import json, os, time
from aimd.dispatch.client import Client
from aimd.dispatch.client.own import own_model
model = own_model()
with Client() as client, client.lease(model, timeout=60) as lease:
    told = {name: value for name, value in os.environ.items() if name.startswith(("AIM_", "HIP_", "ROCR_"))}
    print(json.dumps({"model": model, **told}), flush=True)
time.sleep(602)
"""


def test_a_predictor_is_placed_asks_from_inside_and_its_service_says_so(
    control_plane, namespace, daemon_set, make_predictor
):
    """Nobody tells it the name of its claim, its node or its partition."""
    said = ON | {"aimd.dev/compute-mode": "CPX", "aimd.dev/partition-id": "gpu1/2"}
    where, pod = make_predictor("llama", "aimctl", "exec", "--", PYTHON, "-I", "-c", SERVING, annotations=said)
    until(lambda: condition(control_plane, where).get("status") == "True", lambda: f"{status(control_plane, where)}")
    sharing, uid = status(control_plane, where)["gpuSharing"], pod["metadata"]["uid"]
    assert sharing["node"] == GPU_NODE
    assert sharing["partitionInfo"] == {
        "partitionId": "gpu1/2",
        "computeMode": "CPX",
        "memoryMode": "NPS1",
        "partitionSizeGB": 24,
        "allocatedMemoryGB": 8,
        "availableMemoryGB": 16,
        "podUID": uid,
    }
    assert daemon_set.modes() == ["SPX", "CPX"]
    logs = lambda: daemon_set.node.logs(namespace, pod["metadata"]["name"])  # noqa: E731
    line = until(lambda: [line for line in logs().splitlines() if line.startswith("{")], logs)[0]
    (process,) = pod_processes(uid, "time.sleep(602)")
    told = json.loads(line)
    pid, _, _ = told.pop("AIM_HOLDER").partition(":")
    assert int(pid) == pid_on_node(process)
    assert int(told.pop("AIM_MEMORY_LIMIT_BYTES")) == pytest.approx(8 * 1024**3, rel=1e-3)
    assert told == {
        "model": f"{namespace}/llama",
        "AIM_CLAIM": f"{namespace}/llama",
        "AIM_PARTITION_ID": "0000:27:00.0/2",
        "HIP_VISIBLE_DEVICES": "0",
        "ROCR_VISIBLE_DEVICES": "3",
    }
    claim = claims(daemon_set)[f"{namespace}/llama"]
    assert [each["uid"] for each in claim["pods"]] == [uid]
    assert [each["pid"] for each in claim["holders"]] == [pid_on_node(process)]


def pid_on_node(process):
    """Of the process in this folder of the machine's /proc: numbers of the machine, the node and the pod follow each other."""
    numbers = next(line for line in (process / "status").read_text().splitlines() if line.startswith("NSpid:"))
    return int(numbers.split()[2])


def test_who_holds_a_gpu_in_another_pod_is_told_by_pid_and_command(namespace, daemon_set, make_predictor):
    """By uid 0 without CAP_SYS_PTRACE."""
    _, pod = make_predictor("holder", "aimd", "sim", "hold", "--gpu", "gpu0", "--", "sleep", "601", security={})
    (process,) = until(lambda: pod_processes(pod["metadata"]["uid"], "sleep\x00601\x00"), "the pod holds nothing")
    pid = pid_on_node(process)
    told = lambda: json.loads(daemon_set.aimctl("get", "gpus", "-o", "json"))["gpus"][0]["holders"]  # noqa: E731
    until(lambda: told() == [{"pid": pid, "command": "sleep 601", "ended_at": None}], lambda: f"{pid}: {told()}")


def test_a_second_daemon_does_not_run_on_the_node(control_plane, daemon_set):
    """As with maxSurge, or where somebody has the package installed, too."""
    first = daemon_set.pod()
    spec = {key: value for key, value in first["spec"].items() if key not in ("nodeName", "affinity")}
    item = {"metadata": {"name": "second"}, "spec": {**spec, "nodeName": GPU_NODE, "restartPolicy": "Never"}}
    pods.created(control_plane.api, NAMESPACE, item)
    try:
        assert pods.exit_code(control_plane.api, NAMESPACE, "second") == 5
        assert "another aimd uses the directory /var/lib/aimd" in daemon_set.node.logs(NAMESPACE, "second")
    finally:
        control_plane.api.delete(f"{PODS}/second", at_once=True)
    (before,), (after,) = first["status"]["containerStatuses"], daemon_set.pod()["status"]["containerStatuses"]
    assert (after["containerID"], after["ready"]) == (before["containerID"], True)
    daemon_set.aimctl("get", "gpus")


def test_updates_of_the_daemon_set_fail_nobody(control_plane, namespace, daemon_set, make_predictor):
    _, pod = make_predictor("loaded", "sleep", "600")
    model = f"{namespace}/loaded"
    until(lambda: claims(daemon_set).get(model, {}).get("assignments"), "the model is not placed")
    before = claims(daemon_set)[model]["assignments"]
    with (
        control_plane.started(*script(pod, LOAD, model, CLIENTS)) as load,
        control_plane.started(*script(pod, HOLDING, model)) as holder,
    ):
        assert (load.stdout.readline(), holder.stdout.readline()) == ("begun\n", "held\n")
        for number in range(UPDATES):
            replaced = daemon_set.pod()["metadata"]["uid"]
            daemon_set.change({"aimd.test/update": str(number)})
            assert daemon_set.pod()["metadata"]["uid"] != replaced
        out, _ = holder.communicate(timeout=60)
        assert out == "released\n"
        out, _ = load.communicate(timeout=120)
    found = json.loads(out)
    assert found["failed"] == []
    assert found["leases"] > CLIENTS
    assert found["worst"] < LONGEST_WAIT_SECONDS
    print(f"leases {found['leases']}, worst wait {found['worst']:.3f} s over {UPDATES} updates")
    assert claims(daemon_set)[model]["assignments"] == before
    assert daemon_set.complaints() == []
