"""ResourceClaims, the node's pool and a kubelet's files in memory, and a scheduler's part done by hand."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aimd.domain.dra import ClaimRef, ContainerDevice, DeviceHealth, Rewritten, SliceStatistics
from aimd.errors import AimdError, ConflictError, NotFoundError
from tests.unit.dra.claims import CONDITIONS, result

POOL = "node-a"


class FakeClaims:
    """ports_dra.Claims. `failing` is raised by every request; `asked` counts them."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], dict[str, Any]] = {}
        self.failing: AimdError | None = None
        self.asked = 0
        self.on_applied: Callable[[dict[str, Any]], None] = lambda _item: None
        self._versions = itertools.count(1)

    def put(self, item: Mapping[str, Any]) -> dict[str, Any]:
        kept = copy.deepcopy(dict(item))
        kept["metadata"]["resourceVersion"] = str(next(self._versions))
        self.items[kept["metadata"]["namespace"], kept["metadata"]["name"]] = kept
        return kept

    def allocate(self, name: str, device: str, *, pod: str = "", waits: bool = False, **more: Any) -> dict[str, Any]:
        """As the scheduler does it for the pod of this name."""
        share = f"share-{next(self._versions)}"
        results = [result(device, shareID=share, **{**(CONDITIONS if waits else {}), **more})]
        users = [{"resource": "pods", "name": pod or name, "uid": f"uid-{pod or name}"}]
        status = {"allocation": {"devices": {"results": results, "config": []}}, "reservedFor": users}
        before = self.items.get(("default", name), {"metadata": {"namespace": "default", "name": name}})
        return self.put({"metadata": {"uid": f"claim-{name}", **before["metadata"]}, "status": status})

    def deallocate(self, name: str) -> None:
        self.put({**self.items["default", name], "status": {}})

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        """Status and message by type, of the last word about the claim."""
        entries = self.items["default", name].get("status", {}).get("devices") or []
        return {
            each["type"].partition("partition-")[2]: (each["status"], each["message"])
            for entry in entries
            for each in entry["conditions"]
        }

    def claim(self, claim: ClaimRef) -> Any:
        found = self.claim_named(claim.namespace, claim.name)
        return found if found is not None and found["metadata"]["uid"] == claim.uid else None

    def claim_named(self, namespace: str, name: str) -> Any:
        self.asked += 1
        if self.failing is not None:
            raise self.failing
        return copy.deepcopy(self.items.get((namespace, name)))

    def apply_devices(self, claim: ClaimRef, devices: Sequence[Any], version: str | None = None) -> Any:
        item = self.claim(claim)
        if item is None:
            raise NotFoundError(f"{claim} is not there")
        if version not in (None, item["metadata"]["resourceVersion"]):
            raise ConflictError(f"{claim} has changed")
        item["status"]["devices"] = copy.deepcopy(list(devices))
        self.on_applied(item)
        return self.put(item)


class FakePool:
    """ports_dra.Pool. `slices` is what the API server has; `generations` all that were published."""

    synced = True

    def __init__(self) -> None:
        self.slices: tuple[Any, ...] = ()
        self.generations: list[int] = []
        self._decide: Any = None

    def published(self) -> tuple[Any, ...]:
        return self.slices

    def publish(self, decide: Any) -> None:
        self._decide = decide
        self.changed()

    def changed(self) -> None:
        """Somebody has changed the slices, or may have."""
        wanted = self._decide(self.slices)
        if wanted is not None:
            self.slices = tuple(copy.deepcopy(list(wanted)))
            self.generations.append(self.slices[0]["spec"]["pool"]["generation"] if self.slices else 0)

    def devices(self) -> dict[str, Any]:
        """By name, in the order in which they are taken."""
        return {each["name"]: each for one in self.slices for each in one["spec"].get("devices", [])}

    def statistics(self) -> SliceStatistics:
        return SliceStatistics(published=True)


class FakeFiles:
    """ports_dra.ContainerDevices. `files` by UID of the claim."""

    def __init__(self) -> None:
        self.files: dict[str, Sequence[ContainerDevice]] = {}
        self.rewrites = 0
        self.failing: AimdError | None = None

    def write(self, uid: str, devices: Sequence[ContainerDevice]) -> dict[str, str]:
        if self.failing is not None:
            raise self.failing
        self.files[uid] = devices
        return {each.request: f"gpu.aimd.dev/claim={uid}-{each.request}" for each in devices}

    def remove(self, uid: str) -> None:
        self.files.pop(uid, None)

    def rewrite(self, claims: Mapping[str, Sequence[ContainerDevice]]) -> Rewritten:
        if self.failing is not None:
            raise self.failing
        self.rewrites += 1
        written = tuple(uid for uid, devices in claims.items() if self.files.get(uid) != devices)
        removed = tuple(uid for uid in self.files if uid not in claims)
        self.files = dict(claims)
        return Rewritten(written, removed)


class FakeKubeletDriver:
    """ports_dra.DeviceDriver. `health` is what was said last."""

    registration = None
    problem = None

    def __init__(self) -> None:
        self.health: dict[str, DeviceHealth] = {}

    def start(self) -> None:
        pass

    def publish_health(self, devices: Sequence[DeviceHealth], at: float) -> None:
        self.health = {each.device: each for each in devices}

    def close(self) -> None:
        pass
