"""The pods that wait for their devices, and all that the driver needs of the cluster together."""

import pytest

from aimd.adapters.kube.cluster import KubeCluster
from aimd.adapters.kube.pods import unbound_pod
from aimd.domain.pod import PodRef
from tests.fakes.kube_api import CLAIMS, PODS, SLICES
from tests.kube.conftest import QUICK
from tests.systemd.machine import until

POD = {
    "metadata": {"namespace": "default", "name": "llama-x", "uid": "u"},
    "spec": {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]},
    "status": {
        "nominatedNodeName": "a",
        "resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "llama-x-gpu-7xk2"}],
    },
}
REF = PodRef("default", "llama-x", "u")


def with_(part, **more):
    return {**POD, part: {**POD[part], **more}}


def test_the_claims_of_a_pod():
    assert (unbound_pod(POD).ref, unbound_pod(POD).resource_claims) == (REF, ("llama-x-gpu-7xk2",))
    assert unbound_pod(with_("metadata", deletionTimestamp="2026-11-25T08:00:00Z")).deleting
    both = with_(
        "spec", resourceClaims=[{"name": "given", "resourceClaimName": "mine"}, *POD["spec"]["resourceClaims"]]
    )
    assert unbound_pod(both).resource_claims == ("mine", "llama-x-gpu-7xk2")
    extended = with_("status", extendedResourceClaimStatus={"resourceClaimName": "ext-1"})
    assert unbound_pod(extended).resource_claims == ("llama-x-gpu-7xk2", "ext-1")


@pytest.mark.parametrize(
    "pod",
    [
        with_("spec", nodeName="a"),
        {"metadata": POD["metadata"]},
        with_("status", resourceClaimStatuses=[{"name": "gpu"}]),  # it needed none after all
    ],
    ids=["bound", "no claims", "none needed"],
)
def test_a_pod_that_waits_for_no_claim(pod):
    assert unbound_pod(pod) is None


@pytest.fixture
def cluster(api, tmp_path):
    cluster = KubeCluster("a", api.kubeconfig(tmp_path), "aimd/1", QUICK, driver="gpu.aimd.dev")
    yield cluster
    cluster.close()


def test_all_of_it(api, cluster):
    api.put(PODS, POD)
    api.put(PODS, {**with_("status", nominatedNodeName="b"), "metadata": {**POD["metadata"], "name": "other"}})
    told = []
    cluster.start(lambda: told.append(cluster.devices.waiting()))
    until(lambda: cluster.synced and cluster.devices.synced, "never synced")
    assert [pod.ref for pod in cluster.devices.waiting()] == [REF]
    assert cluster.pods() == ()
    api.put(CLAIMS, {"metadata": {"namespace": "default", "name": "llama-x-gpu-7xk2", "uid": "c"}})
    assert cluster.devices.claims.claim_named("default", "llama-x-gpu-7xk2")["metadata"]["uid"] == "c"
    assert cluster.devices.claims.claim_named("default", "other") is None
    wanted = {"metadata": {"name": "a-aimd-000"}, "spec": {"pool": {"name": "a", "generation": 1}}}
    wanted["spec"] |= {"driver": "gpu.aimd.dev", "nodeName": "a"}
    cluster.devices.pool.publish(lambda there: None if there else [wanted])
    until(lambda: api.get(SLICES, "a-aimd-000"), "not published")
    before = len(told)
    api.put(PODS, with_("spec", nodeName="a"))
    until(lambda: cluster.devices.waiting() == (), "still waiting")
    until(lambda: len(told) > before, "not told")
    assert [each.name for each in (pod.ref for pod in cluster.pods())] == ["llama-x"]
    watches = cluster.statistics().watches
    assert [each.resource for each in watches] == ["pods", "nodepartitions", "resourceslices", "nominatedpods"]


def test_the_rest_of_the_node_does_not_wait_for_slices(api, cluster):
    api.fail("list", SLICES, code=500, times=1000)
    cluster.start(lambda: None)
    until(lambda: cluster.synced, "never synced")
    assert not cluster.devices.synced
    api.heal()
    until(lambda: cluster.devices.synced, "never synced")


def test_an_api_server_without_slices_is_told(api, cluster):
    """Before Kubernetes 1.34."""
    api.unserved.add(SLICES)
    cluster.start(lambda: None)
    cluster.devices.pool.publish(lambda there: None if there else [{}])
    until(lambda: cluster.devices.pool.statistics().problem, "no problem is told")
    assert "404" in cluster.devices.pool.statistics().problem
    assert cluster.synced
