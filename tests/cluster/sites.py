"""Nodes with daemons in a cluster and services as KServe makes them: an InferenceService and its predictor's Deployment.

The Deployment's pods are made by the real controllers and bound by the real scheduler; the nodes are paper.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster import consistency, crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.paper_nodes import PaperNodes
from tests.cluster.test_cluster_policies import K8S, SERVICES
from tests.cluster.test_lifecycle import NAMESPACE, PARTITIONS, NodeDaemon
from tests.cluster.tollgate import Tollgate
from tests.systemd.machine import until

CRDS = ("gpu-sharing-crd.yaml", "nodepartitions.yaml")
MANIFESTS = ("daemonset/base/namespace.yaml", "daemonset/base/rbac.yaml", "policies/own-node.yaml")
POOL = "aimd-test/pool"
SECONDS_TO_SETTLE = 90
SECONDS_BETWEEN_LOOKS = 0.25
DEPLOYMENTS = "/apis/apps/v1/namespaces/{}/deployments"
KINDS = ("claims", "assignments", "partitions")


def with_aimd(control_plane: ControlPlane, definitions: tuple[Path, ...] = tuple(K8S / "crd" / it for it in CRDS)):
    """The control plane with what the daemons need of it."""
    for path in definitions:
        crds.install(control_plane, path)
    for path in MANIFESTS:
        control_plane.kubectl("apply", "--server-side", "-f", K8S / path)
    until(lambda: control_plane.api.find(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/aimd"), "no account")
    return control_plane


class Site:
    """Nodes of their own in a cluster, and services in a namespace that run on no others."""

    def __init__(self, cluster: ControlPlane, paper: PaperNodes, namespace: str, folder: Path) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.nodes: dict[str, NodeDaemon] = {}
        self.gates: dict[str, Tollgate] = {}
        self._paper, self._folder = paper, folder
        self._deployments = DEPLOYMENTS.format(namespace)
        self._services = SERVICES.format(namespace)

    # -- nodes -----------------------------------------------------------------------------------------------

    def add(self, name: str) -> NodeDaemon:
        """A Node and its daemon, which speaks through a gate."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        self._paper.add(name, **{POOL: self.namespace})
        gate = self.gates[name] = Tollgate(self.cluster)
        node = self.nodes[name] = NodeDaemon(self.cluster, name, folder, url=gate.url)
        return node

    def switch_off(self, name: str) -> None:
        """The machine is off: nobody speaks for it any more; what the cluster has of it stays."""
        self._paper.leave(name)
        self.nodes.pop(name).daemon.close()
        self.gates.pop(name).close()

    def close(self) -> None:
        for name, node in list(self.nodes.items()):
            self._paper.leave(name)
            node.daemon.close()
            for path in (f"{PARTITIONS}/{name}", f"/api/v1/nodes/{name}"):
                if self.cluster.api.find(path):
                    self.cluster.api.delete(path)
        for gate in self.gates.values():
            gate.close()

    # -- services --------------------------------------------------------------------------------------------

    def deploy(self, name: str, replicas: int = 1, memory: str = "8", on: str | None = None) -> None:
        """As KServe does it; `on` is the one node that its pods go to."""
        annotations = _annotations(memory)
        item = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"predictor": {"model": {"modelFormat": {"name": "x"}}}},
        }
        self.cluster.api.create(self._services, item)
        labels = {"app": f"isvc.{name}-predictor", "serving.kserve.io/inferenceservice": name, "component": "predictor"}
        selector = {POOL: self.namespace} | ({"kubernetes.io/hostname": on} if on else {})
        template = {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {
                "containers": [{"name": "kserve-container", "image": "none"}],
                "nodeSelector": selector,
                "automountServiceAccountToken": False,
            },
        }
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": f"isvc.{name}-predictor"}},
            "template": template,
        }
        self.cluster.api.create(self._deployments, {"metadata": {"name": f"{name}-predictor"}, "spec": spec})

    def scale(self, name: str, replicas: int) -> None:
        self.cluster.api.merge(f"{self._deployments}/{name}-predictor", {"spec": {"replicas": replicas}})

    def update(self, name: str, memory: str) -> None:
        """Other annotations at the service, which KServe copies to the pod template: its pods are replaced."""
        annotations = {"metadata": {"annotations": _annotations(memory)}}
        self.cluster.api.merge(f"{self._services}/{name}", annotations)
        self.cluster.api.merge(f"{self._deployments}/{name}-predictor", {"spec": {"template": annotations}})

    def withdraw(self, name: str) -> None:
        """The service and all that it owned."""
        self.cluster.api.delete(f"{self._services}/{name}")
        self.cluster.api.delete(f"{self._deployments}/{name}-predictor")

    def names(self) -> list[str]:
        """Services that there are."""
        return [each["metadata"]["name"] for each in self.cluster.api.get(self._services)["items"]]

    def pods(self, service: str | None = None) -> list[dict[str, Any]]:
        query = {"labelSelector": f"serving.kserve.io/inferenceservice={service}"} if service else {}
        return self.cluster.api.get(f"/api/v1/namespaces/{self.namespace}/pods", **query)["items"]

    def status(self, name: str) -> dict[str, Any]:
        return self.cluster.api.get(f"{self._services}/{name}").get("status") or {}

    # -- whether all is well ---------------------------------------------------------------------------------

    def ledger(self, name: str) -> consistency.Ledger:
        """Of one moment, asked without aimctl, which takes its time to start."""
        return _of_one_moment(self.nodes[name].daemon.get)

    def told_ledger(self, name: str) -> consistency.Ledger:
        """The same as aimctl prints it."""

        def asked(kind: str) -> dict[str, Any]:
            result = self.nodes[name].daemon.aimctl("get", kind, "-o", "json")
            assert result.returncode == 0, result.stderr
            return json.loads(result.stdout)

        return _of_one_moment(asked)

    def world(self, ledger: Callable[[str], consistency.Ledger] | None = None) -> consistency.World:
        ledgers = {name: (ledger or self.ledger)(name) for name in self.nodes}
        records = {name: (node.record() or {}).get("status") or {} for name, node in self.nodes.items()}
        return consistency.World(self.pods(), ledgers, self.cluster.api.get(self._services)["items"], records)

    def settled(self, seconds: float = SECONDS_TO_SETTLE) -> consistency.World:
        """Once the controllers have what they want and everything agrees; what must never be is looked for meanwhile."""
        wrong: list[str] = []

        def agreed() -> bool:
            time.sleep(SECONDS_BETWEEN_LOOKS)  # each costs the API server a dozen requests
            world = self.world()
            never = consistency.never(world.ledgers)
            assert not never, never
            found = [*self._unrolled(), *consistency.disagreements(world)]
            wrong[:] = found
            return not found

        until(agreed, lambda: f"{wrong}\n{self._logs()}", seconds)
        return self.world()

    def is_what_aimctl_shows(self) -> None:
        """What has settled agrees with what people are shown."""
        found = consistency.disagreements(self.world(self.told_ledger))
        assert not found, found

    def cleared(self) -> None:
        """When every service is withdrawn nothing is left anywhere."""
        for name in self.names():
            self.withdraw(name)
        self.settled()

        def left() -> dict[str, Any]:
            ledgers = {name: self.ledger(name) for name in self.nodes}
            return {name: one for name, one in ledgers.items() if one.claims or one.assignments}

        until(lambda: not left(), lambda: f"{left()}")

    def _unrolled(self) -> list[str]:
        """What the controllers and the paper kubelets have not done yet."""
        pods = self.pods()
        found = [f"pod {pod['metadata']['name']} ends" for pod in pods if "deletionTimestamp" in pod["metadata"]]
        deployments = self.cluster.api.get(self._deployments)["items"]
        for each in deployments:
            wanted, status = each["spec"]["replicas"], each["status"]
            counts = {key: status.get(key, 0) for key in ("replicas", "updatedReplicas", "readyReplicas")}
            seen = status.get("observedGeneration") == each["metadata"]["generation"]
            if not seen or set(counts.values()) != {wanted}:
                found.append(f"deployment {each['metadata']['name']} has {counts} of {wanted}")
        owned = {each["metadata"]["name"] for each in deployments}
        owners = {
            pod["metadata"]["name"]: pod["metadata"]["labels"]["serving.kserve.io/inferenceservice"] for pod in pods
        }
        orphans = [pod for pod, service in owners.items() if f"{service}-predictor" not in owned]
        return [*found, *(f"pod {pod} has no deployment any more" for pod in orphans)]

    def _logs(self) -> str:
        return "\n".join(f"{name}: {node.daemon.log[-1500:]}" for name, node in self.nodes.items())


def _of_one_moment(asked: Callable[[str], dict[str, Any]]) -> consistency.Ledger:
    while True:
        answers = {kind: asked(kind) for kind in KINDS}
        if len({answer["generation"] for answer in answers.values()}) == 1:
            return consistency.Ledger(**{kind: answer[kind] for kind, answer in answers.items()})


def _annotations(memory: str) -> dict[str, str]:
    return {
        "aimd.dev/gpu-sharing": "enabled",
        "aimd.dev/memory-limit-gb": memory,
        "aimd.dev/compute-mode": "CPX",
    }


@contextlib.contextmanager
def site(cluster: ControlPlane, paper: PaperNodes, namespace: str, folder: Path, *nodes: str):
    """A site that ends with the context."""
    with cluster.namespace(namespace):
        made = Site(cluster, paper, namespace, folder)
        try:
            for name in nodes:
                made.add(name)
            yield made
        finally:
            made.close()
