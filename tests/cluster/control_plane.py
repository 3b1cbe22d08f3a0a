"""A control plane of its own on 127.0.0.1: etcd, API server, controllers and scheduler as they are released.

Needs no root. Ready in seconds; nothing outside of its folder is touched.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.cluster.api import Api, RefusedError
from tests.cluster.authority import Authority, Certificate, kubeconfig
from tests.cluster.processes import Program, free_ports
from tests.systemd.machine import until

SECONDS_TO_START = 60
API_SERVER = "kube-apiserver"
CONTROLLERS = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
ISSUER = "https://kubernetes.default.svc"
AUDIENCE = ISSUER
MASTERS = "system:masters"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane:
    """Runs from its making until `close`. `api` and `kubectl` are the admin's.

    `audit`: every request is written down (`requests_made`). `arguments`: more of them for a program, by its name.
    """

    def __init__(
        self,
        programs: Path,
        folder: Path,
        *,
        audit: bool = False,
        arguments: dict[str, tuple[str, ...]] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._programs = programs
        self._arguments = arguments or {}
        self._running: dict[str, Program] = {}
        self._etcd_port, self._peer_port, self.port = free_ports(3)
        self.url = f"https://127.0.0.1:{self.port}"
        self._authority = Authority(folder / "pki")
        self._audit = folder / "audit.log" if audit else None
        (folder / "audit.yaml").write_text(json.dumps(AUDIT_POLICY))
        addresses = ("IP:127.0.0.1", "IP:10.0.0.1", "DNS:localhost", "DNS:kubernetes.default.svc")
        self._server = self._authority.issue(API_SERVER, addresses=addresses)
        self._to_kubelets = self._authority.issue("apiserver-kubelet-client", (MASTERS,))
        self._tokens = self._authority.key_pair()
        self._admin = self._authority.issue("admin", (MASTERS,))
        self.api = self.api_as(self._admin)
        self.kubeconfig = self.kubeconfig_of("admin", self._admin)
        self._commands = {"etcd": self._etcd, API_SERVER: self._api_server} | {
            CONTROLLERS: self._controllers,
            SCHEDULER: self._scheduler,
        }
        try:
            self._start_all()
        except BaseException:
            self.close()
            raise

    # -- programs --------------------------------------------------------------------------------------------

    def start(self, name: str) -> Program:
        """A program that does not run, with the data and the port it had; does not wait until it is ready."""
        command = [self._programs / name, *self._commands[name](), *self._arguments.get(name, ())]
        program = self._running[name] = Program(name, command, self.folder / f"{name}.log")
        return program

    def stop(self, name: str) -> None:
        """Killed: what the others see is a crash."""
        self._running.pop(name).kill()

    def wait_until_ready(self) -> None:
        """The API server answers, with its own roles in place."""
        until(self._is_ready, lambda: self._running[API_SERVER].complaint("not ready"), SECONDS_TO_START)

    def memory(self) -> dict[str, int]:
        """Bytes that each program holds."""
        return {name: program.resident() for name, program in self._running.items()}

    def processor_seconds(self, name: str = API_SERVER) -> float:
        """User and system time that a program has used."""
        fields = Path(f"/proc/{self._running[name].pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def close(self) -> None:
        for name in reversed([*self._running]):
            self._running.pop(name).kill()  # nothing of it is kept

    def _start_all(self) -> None:
        self.start("etcd")
        self.start(API_SERVER)
        self.wait_until_ready()
        self.start(CONTROLLERS)
        self.start(SCHEDULER)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        until(lambda: self.api.find(account), lambda: self._running[CONTROLLERS].complaint("idle"), SECONDS_TO_START)

    def _is_ready(self) -> bool:
        ended = [program for program in self._running.values() if not program.runs()]
        assert not ended, ended[0].complaint("the control plane does not start")
        try:
            return self.api.get("/readyz") == "ok"
        except (OSError, RefusedError):
            time.sleep(0.1)
            return False

    # -- access ----------------------------------------------------------------------------------------------

    def api_as(self, user: Certificate | str | None) -> Api:
        """`user`: a certificate, a token, or nobody."""
        return Api(self.url, self._authority.certificate, user)

    def certificate(self, user: str, *groups: str) -> Certificate:
        """Of any user, `system:node:NAME` in group `system:nodes` for example."""
        return self._authority.issue(user, groups)

    @property
    def authority(self) -> Path:
        """The certificate that signs the API server's."""
        return self._authority.certificate

    def kubeconfig_of(self, name: str, user: Certificate | str | Path, namespace: str = "default") -> Path:
        """A new file for a certificate, a token, or a file that holds a token."""
        path = self.folder / f"{name.replace(':', '-')}.kubeconfig"
        return kubeconfig(path, self.url, self._authority.certificate, user, namespace)

    def token(
        self, account: str, namespace: str = "default", *, pod: str = "", node: str = "", seconds: int = 3600
    ) -> str:
        """A service account's, bound to a pod of its namespace or to a node where one is named, by TokenRequest."""
        spec: dict[str, Any] = {"audiences": [AUDIENCE], "expirationSeconds": seconds}
        if pod or node:
            path = f"/api/v1/namespaces/{namespace}/pods/{pod}" if pod else f"/api/v1/nodes/{node}"
            uid = self.api.get(path)["metadata"]["uid"]
            kind = "Pod" if pod else "Node"
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": kind, "name": pod or node, "uid": uid}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        return self.api.create(path, {"spec": spec})["status"]["token"]

    def environment(self) -> list[dict[str, str]]:
        """Of a container in the machine's network (`hostNetwork`), so that it finds the API server without a proxy."""
        values = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(self.port)}
        return [{"name": name, "value": value} for name, value in values.items()]

    def attempt(
        self, *words: object, stdin: str | None = None, user: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A call of kubectl that may fail; `user` is a kubeconfig file."""
        return subprocess.run(
            [str(self._programs / "kubectl"), *map(str, words)],
            env={"KUBECONFIG": str(user or self.kubeconfig), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def kubectl(self, *words: object, stdin: str | None = None, user: Path | None = None) -> str:
        """What kubectl prints; it has to succeed."""
        result = self.attempt(*words, stdin=stdin, user=user)
        assert result.returncode == 0, f"kubectl {' '.join(map(str, words))}: {result.stdout}{result.stderr}"
        return result.stdout

    @contextlib.contextmanager
    def started(self, *words: object) -> Iterator[subprocess.Popen[str]]:
        """A kubectl that runs meanwhile, with pipes; it is killed if it does not end by itself."""
        pipe = subprocess.PIPE
        command = [str(self._programs / "kubectl"), *map(str, words)]
        environ = {"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder), "PATH": "/usr/bin:/bin"}
        with subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as it:
            try:
                yield it
            finally:
                it.kill()

    @contextlib.contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """A namespace with its service account, deleted without waiting for it."""
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        until(lambda: self.api.find(account), f"namespace {name} gets no service account")
        try:
            yield name
        finally:
            self.api.delete(f"/api/v1/namespaces/{name}")

    def requests_made(self) -> list[dict[str, Any]]:
        """The audit log: one event per answered request (level Metadata)."""
        assert self._audit is not None, "this control plane was made without audit"
        lines = self._audit.read_text().splitlines() if self._audit.exists() else []
        return [json.loads(line) for line in lines]

    # -- command lines ---------------------------------------------------------------------------------------

    def _etcd(self) -> list[str]:
        client, peer = f"http://127.0.0.1:{self._etcd_port}", f"http://127.0.0.1:{self._peer_port}"
        return [
            f"--data-dir={self.folder / 'etcd'}",
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            ),
            *("--unsafe-no-fsync", "--log-level=warn"),
        ]

    def _api_server(self) -> list[str]:
        audit = [f"--audit-policy-file={self.folder / 'audit.yaml'}", f"--audit-log-path={self._audit}"]
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self.port}"),
            f"--cert-dir={self.folder / 'pki'}",
            f"--tls-cert-file={self._server.certificate}",
            f"--tls-private-key-file={self._server.key}",
            f"--client-ca-file={self._authority.certificate}",
            f"--kubelet-client-certificate={self._to_kubelets.certificate}",
            f"--kubelet-client-key={self._to_kubelets.key}",
            "--kubelet-preferred-address-types=InternalIP",  # the name of a test node is no host
            *(
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
            ),
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={self._tokens.certificate}",
            f"--service-account-signing-key-file={self._tokens.key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            *(audit if self._audit else ()),
        ]

    def _controllers(self) -> list[str]:
        return [
            *self._leaderless("system:kube-controller-manager"),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._tokens.key}",
            f"--root-ca-file={self._authority.certificate}",
            *("--kube-api-qps=500", "--kube-api-burst=500"),  # with the usual 20 it takes five seconds to get going
        ]

    def _scheduler(self) -> list[str]:
        return self._leaderless("system:kube-scheduler")

    def _leaderless(self, user: str) -> list[str]:
        path = self.kubeconfig_of(user, self._authority.issue(user))
        access = [f"--{kind}kubeconfig={path}" for kind in ("", "authentication-", "authorization-")]
        return [*access, "--leader-elect=false", "--secure-port=0"]
