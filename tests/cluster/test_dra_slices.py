"""The devices of a node as the real API server takes them and the real scheduler allocates them; nothing runs the pods."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from aimd.planning.dra.conditions import Outcome, Readiness, device_entries
from aimd.planning.dra.devices import devices
from aimd.planning.dra.requests import Allocation, allocation
from aimd.planning.dra.slices import Difference, decided, difference, slice_parts
from aimd.planning.dra.surroundings import Surroundings
from aimd.sim.hardware import MODELS
from tests.cluster.api import APPLY
from tests.systemd.machine import until
from tests.unit.dra.nodes import claimed, on_paper, simulated, with_gpu

NODE = "paper-gpus"
API = "/apis/resource.k8s.io/v1"
SLICES = f"{API}/resourceslices"
MODES = ("spx", "dpx", "tpx", "qpx", "cpx")
SECONDS = 60


@pytest.fixture(scope="module")
def device_classes(control_plane):
    """aimd-partition, and one for each mode."""
    ours = 'device.driver == "gpu.aimd.dev"'
    rules = {"partition": ours} | {
        mode: f'{ours} && device.attributes["gpu.aimd.dev"].computeMode == "{mode.upper()}"' for mode in MODES
    }
    for name, rule in rules.items():
        item = {"metadata": {"name": f"test-{name}"}, "spec": {"selectors": [{"cel": {"expression": rule}}]}}
        control_plane.api.create(f"{API}/deviceclasses", item)
    yield
    for name in rules:
        control_plane.api.delete(f"{API}/deviceclasses/test-{name}")


class Board:
    """A node without a kubelet whose devices are published, and pods that are placed there."""

    def __init__(self, api, namespace):
        self.api = api
        self.namespace = namespace

    def there(self):
        """The pool's slices."""
        return self.api.get(SLICES, fieldSelector=f"spec.nodeName={NODE}")["items"]

    def publish(self, snapshot, around=None):
        """As a driver would; gives what was written."""
        parts = slice_parts(devices(snapshot, around or Surroundings()))
        there = {one["metadata"]["name"]: one for one in self.there()}
        wanted = decided(parts, NODE, list(there.values()), in_order=True) or ()
        for item in wanted:
            name = item["metadata"]["name"]
            if name in there:
                version = there.pop(name)["metadata"]["resourceVersion"]
                self.api.replace(f"{SLICES}/{name}", {**item, "metadata": {"name": name, "resourceVersion": version}})
            else:
                self.api.create(SLICES, item)
        for name in there if wanted else ():
            self.api.delete(f"{SLICES}/{name}")
        assert difference(parts, self.there()) is Difference.NONE
        return wanted

    def ask(self, name, mode="partition", memory=None, **exactly):
        """A pod with a claim."""
        if memory is not None:
            exactly["capacity"] = {"requests": {"memory": memory}}
        request = {"name": "gpu", "exactly": {"deviceClassName": f"test-{mode}", **exactly}}
        claim = {"metadata": {"name": name}, "spec": {"devices": {"requests": [request]}}}
        self.api.create(f"{API}/namespaces/{self.namespace}/resourceclaims", claim)
        container = {"name": "main", "image": "none", "resources": {"claims": [{"name": "gpu"}]}}
        spec = {
            "containers": [container],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": name}],
            "nodeSelector": {"kubernetes.io/hostname": NODE},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
        }
        self.api.create(f"/api/v1/namespaces/{self.namespace}/pods", {"metadata": {"name": name}, "spec": spec})

    def pod(self, name):
        return self.api.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}")

    def claim(self, name):
        return self.api.get(f"{API}/namespaces/{self.namespace}/resourceclaims/{name}")

    def result(self, name):
        """What the claim was allocated, None while it was not."""
        results = self.claim(name).get("status", {}).get("allocation", {}).get("devices", {}).get("results")
        return results[0] if results else None

    def device(self, name):
        """Of the claim, once it is allocated."""
        return until(lambda: self.result(name), lambda: f"{name}: {self.story(name)}", SECONDS)["device"]

    def bound(self, name):
        until(lambda: self.pod(name)["spec"].get("nodeName") == NODE, lambda: self.story(name), SECONDS)
        return True

    def refused(self, name):
        """The scheduler's word for it, once it has tried."""

        def said():
            conditions = self.pod(name)["status"].get("conditions", [])
            found = [one for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"]
            return found[0]["message"] if found else None

        message = until(said, lambda: f"{name} was not tried: {self.story(name)}", SECONDS)
        assert self.result(name) is None
        return message

    def end(self, *names):
        """The pods end, and with them their claims."""
        for name in names:
            self.api.delete(f"/api/v1/namespaces/{self.namespace}/pods/{name}", at_once=True)
            self.api.delete(f"{API}/namespaces/{self.namespace}/resourceclaims/{name}")

    def tell(self, name, outcome):
        """An outcome as the driver tells it."""
        claim = self.claim(name)
        entries = device_entries(claim, NODE, {self.result(name)["device"]: outcome}, "2026-01-01T00:00:00Z")
        body = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": {"name": name, "uid": claim["metadata"]["uid"]},
            "status": {"devices": list(entries)},
        }
        path = f"{API}/namespaces/{self.namespace}/resourceclaims/{name}/status"
        self.api.ask("PATCH", path, body, APPLY, fieldManager="aimd")

    def story(self, name):
        selector = f"involvedObject.name={name}"
        events = self.api.get(f"/api/v1/namespaces/{self.namespace}/events", fieldSelector=selector)["items"]
        return f"{self.pod(name)['status']}, {self.claim(name).get('status')}, {[one['message'] for one in events]}"


@pytest.fixture
def board(control_plane, namespace, device_classes):
    """Ready in the scheduler's eyes until its lease would have to be renewed."""
    api = control_plane.api
    labels = {"kubernetes.io/hostname": NODE}
    api.create("/api/v1/nodes", {"metadata": {"name": NODE, "labels": labels}})
    status = {
        "capacity": {"cpu": "64", "memory": "512Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": ""}],
    }
    api.merge(f"/api/v1/nodes/{NODE}/status", {"status": status})
    api.merge(f"/api/v1/nodes/{NODE}", {"spec": {"taints": None}})
    made = Board(api, namespace)
    yield made
    pods = f"/api/v1/namespaces/{namespace}/pods"
    for one in api.get(pods)["items"]:
        api.delete(f"{pods}/{one['metadata']['name']}", at_once=True)
    for one in made.there():
        api.delete(f"{SLICES}/{one['metadata']['name']}")
    api.delete(f"/api/v1/nodes/{NODE}")


# -- what the API server takes -------------------------------------------------------------------------------


@pytest.mark.parametrize("model", sorted(MODELS))
def test_slices_of_eight_gpus_of_every_model(board, model):
    written = board.publish(simulated(model, *[""] * 8))
    sizes = [len(json.dumps(one)) for one in written]
    print(f"{model}: {len(written)} slices of {sizes} bytes")
    assert board.publish(simulated(model, *[""] * 8)) == ()
    assert all(one["spec"]["pool"]["generation"] == 1 for one in board.there())


def test_slices_of_a_node_in_trouble(board):
    """Every capacity that is left, every taint, every attribute."""
    claims = tuple(
        claimed(f"c{index}", 0, index, gb, slots=slots)
        for index, (gb, slots) in enumerate([(24, 16), (23.75, 15), (23.5, 0), (23, 0), (22.5, 1), (0.25, 0)])
    )
    snapshot = replace(on_paper(*["CPX/NPS1"] * 4), claims=claims)
    snapshot = with_gpu(snapshot, 1, draining=True)
    snapshot = with_gpu(snapshot, 2, change="gone", gpu=replace(snapshot.gpus[2].gpu, numa_node=1, in_reset=True))
    snapshot = with_gpu(
        snapshot, 3, gpu=replace(snapshot.gpus[3].gpu, partitions=(), memory_bytes=None, device_id=0x74A0)
    )
    addresses = frozenset(status.gpu.pci_address for status in snapshot.gpus)
    roots = dict.fromkeys(addresses, "pci0000:00")
    board.publish(snapshot)
    board.publish(snapshot, Surroundings(slots_per_partition=4000, driver_version="6.8.0-45-generic", pcie_roots=roots))
    board.publish(snapshot, Surroundings(rivals=("another",), unswitchable=addresses, expelled=addresses))
    assert {one["spec"]["pool"]["generation"] for one in board.there()} == {3}


# -- what the scheduler makes of them ------------------------------------------------------------------------


def test_claims_share_a_partition_and_keep_the_gpu_in_its_mode(board):
    board.publish(on_paper("CPX/NPS1"))
    board.ask("first", "cpx", "8Gi")
    assert board.device("first") == "gpu0-cpx-0"
    board.ask("second", "cpx", "8Gi")
    assert board.device("second") == "gpu0-cpx-0"
    board.ask("third", "cpx", "12Gi")
    assert board.device("third") == "gpu0-cpx-1"
    assert len({board.result(name)["shareID"] for name in ("first", "second", "third")}) == 3
    assert all(board.bound(name) for name in ("first", "second", "third"))
    for name, mode, memory in (("large", "cpx", "25Gi"), ("half", "dpx", "8Gi"), ("whole", "spx", None)):
        board.ask(name, mode, memory)
        assert "cannot allocate all claims" in board.refused(name)
    found = allocation(board.claim("second"), NODE, on_paper("CPX/NPS1"))
    assert isinstance(found, Allocation)
    (one,) = found.reservations
    assert (one.spec.memory_units, one.spec.guarantee, found.pods[0].name) == (8 * 1024, 0, "second")
    board.end("large", "half", "first", "second", "third")
    assert board.device("whole") == "gpu0-spx-0"


def test_two_modes_leave_no_room_for_a_third(board):
    board.publish(on_paper("CPX/NPS1", "QPX/NPS1"))
    board.ask("eighth", "cpx", "8Gi")
    assert board.device("eighth") == "gpu0-cpx-0"
    board.ask("quarter", "qpx", "8Gi")
    assert board.device("quarter") == "gpu1-qpx-0"
    board.ask("half", "dpx", "8Gi")
    board.ask("whole", "spx", "8Gi")
    board.refused("half")
    board.refused("whole")
    board.end("whole", "quarter")
    assert board.device("half").startswith("gpu1-dpx-")


def test_a_claim_without_a_size_has_all_that_is_offered(board):
    """Not where others have reserved everything: it would get nothing there."""
    board.publish(replace(on_paper("CPX/NPS1"), claims=(claimed("other", 0, 0, 24),)))
    board.ask("any", "cpx")
    assert board.device("any") == "gpu0-cpx-1"
    assert board.result("any")["consumedCapacity"] == {"memory": "24Gi", "slots": "0"}


def test_guarantees_are_scheduled(board):
    board.publish(on_paper("CPX/NPS1"))
    for name, slots, device in (("a", "10", 0), ("b", "7", 1), ("c", "6", 0)):
        board.ask(name, "cpx", capacity={"requests": {"memory": "1Gi", "slots": slots}})
        assert board.device(name) == f"gpu0-cpx-{device}"


def test_sizes_are_rounded_up_to_steps(board):
    board.publish(on_paper("CPX/NPS1"))
    board.ask("odd", "cpx", "5000M")
    board.device("odd")
    assert board.result("odd")["consumedCapacity"]["memory"] == "5Gi"


def test_a_pod_waits_for_the_mode_and_is_told_why(board):
    board.publish(on_paper("CPX/NPS1"))
    board.ask("whole", "spx")
    assert board.device("whole") == "gpu0-spx-0"
    board.tell("whole", Outcome(Readiness.WAITING, "Draining", "gpu0 CPX/NPS1 -> SPX/NPS1: pid 7 is still there"))
    time.sleep(1)
    assert "nodeName" not in board.pod("whole")["spec"]
    (entry,) = board.claim("whole")["status"]["devices"]
    assert [(one["status"], one["reason"]) for one in entry["conditions"]] == [("False", "Draining")]
    board.publish(on_paper("SPX/NPS1"))  # the GPU is switched: what was allocated stays so
    board.tell("whole", Outcome(Readiness.READY, "Partitioned", "gpu0 is in SPX/NPS1"))
    assert board.bound("whole")
    board.ask("eighth", "cpx", "8Gi")
    board.refused("eighth")


def test_a_failure_is_told_and_a_tainted_gpu_is_not_tried_again(board):
    snapshot = on_paper("CPX/NPS1", "CPX/NPS1")
    board.publish(snapshot)
    board.ask("whole", "spx")
    assert board.device("whole") == "gpu0-spx-0"
    share = board.result("whole")["shareID"]
    board.publish(snapshot, Surroundings(unswitchable=frozenset({snapshot.gpus[0].gpu.pci_address})))
    board.tell("whole", Outcome(Readiness.FAILED, "GpuBusy", "gpu0 is held by pid 7 (python train.py)"))
    again = until(
        lambda: (found := board.result("whole")) and found["shareID"] != share and found,
        lambda: board.story("whole"),
        SECONDS,
    )
    assert again["device"] == "gpu1-spx-0"
    assert "gpu0 is held by pid 7" in board.story("whole")
    assert not board.claim("whole")["status"].get("devices")


def test_the_order_decides(board):
    """Partitions that are there first, the fullest of them first."""
    claims = (claimed("other", 1, 5, 4),)
    board.publish(replace(on_paper("SPX/NPS1", "CPX/NPS1"), claims=claims))
    board.ask("small", memory="8Gi")
    assert board.device("small") == "gpu1-cpx-5"
    board.ask("larger", memory="24Gi")
    assert board.device("larger") == "gpu1-cpx-0"
    board.ask("huge", memory="100Gi")
    assert board.device("huge") == "gpu0-spx-0"
