"""Each file of k8s/examples: the API server takes it as it stands, it means what its comments say, and a slip is refused."""

from __future__ import annotations

import copy
import functools
import json

import click
import pytest
import yaml

from aimd.ctl.main import program
from aimd.domain.claim import PartitionRef, QosClass
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.planning.sharing.asked import asked
from aimd.planning.sharing.desired import node_spec
from tests.cluster import test_cluster_policies as policies
from tests.cluster.test_cluster_policies import K8S, SERVICES

EXAMPLES = K8S / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
COLLECTIONS = {
    "InferenceService": SERVICES,
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "NodePartitions": "/apis/aimd.dev/v1alpha1/nodepartitions",
}
standalone = policies.standalone


def documents(name):
    return list(yaml.safe_load_all((EXAMPLES / name).read_text("utf-8")))


def wish(item):
    """As aimd reads the item, or the pods that are made from it."""
    pods = item if item["kind"] == "InferenceService" else item["spec"]["template"]
    declared = item["spec"].get("gpuSharing")
    return asked(pods["metadata"].get("annotations") or {}, declared, lambda gpu: gpu)


def gb(claim):
    return claim.memory_units / 1024


@pytest.fixture
def applied(standalone, namespace):
    """A function that applies an example as a user does, and gives what the API server has of it then."""
    made = set()

    def apply(name):
        standalone.kubectl("apply", "--server-side", "--validate=strict", "-n", namespace, "-f", EXAMPLES / name)
        items = []
        for item in documents(name):
            where = f"{COLLECTIONS[item['kind']].format(namespace)}/{item['metadata']['name']}"
            made.add(where)
            items.append(standalone.api.get(where))
        return items

    yield apply
    for where in made:
        standalone.api.delete(where)


def test_every_example_is_here():
    assert set(NAMES) == BAD.keys()


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_taken_as_it_stands(applied, name):
    for item, wanted in zip(applied(name), documents(name), strict=True):
        kept = item["spec"] if wanted["kind"] != "Deployment" else item["spec"]["template"]["metadata"]
        asked_for = wanted["spec"] if wanted["kind"] != "Deployment" else wanted["spec"]["template"]["metadata"]
        assert {key: kept[key] for key in asked_for} == asked_for
        annotations = wanted["metadata"].get("annotations") or {}  # Kubernetes adds its own
        assert annotations.items() <= (item["metadata"].get("annotations") or {}).items()


def test_annotations_and_fields_ask_for_what_they_say(applied):
    by_annotations, by_fields = (
        wish(applied(f"inference-service-{how}.yaml")[0]) for how in ("annotations", "gpu-sharing")
    )
    for claim in (by_annotations, by_fields):
        assert (gb(claim), claim.qos, claim.guarantee, claim.mode.compute) == (24, QosClass.HIGH, 4, ComputeMode.CPX)
    assert (by_annotations.slo.latency_seconds, by_annotations.slo.objective) == (2, 0.99)
    assert (by_fields.mode.memory, by_fields.preferred) == (MemoryMode.NPS1, PartitionRef(3))


def test_the_two_models_fit_on_their_partition(applied):
    chat, embed = map(wish, applied("two-models-one-partition.yaml"))
    assert chat.partition == embed.partition == PartitionRef(3, "gpu0")
    assert gb(chat) + gb(embed) <= 24
    assert (chat.qos, chat.guarantee, embed.qos, embed.weight) == (QosClass.HIGH, 2, QosClass.LOW, 2)


def test_the_gate_starts_so_and_finds_the_sockets(applied):
    [item] = applied("gate-beside-model-server.yaml")
    server, gate = item["spec"]["predictor"]["containers"]
    assert gate["command"] == ["aimctl", "gate"]
    context = parsed(gate["args"])
    port = server["args"][server["args"].index("--port") + 1]
    assert context.params["to"] == f"http://127.0.0.1:{port}"
    assert context.params["listen"] == (f":{gate['ports'][0]['containerPort']}",)
    assert gate["readinessProbe"]["httpGet"]["path"] in context.params["free"]
    [mount] = gate["volumeMounts"]
    [volume] = item["spec"]["predictor"]["volumes"]
    assert (mount["name"], volume["hostPath"]) == (volume["name"], {"path": "/run/aimd", "type": "Directory"})
    sockets = {each["name"]: each["value"] for each in gate["env"]}
    assert sockets == {name: f"{mount['mountPath']}/{file}" for name, file in SOCKETS.items()}


SOCKETS = {"AIMD_SOCKET": "aimd.sock", "AIMD_DISPATCH_SOCKET": "dispatch.sock"}


def parsed(words):
    """By the parser of `aimctl gate` itself; nothing is run."""
    with program.make_context("aimctl", ["gate", *words]) as context:
        command = program.get_command(context, "gate")
        return command.make_context("gate", list(words), parent=context)


def test_pods_of_the_deployment_carry_the_annotations(applied):
    [item] = applied("deployment.yaml")
    claim = wish(item)
    assert (gb(claim), claim.limit, item["spec"]["replicas"]) == (12, 8, 2)


def test_layouts_are_those_of_the_comments(applied):
    many, mixed, none = (node_spec(item["spec"]) for item in applied("node-partitions.yaml"))
    assert many.layout == {"default": PartitionMode.parse("CPX/NPS1")}
    assert [gpu for gpu, mode in mixed.layout.items() if mode == PartitionMode.parse("SPX/NPS1")] == [
        "0000:27:00.0",
        "gpu0",
    ]
    assert none.layout is None


# The slip: where it is, what is written there, and the API server's answer.
ANNOTATIONS = ("metadata", "annotations")
BAD = {
    "inference-service-annotations.yaml": (
        (*ANNOTATIONS, "aimd.dev/memory-limit-gb"),
        "24G",
        "annotation aimd.dev/memory-limit-gb is '24G', expected GB as GPUs are sold",
    ),
    "inference-service-gpu-sharing.yaml": (
        ("spec", "gpuSharing", "computeMode"),
        "cpx",
        'computeMode: Unsupported value: "cpx"',
    ),
    "two-models-one-partition.yaml": (
        (*ANNOTATIONS, "aimd.dev/partition-id"),
        "gpu0/8",
        "annotation aimd.dev/partition-id is 'gpu0/8', expected an index from 0 to 7 or one partition",
    ),
    "gate-beside-model-server.yaml": (
        (*ANNOTATIONS, "aimd.dev/qos"),
        "high",
        "annotation aimd.dev/qos is unknown, expected one of",
    ),
    "deployment.yaml": (
        ("spec", "template", *ANNOTATIONS, "aimd.dev/limit"),
        "none",
        "annotation aimd.dev/limit is 'none', expected a whole number",
    ),
    "node-partitions.yaml": (("spec", "layout"), {"default": "CPX/NPS5"}, "mode 'CPX/NPS5' is unknown"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_slip_in_an_example_is_refused(standalone, namespace, name):
    where, value, words = BAD[name]
    for item in documents(name):
        slipped = copy.deepcopy(item)
        place = functools.reduce(lambda at, key: at[key], where[:-1], slipped)
        place[where[-1]] = value
        apply = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-")
        result = standalone.attempt(*apply, stdin=json.dumps(slipped))
        assert result.returncode == 1
        assert words in result.stderr


def test_an_option_that_the_gate_does_not_know_is_refused():
    [item] = documents("gate-beside-model-server.yaml")
    gate = item["spec"]["predictor"]["containers"][1]
    with pytest.raises(click.NoSuchOption, match="--model-server"):
        parsed([*gate["args"], "--model-server", "x"])
