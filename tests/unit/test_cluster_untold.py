"""What a daemon was killed before it could tell the cluster is told by the next one."""

from __future__ import annotations

from tests.fakes.cluster_turns import KEY, POD, Turning
from tests.unit.planning.desk import desk


def test_a_release_that_the_daemon_did_not_live_to_tell() -> None:
    """The ledger has forgotten the claim; the node's record, which is written later, has not."""
    first = Turning(desk("CPX/NPS1"))
    first.cluster.the_pods = (POD,)
    first.cluster.objects.services[KEY] = {"metadata": {"resourceVersion": "1"}}
    for _ in range(3):
        first.turn()
    assert "gpuSharing" in first.cluster.objects.services[KEY]["status"]
    first.cluster.the_pods, first.cluster.full = (), {"service default/llama", "node"}
    first.turn()
    first.turn()
    assert first.made.ledger.claims == {}
    first.cluster.full = set()
    again = Turning(first.made, first.cluster)
    again.turn()
    status = again.cluster.objects.services[KEY]["status"]
    assert status.get("gpuSharing") is None
    assert status["conditions"][0]["reason"] == "NoPods"
