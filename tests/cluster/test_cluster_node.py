"""The test cluster's node is a real one: what is scheduled onto it runs, in namespaces that end with the node."""

import os
import time
from pathlib import Path

import pytest

from tests.cluster import bases, pods
from tests.cluster.images import SHELL
from tests.systemd.machine import Simulation, until


def test_a_pod_is_scheduled_and_runs_and_its_exit_code_is_seen(control_plane, namespace, real_node):
    pods.created(control_plane.api, namespace, pods.pod("ends", "echo hello; exit 7"))
    assert pods.exit_code(control_plane.api, namespace, "ends") == 7
    found = control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods/ends")
    assert found["spec"]["nodeName"] == real_node.name
    assert real_node.logs(namespace, "ends") == "hello\n"


def test_kubectl_reads_logs_and_runs_commands_through_the_kubelet(control_plane, namespace, real_node):
    pods.created(control_plane.api, namespace, pods.pod("talks", "echo hello; sleep 600"))
    pods.phase(control_plane.api, namespace, "talks", "Running")
    assert control_plane.kubectl("-n", namespace, "logs", "talks") == "hello\n"
    assert control_plane.kubectl("-n", namespace, "exec", "talks", "--", "echo", "inside") == "inside\n"


def test_the_nodes_processes_and_folders_are_its_own(control_plane, namespace, real_node):
    """What a hostPath of /run shows is the node's, and hostPID counts the node's processes."""
    mount = {"name": "run", "mountPath": "/node-run"}
    container = {
        "name": "main",
        "image": SHELL,
        "imagePullPolicy": "Never",
        "args": ["echo hello > /node-run/greeting; cat /proc/1/comm"],
        "volumeMounts": [mount],
    }
    volumes = [{"name": "run", "hostPath": {"path": "/run/greetings", "type": "DirectoryOrCreate"}}]
    pods.created(control_plane.api, namespace, pods.pod("looks", containers=[container], volumes=volumes, hostPID=True))
    assert pods.exit_code(control_plane.api, namespace, "looks") == 0
    assert real_node.path("/run/greetings/greeting").read_text() == "hello\n"
    assert not Path("/run/greetings").exists()
    assert real_node.logs(namespace, "looks") == "sh\n"


def test_a_privileged_daemon_set_rolls_out_and_updates(control_plane, namespace, real_node):
    container = {
        **pods.pod("daemon", "test -w /sys/class; echo $VERSION > /node-run/version; sleep 600")["spec"]["containers"][
            0
        ],
        "securityContext": {"privileged": True},
        "env": [{"name": "VERSION", "value": "one"}],
        "volumeMounts": [{"name": "run", "mountPath": "/node-run"}],
    }
    volumes = [{"name": "run", "hostPath": {"path": "/run/rolls", "type": "DirectoryOrCreate"}}]
    spec = {"containers": [container], "volumes": volumes, "hostPID": True, "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": {"app": "daemon"}}, "spec": spec}
    written = real_node.path("/run/rolls/version")
    daemons = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
    item = {
        "metadata": {"name": "daemon"},
        "spec": {"selector": {"matchLabels": {"app": "daemon"}}, "template": template},
    }
    control_plane.api.create(daemons, item)
    control_plane.kubectl("-n", namespace, "rollout", "status", "daemonset/daemon", "--timeout=60s")
    until(lambda: written.exists() and written.read_text() == "one\n", "version one does not run")
    container["env"] = [{"name": "VERSION", "value": "two"}]
    control_plane.api.merge(f"{daemons}/daemon", {"spec": {"template": template}})
    control_plane.kubectl("-n", namespace, "rollout", "status", "daemonset/daemon", "--timeout=60s")
    until(lambda: written.exists() and written.read_text() == "two\n", "version two does not run")


def test_a_pod_is_in_the_nodes_control_group(control_plane, namespace, real_node):
    created = pods.created(control_plane.api, namespace, pods.pod("grouped", "cat /proc/self/cgroup; sleep 600"))
    pods.phase(control_plane.api, namespace, "grouped", "Running")
    uid = created["metadata"]["uid"]
    line = until(
        lambda: [line for line in _cgroups_of_pods() if f"pod{uid}" in line], "no process is in the pod's group"
    )
    assert all(f"-{real_node.name}/kubepods/besteffort/pod{uid}/" in each for each in line)


def _cgroups_of_pods():
    """Of all processes of this machine, in the hierarchy of the CPU controller or the unified one."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            lines += [line for line in path.read_text().splitlines() if ":cpu:" in line or line.startswith("0::/aimd-")]
        except OSError:
            continue
    return lines


def test_an_image_that_buildah_made_runs(control_plane, namespace, real_node, node_images, image_builder, tmp_path):
    (tmp_path / "Dockerfile").write_text(
        f'FROM {SHELL}\nARG WORD\nRUN echo "$WORD" > /word\nENTRYPOINT ["cat", "/word"]\n'
    )
    image_builder.load(node_images[1])
    real_node.load(image_builder.build(tmp_path, "aimd.test/built:1", tmp_path / "built.tar", WORD="built"))
    container = {"name": "main", "image": "aimd.test/built:1", "imagePullPolicy": "Never"}
    pods.created(control_plane.api, namespace, pods.pod("built", containers=[container]))
    assert pods.exit_code(control_plane.api, namespace, "built") == 0
    assert real_node.logs(namespace, "built") == "built\n"


ASKING = """
import json, os, pathlib, ssl, urllib.request
account = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
address = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}"
review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
request = urllib.request.Request(
    address + "/apis/authentication.k8s.io/v1/selfsubjectreviews",
    json.dumps(review).encode(),
    {"Authorization": "Bearer " + (account / "token").read_text(), "Content-Type": "application/json"},
)
context = ssl.create_default_context(cafile=account / "ca.crt")
print(json.load(urllib.request.urlopen(request, context=context))["status"]["userInfo"]["extra"])
"""


def test_a_dockerfile_upon_debian_runs_and_asks_the_api_server(
    control_plane, namespace, real_node, image_builder, tmp_path
):
    """The way of aimd's own image: a virtual environment upon Debian's Python, in the machine's network."""
    (tmp_path / "ask.py").write_text(ASKING)
    (tmp_path / "Dockerfile").write_text(
        "FROM aimd.test/debian:12\n"
        "RUN python3 -m venv --without-pip /opt/it\n"
        "COPY ask.py /ask.py\n"
        'ENTRYPOINT ["/opt/it/bin/python", "/ask.py"]\n'
    )
    image_builder.load(bases.debian("aimd.test/debian:12"))
    real_node.load(image_builder.build(tmp_path, "aimd.test/python:1", tmp_path / "python.tar"))
    container = {
        "name": "main",
        "image": "aimd.test/python:1",
        "imagePullPolicy": "Never",
        "env": control_plane.environment(),
    }
    asks = pods.pod("python", containers=[container], automountServiceAccountToken=True, hostNetwork=True)
    pods.created(control_plane.api, namespace, asks)
    assert pods.exit_code(control_plane.api, namespace, "python") == 0, real_node.logs(namespace, "python")
    assert f"'authentication.kubernetes.io/node-name': ['{real_node.name}']" in real_node.logs(namespace, "python")


def test_what_is_mounted_on_the_machine_later_is_seen_in_a_pod(control_plane, namespace, real_node, requires_fuse):
    """The simulated GPUs' sysfs, by hostPath."""
    simulation = Simulation(real_node.shared / "sees", "mi300x:1")
    try:
        container = {
            "name": "main",
            "image": SHELL,
            "imagePullPolicy": "Never",
            "args": ["cat /sim/bus/pci/devices/*/current_compute_partition"],
            "volumeMounts": [{"name": "sim", "mountPath": "/sim"}],
        }
        volumes = [{"name": "sim", "hostPath": {"path": str(simulation.folder), "type": "Directory"}}]
        pods.created(control_plane.api, namespace, pods.pod("sees", containers=[container], volumes=volumes))
        assert pods.exit_code(control_plane.api, namespace, "sees") == 0, real_node.logs(namespace, "sees")
        assert real_node.logs(namespace, "sees") == "SPX\n"
    finally:
        control_plane.api.delete(f"/api/v1/namespaces/{namespace}/pods/sees", at_once=True)
        simulation.close()


def test_a_containerd_and_a_kubelet_that_are_started_again_keep_their_pods(control_plane, namespace, real_node):
    pods.created(control_plane.api, namespace, pods.pod("stays", "sleep 600"))
    before = pods.phase(control_plane.api, namespace, "stays", "Running")["status"]["containerStatuses"][0]
    for program in ("containerd", "kubelet"):
        real_node.stop(program)
        real_node.start(program)
    pods.created(control_plane.api, namespace, pods.pod("after", "exit 3"))
    assert pods.exit_code(control_plane.api, namespace, "after") == 3
    after = control_plane.api.get(f"/api/v1/namespaces/{namespace}/pods/stays")["status"]["containerStatuses"][0]
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_two_nodes_live_side_by_side_and_nothing_is_left_of_one_that_is_closed(
    control_plane, namespace, make_node, real_node
):
    began = time.monotonic()
    second = make_node("node-b", labels={"aimd.test/second": "yes"})
    print(f"a node takes {time.monotonic() - began:.1f} s, bytes: {second.memory()}")
    selector = {"nodeSelector": {"aimd.test/second": "yes"}}
    pods.created(control_plane.api, namespace, pods.pod("there", "sleep 600", **selector))
    pods.phase(control_plane.api, namespace, "there", "Running")
    pods.created(control_plane.api, namespace, pods.pod("here", "exit 0", nodeName=real_node.name))
    assert pods.exit_code(control_plane.api, namespace, "here") == 0
    inside = Path(f"/proc/{second.first_pid}/ns/pid").readlink()
    second.close()
    assert inside not in [_namespace(path) for path in Path("/proc").glob("[0-9]*/ns/pid")]
    assert not list(Path("/sys/fs/cgroup").glob(f"*/aimd-test-{os.getpid()}-node-b"))
    control_plane.api.delete("/api/v1/nodes/node-b")
    with pytest.raises(AssertionError):
        second.run("true")


def _namespace(path):
    try:
        return path.readlink()
    except OSError:
        return None
