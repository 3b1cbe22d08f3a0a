"""What k8s/ has for kubectl, rendered by it and taken by a real API server."""

import json

import pytest
import yaml

from aimd import __version__
from aimd.config import read_config
from tests.cluster.test_cluster_policies import K8S

OVERLAYS = ("kserve", "standalone", "prometheus-operator")


def rendered(control_plane, overlay):
    text = control_plane.kubectl("kustomize", K8S / "daemonset/overlays" / overlay)
    return {
        (
            item["kind"],
            item["metadata"]["name"].rpartition("-")[0] if item["kind"] == "ConfigMap" else item["metadata"]["name"],
        ): item
        for item in yaml.safe_load_all(text)
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_each_overlay_is_taken(control_plane, overlay, tmp_path):
    """A PodMonitor's definition is the Prometheus operator's: it is rendered, and not shown to the API server."""
    items = rendered(control_plane, overlay)
    known = [item for (kind, _), item in items.items() if kind not in ("PodMonitor", "Namespace")]
    for item in known:  # a dry run makes no namespace for what follows it
        if item["metadata"].get("namespace") == "aimd-system":
            item["metadata"]["namespace"] = "default"
    dry = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-")
    out = control_plane.kubectl(*dry, stdin="\n".join(f"---\n{json.dumps(item)}" for item in known))
    assert out.count("serverside-applied (server dry run)") == len(known)
    assert (("PodMonitor", "aimd") in items) == (overlay == "prometheus-operator")


def test_only_without_kserve_is_its_definition_ours(control_plane):
    key = ("CustomResourceDefinition", "inferenceservices.serving.kserve.io")
    assert [key in rendered(control_plane, overlay) for overlay in OVERLAYS] == [False, True, False]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_images_tag_is_the_version(control_plane, overlay):
    containers = rendered(control_plane, overlay)["DaemonSet", "aimd"]["spec"]["template"]["spec"]["containers"]
    assert [container["image"] for container in containers] == [f"aimd:{__version__}"]
    assert f"aimd:{__version__} ." in (K8S / "Dockerfile").read_text()


@pytest.mark.parametrize(("overlay", "host"), [("standalone", "127.0.0.1"), ("prometheus-operator", "0.0.0.0")])
def test_the_configuration_is_valid(control_plane, overlay, host, tmp_path):
    data = rendered(control_plane, overlay)["ConfigMap", "aimd-config"]["data"]
    (tmp_path / "aimd.toml").write_text(data["aimd.toml"])
    config = read_config(tmp_path / "aimd.toml")
    assert config.kubernetes.enabled
    assert config.metrics.address() == (host, 9855)


def test_directories_of_the_node_are_mounted_and_never_files(control_plane):
    spec = rendered(control_plane, "kserve")["DaemonSet", "aimd"]["spec"]["template"]["spec"]
    kinds = {v["hostPath"]["path"]: v["hostPath"]["type"] for v in spec["volumes"] if "hostPath" in v}
    assert kinds == {"/run/aimd": "DirectoryOrCreate", "/var/lib/aimd": "DirectoryOrCreate", "/sys": "Directory"}
