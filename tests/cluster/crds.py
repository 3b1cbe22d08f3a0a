"""Custom resource definitions put to use; among them KServe's own of InferenceService, from the shared data."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from tests.cluster.api import RefusedError
from tests.cluster.control_plane import ControlPlane
from tests.systemd.machine import until

ARCHIVE = "kserve/inferenceservice-crds.tar.xz"
FLAVOURS = ("full", "minimal")


def kserve(shared_data: Path, flavour: str, folder: Path) -> Path:
    """The file of KServe's InferenceService in one of the FLAVOURS, put into the folder."""
    member = f"kserve-crds/{flavour}-inferenceservices.yaml"
    path = folder / f"{flavour}-inferenceservices.yaml"
    with tarfile.open(shared_data / ARCHIVE) as archive:
        path.write_bytes(archive.extractfile(member).read())
    return path


def install(control_plane: ControlPlane, path: Path) -> str:
    """Apply a file with one CRD and wait until objects can be made; gives the CRD's name."""
    applied = control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", path, "-o", "json")
    crd = json.loads(applied)
    name, spec = crd["metadata"]["name"], crd["spec"]
    where = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    served = [version["name"] for version in spec["versions"] if version["served"]]

    def established() -> bool:
        conditions = control_plane.api.get(where).get("status", {}).get("conditions") or []  # null in KServe's file
        return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)

    until(established, f"CRD {name} is not established")
    collections = [f"/apis/{spec['group']}/{version}/{spec['names']['plural']}" for version in served]
    until(lambda: all(_served(control_plane, collection) for collection in collections), f"CRD {name} is not served")
    return name


def _served(control_plane: ControlPlane, collection: str) -> bool:
    """404 and then 429 come before the first list."""
    try:
        return control_plane.api.find(collection) is not None
    except RefusedError as refused:
        if refused.status == 429:
            return False
        raise


def remove(control_plane: ControlPlane, name: str) -> None:
    """With all its objects, at once."""
    control_plane.kubectl("delete", "--wait=true", "crd", name)
