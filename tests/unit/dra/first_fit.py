"""What a scheduler makes of a pool: first fit over devices, capacities, counters and taints, written for tests.

As the allocator of Kubernetes 1.36 does it (k8s.io/dynamic-resource-allocation/structured): a device that is in use already
needs its counters no more, and a claim without a size consumes the default.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from aimd.planning.dra.quantities import parse_quantity

GI = 1 << 30
Device = Mapping[str, Any]


class Pool:
    """Devices and what is allocated of them."""

    def __init__(self, counter_sets: Any, devices: Any) -> None:
        self.devices = list(devices)
        self.left = {
            (one["name"], name): parse_quantity(counter["value"])
            for one in counter_sets
            for name, counter in one["counters"].items()
        }
        self.used: dict[str, Counter[str]] = {}

    def allocate(self, mode: str | None = None, gi: float | None = None, slots: int = 0) -> str | None:
        """Name of the first device that takes it."""
        wanted = {name: value for name, value in (("memory", gi and gi * GI), ("slots", slots)) if value}
        return self.allocate_where(lambda d: mode in (None, d["attributes"]["computeMode"]["string"]), wanted)

    def allocate_where(self, selected: Callable[[Device], bool], wanted: Mapping[str, float]) -> str | None:
        for device in self.devices:
            name = device["name"]
            consumed = {key: _consumed(one, wanted.get(key)) for key, one in device["capacity"].items()}
            used = self.used.get(name, Counter())
            fits = all(
                consumed[key] is not None and used[key] + consumed[key] <= parse_quantity(one["value"])
                for key, one in device["capacity"].items()
            )
            if device.get("taints") or not selected(device) or not fits:
                continue
            if name not in self.used and not self._take(device):
                continue
            self.used[name] = used + Counter(consumed)
            return name
        return None

    def _take(self, device: Device) -> bool:
        left = dict(self.left)
        for one in device.get("consumesCounters", ()):
            for name, counter in one["counters"].items():
                left[one["counterSet"], name] -= parse_quantity(counter["value"])
        if min(left.values(), default=0) < 0:
            return False
        self.left = left
        return True


def _consumed(capacity: Mapping[str, Any], wanted: float | None) -> Any:
    policy = capacity.get("requestPolicy")
    if wanted is None:
        return parse_quantity(policy["default"] if policy else capacity["value"])
    if policy is None:
        return wanted
    valid = policy["validRange"]
    low, step = parse_quantity(valid["min"]), parse_quantity(valid.get("step", "1"))
    rounded = low + max(0, -(-(int(wanted) - low) // step)) * step
    return rounded if rounded <= parse_quantity(valid["max"]) else None
