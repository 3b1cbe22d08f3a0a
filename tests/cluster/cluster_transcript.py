"""The part of README that shows a cluster, from a real control plane and real daemons on simulated nodes.

    python -m tests.cluster.cluster_transcript        # writes it into README.md

test_cluster_transcript.py runs the same and fails where README says something else. KServe's part, to make a pod for a
service, is played here. What differs from run to run is written as a placeholder: times, ages, UIDs.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.cluster import builds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.test_cluster_policies import K8S, SERVICES
from tests.cluster.test_lifecycle import NodeDaemon, condition
from tests.e2e.programs import ROOT
from tests.systemd.machine import until

README = ROOT / "README.md"
BEGIN, END = "<!-- cluster transcript -->\n", "<!-- end of cluster transcript -->\n"
EXAMPLE = "k8s/examples/two-models-one-partition.yaml"
SECONDS = 60  # on a busy machine
NODES = ("gpu-node-1", "gpu-node-2")
BEFORE_PODS = (f"kubectl apply -f {EXAMPLE}",)
WITH_PODS = (
    "kubectl get isvc",
    "kubectl get np",
    "kubectl describe isvc embed | sed -n '/^Status:/,$p'",
    "kubectl annotate isvc embed aimd.dev/weight=much --overwrite",
    "kubectl annotate isvc chat aimd.dev/memory-limit-gb=20 --overwrite  # KServe makes a new pod",
)
WITHOUT_ROOM = (
    "kubectl get isvc chat -o jsonpath=\"{.status.conditions[?(@.type=='GPUPartitionAssigned')].message}\"",
    "kubectl describe pod chat-predictor-2 | sed -n '/^Events:/,$p'",
)
_PLACEHOLDERS = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "…"),
    (re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "…"),
    (re.compile(r" (\d+m)?\d+s$", re.MULTILINE), " …"),
    (re.compile(r"  (\d+m)?\d+s +(\S+)  "), r"  …    \2  "),
)


def transcript(programs: Path) -> str:
    """All commands with what they print, on a new control plane with two nodes of eight MI300X."""
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="aimd-shown-", dir="/tmp")))
        control_plane = ControlPlane(programs, folder / "control-plane")
        ends.callback(control_plane.close)
        scene = _Scene(control_plane, programs)
        scene.run("k8s/install.sh")
        for name in NODES:
            (folder / name).mkdir()
            scene.nodes.append(NodeDaemon(control_plane, name, folder / name, "mi300x:8"))
            ends.callback(scene.nodes[-1].daemon.close)
        return "\n".join(scene.shown())


class _Scene:
    """The cluster while commands are run in it."""

    def __init__(self, control_plane: ControlPlane, programs: Path) -> None:
        self._control_plane = control_plane
        self._environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "KUBECONFIG": str(control_plane.kubeconfig),
            "HOME": str(control_plane.folder),
        }
        self.nodes: list[NodeDaemon] = []

    def shown(self) -> list[str]:
        """Each command and its output."""
        shown = [self.run(command) for command in BEFORE_PODS]
        services = {item["metadata"]["name"]: item["metadata"]["annotations"] for item in _example()}
        for name, said in services.items():
            self._pod(name, 1, said)
            self._wait(name, "True")
        until(lambda: all(self._partitions(node) == 8 for node in self.nodes[1:]), "a node tells nothing of itself")
        until(lambda: self._partitions(self.nodes[0]) == 15, "the record lacks the mode change")
        until(lambda: self.nodes[0].record()["status"].get("reservedGB") == 24, "the record lacks the models")
        shown += [self.run(command) for command in WITH_PODS]
        self._control_plane.api.delete("/api/v1/namespaces/default/pods/chat-predictor-1", at_once=True)
        self._pod("chat", 2, services["chat"] | {"aimd.dev/memory-limit-gb": "20"})
        self._wait("chat", "False")
        events = "/api/v1/namespaces/default/events"
        until(lambda: self._told(events), "no event of the pod")
        return shown + [self.run(command) for command in WITHOUT_ROOM]

    def run(self, command: str) -> str:
        """As README shows it."""
        words = {"shell": True, "executable": "/bin/sh", "cwd": ROOT, "env": self._environment, "text": True}
        output = subprocess.run(
            command, **words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, check=False
        ).stdout
        for pattern, placeholder in _PLACEHOLDERS:
            output = pattern.sub(placeholder, output)
        return "\n".join([f"    $ {command}", *(f"    {line}".rstrip() for line in output.splitlines())]) + "\n"

    def _pod(self, service: str, number: int, annotations: dict[str, str]) -> None:
        self.nodes[0].pod("default", f"{service}-predictor-{number}", service, annotations)

    def _wait(self, service: str, status: str) -> None:
        where = f"{SERVICES.format('default')}/{service}"
        until(
            lambda: condition(self._control_plane, where).get("status") == status,
            lambda: f"{self._control_plane.api.get(where)} {self.nodes[0].daemon.log}",
            SECONDS,
        )

    def _partitions(self, node: NodeDaemon) -> int:
        return (node.record() or {}).get("status", {}).get("partitionCount", 0)

    def _told(self, events: str) -> bool:
        items = self._control_plane.api.get(events)["items"]
        return any(event["involvedObject"]["name"] == "chat-predictor-2" for event in items)


def _example() -> list[dict[str, dict[str, dict[str, str]]]]:
    return list(yaml.safe_load_all((K8S.parent / EXAMPLE).read_text("utf-8")))


def in_readme() -> str:
    """What README says now."""
    return README.read_text("utf-8").partition(BEGIN)[2].partition(END)[0]


def write() -> None:
    """Put a new transcript into README."""
    before, _, rest = README.read_text("utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{transcript(builds.built(builds.CONTROL_PLANE))}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(write())
