"""CRDs and admission policies as the real API server takes and enforces them."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import pytest
import yaml

from k8s.crd import generate
from tests.cluster import crds
from tests.cluster.api import RefusedError
from tests.systemd.machine import until
from tests.unit.planning.sharing.test_asked import BAD

K8S = Path(__file__).parents[2] / "k8s"
SERVICES = "/apis/serving.kserve.io/v1beta1/namespaces/{}/inferenceservices"
ON = {"aimd.dev/gpu-sharing": "enabled", "aimd.dev/memory-limit-gb": "8"}
GOOD = {
    "memory-limit-gb": "1.5",
    "compute-mode": "cpx",
    "memory-mode": "NPS4",
    "partition-id": "0000:65:00.0/3",
    "preferred-partition": "5",
    "qos-priority": "HIGH",
    "guarantee": "2",
    "limit": "4",
    "weight": "10",
    "slo-latency-seconds": "0.25",
    "slo-objective": "0.999",
    "slo-throughput": "12",
}


@pytest.fixture(scope="module")
def standalone(control_plane):
    """A cluster without KServe that has our CRDs and policies."""
    for name in ("gpu-sharing-crd.yaml", "nodepartitions.yaml"):
        crds.install(control_plane, K8S / "crd" / name)
    for name in ("annotations.yaml", "own-node.yaml", "status-keeper.yaml"):
        control_plane.kubectl("apply", "--server-side", "-f", K8S / "policies" / name)
    until(lambda: in_force(control_plane), "the policy is not in force")
    yield control_plane
    # Other tests show what KServe drops without the keeper, and make what the annotations' policy refuses.
    for name in ("annotations.yaml", "status-keeper.yaml"):
        control_plane.kubectl("delete", "-f", K8S / "policies" / name)


def in_force(control_plane):
    """Whether the policy of annotations is."""
    return refusal(control_plane, "/api/v1/namespaces/default/pods", pod_with({"aimd.dev/weight": "0"}))


def pod_with(annotations):
    return {
        "metadata": {"generateName": "p-", "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    }


def service_with(annotations, sharing=None):
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"generateName": "s-", "annotations": annotations},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "x"}}}} | ({"gpuSharing": sharing} if sharing else {}),
    }


def deployment_with(annotations):
    template = pod_with(annotations)
    template["metadata"] = {"labels": {"app": "x"}, "annotations": annotations}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"generateName": "d-"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "x"}}, "template": template},
    }


def refusal(control_plane, path, item):
    """The API server's words, None if it takes the object; nothing is made."""
    try:
        control_plane.api.create(path, item, dryRun="All", fieldValidation="Strict")
    except RefusedError as refused:
        return refused.message
    return None


@pytest.mark.parametrize("make", [pod_with, service_with, deployment_with])
def test_good_annotations_are_taken(standalone, namespace, make):
    path = paths(namespace)[make]
    assert refusal(standalone, path, make({})) is None
    assert refusal(standalone, path, make(ON)) is None
    assert refusal(standalone, path, make(ON | {f"aimd.dev/{name}": value for name, value in GOOD.items()})) is None
    assert refusal(standalone, path, make({"aimd.dev/gpu-sharing": "disabled"})) is None


def paths(namespace):
    return {
        pod_with: f"/api/v1/namespaces/{namespace}/pods",
        service_with: SERVICES.format(namespace),
        deployment_with: f"/apis/apps/v1/namespaces/{namespace}/deployments",
    }


@pytest.mark.parametrize(("name", "value", "expected"), BAD)
def test_a_bad_annotation_is_refused_in_the_words_of_aimd(standalone, namespace, name, value, expected):
    said = ON | {f"aimd.dev/{name}": value}
    for make, path in paths(namespace).items():
        message = refusal(standalone, path, make(said)) or ""
        if "\n" in value:  # what has a line break cannot be repeated in a message
            assert "failed expression" in message
        else:
            assert f"annotation aimd.dev/{name} is '{value}', expected {expected}" in message


def test_what_was_there_before_the_policy_can_be_mended_and_deleted(standalone, namespace):
    """An update that says none of it anew is nobody's mistake."""
    path, bad = K8S / "policies/annotations.yaml", {"aimd.dev/weight": "heavy"}
    standalone.kubectl("delete", "-f", path)
    until(lambda: not in_force(standalone), "the policy stays in force")
    api = standalone.api
    item = service_with(bad)
    item["metadata"] = {"name": "old", "annotations": bad, "finalizers": ["test.aimd.dev/hold"]}
    api.create(SERVICES.format(namespace), item)
    where, pods = f"{SERVICES.format(namespace)}/old", f"/api/v1/namespaces/{namespace}/pods"
    name = api.create(pods, pod_with(bad))["metadata"]["name"]
    deployments = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    api.create(deployments, {**deployment_with(bad), "metadata": {"name": "web"}})
    standalone.kubectl("apply", "--server-side", "-f", path)
    until(lambda: in_force(standalone), "the policy is not in force")
    api.merge(f"{pods}/{name}", {"metadata": {"labels": {"touched": "yes"}, "annotations": {"else": "x"}}})
    api.merge(f"{deployments}/web", {"spec": {"replicas": 0}})
    for said in ({"aimd.dev/weight": "light"}, {"aimd.dev/limit": "many"}):
        with pytest.raises(RefusedError, match=r"aimd\.dev/"):
            api.merge(f"{pods}/{name}", {"metadata": {"annotations": said}})
    with pytest.raises(RefusedError, match="weight"):
        api.merge(where, {"metadata": {"annotations": {"aimd.dev/qos-priority": "high"}}})
    api.merge(where, {"metadata": {"annotations": {"aimd.dev/weight": "3"}}})
    api.merge(f"{pods}/{name}", {"metadata": {"annotations": {"aimd.dev/weight": None}}})
    api.create(
        SERVICES.format(namespace), {**item, "metadata": {**item["metadata"], "name": "other", "annotations": {}}}
    )
    api.delete(where)
    api.merge(where, {"metadata": {"finalizers": None}})
    until(lambda: api.find(where) is None, "it cannot be deleted")
    api.merge(f"{SERVICES.format(namespace)}/other", {"metadata": {"finalizers": None}})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"aimd.dev/gpu-sharing": "enabled"}, "annotation aimd.dev/memory-limit-gb is missing, expected GB"),
        (ON | {"aimd.dev/limit": "2", "aimd.dev/guarantee": "3"}, "annotation aimd.dev/limit is smaller than"),
        (ON | {"aimd.dev/qos": "high"}, "annotation aimd.dev/qos is unknown, expected one of aimd.dev/gpu-sharing, "),
    ],
)
def test_what_annotations_say_together(standalone, namespace, said, words):
    for make, path in paths(namespace).items():
        assert words in (refusal(standalone, path, make(said)) or "")


FIELDS = [
    ({"enabled": True, "memoryLimitGB": 8}, None),
    ({"enabled": False}, None),
    ({"enabled": True, "memoryLimitGB": 1.5, "partitionId": 3, "preferredPartition": "gpu3/5"}, None),
    ({"enabled": True, "memoryLimitGB": 8, "computeMode": "CPX", "memoryMode": "NPS1", "qosPriority": "HIGH"}, None),
    ({"enabled": True, "memoryLimitGB": 8, "guarantee": 1, "limit": 1, "weight": 1000, "sloObjective": 0.999}, None),
    ({"memoryLimitGB": 8}, "gpuSharing.enabled: Required value"),
    ({"enabled": "yes", "memoryLimitGB": 8}, "gpuSharing.enabled in body must be of type boolean"),
    ({"enabled": True}, "gpuSharing.memoryLimitGB is missing, expected GB as GPUs are sold, for example 24"),
    ({"enabled": True, "memoryLimitGB": 0}, "gpuSharing.memoryLimitGB in body should be greater than 0"),
    ({"enabled": True, "memoryLimitGB": 8, "partitionId": 8}, "partitionId in body should be less than or equal to 7"),
    ({"enabled": True, "memoryLimitGB": 8, "partitionId": "gpu3"}, "partitionId in body should match"),
    ({"enabled": True, "memoryLimitGB": 8, "preferredPartition": "x"}, "preferredPartition in body should match"),
    ({"enabled": True, "memoryLimitGB": 8, "computeMode": "EPX"}, 'computeMode: Unsupported value: "EPX": supported'),
    ({"enabled": True, "memoryLimitGB": 8, "memoryMode": "NPS5"}, 'memoryMode: Unsupported value: "NPS5": supported'),
    ({"enabled": True, "memoryLimitGB": 8, "qosPriority": "urgent"}, 'qosPriority: Unsupported value: "urgent"'),
    ({"enabled": True, "memoryLimitGB": 8, "guarantee": 3, "limit": 2}, "gpuSharing.limit is smaller than"),
    ({"enabled": True, "memoryLimitGB": 8, "weight": 0}, "weight in body should be greater than or equal to 1"),
    ({"enabled": True, "memoryLimitGB": 8, "sloObjective": 1}, "sloObjective in body should be less than 1"),
    ({"enabled": True, "memoryLimitGB": 8, "sloLatencySeconds": 0}, "sloLatencySeconds in body should be greater"),
    ({"enabled": True, "memoryLimitGB": 8, "sloThroughput": -1}, "sloThroughput in body should be greater"),
    ({"enabled": True, "memoryLimitGB": 8, "qos": "high"}, 'unknown field "spec.gpuSharing.qos"'),
]


@pytest.mark.parametrize(("sharing", "words"), FIELDS)
def test_the_fields_of_gpu_sharing_row_by_row(standalone, namespace, sharing, words):
    message = refusal(standalone, SERVICES.format(namespace), service_with({}, sharing))
    assert message is None if words is None else words in (message or "")


NODE_PARTITIONS = [
    ({}, None),
    (
        {"layout": {"default": "SPX/NPS1", "gpu0": "CPX", "0000:65:00.0": "NPS4"}, "policy": {"repartition": "never"}},
        None,
    ),
    ({"layout": {"first": "SPX"}}, "layout names first, expected default, gpu0, gpu1, ... or a PCI address"),
    ({"layout": {"gpu0": "EPX"}}, "mode 'EPX' is unknown, expected COMPUTE or COMPUTE/MEMORY"),
    ({"layout": {"gpu0": "CPX/NPS5"}}, "mode 'CPX/NPS5' is unknown"),
    ({"layout": {"gpu0": "CPX/NPS1/x"}}, "Too long: may not be more than 9"),
    ({"policy": {"repartition": "always"}}, 'repartition: Unsupported value: "always": supported values: '),
    ({"modes": {}}, 'unknown field "spec.modes"'),
]


@pytest.mark.parametrize(("spec", "words"), NODE_PARTITIONS)
def test_the_fields_of_node_partitions_row_by_row(standalone, spec, words):
    item = {"apiVersion": "aimd.dev/v1alpha1", "kind": "NodePartitions", "metadata": {"name": "row"}, "spec": spec}
    message = refusal(standalone, "/apis/aimd.dev/v1alpha1/nodepartitions", item)
    assert message is None if words is None else words in (message or "")


@contextlib.contextmanager
def on(control_plane, *steps):
    """Objects that are there for a while, by collection and object."""
    made = []
    try:
        for path, item in steps:
            created = control_plane.api.create(path, item)
            made.append(f"{path}/{created['metadata']['name']}")
        yield
    finally:
        for path in reversed(made):
            control_plane.api.delete(path)


@pytest.mark.parametrize("flavour", ["standalone", "full", "minimal"])
def test_the_status_survives_an_update_of_kserves_kind_with_the_keeper_alone(
    standalone, namespace, request, tmp_path, flavour
):
    """A typed client reads the status into its own type, changes a condition, and writes it back without our field."""
    if flavour != "standalone":
        path = crds.kserve(request.getfixturevalue("shared_data"), flavour, tmp_path)
        crds.install(standalone, path)
    keeper = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings/aimd-keep-gpu-sharing-status"
    binding = standalone.api.get(keeper)
    try:
        service = standalone.api.create(SERVICES.format(namespace), service_with(ON))
        where = f"{SERVICES.format(namespace)}/{service['metadata']['name']}"
        told = {"gpuSharing": {"node": "a"}, "conditions": [{"type": "GPUPartitionAssigned", "status": "True"}]}
        standalone.api.merge(f"{where}/status", {"status": told})

        def typed_update():
            item = standalone.api.get(where)
            item["status"] = {
                "conditions": item["status"]["conditions"],
                "url": f"http://{item['metadata']['resourceVersion']}",
            }
            return standalone.api.replace(f"{where}/status", copy.deepcopy(item))["status"]

        until(lambda: "gpuSharing" in typed_update(), "the keeper is not in force")
        assert typed_update()["gpuSharing"] == {"node": "a"}
        standalone.api.delete(keeper)
        until(lambda: "gpuSharing" not in typed_update(), "something else keeps it")
        standalone.api.merge(f"{where}/status", {"status": {"gpuSharing": {"node": "a"}}})
    finally:
        for field in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
            binding["metadata"].pop(field, None)
        if standalone.api.find(keeper) is None:
            standalone.api.create(keeper.rpartition("/")[0], binding)
        if flavour != "standalone":
            crds.install(standalone, K8S / "crd" / "gpu-sharing-crd.yaml")


def test_the_overlay_adds_gpu_sharing_to_kserves_full_crd(standalone, namespace, shared_data, tmp_path):
    crds.install(standalone, crds.kserve(shared_data, "full", tmp_path))
    try:
        path = SERVICES.format(namespace)
        strict = service_with({}, {"enabled": True, "memoryLimitGB": 8})
        strict["spec"]["predictor"] = {"model": {"modelFormat": {"name": "x"}}}
        assert 'unknown field "spec.gpuSharing"' in (refusal(standalone, path, strict) or "")
        patch = K8S / "crd" / "kserve-overlay.yaml"
        name = "inferenceservices.serving.kserve.io"
        standalone.kubectl("patch", "crd", name, "--type=json", "--patch-file", patch)
        until(lambda: refusal(standalone, path, strict) is None, "the overlay is not in force")
        for sharing, words in FIELDS:
            item = service_with({}, sharing)
            message = refusal(standalone, path, item)
            assert message is None if words is None else words in (message or ""), sharing
    finally:
        crds.install(standalone, K8S / "crd" / "gpu-sharing-crd.yaml")


def test_the_overlay_is_a_patch_that_kubectl_takes():
    """kubectl turns YAML into JSON: no anchors, no tags."""
    text = (generate.HERE / "kserve-overlay.yaml").read_text("utf-8")
    assert "&" not in text.replace("&&", "")
    assert [step["op"] for step in yaml.safe_load(text)] == ["test", "add"]
