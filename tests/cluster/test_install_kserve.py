"""k8s/install.sh beside KServe, whose real definition in both flavours is in the shared data, and without its field."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.cluster import crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.installing import CRDS, DEFINITION, Cluster, kserve_controller, unversioned, without_bookkeeping
from tests.cluster.test_cluster_policies import K8S, ON, SERVICES, refusal, service_with
from tests.systemd.machine import until

WHERE = f"{CRDS}/{DEFINITION}"
SERVICE = f"{SERVICES.format('default')}/llama"
FIELD = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/gpuSharing"


@pytest.fixture(scope="module")
def own_control_plane(cluster_programs):
    with tempfile.TemporaryDirectory(prefix="aimd-install-", dir="/tmp") as folder:
        control_plane = ControlPlane(cluster_programs, Path(folder))
        yield Cluster(control_plane, cluster_programs)
        control_plane.close()


@pytest.fixture(scope="module", params=crds.FLAVOURS)
def flavour(request, own_control_plane, shared_data, tmp_path_factory):
    """KServe's definition is there, in this flavour."""
    path = crds.kserve(shared_data, request.param, tmp_path_factory.mktemp("crds"))
    crds.install(own_control_plane.control_plane, path)
    yield request.param
    crds.remove(own_control_plane.control_plane, DEFINITION)


@pytest.fixture
def cluster(own_control_plane, flavour):
    """KServe 0.20 with a service, and no aimd; afterwards, too."""
    kserve_controller(own_control_plane, "v0.20.0")
    service(own_control_plane)
    yield own_control_plane
    own_control_plane.api.delete(SERVICE)
    own_control_plane.done("uninstall", "--purge")


FULL = pytest.mark.parametrize("flavour", ["full"], indirect=True)
MINIMAL = pytest.mark.parametrize("flavour", ["minimal"], indirect=True)


def service(cluster, sharing=None):
    item = service_with(ON, sharing)
    item["metadata"] = {"name": "llama", "annotations": ON}
    return cluster.api.create(SERVICES.format("default"), item)


def changed(before, after):
    return {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}


def test_kserve_is_as_it_was_after_install_and_after_uninstall(cluster, flavour):
    before = cluster.steady()
    said = cluster.done("--dry-run")
    assert f"KServe 0.20, its definition of InferenceService is the {flavour} one" in said
    assert ("see --kserve-schema" in said) == (flavour == "full")
    assert cluster.steady() == before
    cluster.done()
    installed = cluster.steady()
    assert {key: installed[key] for key in before} == before
    cluster.done()
    assert without_bookkeeping(cluster.steady()) == without_bookkeeping(installed)
    assert "KServe's definition and its InferenceServices stay" in cluster.done("uninstall", "--purge")
    assert cluster.steady() == before


@FULL
def test_the_schema_comes_to_the_full_definition_and_goes_with_aimd(cluster):
    definition = cluster.api.get(WHERE)
    path, bad = SERVICES.format("default"), service_with({}, {"enabled": True})
    assert "unknown field" in refusal(cluster, path, bad)
    cluster.done("--kserve-schema", "--dry-run")
    assert cluster.api.get(WHERE) == definition
    assert "an upgrade of KServe undoes that" in cluster.done("--kserve-schema")
    until(lambda: "memoryLimitGB is missing" in refusal(cluster, path, bad), "the schema is not in force")
    cluster.api.merge(SERVICE, {"spec": {"gpuSharing": {"enabled": True, "memoryLimitGB": 8}}})
    apply = ("apply", "--server-side", "--dry-run=server", "--validate=strict")
    for example in ("inference-service-annotations", "inference-service-gpu-sharing", "gate-beside-model-server"):
        cluster.control_plane.kubectl(*apply, "--force-conflicts", "-f", K8S / "examples" / f"{example}.yaml")
    with_schema = cluster.api.get(WHERE)
    cluster.done("--kserve-schema")
    cluster.done()
    assert cluster.api.get(WHERE) == with_schema
    assert "drops spec.gpuSharing of these from now on: default/llama" in cluster.done("uninstall")
    assert unversioned(cluster.api.get(WHERE), "generation") == unversioned(definition, "generation")
    assert cluster.api.get(SERVICE)["metadata"]["annotations"] == ON


@FULL
def test_no_schema_where_kserve_would_drop_it(cluster):
    before = cluster.steady()
    for version, words in (
        ("v0.19.1", "KServe 0.19 removes spec.gpuSharing from what is applied: --kserve-schema needs 0.20"),
        ("latest", "(docker.io/kserve/kserve-controller:latest) does not tell its version: say it by --kserve-version"),
    ):
        kserve_controller(cluster, version)
        assert words in cluster.refused("--kserve-schema")
    assert {kind for kind, _, _ in changed(before, cluster.steady())} <= {"Deployment", "ReplicaSet"}
    cluster.done("--kserve-schema", "--kserve-version", "1.0", "--dry-run")


@FULL
def test_a_field_of_that_name_by_others_is_let_alone(cluster):
    other = {"type": "object", "description": "x"}
    cluster.api.patch(WHERE, [{"op": "add", "path": FIELD, "value": other}])
    definition = cluster.api.get(WHERE)
    assert "a field gpuSharing that is not aimd's" in cluster.refused("--kserve-schema")
    cluster.done()
    cluster.done("uninstall")
    assert cluster.api.get(WHERE) == definition
    cluster.api.patch(WHERE, [{"op": "remove", "path": FIELD}])


@MINIMAL
def test_no_schema_for_the_minimal_definition(cluster):
    assert "this is the minimal one, which takes any field unchecked" in cluster.refused("--kserve-schema")


def test_kserve_installed_over_aimds_definition_is_kserves(own_control_plane, flavour):
    """Server-side apply leaves the label of the definition that was there."""
    cluster = own_control_plane
    label = {"metadata": {"labels": {"app.kubernetes.io/part-of": "aimd"}}}
    found = cluster.api.merge(WHERE, label)
    cluster.done()
    assert cluster.api.get(WHERE) == found
    cluster.done("uninstall", "--purge")
    assert cluster.api.get(WHERE) == found
    cluster.api.merge(WHERE, {"metadata": {"labels": {"app.kubernetes.io/part-of": None}}})
