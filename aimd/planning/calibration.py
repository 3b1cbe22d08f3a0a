"""HIP's free memory beside KFD's counters: where the difference comes from, and when it should not be there. Pure.

Sources: amdgpu_amdkfd_gpuvm.c (amdgpu_amdkfd_get_available_memory, ESTIMATE_PT_SIZE).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aimd.domain.accounting import Calibration
from aimd.domain.gpu import Gpu
from aimd.domain.memory import GIB
from aimd.domain.probe import PartitionMemory

LEAST_PAGE_TABLES = 8 << 20  # AMDGPU_VM_RESERVED_VRAM
PAGE_TABLE_SHARE = 14
DRIFT_BYTES = 256 << 20  # of what a partition may lack more than before, or than its siblings: rounding is far below


def page_table_bytes(gpus: Iterable[Gpu], system_bytes: int | None) -> int | None:
    """What every partition keeps back for page tables, by the machine's whole memory; None if a part is unknown."""
    sizes = [gpu.total_memory_bytes for gpu in gpus]
    if system_bytes is None or None in sizes:
        return None
    whole = system_bytes + sum(size for size in sizes if size is not None)
    return max(whole >> PAGE_TABLE_SHARE, LEAST_PAGE_TABLES)


def calibrations(
    answers: Iterable[PartitionMemory], used: Mapping[int, int | None], page_tables: int | None
) -> dict[int, Calibration]:
    """By index; none of a partition whose use is unknown.

    Args:
        answers: HIP's, of all partitions of one GPU.
        used: KFD's counters at that time, by index.
        page_tables: what is kept back for them, bytes.
    """
    known = [(answer, size) for answer in answers if (size := used.get(answer.index)) is not None]
    least = min((answer.total_bytes - size - answer.free_bytes for answer, size in known), default=0)
    alone = len(known) < 2
    return {
        answer.index: Calibration(
            answer.free_bytes,
            answer.total_bytes,
            size,
            page_tables,
            least - page_tables if page_tables is not None else None,
            None if alone else answer.total_bytes - size - answer.free_bytes - least,
        )
        for answer, size in known
    }


def drift(found: Calibration, capacity: int | None, usual: int) -> str | None:
    """What HIP and KFD do not agree on, as the predicate of a sentence about the partition; None if they do.

    Nothing of the driver tells memory that is pinned or kept back by RAS from memory that is lost. What all partitions lack
    alike, or the only one, is seen therefore by comparison with `usual` alone, and what was lost before that was first
    known is not.

    Args:
        capacity: by KFD's topology.
        usual: the least that a partition of this GPU has lacked in the present mode, bytes.
    """
    if capacity is not None and found.total_bytes != capacity:
        return f"has {found.total_bytes} bytes by HIP, {capacity} by KFD"
    if found.missing_bytes < 0:
        return f"has {_gib(-found.missing_bytes)} more free memory by HIP than the counters of KFD's processes leave"
    if found.missing_bytes - usual > DRIFT_BYTES:
        here = found.rest_bytes is not None and found.rest_bytes > DRIFT_BYTES
        whose = "its siblings do not" if here else "it did not before; pinned memory and RAS are possible"
        return f"lacks {_gib(found.missing_bytes - usual)} that no process of KFD's list uses, and {whose}"
    return None


def calm(found: Calibration, usual: int) -> bool:
    """Of a partition without drift: whether one that it had before is over."""
    return found.missing_bytes - usual <= DRIFT_BYTES // 2


def _gib(size: int) -> str:
    return f"{size / GIB:.3g} GiB"
