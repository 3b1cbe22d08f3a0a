"""The fields of gpuSharing: their names, their annotations, and how a value is read.

k8s/crd/schema.yaml says the same to the API server; a test compares the two.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from aimd.domain.claim import PartitionRef, QosClass
from aimd.domain.memory import MOST_GB, parse_gb
from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.errors import InvalidInputError

PREFIX = "aimd.dev/"
MOST_SLOTS, MOST_WEIGHT, MOST_SLO, MOST_INDEX = 4096, 1000, 1e9, 7
Said = str | int | float | bool
Word = TypeVar("Word", bound=Enum)
_WHOLE = re.compile(r"[0-9]{1,9}")
_DECIMAL = re.compile(r"[0-9]{1,10}([.][0-9]{1,9})?")
_PLACE = re.compile(r"((gpu[0-9]{1,3}|[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}[.][0-7])/)?([0-7])")


@dataclass(frozen=True, slots=True)
class Field:
    """A field of gpuSharing.

    Attributes:
        name: in `spec.gpuSharing`.
        annotation: behind `aimd.dev/`.
        expected: what a value has to be; ends messages.
        read: the value of a text; raises ValueError for one that is not expected.
    """

    name: str
    annotation: str
    expected: str
    read: Callable[[str], object]


def _enabled(text: str) -> bool:
    return {"enabled": True, "disabled": False}[text] if text in ("enabled", "disabled") else _no(text)


def _no(text: str) -> bool:
    raise ValueError(text)


def _word(kind: type[Word], fold: Callable[[str], str]) -> Callable[[str], Word]:
    return lambda text: kind(fold(text))


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if _WHOLE.fullmatch(text) is None or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return read


def _decimal(high: float, *, open_end: bool = False) -> Callable[[str], float]:
    def read(text: str) -> float:
        if _DECIMAL.fullmatch(text) is None or not 0 < float(text) <= high or (open_end and float(text) == high):
            raise ValueError(text)
        return float(text)

    return read


def _units(text: str) -> int:
    _decimal(MOST_GB)(text)
    try:
        return parse_gb(text)
    except InvalidInputError as error:
        raise ValueError(text) from error


def _place(text: str) -> PartitionRef:
    found = _PLACE.fullmatch(text.lower())
    if found is None:
        raise ValueError(text)
    return PartitionRef(int(found[3]), found[2])


_WHERE = "an index from 0 to 7 or one partition like gpu3/5 or 0000:65:00.0/5"
ENABLED = Field("enabled", "gpu-sharing", "enabled or disabled", _enabled)
MEMORY = Field("memoryLimitGB", "memory-limit-gb", "GB as GPUs are sold, more than 0 and at most 1048576", _units)
FIELDS = (
    ENABLED,
    MEMORY,
    Field("computeMode", "compute-mode", "SPX, DPX, TPX, QPX or CPX", _word(ComputeMode, str.upper)),
    Field("memoryMode", "memory-mode", "NPS1, NPS2, NPS3, NPS4, NPS6 or NPS8", _word(MemoryMode, str.upper)),
    Field("partitionId", "partition-id", _WHERE, _place),
    Field("preferredPartition", "preferred-partition", _WHERE, _place),
    Field("qosPriority", "qos-priority", "high, medium or low", _word(QosClass, str.lower)),
    Field("guarantee", "guarantee", f"a whole number from 0 to {MOST_SLOTS}", _whole(0, MOST_SLOTS)),
    Field("limit", "limit", f"a whole number from 1 to {MOST_SLOTS}", _whole(1, MOST_SLOTS)),
    Field("weight", "weight", f"a whole number from 1 to {MOST_WEIGHT}", _whole(1, MOST_WEIGHT)),
    Field("sloLatencySeconds", "slo-latency-seconds", "seconds, more than 0", _decimal(MOST_SLO)),
    Field("sloObjective", "slo-objective", "a ratio between 0 and 1, such as 0.99", _decimal(1, open_end=True)),
    Field("sloThroughput", "slo-throughput", "requests per second, more than 0", _decimal(MOST_SLO)),
)


def text_of(value: object) -> str:
    """A value of JSON as an annotation would have it: true is enabled, 24.0 is 24."""
    if isinstance(value, bool):
        return "enabled" if value else "disabled"
    if isinstance(value, float):
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return str(value)
