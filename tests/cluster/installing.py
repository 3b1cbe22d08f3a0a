"""k8s/install.sh as an admin runs it, and everything that the API server has before and after."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.cluster.api import RefusedError
from tests.systemd.machine import until

SCRIPT = Path(__file__).parents[2] / "k8s" / "install.sh"
DEFINITION = "inferenceservices.serving.kserve.io"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEPLOYMENTS = "/apis/apps/v1/namespaces/kserve/deployments"
UNSTEADY = ("events", "leases")  # change by themselves
POLICY = "ValidatingAdmissionPolicy"


class Cluster:
    """A control plane and the script as its admin runs it."""

    def __init__(self, control_plane, programs):
        self.control_plane, self.api, self.programs = control_plane, control_plane.api, programs

    def run(self, *words, kubeconfig=None, path=None):
        environ = {
            "KUBECONFIG": str(kubeconfig or self.control_plane.kubeconfig),
            "HOME": str(self.control_plane.folder),
            "PATH": path or f"{self.programs}:/usr/bin:/bin",
        }
        return subprocess.run(
            ["/bin/sh", str(SCRIPT), *words], env=environ, capture_output=True, text=True, timeout=240, cwd="/"
        )

    def done(self, *words):
        """What it says."""
        result = self.run(*words)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def refused(self, *words, **more):
        """The one sentence, where it does not do what it is asked."""
        result = self.run(*words, **more)
        lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
        assert result.returncode == 1, result
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    def objects(self):
        """Everything that the API server has and that does not change by itself, by kind, namespace and name."""
        groups = self.api.get("/apis")["groups"]
        paths = ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
        return {key: item for path in paths for key, item in self._listed(path)}

    def _listed(self, path):
        try:
            resources = self.api.get(path)["resources"]
        except RefusedError:  # a group goes a while after its definition
            return
        for resource in resources:
            if "list" in resource["verbs"] and resource["name"] not in UNSTEADY:
                for item in until(lambda at=f"{path}/{resource['name']}": self._list(at), "a list is not served")[0]:
                    metadata = item["metadata"]
                    yield (resource["kind"], metadata.get("namespace"), metadata["name"]), item

    def _list(self, path):
        """A tuple with the items, nothing where the definition is too new."""
        try:
            return ((self.api.find(path) or {}).get("items") or (),)
        except RefusedError as refused:
            if refused.status == 429:
                return None
            raise

    def steady(self):
        """The objects, once controllers have reacted to what was changed."""
        seen = [self.objects()]

        def same():
            seen.append(self.objects())
            return seen[-1] == seen[-2] and all(map(_looked_at, seen[-1].items()))

        until(same, "the cluster does not come to rest")
        return seen[-1]


def _looked_at(entry):
    """The controllers type-check policies and roll out DaemonSets in their own time."""
    (kind, _, _), item = entry
    return (
        kind not in (POLICY, "DaemonSet")
        or item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
    )


def kserve_controller(cluster, version):
    """KServe as far as the script can see it beside its definition: a controller of a version, without pods."""
    if cluster.api.find("/api/v1/namespaces/kserve") is None:
        cluster.api.create("/api/v1/namespaces", {"metadata": {"name": "kserve"}})
    labels = {"control-plane": "kserve-controller-manager"}
    containers = [{"name": "manager", "image": f"docker.io/kserve/kserve-controller:{version}"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": "kserve-controller-manager", "labels": labels}
    if cluster.api.find(f"{DEPLOYMENTS}/kserve-controller-manager"):
        cluster.api.merge(f"{DEPLOYMENTS}/kserve-controller-manager", {"spec": spec})
    else:
        cluster.api.create(DEPLOYMENTS, {"metadata": metadata, "spec": spec})


def unversioned(item, *also):
    """Without what every write changes."""
    metadata = {k: v for k, v in item["metadata"].items() if k not in ("resourceVersion", "managedFields", *also)}
    return {**item, "metadata": metadata}


def without_bookkeeping(objects):
    """Without what says who wrote a policy when: the second apply of a policy notes it otherwise than the first."""
    return {key: unversioned(item) if key[0] == POLICY else item for key, item in objects.items()}
