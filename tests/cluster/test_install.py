"""k8s/install.sh on a control plane of its own: what it finds, what it changes, and that it takes away no more than that.

Definitions are the whole cluster's, so the session's control plane is not for it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest
import yaml

from aimd.planning.sharing.rivals import rivals
from tests.cluster import crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.installing import CRDS, DEFINITION, SCRIPT, Cluster, kserve_controller, without_bookkeeping
from tests.cluster.test_cluster_policies import K8S, ON, SERVICES, service_with
from tests.conftest import install as install_package
from tests.conftest import is_root
from tests.systemd.machine import until


@pytest.fixture(scope="module")
def own_control_plane(cluster_programs):
    with tempfile.TemporaryDirectory(prefix="aimd-install-", dir="/tmp") as folder:
        control_plane = ControlPlane(cluster_programs, Path(folder))
        yield Cluster(control_plane, cluster_programs)
        control_plane.close()


@pytest.fixture
def cluster(own_control_plane):
    """As empty after the test as it was before."""
    yield own_control_plane
    own_control_plane.done("uninstall", "--purge")
    for kind in ("nodes", "resourceslices"):
        own_control_plane.control_plane.kubectl("delete", kind, "--all")
    for name in (DEFINITION, "podmonitors.monitoring.coreos.com"):
        own_control_plane.control_plane.kubectl("delete", "crd", name, "--ignore-not-found")
    own_control_plane.control_plane.kubectl("delete", "deployments", "--all", "-n", "kserve")


def service(cluster):
    item = service_with(ON)
    item["metadata"] = {"name": "llama", "annotations": ON}
    return cluster.api.create(SERVICES.format("default"), item)


# -- without KServe -----------------------------------------------------------------------------------------


def test_dry_run_install_again_and_uninstall_leave_nothing(cluster):
    before = cluster.steady()
    assert "nothing was changed" in cluster.done("--dry-run")
    assert cluster.steady() == before

    said = cluster.done("install", "--wait")
    assert "no KServe: aimd brings its own definition" in said
    installed = cluster.steady()
    rendered = cluster.control_plane.kubectl("kustomize", K8S / "daemonset/overlays/standalone")
    wanted = {(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(rendered)}
    keeper = {("MutatingAdmissionPolicy" + kind, "aimd-keep-gpu-sharing-status") for kind in ("", "Binding")}
    made = {(kind, name) for kind, _, name in installed.keys() - before.keys()}
    assert wanted | keeper <= made
    by_kubernetes = {"ControllerRevision", "APIService", "FlowSchema", "CustomResourceDefinition"}
    assert {kind for kind, _ in made - wanted - keeper} <= by_kubernetes | {"ServiceAccount", "ConfigMap"}

    cluster.done()
    assert without_bookkeeping(cluster.steady()) == without_bookkeeping(installed)
    assert "(server dry run)" in cluster.done("uninstall", "--dry-run")
    assert without_bookkeeping(cluster.steady()) == without_bookkeeping(installed)
    cluster.done("uninstall")
    assert cluster.steady() == before
    cluster.done("uninstall")
    assert cluster.steady() == before


def test_the_own_definition_goes_with_its_services_only_when_told(cluster):
    cluster.done()
    service(cluster)
    said = cluster.done("uninstall")
    assert "the definition of InferenceService stays, there are 1 of them; --purge removes it and them" in said
    assert cluster.api.find(f"{SERVICES.format('default')}/llama")
    assert cluster.api.find(f"{CRDS}/nodepartitions.aimd.dev") is None
    cluster.done("uninstall", "--purge")
    assert cluster.api.find(f"{CRDS}/{DEFINITION}") is None


def test_what_others_put_into_the_namespace_stays(cluster):
    cluster.done()
    cluster.api.create("/api/v1/namespaces/aimd-system/secrets", {"metadata": {"name": "pull"}})
    said = cluster.done("uninstall")
    assert "namespace aimd-system stays, in it is what is not aimd's: secret/pull" in said
    left = cluster.control_plane.kubectl("get", "daemonsets,configmaps,sa,secrets", "-n", "aimd-system", "-o", "name")
    assert set(left.split()) == {"configmap/kube-root-ca.crt", "serviceaccount/default", "secret/pull"}
    cluster.control_plane.kubectl("delete", "secret", "pull", "-n", "aimd-system")


def test_the_image_is_the_one_asked_for(cluster):
    cluster.done("--image", "registry.example:5000/gpu/aimd@sha256:" + 64 * "0")
    spec = cluster.api.get("/apis/apps/v1/namespaces/aimd-system/daemonsets/aimd")["spec"]["template"]["spec"]
    assert [one["image"] for one in spec["containers"]] == ["registry.example:5000/gpu/aimd@sha256:" + 64 * "0"]


def test_waiting_ends_with_what_is_not_ready(cluster):
    node = {"metadata": {"name": "gpu-1", "labels": {"aimd.dev/gpu": "true"}}}
    cluster.api.create("/api/v1/nodes", node)
    assert "nodes with a label of AMD GPUs: 1" in cluster.done()
    daemons = "/apis/apps/v1/namespaces/aimd-system/daemonsets/aimd"
    until(lambda: cluster.api.get(daemons)["status"].get("desiredNumberScheduled") == 1, "no pod for the node")
    assert "DaemonSet aimd is not ready everywhere" in cluster.refused("--wait=2")
    cluster.control_plane.kubectl("delete", "node", "gpu-1")
    cluster.control_plane.kubectl("delete", "pods", "--all", "-n", "aimd-system", "--force", "--grace-period=0")


PODMONITOR = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "podmonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {
            "kind": "PodMonitor",
            "listKind": "PodMonitorList",
            "plural": "podmonitors",
            "singular": "podmonitor",
        },
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_for_the_prometheus_operator_and_back(cluster, tmp_path):
    assert "podmonitors.monitoring.coreos.com is not here" in cluster.refused("--prometheus")
    (tmp_path / "pod-monitors.yaml").write_text(json.dumps(PODMONITOR))
    crds.install(cluster.control_plane, tmp_path / "pod-monitors.yaml")
    cluster.done("--prometheus")
    where = "/apis/monitoring.coreos.com/v1/namespaces/aimd-system/podmonitors/aimd"
    daemons = "/apis/apps/v1/namespaces/aimd-system/daemonsets/aimd"

    def ports():
        return cluster.api.get(daemons)["spec"]["template"]["spec"]["containers"][0].get("ports")

    assert cluster.api.find(where)
    assert [port["containerPort"] for port in ports()] == [9855]
    installed = cluster.steady()
    cluster.done("--prometheus")
    assert without_bookkeeping(cluster.steady()) == without_bookkeeping(installed)
    cluster.done()
    assert cluster.api.find(where) is None
    assert not ports()


# -- what is there of KServe ----------------------------------------------------------------------------------


def test_kserves_controller_without_its_definition(cluster):
    kserve_controller(cluster, "v0.20.0")
    assert "(kserve/kserve-controller-manager)" in cluster.refused()


def test_kserves_controller_upon_aimds_definition_keeps_it(cluster):
    cluster.done()
    assert "aimd's own has gpuSharing" in cluster.refused("--kserve-schema")
    kserve_controller(cluster, "v0.20.0")
    assert "the definition of InferenceService stays" in cluster.done("uninstall", "--purge")
    assert cluster.api.find(f"{CRDS}/{DEFINITION}")


# -- others on the nodes ------------------------------------------------------------------------------------


def test_other_managers_of_partitions_are_named_with_their_node(cluster):
    alone = {"metadata": {"name": "node-b", "labels": {"aimd.dev/gpu": "true", "dcm.amd.com/x": "y"}}}
    shared = {
        "metadata": {"name": "node-a", "annotations": {"hami.io/node-amd-register": "{}", "hami.io/node-nvidia": "{}"}},
        "status": {"capacity": {"amd.com/gpu": "8", "amd.com/cpx_nps1": "8", "amd.com/spx": "0"}},
    }
    for node in (alone, shared):
        cluster.api.create("/api/v1/nodes", node)
    pool = {"name": "node-a", "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.amd.com", "nodeName": "node-a", "pool": pool, "devices": [{"name": "gpu-0"}]}
    cluster.api.create("/apis/resource.k8s.io/v1/resourceslices", {"metadata": {"name": "one"}, "spec": spec})
    result = cluster.run("--dry-run")
    assert result.returncode == 0
    told = [
        f"warning: node {name}: {sentence}"
        for name, node, slices in (("node-b", alone, []), ("node-a", shared, [{"spec": spec}]))
        for sentence in rivals(node, slices)
    ]
    warnings = result.stderr.splitlines()
    assert len(told) == len(warnings) == 4
    for sentence in told:
        [line] = [line for line in warnings if line.startswith(f"{sentence}; until that is gone")]
        assert "take the node from " in line


# -- what cannot be done ------------------------------------------------------------------------------------


def test_without_kubectl(cluster, tmp_path):
    for tool in ("cat", "dirname", "sed", "awk", "grep", "mktemp", "rm", "paste"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    assert cluster.refused(path=str(tmp_path)) == "error: kubectl is not in PATH, and it is what this script works with"


def kubeconfig(path, url):
    content = {
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
        "users": [{"name": "x", "user": {}}],
    }
    path.write_text(json.dumps(content))
    return path


def test_an_api_server_that_is_not_there(cluster, tmp_path):
    said = cluster.refused(kubeconfig=kubeconfig(tmp_path / "config", "http://127.0.0.1:9"))
    assert said.startswith(
        "error: the API server cannot be asked: The connection to the server 127.0.0.1:9 was refused"
    )


@contextlib.contextmanager
def old_server():
    """As much of Kubernetes 1.29 as is asked of it."""
    answers = {
        "/version": {"major": "1", "minor": "29", "gitVersion": "v1.29.3"},
        "/apis/admissionregistration.k8s.io/v1": {
            "kind": "APIResourceList",
            "resources": [{"name": "validatingwebhookconfigurations"}],
        },
    }

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers.get(self.path.partition("?")[0])
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer, indent=2).encode())

        def log_message(self, *_):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_api_server_that_is_too_old(cluster, tmp_path):
    with old_server() as url:
        said = cluster.refused(kubeconfig=kubeconfig(tmp_path / "config", url))
    assert "Kubernetes 1.29.3 does not serve ValidatingAdmissionPolicy v1" in said
    assert "1.30 and newer do" in said


def test_somebody_who_may_not(cluster):
    account = cluster.control_plane.token("default")
    said = cluster.refused(kubeconfig=cluster.control_plane.kubeconfig_of("nobody", account))
    assert 'cannot get resource "customresourcedefinitions"' in said


def test_somebody_who_may_not_everything(cluster):
    """A definition that may not be read is not taken for one that is not there."""
    may = [("apiextensions.k8s.io", "customresourcedefinitions", {"resourceNames": [DEFINITION]})]
    may += [
        (group, kind, {})
        for group, kind in (("apps", "deployments"), ("", "nodes"), ("resource.k8s.io", "resourceslices"))
    ]
    rules = [{"apiGroups": [group], "resources": [kind], "verbs": ["get", "list"]} | more for group, kind, more in may]
    roles = "/apis/rbac.authorization.k8s.io/v1/clusterrole"
    cluster.api.create(f"{roles}s", {"metadata": {"name": "some"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "some"}
    binding = {"metadata": {"name": "some"}, "roleRef": role, "subjects": [subject]}
    cluster.api.create(f"{roles}bindings", binding)
    user = cluster.control_plane.kubeconfig_of("some", cluster.control_plane.token("default"))
    said = cluster.refused("--prometheus", kubeconfig=user)
    assert said.startswith("error: crd podmonitors.monitoring.coreos.com cannot be read: ")
    for kind in ("s", "bindings"):
        cluster.api.delete(f"{roles}{kind}/some")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--images", "x"), "--images is unknown"),
        (("--image",), "--image needs a value"),
        (("--image=",), "--image needs a value"),
        (("--image", "a b"), "image 'a b' is no name of an image"),
        (("--purge",), "--purge is for uninstall"),
        (("--wait=long",), "--wait=SECONDS takes a whole number, not 'long'"),
        (("--kserve-version", "new"), "KServe's version is like 0.20, not 'new'"),
        (("--kserve-version", "v0.20"), "KServe's version is like 0.20, not 'v0.20'"),
        (("--kserve-version=0.",), "KServe's version is like 0.20, not '0.'"),
        (("uninstall", "--prometheus"), "uninstall knows --purge, --dry-run and --context"),
        (("uninstall", "--image", "x"), "uninstall knows --purge, --dry-run and --context"),
    ],
)
def test_words_that_are_none(cluster_programs, words, sentence):
    result = subprocess.run(["/bin/sh", SCRIPT, *words], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (2, f"error: {sentence}; --help shows what there is\n")


def test_help_names_every_option():
    said = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    text = SCRIPT.read_text()
    block = text[text.index("        case $option in\n        install") : text.index("        *) misused")]
    options = {word for word in block.replace("|", " ").replace(")", " ").split() if word.startswith("--")}
    assert len(options) >= 8
    assert [option for option in options if option not in said] == []


def test_shellcheck():
    if shutil.which("shellcheck") is None:
        if not is_root() or shutil.which("apt-get") is None:
            pytest.skip("shellcheck is not installed, and only root with apt-get installs it")
        install_package("shellcheck")
    for shell in ("sh", "bash"):
        result = subprocess.run(["shellcheck", "-s", shell, SCRIPT], capture_output=True, text=True)
        assert result.returncode == 0, result.stdout
