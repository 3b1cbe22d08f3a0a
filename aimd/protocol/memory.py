"""Messages about memory: one partition in full, and findings. Sizes are bytes, null is "unknown", never zero."""

from __future__ import annotations

import msgspec

from aimd.protocol.messages import Message, PartitionMessage


class ClaimUseMessage(Message, frozen=True):
    """What a claim has reserved and uses on a partition; 0 reserved: its processes are there without having a place."""

    claim: str
    reserved_bytes: int | None
    used_bytes: int | None


class ProcessUseMessage(Message, frozen=True):
    """What a process uses on a partition by KFD's counter.

    `claim` and `replica` are null for a process of no claim; `pod` is the UID of its pod, "" in a pod whose UID cannot be
    told, null outside of pods. `start_time` (clock ticks after boot) is null for one that has ended and is not released.
    """

    pid: int
    start_time: int | None
    command: str | None
    used_bytes: int | None
    claim: str | None
    replica: int | None
    pod: str | None


class FindingMessage(Message, frozen=True):
    """Memory that is not as it should be, and has been so for a while.

    `kind` is `over-limit` (a claim uses more than it has reserved) or `drift` (HIP and KFD do not tell the same). `message`
    is as it was at `since` (seconds since the epoch). `denied`: the claim's model gets no new leases there.
    """

    kind: str
    partition: str
    partition_name: str
    claim: str | None
    message: str
    since: float
    denied: bool


class FindingListMessage(Message, frozen=True):
    """Answer of `GET /v1/findings`."""

    findings: list[FindingMessage]
    generation: int | None = None


class PartitionDetailMessage(PartitionMessage, frozen=True):
    """Answer of `GET /v1/partitions/<gpu>/<index>`: a partition with all that is known of its memory.

    HIP was asked for `free_bytes` at `free_at` (seconds since the epoch), when KFD's counters said `free_used_bytes`. What
    was missing then, memory_bytes - free_used_bytes - free_bytes, is `page_tables_bytes` (a 2**14th of the machine's
    memory), `pins_bytes` (what all partitions of the GPU lack alike beyond that: pinned memory, pages kept back by RAS) and
    `rounding_bytes` (allocations count in steps of 2 MiB). `estimated_free_bytes` is for now.
    """

    free_at: float | None = None
    free_used_bytes: int | None = None
    page_tables_bytes: int | None = None
    pins_bytes: int | None = None
    rounding_bytes: int | None = None
    estimated_free_bytes: int | None = None
    claims: list[ClaimUseMessage] = msgspec.field(default_factory=list)
    processes: list[ProcessUseMessage] = msgspec.field(default_factory=list)
    memory_findings: list[FindingMessage] = msgspec.field(default_factory=list)
