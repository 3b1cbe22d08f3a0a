"""`aimctl describe`: all that is known of one object, as text for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aimd.ctl.columns import (
    BLOCKERS,
    HOLDERS,
    LEFT_BEHIND,
    PARTITIONS,
    PLACES,
    PODS,
    PROCESSES,
    SWITCHES,
    gigabytes,
    modes,
    table,
    wishes,
)
from aimd.ctl.describe_model import describe_model
from aimd.ctl.describe_partition import describe_partition, exact, section
from aimd.ctl.fields import UNKNOWN, flag, item, items, number, required, text, texts
from aimd.ctl.slo_columns import describe_slo
from aimd.ctl.tables import indented, listed, moment

Payload = Mapping[str, Any]


def describe(kind: str, payload: Payload) -> str:
    """The object as text.

    Args:
        kind: `gpu` (GpuMessage), `partition` (PartitionDetailMessage), `claim` (ClaimMessage), `model` and `slo` (ModelMessage) or
            `plan` (ChangeMessage).
        payload: the message as dicts and lists.

    Raises:
        UnreachableError: the payload is no such message.
        KeyError: there is no such kind.
    """
    writers: dict[str, Callable[[Payload], str]] = {
        "gpu": _gpu,
        "partition": describe_partition,
        "claim": _claim,
        "model": describe_model,
        "slo": describe_slo,
        "plan": _change,
    }
    return writers[kind](payload)


def _gpu(gpu: Payload) -> str:
    head = listed(
        [
            ("Name", text(gpu, "name")),
            ("PCI address", text(gpu, "pci_address")),
            ("Model", text(gpu, "model")),
            ("Device id", text(gpu, "device_id")),
            ("State", text(gpu, "state")),
            ("Mode", modes(gpu)),
            ("Mode file", text(gpu, "reported_compute_mode")),
            ("Wish", text(gpu, "wish")),
            ("Mode epoch", text(gpu, "mode_epoch")),
            ("Compute modes", _choice(gpu, "available_compute_modes")),
            ("Memory modes", _choice(gpu, "available_memory_modes")),
            ("Memory mode file", _writable(gpu)),
            ("Pending memory mode", text(gpu, "pending_memory_mode")),
            ("Memory", exact(gpu)),
            ("NUMA node", text(gpu, "numa_node")),
            ("XGMI hive", text(gpu, "hive_id")),
            ("Mode change", text(gpu, "change")),
            ("Draining", text(gpu, "draining")),
            ("Memory by HIP", _probe(gpu)),
            ("Drift", "" if texts(gpu, "drift") else "no"),
        ]
    )
    left = items(gpu, "left_behind")
    return (
        head
        + indented("\n".join(texts(gpu, "drift")))
        + section("Processes", table(HOLDERS, items(gpu, "holders")), empty=not items(gpu, "holders"))
        + (section("Kept for processes without their claim", table(LEFT_BEHIND, left), empty=False) if left else "")
        + section("Partitions", table(PARTITIONS, items(gpu, "partitions")), empty=not items(gpu, "partitions"))
    )


def _claim(claim: Payload) -> str:
    slo = item(claim, "slo")
    head = listed(
        [
            ("Name", text(claim, "name")),
            ("State", text(claim, "state")),
            ("Reason", text(claim, "reason")),
            ("Message", text(claim, "message")),
            ("Owner uid", text(claim, "owner_uid")),
            ("Created", moment(number(claim, "created_at"))),
            ("Replicas", text(claim, "replicas")),
            ("Memory", gigabytes("memory_gb")(claim)),
            ("QoS class", text(claim, "qos")),
            ("Guarantee", _slots(claim, "guarantee")),
            ("Limit", _slots(claim, "limit")),
            ("Weight", text(claim, "weight")),
            ("Modes", modes(claim)),
            ("Partition", text(claim, "partition")),
            ("Preferred", text(claim, "preferred")),
            ("SLO latency", _with_unit(slo, "latency_seconds", "s")),
            ("SLO objective", text(slo, "objective")),
            ("SLO throughput", _with_unit(slo, "throughput_floor", "requests/s")),
            ("Mode change", text(claim, "change")),
        ]
    )
    assignments, holders, pods = items(claim, "assignments"), items(claim, "holders"), items(claim, "pods")
    return (
        head
        + (section("Pods", table(PODS, pods), empty=False) if pods else "")
        + section("Assignments", table(PLACES, assignments, wide=True), empty=not assignments)
        + section("Processes", table(PROCESSES, holders), empty=not holders)
    )


def _change(change: Payload) -> str:
    head = listed(
        [
            ("Name", text(change, "name")),
            ("State", text(change, "state")),
            ("Final", text(change, "final")),
            ("Modes", wishes(change)),
            ("Origin", text(change, "origin")),
            ("Requester uid", text(change, "requester_uid")),
            ("Created", moment(number(change, "created_at"))),
        ]
    )
    switches, blockers = items(change, "switches"), items(change, "blockers")
    reasons = "\n".join(text(each, "message") for each in switches if required(each, "message") is not None)
    return (
        head
        + section("Steps", table(SWITCHES, switches), empty=not switches)
        + (f"Reasons:\n{indented(reasons)}" if reasons else "")
        + section("Blocked by", table(BLOCKERS, blockers), empty=not blockers)
    )


def _choice(gpu: Payload, key: str) -> str:
    return ", ".join(texts(gpu, key)) or UNKNOWN


def _probe(gpu: Payload) -> str:
    if required(gpu, "probe") is None:
        return UNKNOWN
    probe = item(gpu, "probe")
    library = f" by {text(probe, 'library')}" if required(probe, "library") is not None else ""
    why = f": {text(probe, 'message')}" if required(probe, "message") is not None else ""
    return f"{text(probe, 'state')} at {moment(number(probe, 'at'))}{library}{why}"


def _writable(gpu: Payload) -> str:
    if required(gpu, "memory_mode_writable") is None:
        return UNKNOWN
    return "writable" if flag(gpu, "memory_mode_writable") else "not writable"


def _slots(claim: Payload, key: str) -> str:
    """Dispatch slots; a claim without a limit may use all that the partition has."""
    return "all slots" if required(claim, key) is None else f"{text(claim, key)} slots"


def _with_unit(each: Payload, key: str, unit: str) -> str:
    amount = number(each, key)
    return UNKNOWN if amount is None else f"{amount:g} {unit}"
