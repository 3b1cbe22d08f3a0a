"""PartitionConfig: the parameters that a claim or a DeviceClass has for aimd's driver.

    apiVersion: aimd.dev/v1alpha1
    kind: PartitionConfig
    qosPriority: high

Fields have the names and values that they have in spec.gpuSharing. What a claim's capacity says is none of them: its size
is `memory`, its guarantee `slots`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from aimd.planning.sharing.fields import FIELDS, PREFIX, text_of

API_VERSION, KIND = "aimd.dev/v1alpha1", "PartitionConfig"
NAMES = ("qosPriority", "limit", "weight", "sloLatencySeconds", "sloObjective", "sloThroughput")
CONFIG_FIELDS = {field.name: field for field in FIELDS if field.name in NAMES}
_ELSEWHERE = {
    "memoryLimitGB": "the request's capacity memory",
    "guarantee": "the request's capacity slots",
    "computeMode": "the request's DeviceClass",
    "memoryMode": "a selector on the attribute memoryMode",
    "partitionId": "a selector on the attributes gpu and index",
    "preferredPartition": "alternatives of the request (firstAvailable)",
}
_SHOWN = 80  # characters of a value that a message repeats


def read_config(parameters: object, whose: str) -> tuple[dict[str, Any], list[str]]:
    """The values that it sets, by field, and every mistake in it; `whose` begins messages (`DeviceClass`)."""
    if not isinstance(parameters, Mapping):
        return {}, [f"{whose}: parameters are {_shown(parameters)}, expected an object of kind {KIND}"]
    for key, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if parameters.get(key) != expected:
            return {}, [f"{whose}: parameters.{key} is {_shown(parameters.get(key))}, expected {expected}"]
    values: dict[str, Any] = {}
    mistakes = []
    for name, value in parameters.items():
        if name in ("apiVersion", "kind") or value is None:
            continue
        if name not in CONFIG_FIELDS:
            instead = f"; that is said by {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
            known = ", ".join(CONFIG_FIELDS)
            mistakes.append(f"{whose}: {KIND}.{_cut(str(name))} is no field of it, expected {known}{instead}")
            continue
        try:
            values[name] = CONFIG_FIELDS[name].read(text_of(value))
        except ValueError:
            expected = CONFIG_FIELDS[name].expected
            mistakes.append(f"{whose}: {KIND}.{name} is {_shown(value)}, expected {expected}")
    return values, mistakes


def settings_beside(annotations: Mapping[str, str], declared: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields as a pod's annotations and its service's `spec.gpuSharing` have them, for what a claim leaves open.

    What is no such value is left out: the pod's own admission has said so.
    """
    values: dict[str, Any] = {}
    for field in CONFIG_FIELDS.values():
        said = declared.get(field.name, annotations.get(PREFIX + field.annotation))
        if said is not None:
            with contextlib.suppress(ValueError):
                values[field.name] = field.read(text_of(said))
    return values


def merged(configs: Iterable[tuple[dict[str, Any], list[str]]]) -> tuple[dict[str, Any], list[str]]:
    """Several of them as one: each field as the last one that has it says."""
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for some, wrong in configs:
        values |= some
        mistakes += wrong
    return values, mistakes


def _shown(value: object) -> str:
    if value is None:
        return "missing"
    return repr(_cut(text_of(value))) if isinstance(value, str | int | float) else f"a JSON {_kind(value)}"


def _kind(value: object) -> str:
    return "object" if isinstance(value, Mapping) else "list"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
