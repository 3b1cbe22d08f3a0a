"""The state of a simulated node in words, for `aimd sim status` and `aimd sim faults`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def summarize(state: Mapping[str, Any]) -> str:
    """A line for the node and one per GPU, then clients and faults; `state` is SimState as JSON."""
    count = len(state["gpus"])
    driver = state["profile"] if state["module_at"] is None else f"{state['profile']} (not loaded)"
    partitions = Counter(node["address"] for node in state["nodes"])
    lines = [f"{state['model']}:{count}, driver {driver}, topology generation {state['generation']}"]
    lines += [_gpu(position, gpu, partitions[gpu["address"]]) for position, gpu in enumerate(state["gpus"])]
    lines.append("KFD clients: " + (", ".join(_client(client, count) for client in state["clients"]) or "none"))
    lines.append(summarize_faults(state))
    return "\n".join(lines)


def summarize_faults(state: Mapping[str, Any]) -> str:
    """The armed faults, one a line, or that there are none."""
    return "\n".join(_fault(fault) for fault in state["faults"]) or "no faults armed"


def _gpu(position: int, gpu: Mapping[str, Any], partitions: int) -> str:
    remarks = [
        f"mode file {gpu['mode_file']}" if gpu["mode_file"] != gpu["compute"] else "",
        f"{gpu['requested_memory']} at the next reload" if gpu["requested_memory"] else "",
        "switching" if gpu["switching_until"] is not None else "",
        "in reset" if gpu["reset_until"] is not None else "",
        "KFD failed, reload needed" if gpu["kfd_dead"] else "",
        "lost" if gpu["lost"] else "",
        "not bound to the driver yet" if gpu["bind_at"] is not None else "",
    ]
    told = ", ".join(remark for remark in remarks if remark)
    line = f"gpu{position}  {gpu['address']}  {gpu['compute']}/{gpu['memory']}  {partitions} partitions"
    return f"{line}  ({told})" if told else line


def _client(client: Mapping[str, Any], count: int) -> str:
    gpus = "all GPUs" if len(client["gpus"]) == count else " ".join(client["gpus"])
    return f"{client['pid']} on {gpus}" + ("" if client["reap_at"] is None else " (ended, not yet released)")


def _fault(fault: Mapping[str, Any]) -> str:
    left = fault["remaining"]
    often = "until cleared" if left is None else "once" if left == 1 else f"{left} times"
    seconds = f", {fault['seconds']:g} s" if fault["seconds"] else ""
    return f"fault {fault['kind']} on {fault['gpu'] or 'all GPUs'}, {often}{seconds}"
