"""In a pod, without a kubelet: processes with pids, mounts and control groups of a container before the real daemon.

The daemon has given its capabilities up, as that of the DaemonSet. What a container sees of it is its runtime directory,
mounted read-only at /run/aimd.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster.pod_processes import PodGroups
from tests.e2e.programs import AIMCTL, ROOT, Daemon
from tests.fakes.kube_api import NODES, PODS, FakeApi
from tests.systemd.machine import until

UIDS = {name: f"0a1b2c3d-0000-4000-8000-00000000000{name}" for name in "abcde"}
SECONDS = 60
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "KUBERNETES_SERVICE_HOST": "10.96.0.1"}
SHOWN = ("AIM_CLAIM", "AIM_PARTITION_ID", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "AIM_MEMORY_LIMIT_BYTES")
TELLS = (
    "import json, os; print(json.dumps({'pid': os.getpid(), 'holder': os.environ['AIM_HOLDER'], "
    f"**{{name: os.environ[name] for name in {SHOWN}}}}}), flush=True); input()"
)
WHO = (
    "import http.client, json, socket; c = http.client.HTTPConnection('aimd'); c.sock = socket.socket(socket.AF_UNIX); "
    "c.sock.connect('/run/aimd/aimd.sock'); c.request('GET', '/v1/self'); print(c.getresponse().read().decode())"
)


class Node:
    """A daemon whose pods are those of a fake API server."""

    def __init__(self, folder: Path) -> None:
        self.api = FakeApi()
        self.api.put(NODES, {"metadata": {"name": "a", "uid": "n"}})
        config = folder / "aimd.toml"
        config.write_text(
            'poll_seconds = 0.2\n[metrics]\nlisten = "off"\n'
            f'[kubernetes]\nenabled = true\nnode = "a"\nkubeconfig = "{self.api.kubeconfig(folder)}"\n'
        )
        self.groups = PodGroups()
        self.daemon = Daemon(folder, "mi300x:2", "--config", str(config), "--give-up-capabilities")
        self.started: list[subprocess.Popen[str]] = []

    def pod(self, name: str, gb: int = 8) -> None:
        """The API server tells of it."""
        asks = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": str(gb)}
        whose = {"namespace": "default", "name": f"pod-{name}", "uid": UIDS[name], "annotations": asks}
        self.api.put(PODS, {"metadata": whose, "spec": {"nodeName": "a"}, "status": {"phase": "Running"}})

    def placed(self, name: str) -> None:
        self.pod(name)
        until(
            lambda: any(claim["assignments"] for claim in self.claims() if name == claim["name"][-1]), self.daemon.log
        )

    def claims(self) -> list[dict]:
        return self.daemon.get("claims")["claims"]

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[str]:
        """In a container of the pod."""
        group = self.groups.pod(UIDS[name], f"c{len(self.started)}")
        mounted = {self.daemon.runtime: "/run/aimd"}
        process = group.run(command, mounted=mounted, environment={**ENVIRONMENT, **environment})
        self.started.append(process)
        return process

    def run(self, name: str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        process = self.start(name, *command, **environment)
        out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def aimctl(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run(name, *AIMCTL, *arguments, **environment)

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate(timeout=SECONDS)
        self.daemon.close()
        self.api.close()
        self.groups.close()


@pytest.fixture
def node(requires_root):
    with contextlib.ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="aimd-")))
        folder.chmod(0o755)
        made = Node(folder)
        ends.callback(made.close)
        made.daemon.start()
        yield made


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def line_of(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline()
    return line or process.communicate(timeout=SECONDS)[1]


def group_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def test_the_daemon_knows_a_pod_by_its_connection(node):
    node.placed("a")
    told = json.loads(node.run("a", *python(WHO)).stdout)
    (claim,) = node.claims()
    expected = (UIDS["a"], "default/pod-a", claim["name"], "placed")
    assert (told["pod_uid"], told["pod"], told["claim"], told["state"]) == expected
    assert (told["uid"], told["operator"], told["in_pod"]) == (0, False, True)
    assert told["pid"] > 1, "it is 1 in its own namespace"
    assert "CapPrm:\t0000000000000000" in Path(f"/proc/{node.daemon.pid}/status").read_text()
    assert json.loads(node.run("b", *python(WHO)).stdout)["state"] == "none"


def test_exec_waits_for_the_pods_partition_and_becomes_the_command(node):
    process = node.start("a", *AIMCTL, "exec", "--", *python(TELLS))
    first = process.stderr.readline()
    assert (
        first
        == f"waiting for a partition: pod {UIDS['a']} has no claim on this node (yet): its Events tell if what it asks for cannot be\n"
    )
    node.pod("a")
    told = json.loads(line_of(process))
    (claim,) = node.claims()
    (place,), (holder,) = claim["assignments"], claim["holders"]
    assert (told["AIM_CLAIM"], told["AIM_PARTITION_ID"]) == (claim["name"], place["partition"])
    assert (told["ROCR_VISIBLE_DEVICES"], told["HIP_VISIBLE_DEVICES"]) == ("0", "0")
    assert told["AIM_MEMORY_LIMIT_BYTES"] == str(place["memory_bytes"])
    assert told["pid"] == 1, "it was the container's first process and still is"
    assert f"pod{UIDS['a']}" in group_of(holder["pid"])
    assert told["holder"].split(":")[0] == str(holder["pid"])
    assert any("its container is the fence" in line for line in iter(process.stderr.readline, ""))
    process.kill()
    until(lambda: node.claims()[0]["holders"] == [], "the daemon does not see its end")
    assert node.claims()[0]["assignments"] == [place], "the place is the pod's as long as there is the pod"


def test_a_pod_that_finds_no_room_is_told_so_in_time(node):
    node.pod("a", gb=500)
    done = node.aimctl("a", "exec", "--wait", "2", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr.splitlines()[-2].startswith("error: pod default/pod-a had no partition within 2 s: ")
    done = node.aimctl("a", "gate", "--wait", "0", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0")
    assert (done.returncode, "had no partition within 0 s" in done.stderr) == (7, True)


CHANGES = [
    ("set-mode", "gpu0", "CPX"),
    ("claim", "mine", "--memory", "1"),
    ("drain", "gpu0"),
    ("undrain", "gpu0"),
    ("reload",),
]


def test_root_of_another_pod_is_no_operator(node):
    node.placed("a")
    before = node.claims()
    for words in CHANGES:
        done = node.aimctl("b", *words)
        assert (done.returncode, "pods change nothing on the node" in done.stderr) == (4, True), done
    name = before[0]["name"]
    for words in (("release", name), ("describe", "claim", name), ("exec", name, "--", "true")):
        assert node.aimctl("b", *words).returncode == 6
    assert node.aimctl("b", "get", "claims", "-o", "name").stdout == ""
    assert node.aimctl("a", "get", "claims", "-o", "name").stdout == f"{name}\n"
    assert node.aimctl("a", "release", name).returncode == 4, "its claim goes with the pod"
    assert node.claims() == before
    assert set(node.daemon.modes()) == {"SPX/NPS1"}


LEASE = (
    "import itertools, sys; from aimd.dispatch.client import Client\n"
    "from aimd.dispatch.client.own import own_model\n"
    "model = sys.argv[1] if len(sys.argv) > 1 else own_model(wait=20)\n"
    "with Client() as client:\n"
    "    for line in itertools.chain(['first'], sys.stdin):\n"
    "        with client.lease(model, timeout=20) as lease: print(model, lease.partition, flush=True)\n"
)


def test_programs_take_leases_over_a_restart_of_the_daemon(node):
    """The socket files are made anew; the directory that the container has mounted is the same."""
    node.placed("a")
    (claim,) = node.claims()
    place = claim["assignments"][0]["partition"]
    process = node.start("a", *python(LEASE))
    assert line_of(process) == f"{claim['name']} {place}\n"
    made = node.daemon.runtime.joinpath("dispatch.sock").stat().st_ctime_ns
    for number in (signal.SIGTERM, signal.SIGKILL):
        node.daemon.stop(number)
        node.daemon.start()
        process.stdin.write("again\n")
        process.stdin.flush()
        assert line_of(process) == f"{claim['name']} {place}\n"
    assert node.daemon.runtime.joinpath("dispatch.sock").stat().st_ctime_ns != made
    assert json.loads(node.run("a", *python(WHO)).stdout)["state"] == "placed"


def test_a_pod_takes_no_leases_of_anothers_model_whatever_its_environment_says(node):
    node.placed("a")
    (claim,) = node.claims()
    holds = node.start("a", *AIMCTL, "exec", "--", *python(TELLS))
    holder = json.loads(line_of(holds))["holder"]
    for environment in ({}, {"AIM_HOLDER": holder, "AIM_CLAIM": claim["name"]}):
        done = node.run("b", *python(LEASE), claim["name"], **environment)
        assert "UnauthorisedError" in done.stderr, done
    assert node.run("a", *python(LEASE), claim["name"], AIM_HOLDER=holder).returncode == 0


def test_the_gate_beside_a_model_server_needs_no_name(node):
    node.placed("a")
    words = ("gate", "--upstream", "http://127.0.0.1:1", "--listen", "unix:/run/gate.sock")
    gate = node.start("a", *AIMCTL, *words)
    assert gate.stderr.readline() == f"aimd gate is ready: model {node.claims()[0]['name']}, on unix:/run/gate.sock\n"
    gate.send_signal(signal.SIGTERM)


def test_any_user_of_a_container_finds_the_nodes_daemon(node):
    node.placed("a")
    user = ("setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups")
    done = node.run("a", *user, *AIMCTL, "exec", "--", "sh", "-c", "echo $AIM_CLAIM", HOME="/")
    assert (done.returncode, done.stdout) == (0, f"{node.claims()[0]['name']}\n"), done.stderr
