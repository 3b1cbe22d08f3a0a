"""From what a pod or its InferenceService says to the request of a claim, or every mistake in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from aimd.domain.claim import ClaimSpec, PartitionRef, QosClass, Slo
from aimd.domain.modes import PartitionMode
from aimd.errors import NotFoundError
from aimd.planning.sharing.fields import ENABLED, FIELDS, MEMORY, PREFIX, Field, text_of

DECLARED = "spec.gpuSharing"
FindGpu = Callable[[str], str]
_SHOWN = 80  # characters of a value that a message repeats


@dataclass(frozen=True, slots=True)
class Refused:
    """What cannot be done as it was asked for: one sentence for each mistake, in the order of the fields."""

    mistakes: tuple[str, ...]

    @property
    def message(self) -> str:
        """All of them."""
        return "; ".join(self.mistakes)


def asked(
    annotations: Mapping[str, str], declared: Mapping[str, Any] | None, find_gpu: FindGpu
) -> ClaimSpec | Refused | None:
    """What the pod wants: None if it shares no GPU.

    Args:
        annotations: of the pod.
        declared: `spec.gpuSharing` of its InferenceService, whose fields win over annotations of the same meaning.
        find_gpu: turns `gpu3` or a PCI address into the address; raises NotFoundError.
    """
    said = {field.name: _said(field, annotations, declared or {}) for field in FIELDS}
    values: dict[str, Any] = {}
    mistakes: list[str] = []
    for field in FIELDS:
        found = said[field.name]
        if found is None:
            continue
        name, value = found
        try:
            values[field.name] = field.read(text_of(value))
        except ValueError:
            mistakes.append(f"{name} is {_shown(value)}, expected {field.expected}")
    if ENABLED.name not in values and not _wrong(ENABLED, said, values):
        return None
    if values.get(ENABLED.name) is False:
        return None
    if said[MEMORY.name] is None:
        mistakes.append(f"{_name(MEMORY, declared)} is missing, expected GB as GPUs are sold, for example 24")
    if values.get("limit", values.get("guarantee", 0)) < values.get("guarantee", 0):
        limit, guarantee = said["limit"], said["guarantee"]
        if limit is not None and guarantee is not None:
            mistakes.append(
                f"{limit[0]} is {values['limit']}, expected at least {guarantee[0]} ({values['guarantee']})"
            )
    for name in ("partitionId", "preferredPartition"):
        if isinstance(place := values.get(name), PartitionRef) and place.gpu is not None:
            try:
                values[name] = replace(place, gpu=find_gpu(place.gpu))
            except NotFoundError as error:
                found = said[name]
                mistakes.append(f"{found[0] if found else name} is {place}: {error}")
    return Refused(tuple(mistakes)) if mistakes else _spec(values)


def _said(field: Field, annotations: Mapping[str, str], declared: Mapping[str, Any]) -> tuple[str, object] | None:
    """Where the field is said and what; None if nowhere."""
    if declared.get(field.name) is not None:
        return f"{DECLARED}.{field.name}", declared[field.name]
    key = PREFIX + field.annotation
    return (f"annotation {key}", annotations[key]) if key in annotations else None


def _wrong(field: Field, said: Mapping[str, object], values: Mapping[str, object]) -> bool:
    return said[field.name] is not None and field.name not in values


def _name(field: Field, declared: Mapping[str, Any] | None) -> str:
    return f"{DECLARED}.{field.name}" if declared else f"annotation {PREFIX}{field.annotation}"


def _shown(value: object) -> str:
    text = text_of(value) if isinstance(value, str | int | float) else type(value).__name__
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _spec(values: Mapping[str, Any]) -> ClaimSpec:
    return ClaimSpec(
        memory_units=values["memoryLimitGB"],
        qos=values.get("qosPriority", QosClass.MEDIUM),
        mode=PartitionMode(values.get("computeMode"), values.get("memoryMode")),
        partition=values.get("partitionId"),
        preferred=values.get("preferredPartition"),
        guarantee=values.get("guarantee", 0),
        limit=values.get("limit"),
        weight=values.get("weight", 1),
        slo=Slo(values.get("sloLatencySeconds"), values.get("sloObjective"), values.get("sloThroughput")),
    )
