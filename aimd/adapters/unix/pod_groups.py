"""Which pod a process is in, by its control groups: how kubelets name them, and which of such names can be believed.

    /kubepods/burstable/pod<uid>/<container>                                           cgroupDriver: cgroupfs
    /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/...     systemd, _ for - in the uid

A kubelet may have a group of its own above these. Who looks from a control group namespace sees what is outside of it below
"..", perhaps without the kubelet's part. The UID of a pod that a file has started is the file's hash, without dashes.
"""

from __future__ import annotations

import re

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:.*-)?pod({_UID})(?:\.slice)?")
_KUBELETS = re.compile(r"(?:.*-)?kubepods(?:\.slice)?|\.\.")
# systemd hands what is below these to users and services, who may call groups there what they like.
_DELEGATED = re.compile(r"user\.slice|.*\.(?:service|scope)")


def pod_of_groups(groups: str) -> str | None:
    """UID of the pod, "" in a pod that cannot be told, None outside of pods.

    Args:
        groups: /proc/<pid>/cgroup; version 1 has a line for each hierarchy.
    """
    told = {pod for line in groups.splitlines() if (pod := _of_path(line.split(":", 2)[-1])) is not None}
    return None if not told else told.pop() if len(told) == 1 else ""


def _of_path(path: str) -> str | None:
    parts = path.split("/")
    for place, part in enumerate(parts):
        found = _POD.fullmatch(part)
        if found is None:
            continue
        above = parts[:place]
        believed = any(map(_KUBELETS.fullmatch, above)) and not any(map(_DELEGATED.fullmatch, above))
        return found[1].replace("_", "-") if believed else ""
    return "" if "kubepods" in path else None
