"""A real node: kubelet, containerd and runc in namespaces of its own on this machine. For root.

The node sees the machine's files and network, but has its own processes, mounts, /run, /var/lib and /var/log. When its
first process ends the kernel ends everything in it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path

from tests.cluster.cgroups import ControlGroup
from tests.cluster.control_plane import ControlPlane
from tests.cluster.processes import Program, free_ports
from tests.systemd.machine import until
from tests.systemd.tree import done

SECONDS_TO_START = 60
SECONDS_TO_END = 20
OWN = ("/run", "/var/lib", "/var/log")  # folders that are the node's alone
CNI = "/var/lib/cni/conf"
SOCKET = "/run/containerd/containerd.sock"
# The first process: it waits for those whose parents are gone.
FIRST = """set -e
mount --make-rshared /
mount -t proc proc /proc
for folder in {own}; do mount --bind "{root}$folder" "$folder"; done
touch {root}/ready
set +e
while :; do sleep 3600 & wait $!; done
"""
CONTAINERD = """version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.blockfile", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{socket}"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{cni}"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
# What the kubelet and CNI set for the whole machine.
SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")


class Node:
    """Runs from its making until `close`; Ready when made.

    `kubelet_programs` and `containerd_programs` are folders; `images` are archives that its pods may use with
    `imagePullPolicy: Never`, the pause image among them. `number` tells the networks of several nodes apart. What is
    mounted below the folder `shared` on the machine is there in the node and its pods too.
    """

    def __init__(
        self,
        name: str,
        control_plane: ControlPlane,
        kubelet_programs: Path,
        containerd_programs: Path,
        folder: Path,
        *,
        pause: str,
        images: tuple[Path, ...] = (),
        labels: dict[str, str] | None = None,
        settings: dict[str, object] | None = None,
        number: int = 1,
    ) -> None:
        self.name = name
        self.folder = folder
        self._control_plane = control_plane
        self._kubelet_programs, self._containerd_programs = kubelet_programs, containerd_programs
        self._labels = labels or {}
        self._running: dict[str, Program] = {}
        self._first_process: int | None = None
        self._sysctls = {path: (Path("/proc/sys") / path).read_text() for path in SYSCTLS}
        self._group = ControlGroup(name)
        self.shared = folder / "shared"
        for own in OWN:
            self.path(own).mkdir(parents=True)
        self.path(CNI).mkdir(parents=True)
        (self.path(CNI) / "10-test.conflist").write_text(json.dumps(_network(number)))
        self._configure(pause, settings or {})
        try:
            self._group.make()
            self._share()
            self._first()
            self.start("containerd")
            for image in images:
                self.load(image)
            self.start("kubelet")
            until(self.is_ready, lambda: self._running["kubelet"].complaint("not ready"), SECONDS_TO_START)
        except BaseException:
            self.close()
            raise

    # -- programs --------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """`containerd` or `kubelet`, with the data it had; `is_ready` tells when the node is back.

        A kubelet that finds no containerd ends, so containerd is waited for.
        """
        command = {"containerd": self._containerd, "kubelet": self._kubelet}[name]()
        # Both end with the nsenter that started them.
        inside = self.command("setpriv", "--pdeathsig", "KILL", "--", *command)
        environ = {**os.environ, "PATH": f"{self._containerd_programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
        program = self._running[name] = Program(name, inside, self.folder / f"{name}.log", environ)
        if name == "containerd":
            until(self._containerd_answers, lambda: program.complaint("deaf"), SECONDS_TO_START)

    def stop(self, name: str) -> None:
        """Killed; containers go on."""
        program = self._running.pop(name)
        itself = os.pidfd_open(_child(program.pid))  # what nsenter started: it is to be gone too
        program.kill()
        _wait(itself)

    def is_ready(self) -> bool:
        """As the API server knows it."""
        node = self._control_plane.api.find(f"/api/v1/nodes/{self.name}") or {}
        conditions = node.get("status", {}).get("conditions", [])
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def close(self) -> None:
        """End everything in the node, and take back what it changed on the machine. Its Node object stays."""
        if self._first_process is not None:
            signal.pidfd_send_signal(self._first_process, signal.SIGKILL)
            _wait(self._first_process)  # once all the others have ended too
            self._first_process = None
        for name in list(self._running):
            self._running.pop(name).kill()
        self._group.remove()
        subprocess.run(["umount", "--lazy", str(self.shared)], stderr=subprocess.DEVNULL)  # unless it is done
        for path, value in self._sysctls.items():
            if (Path("/proc/sys") / path).read_text() != value:
                (Path("/proc/sys") / path).write_text(value)

    # -- inside ----------------------------------------------------------------------------------------------

    def path(self, inside: str) -> Path:
        """Where a file below /run, /var/lib or /var/log of the node is on the machine."""
        return self.folder / "root" / inside.lstrip("/")

    def command(self, *words: object) -> list[str]:
        """The command line that runs a command in the node."""
        return ["nsenter", "-t", str(self.first_pid), "-m", "-p", "--", *map(str, words)]

    def run(self, *words: object) -> str:
        """Standard output of a command that has to succeed in the node."""
        return done(*self.command(*words))

    def load(self, image: Path) -> None:
        """Give the node an image from an archive that it can see."""
        self.run(self._containerd_programs / "ctr", "-a", SOCKET, "-n", "k8s.io", "images", "import", image)

    def logs(self, namespace: str, pod: str) -> str:
        """What the containers of a pod wrote, as the node keeps it, without times."""
        files = sorted(self.path("/var/log/pods").glob(f"{namespace}_{pod}_*/*/*.log"))
        lines = "".join(file.read_text(errors="replace") for file in files).splitlines()
        return "".join(f"{line.split(' ', 3)[3]}\n" for line in lines)

    def memory(self) -> dict[str, int]:
        """Bytes that each program holds."""
        pids = {name: _child(program.pid) for name, program in self._running.items() if name != "unshare"}
        text = {name: Path(f"/proc/{pid}/status").read_text() for name, pid in pids.items()}
        return {name: int(status.partition("VmRSS:")[2].split()[0]) * 1024 for name, status in text.items()}

    def _share(self) -> None:
        self.shared.mkdir()
        done("mount", "--bind", self.shared, self.shared)
        for kind in ("private", "shared"):
            done("mount", f"--make-{kind}", self.shared)

    def _first(self) -> None:
        script = FIRST.format(own=" ".join(OWN), root=self.folder / "root")
        namespaces = ("--mount", "--propagation", "slave", "--pid", "--fork", "--kill-child=KILL")
        command = ["unshare", *namespaces, "sh", "-c", script]
        first = self._running["unshare"] = Program("unshare", command, self.folder / "first.log")
        until((self.folder / "root/ready").exists, lambda: first.complaint("the node has no namespaces"))
        self.first_pid = _child(first.pid)
        self._first_process = os.pidfd_open(self.first_pid)

    def _containerd_answers(self) -> bool:
        ctr = [self._containerd_programs / "ctr", "-a", SOCKET, "version"]
        return subprocess.run(self.command(*ctr), capture_output=True).returncode == 0

    # -- configuration ---------------------------------------------------------------------------------------

    def _configure(self, pause: str, settings: dict[str, object]) -> None:
        text = CONTAINERD.format(socket=SOCKET, pause=pause, cni=CNI)
        (self.folder / "containerd.toml").write_text(text)
        self._kubeconfig = self._control_plane.kubeconfig_of(
            f"node-{self.name}", self._control_plane.certificate(f"system:node:{self.name}", "system:nodes")
        )
        unlimited = ("memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available")
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "port": free_ports(1)[0],
            "healthzPort": 0,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._control_plane.authority)},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._group.name}",
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "makeIPTablesUtilChains": False,
            "oomScoreAdj": 0,
            "evictionHard": dict.fromkeys(unlimited, "0%"),
            "imageGCHighThresholdPercent": 100,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "resolvConf": "/etc/resolv.conf" if Path("/etc/resolv.conf").exists() else "",
            **settings,
        }
        (self.folder / "kubelet.json").write_text(json.dumps(configuration, indent=1))

    def _containerd(self) -> list[object]:
        return [self._containerd_programs / "containerd", "--config", self.folder / "containerd.toml"]

    def _kubelet(self) -> list[object]:
        labels = ",".join(f"{name}={value}" for name, value in self._labels.items())
        return [
            self._kubelet_programs / "kubelet",
            f"--config={self.folder / 'kubelet.json'}",
            f"--kubeconfig={self._kubeconfig}",
            f"--hostname-override={self.name}",
            *([f"--node-labels={labels}"] if labels else []),
        ]


def _network(number: int) -> dict[str, object]:
    """A pod's own address, which the machine reaches; it does not reach further than the machine."""
    addresses = {"type": "host-local", "ranges": [[{"subnet": f"10.244.{number}.0/24"}]], "dataDir": "/run/cni"}
    return {"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "ptp", "ipam": addresses}]}


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _wait(process: int) -> None:
    """Until the process of a pidfd, which is closed then, has ended."""
    try:
        assert select.select([process], [], [], SECONDS_TO_END)[0], "a killed process does not end"
    finally:
        os.close(process)
