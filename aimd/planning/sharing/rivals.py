"""Other managers of AMD partitions on the node: found, not fought. As long as there is one, aimd changes no modes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Object = Mapping[str, Any]
DRIVER = "gpu.amd.com"  # AMD's DRA driver
DCM_LABEL = "dcm.amd.com/"  # AMD's Device Config Manager: profile and state of the node's partitions
RESOURCES = "amd.com/"  # AMD's device plugin: amd.com/gpu, amd.com/cpx_nps1, ...
HAMI = "hami.io/node-"  # HAMi registers devices in annotations


def rivals(node: Object | None, slices: Iterable[Object]) -> tuple[str, ...]:
    """A sentence for each, in a fixed order.

    Args:
        node: the Node object.
        slices: ResourceSlices of the node.
    """
    metadata = (node or {}).get("metadata") or {}
    capacity = ((node or {}).get("status") or {}).get("capacity") or {}
    labels = sorted(key for key in metadata.get("labels") or {} if key.startswith(DCM_LABEL))
    offered = sorted(key for key, count in capacity.items() if key.startswith(RESOURCES) and str(count) != "0")
    hami = sorted(k for k in metadata.get("annotations") or {} if k.startswith(HAMI) and "amd" in k.lower())
    drivers = {(one.get("spec") or {}).get("driver") for one in slices}
    found = []
    if labels:
        found.append(f"AMD's Device Config Manager has labelled the node ({labels[0]})")
    if DRIVER in drivers:
        found.append(f"AMD's DRA driver publishes ResourceSlices for the node ({DRIVER})")
    if offered:
        found.append(f"a device plugin offers {', '.join(offered)} on the node")
    if hami:
        found.append(f"HAMi has registered AMD GPUs of the node ({hami[0]})")
    return tuple(found)
