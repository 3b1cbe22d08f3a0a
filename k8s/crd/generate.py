"""Writes what follows from schema.yaml: the CRD for clusters without KServe, the overlay for KServe's, the policy.

    python -m k8s.crd.generate

A test generates them again and finds no difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from k8s.crd import annotation_policy, inference_service

HERE = Path(__file__).parent
HEADER = "# Written by `python -m k8s.crd.generate` from k8s/crd/schema.yaml: change that one.\n"


def schema() -> dict[str, Any]:
    """schema.yaml with its `x-annotation` and `x-expected`."""
    read: dict[str, Any] = yaml.safe_load((HERE / "schema.yaml").read_text("utf-8"))
    return read


def generated() -> dict[Path, str]:
    """The text of each file that follows from the schema."""
    fields = schema()
    return {
        HERE / "gpu-sharing-crd.yaml": rendered(inference_service.definition(fields)),
        HERE / "kserve-overlay.yaml": rendered(inference_service.overlay(fields)),
        HERE.parent / "policies" / "annotations.yaml": rendered(*annotation_policy.documents(fields)),
    }


def rendered(*documents: object) -> str:
    """The documents as one file."""
    return HEADER + yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Without anchors, which kubectl's JSON patches do not know."""

    def ignore_aliases(self, _data: object) -> bool:
        return True


def main() -> None:
    """Write them."""
    for path, text in generated().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
