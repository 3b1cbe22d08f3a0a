"""gpuSharing is said once: what is generated from schema.yaml is as it was, and aimd reads the same fields."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.planning.sharing import fields
from k8s.crd import generate

SCHEMA = generate.schema()


@pytest.mark.parametrize(("path", "text"), generate.generated().items(), ids=lambda value: getattr(value, "name", ""))
def test_the_generated_files_are_those_of_the_schema(path: Path, text: str) -> None:
    assert path.read_text("utf-8") == text, "write them anew: python -m k8s.crd.generate"
    assert list(yaml.safe_load_all(text))


def test_aimd_reads_the_same_fields_and_expects_the_same() -> None:
    said = [(name, field["x-annotation"], field["x-expected"]) for name, field in SCHEMA["properties"].items()]
    assert [(field.name, field.annotation, field.expected) for field in fields.FIELDS] == said


def test_modes_are_those_that_aimd_knows() -> None:
    assert SCHEMA["properties"]["computeMode"]["enum"] == [mode.value for mode in ComputeMode]
    assert SCHEMA["properties"]["memoryMode"]["enum"] == [mode.value for mode in MemoryMode]


def test_ranges_are_those_that_aimd_reads() -> None:
    read = {field.name: field.read for field in fields.FIELDS}
    for name, field in SCHEMA["properties"].items():
        if field.get("type") not in ("integer", "number"):
            continue
        least = field["minimum"] + (1e-6 if field.get("exclusiveMinimum") else 0)
        most = field["maximum"] - (1e-6 if field.get("exclusiveMaximum") else 0)
        for inside in (least, most):
            read[name](fields.text_of(inside))
        for outside in (field["minimum"] - 1, field["maximum"] + 1):
            with pytest.raises(ValueError, match=fields.text_of(outside)):
                read[name](fields.text_of(outside))
