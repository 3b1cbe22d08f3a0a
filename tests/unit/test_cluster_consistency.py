"""The judge of the cluster's lifecycle tests finds each thing that may be wrong."""

from __future__ import annotations

import copy

import pytest

from tests.cluster.consistency import GIB, Ledger, World, disagreements, never

ON = {"aimd.dev/gpu-sharing": "enabled"}


def pod(number, node, service="llama"):
    metadata = {"namespace": "ns", "name": f"{service}-{number}", "uid": f"u{number}", "annotations": dict(ON)}
    metadata["labels"] = {"serving.kserve.io/inferenceservice": service}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": "Running"}}


def ledger(*numbers, gb=8, index=0):
    """The pods of these numbers on one partition."""
    pods = [{"namespace": "ns", "name": f"llama-{n}", "uid": f"u{n}", "replica": n} for n in numbers]
    places = [
        {
            "name": f"ns/llama/{n}",
            "claim": "ns/llama",
            "replica": n,
            "partition": f"0000:05:00.0/{index}",
            "partition_name": f"gpu0/{index}",
            "memory_gb": gb,
        }
        for n in numbers
    ]
    partitions = [{"id": f"0000:05:00.0/{index}", "memory_bytes": 24 * GIB - 5} for index in range(8)]
    return Ledger([{"name": "ns/llama", "pods": pods}] if pods else [], places, partitions)


def entry(number, node, left):
    place = {"partitionId": "gpu0/0", "partitionSizeGB": 24, "allocatedMemoryGB": 8, "availableMemoryGB": left}
    return {"pod": f"llama-{number}", "node": node, **place}


def settled():
    """Two pods on node a, one on node b, one on a that waits."""
    entries = {"u0": entry(0, "a", 8), "u1": entry(1, "a", 8), "u2": entry(2, "b", 16)}
    entries["u3"] = {"pod": "llama-3", "node": "a", "reason": "NoRoom", "message": "it waits"}
    info = {key: value for key, value in entries["u0"].items() if key not in ("pod", "node")} | {"podUID": "u0"}
    status = {
        "gpuSharing": {"node": "a", "partitionInfo": info, "assignments": entries},
        "annotations": {"aimd.dev/partition": "a/gpu0/0"},
        "conditions": [{"type": "GPUPartitionAssigned", "status": "False"}],
    }
    first = ledger(0, 1)
    first.claims[0]["pods"].append({"namespace": "ns", "name": "llama-3", "uid": "u3", "replica": 3})
    record = {"gpus": [{"name": "gpu0", "partitions": [{"index": 0, "assignments": [
        {"claim": f"ns/llama/{n}", "memoryGB": 8} for n in (0, 1)]}]}]}  # fmt: skip
    services = [{"metadata": {"namespace": "ns", "name": "llama"}, "status": status}]
    pods = [pod(0, "a"), pod(1, "a"), pod(2, "b"), pod(3, "a")]
    return World(pods, {"a": first, "b": ledger(2)}, services, {"a": record})


def test_all_is_well():
    assert disagreements(settled()) == []


def status(world):
    return world.services[0]["status"]


def doubled(world):
    world.ledgers["b"].claims[0]["pods"][0]["uid"] = "u0"


def placed_twice(world):
    one = world.ledgers["b"].assignments
    one.append({**one[0], "partition": "0000:05:00.0/1", "partition_name": "gpu0/1"})


def of_nobody(world):
    world.ledgers["b"].claims[0]["pods"].append({"uid": "u9", "replica": 9})
    del world.ledgers["b"].claims[0]["pods"][0]


def without_claim(world):
    world.ledgers["b"].claims.clear()


def overfull(world):
    world.ledgers["a"].assignments[0]["memory_gb"] = 17


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (doubled, "is a replica 2 times"),
        (placed_twice, "is assigned 2 times"),
        (of_nobody, "nobody's"),
        (without_claim, "nobody's"),
        (overfull, "1 GB more"),
    ],
)
def test_what_must_never_be(fault, words):
    world = copy.deepcopy(settled())
    fault(world)
    assert any(words in each for each in never(world.ledgers))


FAULTS = {
    "which is gone": lambda world: world.pods.pop(0),
    "asks it for none": lambda world: world.pods[0]["status"].update(phase="Succeeded"),
    "has nothing for its pod": lambda world: world.pods.append(pod(7, "b")),
    "does not tell of pod": lambda world: status(world)["gpuSharing"]["assignments"].pop("u2"),
    "tells of pod u8": lambda world: status(world)["gpuSharing"]["assignments"].update(u8=entry(8, "c", 16)),
    "the ledger ('a', 'gpu0/0', 8, 8)": lambda world: status(world)["gpuSharing"]["assignments"]["u1"].update(
        availableMemoryGB=16
    ),
    "the ledger that it waits": lambda world: status(world)["gpuSharing"]["assignments"].update(u3=entry(3, "a", 8)),
    "its summary is of pod": lambda world: status(world)["gpuSharing"]["partitionInfo"].update(podUID="u3"),
    "its summary says": lambda world: status(world)["gpuSharing"]["partitionInfo"].update(availableMemoryGB=0),
    "its annotation says": lambda world: status(world)["annotations"].clear(),
    "its condition is": lambda world: status(world)["conditions"][0].update(status="True"),
    "has no pod and yet": lambda world: status(world)["gpuSharing"]["assignments"].clear(),
    "the record of a": lambda world: world.records["a"].clear(),
}


@pytest.mark.parametrize("words", FAULTS)
def test_what_must_not_stay(words):
    world = copy.deepcopy(settled())
    assert not never(world.ledgers)
    FAULTS[words](world)
    assert any(words in each for each in disagreements(world)), disagreements(world)
