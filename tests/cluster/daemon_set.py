"""The DaemonSet of k8s/ on a real node whose /sys shows simulated GPUs: what an overlay of the tests' own has to change.

That is: where the API server is (there is no proxy of services), where the simulation is, the image's name and the port
of the metrics, since the pods are in the machine's network.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.cluster import aimd_image
from tests.cluster.control_plane import ControlPlane
from tests.cluster.node import Node
from tests.cluster.processes import free_ports
from tests.systemd.machine import SHOWN, Simulation, until

K8S = Path(__file__).parents[2] / "k8s"
NAMESPACE = "aimd-system"
LABELS = {"aimd.dev/gpu": "true"}  # of nodes that the DaemonSet is for
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
DAEMON_SET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/aimd"
SECONDS_TO_ROLL = 120
SIMULATION = "/sim"  # in pods that are given its control socket


class DaemonSet:
    """Applied and rolled out when made, until `close`; CRDs, policies and roles stay in the cluster."""

    def __init__(self, control_plane: ControlPlane, node: Node, folder: Path, simulation: Simulation) -> None:
        self.control_plane, self.node, self._simulation = control_plane, node, simulation
        self._write_overlay(folder)
        control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-k", folder)
        self.rolled_out()

    def rolled_out(self) -> None:
        arguments = ("rollout", "status", "daemonset/aimd", f"--timeout={SECONDS_TO_ROLL}s")
        rolled = self.control_plane.attempt("-n", NAMESPACE, *arguments)
        assert rolled.returncode == 0, f"{rolled.stdout}{rolled.stderr}{self.story()}"

    def change(self, annotations: dict[str, str]) -> None:
        """Of the pods: they are replaced. Returns once the new one is ready."""
        template = {"template": {"metadata": {"annotations": annotations}}}
        self.control_plane.api.merge(DAEMON_SET, {"spec": template})
        self.rolled_out()

    def pod(self) -> dict[str, Any]:
        """The one that is not about to end."""
        found = self.control_plane.api.get(PODS, labelSelector="app.kubernetes.io/name=aimd")["items"]
        (pod,) = [each for each in found if "deletionTimestamp" not in each["metadata"]]
        return pod

    def aimctl(self, *words: str) -> str:
        """Standard output of aimctl in the daemon's container."""
        name = self.pod()["metadata"]["name"]
        return self.control_plane.kubectl("-n", NAMESPACE, "exec", name, "--", "aimctl", *words)

    def processes(self) -> dict[int, Path]:
        """Folders of /proc of the daemon's processes, by their pids on this machine."""
        return {int(path.name): path for path in pod_processes(self.pod()["metadata"]["uid"], "aimd\0run\0")}

    def modes(self) -> list[str]:
        """Compute modes of the simulated GPUs, as their files have them."""
        files = self._simulation.folder / "bus/pci/devices"
        return self.node.run("sh", "-c", f"cat {files}/*/current_compute_partition").split()

    def complaints(self) -> list[str]:
        """Warnings of the kubelet and of controllers about its pods.

        None of them: that a busy machine starts them slowly, and that a pod ended while it was asked.
        """
        events = self.control_plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/events")["items"]
        told = [f"{event['reason']}: {event['message']}" for event in events if event["type"] != "Normal"]
        usual = ("Startup probe failed", "context canceled")
        return [each for each in told if not any(words in each for words in usual)]

    def story(self) -> str:
        """What one has to know where it does not start."""
        pods = self.control_plane.api.get(PODS)["items"]
        logs = [self.node.logs(NAMESPACE, pod["metadata"]["name"]) for pod in pods]
        return f"\n{[pod['status'] for pod in pods]}\n{self.complaints()}\n{logs}"

    def close(self) -> None:
        self.control_plane.api.delete(DAEMON_SET)
        until(lambda: not self.control_plane.api.get(PODS)["items"], "the daemon's pod stays")

    def _write_overlay(self, folder: Path) -> None:
        config = (K8S / "daemonset/base/aimd.toml").read_text()
        (folder / "aimd.toml").write_text(config.replace(":9855", f":{free_ports(1)[0]}"))
        name, _, tag = aimd_image.REFERENCE.partition(":")
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [os.path.relpath(K8S / "daemonset/overlays/standalone", folder.resolve())],
            "images": [{"name": "aimd", "newName": name, "newTag": tag}],
            "configMapGenerator": [
                {"name": "aimd-config", "namespace": NAMESPACE, "behavior": "replace", "files": ["aimd.toml"]}
            ],
            "patches": [{"target": {"kind": "DaemonSet", "name": "aimd"}, "patch": json.dumps(self._patch())}],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(overlay))

    def _patch(self) -> list[dict[str, Any]]:
        pod = "/spec/template/spec"
        added: list[tuple[str, Any]] = [(f"{pod}/hostNetwork", True)]
        added += [(f"{pod}/containers/0/env/-", each) for each in self.control_plane.environment()]
        for name in SHOWN:
            source = {"path": str(self._simulation.folder / name), "type": "Directory"}
            added += [(f"{pod}/volumes/-", {"name": f"sys-{name}", "hostPath": source})]
            mount = {"name": f"sys-{name}", "mountPath": f"/sys/{name}"}
            added += [(f"{pod}/containers/0/volumeMounts/-", mount)]
        return [{"op": "add", "path": path, "value": value} for path, value in added]


RESTRICTED = {  # what the Pod Security Standard of that name wants of a container, and a read-only image
    "runAsUser": 1000,
    "runAsNonRoot": True,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def user_pod_spec(simulation: Simulation, *words: str, security: dict[str, Any] = RESTRICTED) -> dict[str, Any]:
    """Of a pod that uses the daemon of its node as README tells, and may be a client of the simulated driver."""
    folders = {"aimd": ("/run/aimd", "/run/aimd"), "sim": (str(simulation.folder.parent), SIMULATION)}
    container = {
        "name": "main",
        "image": aimd_image.REFERENCE,
        "imagePullPolicy": "Never",
        "command": list(words),
        "securityContext": security,
        "env": [{"name": "AIMD_SIM_SOCKET", "value": f"{SIMULATION}/sim.sock"}],
        "volumeMounts": [{"name": name, "mountPath": at, "readOnly": True} for name, (_, at) in folders.items()],
    }
    volumes = [{"name": name, "hostPath": {"path": path, "type": "Directory"}} for name, (path, _) in folders.items()]
    return {
        "containers": [container],
        "volumes": volumes,
        "nodeSelector": LABELS,
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
    }


def pod_processes(uid: str, command: str) -> list[Path]:
    """Folders of /proc of the pod's processes whose command line has these words, which a NUL byte ends each."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"pod{uid}" in (path / "cgroup").read_text() and command in (path / "cmdline").read_text():
                found.append(path)
        except OSError:
            continue
    return found
