"""InferenceService with gpuSharing: as a CRD of its own where there is no KServe, as a patch of KServe's where there is."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
NAME = "inferenceservices.serving.kserve.io"
_OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def openapi(fields: Schema) -> Schema:
    """The schema in the words that the API server knows."""
    plain = {key: value for key, value in fields.items() if key not in ("x-annotation", "x-expected")}
    if "properties" in plain:
        plain["properties"] = {name: openapi(field) for name, field in plain["properties"].items()}
    return plain


def definition(fields: Schema) -> Schema:
    """The CustomResourceDefinition for clusters without KServe: gpuSharing is checked, the rest is kept as it is."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/part-of": "aimd"}},
        "spec": {
            "group": "serving.kserve.io",
            "names": {
                "kind": "InferenceService",
                "listKind": "InferenceServiceList",
                "plural": "inferenceservices",
                "singular": "inferenceservice",
                "shortNames": ["isvc"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1beta1",
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _service(fields)},
                }
            ],
        },
    }


def overlay(fields: Schema) -> list[Schema]:
    """JSON patch (RFC 6902) of KServe's full CRD, whose only version is v1beta1; its status takes any field already."""
    at = "/spec/versions/0"
    return [
        {"op": "test", "path": f"{at}/name", "value": "v1beta1"},
        {
            "op": "add",
            "path": f"{at}/schema/openAPIV3Schema/properties/spec/properties/gpuSharing",
            "value": openapi(fields),
        },
    ]


def _service(fields: Schema) -> Schema:
    spec = {**_OPEN, "properties": {"gpuSharing": openapi(fields), "predictor": _OPEN}}
    return {
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _status(),
        },
    }


def _status() -> Schema:
    text, gb = {"type": "string"}, {"type": "number", "minimum": 0}
    partition = {
        "partitionId": text,
        "computeMode": text,
        "memoryMode": text,
        "partitionSizeGB": gb,
        "allocatedMemoryGB": gb,
        "availableMemoryGB": gb,
    }
    assignment = {"pod": text, "node": text, **partition, "reason": text, "message": text}
    info = {**partition, "podUID": {"type": "string", "description": "Whose partition this is of the assignments"}}
    sharing = {
        "node": text,
        "partitionInfo": {"type": "object", "properties": info},
        "assignments": {
            "type": "object",
            "description": "By the pods' UIDs, so that several nodes can write it.",
            "additionalProperties": {"type": "object", "properties": assignment},
        },
    }
    condition = {
        "type": text,
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "severity": text,
        "reason": text,
        "message": text,
        "lastTransitionTime": text,
        "observedGeneration": {"type": "integer", "format": "int64"},
    }
    return {
        **_OPEN,
        "properties": {
            "annotations": {"type": "object", "additionalProperties": text},
            "conditions": {
                "type": "array",
                "items": {"type": "object", "required": ["type", "status"], "properties": condition},
            },
            "gpuSharing": {"type": "object", "properties": sharing},
        },
    }


def _columns() -> list[Schema]:
    return [
        _column("Partition", ".status.gpuSharing.partitionInfo.partitionId"),
        _column("Mode", ".status.gpuSharing.partitionInfo.computeMode"),
        _column("Memory", ".status.gpuSharing.partitionInfo.allocatedMemoryGB", "number"),
        _column("Node", ".status.gpuSharing.node"),
        _column("Assigned", ".status.conditions[?(@.type=='GPUPartitionAssigned')].status"),
        _column("Age", ".metadata.creationTimestamp", "date"),
    ]


def _column(name: str, path: str, kind: str = "string") -> Schema:
    return {"name": name, "type": kind, "jsonPath": path}
