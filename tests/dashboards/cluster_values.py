"""What the row Cluster of node health has to show of the load scene: requests that were answered, and its few troubles."""

from __future__ import annotations

from collections.abc import Mapping

from tests.dashboards.expected_values import Bounds, about
from tests.dashboards.panel_look import Check, Look, Values, every, one_value

WATCHES = 2


def requests(look: Look) -> Values:
    """By verb and code."""
    times: dict[tuple[str, ...], list[float]] = {}
    for one in look.truth.asked:
        times.setdefault((one.verb, one.code), []).append(one.at)
    return {name: look.window.rate(found) for name, found in times.items()}


def ends(look: Look) -> Values:
    """Each of both watches, if it was there when they were cut."""
    rate = look.window.rate(look.truth.cuts)
    return {("cut",): Bounds(0, WATCHES * rate.high)}


def writes(look: Look) -> Values:
    """The record is written when it is not as it should be, and read oftener."""
    return {("node",): Bounds(requests(look)["patch", "200"].low / 2, 20), ("event",): Bounds(0, 20)}


def retries(look: Look) -> Values:
    return {("node", "server_error"): Bounds(0, requests(look)["patch", "503"].high)}


CLUSTER: Mapping[str, tuple[Check, ...]] = {
    "Nodes in step": (one_value(1),),
    "Missing resources": (one_value(0),),
    "Writes that fail": (one_value(0),),
    "Other managers": (one_value(0),),
    "Specs refused": (one_value(0),),
    "Pods refused": (one_value(0),),
    "Told of changes": (
        Check(("resource",), lambda _: {(resource,): about(1) for resource in ("pods", "nodepartitions")}),
    ),
    "Since the last word": (every(0, 60),),
    "Requests to the API server": (Check(("verb", "code"), requests),),
    "Requests, 99th percentile": (
        Check(
            ("verb",),
            lambda _: {
                **{(verb,): Bounds(1e-4, 2.5) for verb in ("get", "patch")},
                **{(verb,): Bounds(0, 2.5) for verb in ("create", "list", "watch")},
            },
        ),
    ),
    "Ends of watches, and lists": (Check(("reason",), ends), every(0, 0)),
    "Pauses after failures": (every(0, 0.5),),
    "Writes": (Check(("kind",), writes),),
    "Writes that wait": (every(0, 5),),
    "Until it was written, 99th percentile": (
        Check(("kind",), lambda _: {("node",): Bounds(1e-4, 10), ("event",): Bounds(0, 10)}),
    ),
    "Attempts again, and writes given up": (
        Check(("kind", "reason"), retries),
        one_value(0),
        every(0, 20),  # a GPU that is switched all the time has more Events than one object may
    ),
}
