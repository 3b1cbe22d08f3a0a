"""ResourceClaims: read by who they are, and told how their devices are."""

import json
import threading

import pytest

from aimd.adapters.kube.claims import ApiClaims
from aimd.domain.dra import ClaimRef
from aimd.errors import ConflictError, DeniedError, InvalidInputError, NotFoundError, UnreachableError
from tests.fakes.kube_api import CLAIMS
from tests.fakes.kube_http import status

OURS = {"driver": "gpu.aimd.dev", "pool": "a", "device": "gpu0-cpx-0", "shareID": "s1"}
OTHERS = {"driver": "nic.example.com", "pool": "a", "device": "nic0"}
READY = {"type": "gpu.aimd.dev/partition-ready", "status": "True", "reason": "Ready", "message": "it is in CPX"}


@pytest.fixture
def claims(connect):
    return ApiClaims(connect())


@pytest.fixture
def ref(api):
    results = [{**each, "request": "gpu"} for each in (OURS, {**OURS, "shareID": "s2"}, OTHERS)]
    made = api.put(
        CLAIMS,
        {
            "metadata": {"namespace": "default", "name": "llama"},
            "status": {"allocation": {"devices": {"results": results}}, "devices": [{**OTHERS, "data": {"mac": 1}}]},
        },
    )
    return ClaimRef("default", "llama", made["metadata"]["uid"])


def version(api):
    return api.get(CLAIMS, "llama", "default")["metadata"]["resourceVersion"]


def test_a_claim(api, claims, ref):
    assert claims.claim(ref)["metadata"]["name"] == "llama"
    assert claims.claim(ClaimRef("default", "other", ref.uid)) is None
    assert claims.claim(ClaimRef("other", "llama", ref.uid)) is None


def test_another_claim_of_the_same_name_is_none(claims, ref):
    assert claims.claim(ClaimRef("default", "llama", "an-earlier-uid")) is None


def test_no_answer_is_not_no_claim(api, claims, ref):
    api.fail("get", CLAIMS, code=500)
    with pytest.raises(UnreachableError):
        claims.claim(ref)


def test_devices_are_told_beside_those_of_others(api, claims, ref):
    claims.apply_devices(ref, [{**OURS, "conditions": [READY]}])
    assert api.get(CLAIMS, "llama", "default")["status"]["devices"] == [
        {**OTHERS, "data": {"mac": 1}},
        {**OURS, "conditions": [READY]},
    ]
    (request,) = api.asked("apply", CLAIMS)
    assert request.content_type == "application/apply-patch+yaml"
    assert (request.query["fieldManager"], request.query["force"]) == ("aimd", "true")
    assert (request.body["apiVersion"], request.body["kind"]) == ("resource.k8s.io/v1", "ResourceClaim")


def test_what_is_not_told_any_more_goes(api, claims, ref):
    claims.apply_devices(ref, [{**OURS, "conditions": [READY]}])
    claims.apply_devices(ref, [{**OURS, "shareID": "s2"}])
    devices = api.get(CLAIMS, "llama", "default")["status"]["devices"]
    assert [each.get("shareID") for each in devices] == [None, "s2"]


def test_the_same_again_changes_nothing(api, claims, ref):
    claims.apply_devices(ref, [OURS])
    before = version(api)
    claims.apply_devices(ref, [OURS])
    assert version(api) == before


def test_a_claim_that_has_changed_meanwhile(api, claims, ref):
    known = version(api)
    claims.apply_devices(ref, [OURS], known)
    with pytest.raises(ConflictError):
        claims.apply_devices(ref, [{**OURS, "conditions": [READY]}], known)
    with pytest.raises(ConflictError, match="another claim by now"):
        claims.apply_devices(ClaimRef("default", "llama", "an-earlier-uid"), [OURS])


def test_a_device_that_is_not_allocated_any_more(claims, ref):
    with pytest.raises(InvalidInputError, match="must be an allocated device"):
        claims.apply_devices(ref, [{**OURS, "shareID": "an earlier one"}])


def test_a_right_that_is_missing(api, claims, ref):
    """Kubernetes 1.36 says so as a mistake in the status."""
    said = 'status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver"'
    api.fail("apply", CLAIMS, code=422, body=json.dumps(status(422, said)).encode())
    with pytest.raises(DeniedError, match="resourceclaims/driver") as caught:
        claims.apply_devices(ref, [OURS])
    assert "bound to this node" in caught.value.hint


def test_a_claim_that_has_gone(claims, ref):
    with pytest.raises(NotFoundError):
        claims.apply_devices(ClaimRef("default", "gone", ref.uid), [OURS])


def test_many_threads_at_once(api, claims, ref):
    """One connection of all of them broke answers."""
    for number in range(20):
        api.put(CLAIMS, {"metadata": {"namespace": "n", "name": f"c{number}", "uid": f"u{number}"}})
    api.fail("get", CLAIMS, times=20, delay=0.1)
    found, wrong = [], []

    def read(number):
        try:
            refs = [ClaimRef("n", f"c{number}", f"u{number}")] * 10
            found.extend(claims.claim(ref)["metadata"]["name"] for ref in refs)
        except Exception as error:  # noqa: BLE001
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(20)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    assert sorted(found) == sorted(f"c{number}" for number in range(20) for _ in range(10))
