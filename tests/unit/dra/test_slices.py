"""ResourceSlices of a pool: limits, names, and when there has to be a new generation."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from aimd.domain.node import NodeSnapshot
from aimd.planning.dra.devices import Devices, devices
from aimd.planning.dra.slices import (
    Difference,
    decided,
    difference,
    next_generation,
    pool_slices,
    slice_name,
    slice_parts,
)
from aimd.planning.dra.surroundings import Surroundings
from aimd.sim.hardware import MODELS
from tests.unit.dra.nodes import NODE, claimed, on_paper, simulated, with_gpu

SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def parts_of(snapshot: NodeSnapshot) -> tuple[Any, ...]:
    return slice_parts(devices(snapshot, Surroundings()))


def published(snapshot: NodeSnapshot, generation: int = 1) -> list[dict[str, Any]]:
    """As an API server gives them back: copies, in any order."""
    return json.loads(json.dumps(list(reversed(pool_slices(parts_of(snapshot), NODE, generation)))))


def paper(count: int) -> Devices:
    """Devices and counter sets by number alone."""
    return Devices(
        tuple({"name": f"gpu{n}", "counters": {}} for n in range(count)), tuple({"name": f"d{n}"} for n in range(count))
    )


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("count", [1, 8])
def test_limits_hold_for_every_model(model: str, count: int) -> None:
    parts = parts_of(simulated(model, *[""] * count))
    sets = {one["name"]: one["counters"] for part in parts for one in part.get("sharedCounters", ())}
    for part in parts:
        assert len(part) == 1
        assert len(part.get("devices", ())) <= 64
        assert len(part.get("sharedCounters", ())) <= 8
    assert all(len(counters) <= 32 for counters in sets.values())
    for part in parts:
        for device in part.get("devices", ()):
            assert len(device["consumesCounters"]) <= 2
            assert len(device["attributes"]) + len(device["capacity"]) <= 32
            assert all(set(one["counters"]) <= set(sets[one["counterSet"]]) for one in device["consumesCounters"])


def test_eight_mi300x_are_three_slices() -> None:
    slices = pool_slices(parts_of(on_paper(*["CPX/NPS1"] * 8)), NODE, 7)
    assert [len(one["spec"].get("devices", ())) for one in slices] == [0, 64, 56]
    assert len(slices[0]["spec"]["sharedCounters"]) == 8
    for one in slices:
        assert one["apiVersion"] == "resource.k8s.io/v1"
        assert one["spec"]["driver"] == "gpu.aimd.dev"
        assert one["spec"]["nodeName"] == NODE
        assert one["spec"]["pool"] == {"name": NODE, "generation": 7, "resourceSliceCount": 3}


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [1, 1]), (8, [8, 8]), (9, [8, 1, 9]), (64, [8] * 8 + [64])]
)
def test_portions(count: int, expected: list[int]) -> None:
    parts = slice_parts(paper(count))
    assert [len(next(iter(part.values()))) for part in parts] == expected
    assert [one["name"] for part in parts for one in part.get("devices", ())] == [f"d{n}" for n in range(count)]


def test_names_sort_as_slices_are_ordered() -> None:
    names = [one["metadata"]["name"] for one in pool_slices(slice_parts(paper(1000)), NODE, 1)]
    assert len(names) > 100
    assert names == sorted(names)


@pytest.mark.parametrize("node", ["a", "node-a.example.com", "n" * 253, f"{'n' * 219}.{'m' * 33}"])
def test_names_are_subdomains_and_a_nodes_own(node: str) -> None:
    name = slice_name(node, 12)
    assert SUBDOMAIN.fullmatch(name)
    assert len(name) <= 253
    assert name != slice_name(f"{node[:-1]}x", 12)


# -- what is published ---------------------------------------------------------------------------------------


def test_nothing_is_to_do_when_nothing_has_changed() -> None:
    snapshot = on_paper("CPX/NPS1", "SPX/NPS1")
    assert difference(parts_of(snapshot), published(snapshot)) is Difference.NONE
    assert difference((), []) is Difference.NONE


def test_what_the_api_server_writes_otherwise_is_no_change() -> None:
    snapshot = with_gpu(on_paper("CPX/NPS1"), 0, draining=True)
    there = published(snapshot)
    for one in there:
        for device in one["spec"].get("devices", ()):
            device["taints"][0]["timeAdded"] = "2026-01-01T00:00:00Z"
            device["capacity"]["memory"]["requestPolicy"]["validRange"]["step"] = "524288Ki"
            device["allNodes"] = None
            device["nodeSelector"] = {}
    assert difference(parts_of(snapshot), there) is Difference.NONE


CHANGES = {
    "another mode": on_paper("SPX/NPS1", "CPX/NPS1"),
    "another memory mode": on_paper("CPX/NPS4", "CPX/NPS1"),
    "draining": with_gpu(on_paper("CPX/NPS1", "CPX/NPS1"), 1, draining=True),
    "reserved outside": replace(on_paper("CPX/NPS1", "CPX/NPS1"), claims=(claimed("a", 0, 0, 8),)),
    "one GPU more": on_paper("CPX/NPS1", "CPX/NPS1", "CPX/NPS1"),
    "one GPU less": on_paper("CPX/NPS1"),
}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_what_has_changed_is_published_again(name: str) -> None:
    assert difference(parts_of(CHANGES[name]), published(on_paper("CPX/NPS1", "CPX/NPS1"))) is Difference.CONTENT


def test_another_order_can_wait() -> None:
    snapshot = on_paper("CPX/NPS1", "CPX/NPS1")
    taken = replace(snapshot, claims=(claimed("a", 1, 5, 8, device=True),))
    assert difference(parts_of(taken), published(snapshot)) is Difference.ORDER
    assert difference(parts_of(snapshot), published(taken)) is Difference.ORDER


def damaged(index: int, **pool: Any) -> list[dict[str, Any]]:
    there = published(on_paper("CPX/NPS1"))
    there[index]["spec"]["pool"] |= pool
    return there


def without(index: int) -> list[dict[str, Any]]:
    there = published(on_paper("CPX/NPS1"))
    del there[index]
    return there


@pytest.mark.parametrize(
    "there",
    [
        pytest.param([], id="all deleted"),
        pytest.param(without(0), id="one deleted"),
        pytest.param(without(1), id="another deleted"),
        pytest.param(damaged(0, generation=2), id="mixed generations"),
        pytest.param(damaged(1, resourceSliceCount=3), id="a wrong count"),
        pytest.param([*published(on_paper("CPX/NPS1")), *published(on_paper("SPX/NPS1"))], id="too many"),
    ],
)
def test_a_pool_that_is_not_whole_is_published_again(there: list[dict[str, Any]]) -> None:
    assert difference(parts_of(on_paper("CPX/NPS1")), there) is Difference.CONTENT


def test_every_single_value_matters() -> None:
    """Whatever somebody changes by hand is found."""
    snapshot = with_gpu(on_paper("SPX/NPS1"), 0, draining=True)
    parts, there = parts_of(snapshot), published(snapshot)
    places = [path for path in paths(there, ()) if "metadata" not in path and path[-1] not in ("apiVersion", "kind")]
    places = [path for path in places if path[1:3] == ("spec", "devices") or path[1:3] == ("spec", "sharedCounters")]
    places = [path for path in places if path[3] in (0, 7)]  # one that is there, one that is not
    assert len(places) > 60
    for path in places:
        other = deepcopy(there)
        inner = other
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = "other" if isinstance(inner[path[-1]], str) else 77 if inner[path[-1]] is not True else False
        assert difference(parts, other) is Difference.CONTENT, path


def paths(value: Any, so_far: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Where every value of JSON is."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    return [so_far] if inside is None else [path for key, each in inside for path in paths(each, (*so_far, key))]


def test_a_new_generation_is_newer_than_all_there_are() -> None:
    assert next_generation([]) == 1
    assert next_generation(published(on_paper("CPX/NPS1"), 41)) == 42
    assert next_generation(damaged(0, generation=7)) == 8


# -- what is decided -----------------------------------------------------------------------------------------


def test_a_pool_is_decided_once() -> None:
    parts = parts_of(on_paper("CPX/NPS1"))
    first = decided(parts, NODE, [])
    assert first == pool_slices(parts, NODE, 1)
    assert decided(parts, NODE, first or ()) is None
    assert decided((), NODE, []) is None


def test_what_has_gone_is_decided_anew_as_a_whole() -> None:
    parts = parts_of(on_paper("CPX/NPS1"))
    assert decided(parts, NODE, pool_slices(parts, NODE, 4)[1:]) == pool_slices(parts, NODE, 5)


def test_a_node_without_devices_has_no_slices() -> None:
    assert decided((), NODE, pool_slices(parts_of(on_paper("CPX/NPS1")), NODE, 4)) == ()


def test_an_order_is_decided_when_it_is_time_for_it() -> None:
    snapshot = on_paper("CPX/NPS1", "CPX/NPS1")
    there = published(snapshot)
    parts = parts_of(replace(snapshot, claims=(claimed("a", 1, 5, 8, device=True),)))
    assert decided(parts, NODE, there) is None
    assert decided(parts, NODE, there, in_order=True) == pool_slices(parts, NODE, 2)
    changed = parts_of(CHANGES["draining"])
    assert (
        decided(changed, NODE, there) == decided(changed, NODE, there, in_order=True) == pool_slices(changed, NODE, 2)
    )
