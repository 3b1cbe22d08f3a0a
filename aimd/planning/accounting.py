"""The account of every partition: capacity, reserved, used, unattributed, per claim and per process. Pure.

A claim is admitted by capacity less reserved less unattributed use (planning.rooms), never by HIP's free memory: that
lacks already what the claims themselves use, and reserves of the driver once for every partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from aimd.domain.accounting import ClaimUse, PartitionAccount, Place, ProbedGpu, ProcessUse
from aimd.domain.claim import Assignment
from aimd.domain.gpu import Holder, Observed, Partition
from aimd.domain.memory import reserved_bytes
from aimd.planning.attribution import Records, Use, unattributed, uses

Reserved = Mapping[Place, Mapping[str, int]]  # units of 1/1024 GB by claim


def reserved_units(assignments: Iterable[Assignment]) -> dict[Place, dict[str, int]]:
    """What each claim has reserved on each partition."""
    found: dict[Place, dict[str, int]] = {}
    for one in assignments:
        claims = found.setdefault(one.place, {})
        claims[one.claim] = claims.get(one.claim, 0) + one.memory_units
    return found


def unattributed_use(
    clients: Iterable[Holder], records: Records, assignments: Iterable[Assignment]
) -> dict[Place, int]:
    """Bytes that nobody has reserved, as placement has to know them; what cannot be read is not counted."""
    return unattributed(uses(clients, records), reserved_units(assignments))


def accounts(
    observed: Observed,
    epochs: Mapping[str, int],
    reserved: Reserved,
    records: Records,
    probed: Mapping[str, ProbedGpu],
    *,
    readable: bool = True,
) -> dict[Place, PartitionAccount]:
    """The account of every partition that was observed.

    Args:
        epochs: of the GPUs' modes, by PCI address.
        reserved: by claims, and by processes that outlive theirs.
        records: the claims' holders.
        probed: what HIP said, by PCI address.
        readable: the observation is of now; if not, nothing is known of what is used.
    """
    found = uses(observed.holders, records)
    strange = unattributed(found, reserved)
    by_place: dict[Place, list[Use]] = {}
    for use in found:
        by_place.setdefault(use.place, []).append(use)
    made = {}
    for gpu in observed.gpus:
        epoch, probe = epochs.get(gpu.pci_address, 0), probed.get(gpu.pci_address)
        probe = probe if probe is not None and probe.mode_epoch == epoch else None
        for partition in gpu.partitions:
            place = (gpu.pci_address, partition.index)
            here = by_place.get(place, [])
            # Without its gpu_id nobody can tell which counters are the partition's.
            known = readable and partition.kfd_gpu_id is not None
            claims = reserved.get(place, {})
            made[place] = replace(
                _account(partition, here, claims, strange.get(place, 0), known=known),
                gpu=gpu.pci_address,
                mode_epoch=epoch,
                probed=probe.calibrations.get(partition.index) if probe is not None else None,
                probed_at=probe.at if probe is not None and partition.index in probe.calibrations else None,
            )
    return made


def _account(
    partition: Partition, found: list[Use], reserved: Mapping[str, int], strange: int, *, known: bool
) -> PartitionAccount:
    """As far as GPU and HIP do not matter."""
    size = partition.memory_bytes
    unread = any(use.used_bytes is None and (use.record is None or use.record.claim not in reserved) for use in found)
    return PartitionAccount(
        gpu="",
        index=partition.index,
        mode_epoch=0,
        capacity_bytes=size,
        reserved_bytes=reserved_bytes(sum(reserved.values()), size) if size is not None else None,
        used_bytes=total(use.used_bytes for use in found) if known else None,
        unattributed_bytes=None if unread or not known else strange,
        claims=_claims(found, reserved, size, known=known),
        processes=tuple(_process(use) for use in found) if known else (),
    )


def _claims(found: list[Use], reserved: Mapping[str, int], size: int | None, *, known: bool) -> tuple[ClaimUse, ...]:
    used: dict[str, list[int | None]] = {claim: [] for claim in reserved}
    for use in found:
        if use.record is not None:
            used.setdefault(use.record.claim, []).append(use.used_bytes)
    return tuple(
        ClaimUse(
            claim,
            reserved_bytes(reserved.get(claim, 0), size) if size is not None else None,
            total(sizes) if known else None,
        )
        for claim, sizes in sorted(used.items())
    )


def _process(use: Use) -> ProcessUse:
    client, record = use.client, use.record
    return ProcessUse(
        client.pid,
        client.start_time,
        client.command,
        use.used_bytes,
        record.claim if record is not None else None,
        record.replica if record is not None else None,
        client.pod,
    )


def total(sizes: Iterable[int | None]) -> int | None:
    """The sum; None if a part of it is unknown."""
    found = list(sizes)
    return None if None in found else sum(size for size in found if size is not None)
