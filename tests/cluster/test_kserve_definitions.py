"""Our status on KServe's own InferenceService, in both flavours, beside what KServe's controller does to it.

KServe's controller writes the status from its own types: what they do not know is dropped, and a condition loses its
observedGeneration. The definitions are KServe's (main, August 2026), the daemon is the real one on a node of paper.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import time
from pathlib import Path

import pytest

from tests.cluster import crds
from tests.cluster.control_plane import ControlPlane
from tests.cluster.sites import with_aimd
from tests.cluster.test_cluster_policies import K8S, ON, SERVICES
from tests.cluster.test_lifecycle import NodeDaemon, condition, status
from tests.systemd.machine import until

REFRESH_SECONDS = 60  # the least that the configuration takes; a fifth is added at random
SECONDS_AFTER_A_POD = 10  # it is looked at the service once more when its pods have changed
KNOWN_OF_CONDITIONS = ("type", "status", "severity", "reason", "message", "lastTransitionTime")  # knative.dev/pkg/apis


class Flavour:
    """A cluster with KServe's definition and a node with a daemon; both end with `ends`."""

    def __init__(self, name, programs, shared_data, folder, ends):
        self.cluster = ControlPlane(programs, folder / "control")
        ends.callback(self.cluster.close)
        definition = crds.kserve(shared_data, name, folder)
        with_aimd(self.cluster, (definition, K8S / "crd" / "nodepartitions.yaml"))
        self.node = NodeDaemon(self.cluster, "node-k", folder, settings=f"refresh_seconds = {REFRESH_SECONDS}")
        ends.callback(self.node.daemon.close)
        self.api = self.cluster.api


@pytest.fixture(scope="module")
def both(cluster_programs, shared_data):
    """By name. Two control planes, so that what takes its time takes it once."""
    with contextlib.ExitStack() as ends:
        made = {}
        for name in crds.FLAVOURS:
            folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="aimd-")))
            folder.chmod(0o755)
            made[name] = Flavour(name, cluster_programs, shared_data, folder, ends)
        yield made


@pytest.fixture(params=crds.FLAVOURS)
def flavour(both, request):
    return both[request.param]


@pytest.fixture
def keeper(flavour):
    """The policy of k8s/policies in force; afterwards it is so no more."""
    path = K8S / "policies/status-keeper.yaml"
    with service(flavour, "probe") as where:
        flavour.api.merge(f"{where}/status", {"status": {"gpuSharing": {"node": "x"}}})
        item = flavour.api.get(where)
        del item["status"]["gpuSharing"]
        item["status"]["url"] = "http://x.test"

        def kept():
            return "gpuSharing" in flavour.api.replace(f"{where}/status", item, dryRun="All")["status"]

        flavour.cluster.kubectl("apply", "--server-side", "-f", path)
        until(kept, "the policy is not in force")
        yield
        flavour.cluster.kubectl("delete", "-f", path)
        until(lambda: not kept(), "the policy is still in force")


@contextlib.contextmanager
def service(flavour, name):
    """As KServe's user makes it; its path."""
    path = SERVICES.format("default")
    item = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name, "annotations": ON},
        "spec": {"predictor": {"containers": [{"name": "kserve-container", "image": "none"}]}},
    }
    flavour.api.create(path, item)
    try:
        yield f"{path}/{name}"
    finally:
        flavour.api.delete(f"{path}/{name}")


@contextlib.contextmanager
def served(flavour, name, *, beforehand=None):
    """A service with a pod that has its partition; `beforehand` is a status that is there already."""
    with service(flavour, name) as where:
        if beforehand is not None:
            typed_update(flavour, where, beforehand)
        flavour.node.pod("default", f"{name}-1", name, ON)
        complaint = lambda: f"{status(flavour.cluster, where)} {flavour.node.daemon.log[-2000:]}"  # noqa: E731
        until(lambda: condition(flavour.cluster, where).get("status") == "True", complaint)
        try:
            yield where
        finally:
            if flavour.api.find(pod_of(name)):
                flavour.api.delete(pod_of(name), at_once=True)


def pod_of(name):
    return f"/api/v1/namespaces/default/pods/{name}-1"


def typed_update(flavour, where, more):
    """What KServe's controller does: the status read into its types, changed, and put back. Gives the answer."""
    item = copy.deepcopy(flavour.api.get(where))
    told = item.get("status") or {}
    told.pop("gpuSharing", None)
    known = [{key: one[key] for key in KNOWN_OF_CONDITIONS if key in one} for one in told.get("conditions") or []]
    own = [one for one in known if one["type"] not in {each["type"] for each in more.get("conditions", [])}]
    item["status"] = {**told, **more, "conditions": [*own, *more.get("conditions", [])]}
    return flavour.api.replace(f"{where}/status", item)


def ready(verdict):
    moment = "2026-08-01T00:00:00Z"
    return {"conditions": [{"type": "Ready", "status": verdict, "lastTransitionTime": moment}], "url": "http://x.test"}


def sharing(flavour, where):
    return status(flavour.cluster, where).get("gpuSharing")


def version(flavour, where):
    return flavour.api.get(where)["metadata"]["resourceVersion"]


def touch(flavour, name):
    """An event of the pod."""
    flavour.api.merge(pod_of(name), {"metadata": {"labels": {"touched": str(time.monotonic_ns())}}})


def test_a_typed_update_drops_the_field_and_an_event_of_a_pod_brings_it_back(flavour):
    with served(flavour, "llama") as where:
        before = sharing(flavour, where)
        answer = typed_update(flavour, where, ready("False"))["status"]
        assert "gpuSharing" not in answer
        assert answer["annotations"]["aimd.dev/partition"] == "node-k/gpu0/0"
        assert condition(flavour.cluster, where)["status"] == "True"
        touch(flavour, "llama")
        until(lambda: sharing(flavour, where) == before, lambda: f"{status(flavour.cluster, where)}")


def test_what_kserve_says_stays(flavour):
    """On the minimal flavour all maps are atomic for server-side apply; a merge patch does not care."""
    kserves = ready("False") | {"components": {"predictor": {"url": "http://p.test"}}, "deploymentMode": "Standard"}
    with served(flavour, "llama", beforehand=kserves) as where:
        told = status(flavour.cluster, where)
        assert {key: told[key] for key in ("url", "components", "deploymentMode")} == {
            key: kserves[key] for key in ("url", "components", "deploymentMode")
        }
        assert [one["type"] for one in told["conditions"]] == ["Ready", "GPUPartitionAssigned"]
        flavour.api.delete(pod_of("llama"), at_once=True)
        until(lambda: sharing(flavour, where) is None, lambda: f"{status(flavour.cluster, where)}")
        left = status(flavour.cluster, where)
        assert left["components"] == kserves["components"]
        assert "aimd.dev/partition" not in (left.get("annotations") or {})
        assert condition(flavour.cluster, where)["reason"] == "NoPods"


def test_with_the_keeper_it_survives_without_a_write_of_ours(flavour, keeper):
    with served(flavour, "llama") as where:
        before = sharing(flavour, where)
        for verdict in ("False", "True"):
            answer = typed_update(flavour, where, ready(verdict))
            assert answer["status"]["gpuSharing"] == before
        written = answer["metadata"]["resourceVersion"]
        touch(flavour, "llama")
        time.sleep(3)  # an observedGeneration that KServe dropped is no news
        assert version(flavour, where) == written


def test_the_keeper_does_not_keep_what_we_remove(flavour, keeper):
    with served(flavour, "llama") as where:
        typed_update(flavour, where, ready("True"))
        flavour.api.delete(pod_of("llama"), at_once=True)
        until(lambda: sharing(flavour, where) is None, lambda: f"{status(flavour.cluster, where)}")


def test_without_an_event_the_refresh_brings_it_back(both):
    with contextlib.ExitStack() as ends:
        wheres = {name: ends.enter_context(served(one, "llama")) for name, one in both.items()}
        time.sleep(SECONDS_AFTER_A_POD)
        before = {name: sharing(one, wheres[name]) for name, one in both.items()}
        began = time.monotonic()
        for name, one in both.items():
            assert "gpuSharing" not in typed_update(one, wheres[name], ready("True"))["status"]
        longest = REFRESH_SECONDS * 1.2 + 20
        for name, one in both.items():
            until(lambda one=one, name=name: sharing(one, wheres[name]) == before[name], f"{name}: it is gone", longest)
            assert time.monotonic() - began > REFRESH_SECONDS / 2, "something else than the refresh has brought it back"
