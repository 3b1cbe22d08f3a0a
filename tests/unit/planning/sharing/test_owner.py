"""Which model a pod serves."""

from __future__ import annotations

import pytest

from aimd.domain.pod import Owner, Pod, PodRef
from aimd.planning.sharing.owner import model_of

REF = PodRef("default", "llama-predictor-5d8f-abcde", "u1")
SERVICE = {"serving.kserve.io/inferenceservice": "llama"}
HASH = {"pod-template-hash": "5d8f"}


@pytest.mark.parametrize(
    ("pod", "model"),
    [
        (Pod(REF, SERVICE | HASH, owners=(Owner("ReplicaSet", "llama-predictor-5d8f", "r"),)), "default/llama"),
        (Pod(REF, HASH, owners=(Owner("ReplicaSet", "web-5d8f", "r"),)), "deployment/default/web"),
        (Pod(REF, {}, owners=(Owner("ReplicaSet", "web-5d8f", "r"),)), "replicaset/default/web-5d8f"),
        (Pod(REF, HASH, owners=(Owner("ReplicaSet", "web", "r"),)), "replicaset/default/web"),
        (Pod(REF, {}, owners=(Owner("StatefulSet", "db", "s"),)), "statefulset/default/db"),
        (Pod(REF, {}, owners=(Owner("Other", "x", "o", controller=False), Owner("Job", "j", "k"))), "job/default/j"),
        (Pod(REF, {}, owners=(Owner("Other", "x", "o", controller=False),)), f"pod/default/{REF.name}"),
        (Pod(REF, {"serving.kserve.io/inferenceservice": ""}), f"pod/default/{REF.name}"),
    ],
)
def test_model_of_a_pod(pod: Pod, model: str) -> None:
    assert model_of(pod) == model
