"""`aimctl describe partition`: the partition and the account of its memory, as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aimd.ctl.columns import CLAIM_USE, PROCESS_USE, amounts, modes, render_node, table
from aimd.ctl.fields import UNKNOWN, flag, items, number, text
from aimd.ctl.tables import amount, indented, listed, moment, size

Payload = Mapping[str, Any]


def describe_partition(partition: Payload) -> str:
    """The partition as text; raises UnreachableError for another message."""
    head = listed(
        [
            ("Name", text(partition, "name")),
            ("Id", text(partition, "id")),
            ("GPU", text(partition, "gpu")),
            ("PCI address", text(partition, "pci_address")),
            ("Index", text(partition, "index")),
            ("Mode", modes(partition)),
            ("Mode epoch", text(partition, "mode_epoch")),
            ("XCCs", text(partition, "xcc_count")),
            ("Compute units", text(partition, "compute_units")),
            ("Memory", exact(partition)),
            ("Reserved", amounts("reserved_bytes")(partition)),
            ("Used", amounts("used_bytes")(partition)),
            ("Unattributed", amounts("unattributed_bytes")(partition)),
            ("Free", _free(partition)),
            ("Free now", _estimate(partition)),
            ("Render node", render_node(partition)),
        ]
    )
    claims, processes = items(partition, "claims"), items(partition, "processes")
    findings = [_sentence(found) for found in items(partition, "memory_findings")]
    unknown = number(partition, "free_bytes") is None
    return (
        head
        + ("Kept back: -\n" if unknown else section("Kept back", _kept_back(partition), empty=False))
        + section("Claims", table(CLAIM_USE, claims), empty=not claims)
        + section("Processes", table(PROCESS_USE, processes), empty=not processes)
        + section("Findings", "\n".join(findings), empty=not findings)
    )


def _free(partition: Payload) -> str:
    free, used = number(partition, "free_bytes"), amounts("free_used_bytes")(partition)
    at = moment(number(partition, "free_at"))
    return UNKNOWN if free is None else f"{amount(free)} by HIP at {at}, when {used} were used"


def _estimate(partition: Payload) -> str:
    left = number(partition, "estimated_free_bytes")
    return UNKNOWN if left is None else f"{amount(left)}, estimated"


def _kept_back(partition: Payload) -> str:
    """The parts sum up to what HIP's free memory lacks beside what is used."""
    return listed(
        [
            ("Page tables", amounts("page_tables_bytes")(partition)),
            ("Pins and RAS", amounts("pins_bytes")(partition)),
            ("Rounding", amounts("rounding_bytes")(partition)),
        ]
    )


def _sentence(found: Payload) -> str:
    denied = "; its model gets no new leases there" if flag(found, "denied") else ""
    return f"{text(found, 'kind')} since {moment(number(found, 'since'))}: {text(found, 'message')}{denied}"


def section(title: str, block: str, *, empty: bool) -> str:
    """A part of a description, indented under its title."""
    return f"{title}: none\n" if empty else f"{title}:\n{indented(block)}"


def exact(each: Payload) -> str:
    """The size of memory for people, and to the byte."""
    memory_bytes = number(each, "memory_bytes")
    return UNKNOWN if memory_bytes is None else f"{size(memory_bytes)} ({text(each, 'memory_bytes')} bytes)"
