"""GPUs on paper: observations made by hand, and a node that a reconciler can be tested against without a driver."""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass

from aimd.domain.gpu import BusyRule, Gpu, Holder, Observed, Partition
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.plan import Step, StepKind
from aimd.domain.silicon import GFX_942, MODELS, automatic_mode, pair_allowed, partition_count

GIB = 1 << 30
BUSES = ("05", "27", "47", "65", "85", "a7", "c7", "e5")
ADDRESSES = tuple(f"0000:{bus}:00.0" for bus in BUSES)
DEVICE = {"MI300A": 0x74A0, "MI300X": 0x74A1, "MI308X": 0x74A2, "MI325X": 0x74A5, "MI350X": 0x75A0, "MI355X": 0x75A3}
GFX = {"MI350X": 90500, "MI355X": 90500}
HIVE = 0xD2C9


def mode(text: str) -> PartitionMode:
    return PartitionMode.parse(text)


def gpu(
    number: int = 0,
    now: str = "SPX/NPS1",
    *,
    model: str = "MI300X",
    file: str | None = "as partitions",
    compute_modes: str | None = "SPX DPX QPX CPX",
    memory_modes: str | None = "NPS1 NPS2 NPS4",
    writable: bool = True,
    hive: int | None = HIVE,
    partitions: int | None = None,
    in_reset: bool = False,
    device_id: int | None = None,
) -> Gpu:
    """A GPU in a mode; `file` is what its mode file says, `partitions` how many of the mode's are there."""
    compute, memory = mode(now).compute, mode(now).memory
    assert compute is not None
    device = device_id or DEVICE[model]
    xccs = MODELS[device].xcc_count if device in MODELS else 8
    count = partition_count(compute, xccs) or 1
    said = compute if file == "as partitions" else ComputeMode[file] if file else None
    return Gpu(
        pci_address=ADDRESSES[number],
        device_id=device,
        partitions=tuple(
            Partition(index, 128 + 8 * number + index, xccs // count, 192 * GIB // count, 1000 * number + index)
            for index in range(count if partitions is None else partitions)
        ),
        reported_compute=said,
        memory_mode=memory,
        compute_modes=None if compute_modes is None else tuple(ComputeMode[m] for m in compute_modes.split()),
        memory_modes=None if memory_modes is None else tuple(MemoryMode[m] for m in memory_modes.split()),
        memory_mode_writable=writable,
        memory_bytes=192 * GIB,
        hive_id=hive,
        gfx_target=GFX.get(model, 90402),
        in_reset=in_reset,
    )


def observed(
    *gpus: Gpu, holders: tuple[Holder, ...] = (), rule: BusyRule = BusyRule.PER_GPU, **more: object
) -> Observed:
    return Observed(gpus, holders, busy_rule=rule, **more)  # type: ignore[arg-type]


def holder(pid: int, *numbers: int, command: str | None = "python train.py") -> Holder:
    return Holder(pid, command, frozenset(ADDRESSES[number] for number in numbers))


def compute_step(before: str = "SPX/NPS1", after: str = "CPX/NPS1", number: int = 0) -> Step:
    return Step(StepKind.COMPUTE, (ADDRESSES[number],), mode(before), mode(after))


def memory_step(before: str = "NPS1", after: str = "NPS4", numbers: tuple[int, ...] = (0, 1)) -> Step:
    return Step(StepKind.MEMORY, tuple(ADDRESSES[n] for n in numbers), mode(before), mode(after))


@dataclass
class PaperGpu:
    """`file` and `compute` differ after a silent refusal; no compute mode means that the partitions are gone."""

    file: ComputeMode
    compute: ComputeMode | None
    memory: MemoryMode = MemoryMode.NPS1
    requested: MemoryMode | None = None
    on_the_bus: bool = True


class PaperNode:
    """MI300X in one hive. What the next writes do is scripted in `outcomes`; a write does what it should without.

    Outcomes: an errno; "refused" (success, the file says new, the partitions stay); "nothing" (success without
    effect); "dead" (EIO, the partitions are gone).
    """

    def __init__(self, *modes: str, rule: BusyRule = BusyRule.PER_GPU) -> None:
        self.gpus = {}
        for number, text in enumerate(modes):
            compute, memory = mode(text).compute, mode(text).memory
            assert compute is not None
            self.gpus[ADDRESSES[number]] = PaperGpu(compute, compute, memory or MemoryMode.NPS1)
        self.rule = rule
        self.holders: list[Holder] = []
        self.outcomes: deque[int | str] = deque()
        self.scan_failures = 0
        self.firmware_accepts_memory = True
        self.in_reset = False
        self.generation = 10

    def observe(self) -> Observed:
        return Observed(
            tuple(self._gpu(number, paper) for number, paper in enumerate(self.gpus.values()) if paper.on_the_bus),
            tuple(self.holders),
            self.generation,
            self.rule,
        )

    def _gpu(self, number: int, paper: PaperGpu) -> Gpu:
        shown = paper.compute or ComputeMode.SPX
        made = gpu(number, f"{shown}/{paper.memory}", file=paper.file, partitions=None if paper.compute else 0)
        if not self.in_reset:
            return made
        return Gpu(made.pci_address, made.device_id, made.partitions, None, None, hive_id=HIVE, in_reset=True)

    def write(self, address: str, target: ComputeMode | MemoryMode) -> int:
        """The errno of a mode write."""
        paper = self.gpus[address]
        outcome = self.outcomes.popleft() if self.outcomes else "done"
        if not paper.on_the_bus:
            return errno.ENODEV
        if isinstance(outcome, int) or outcome == "nothing":
            return outcome if isinstance(outcome, int) else 0
        if isinstance(target, MemoryMode):
            for member in self.gpus.values():
                member.requested = target
            return 0
        if not pair_allowed(GFX_942, target, paper.memory):
            return errno.EINVAL
        self.generation += 1
        paper.file = target
        if outcome != "refused":
            paper.compute = None if outcome == "dead" else target
        return errno.EIO if outcome == "dead" else 0

    def reload(self) -> None:
        """Unload and load the driver: memory requests take effect, compute modes are chosen anew."""
        for paper in self.gpus.values():
            if paper.requested is not None and self.firmware_accepts_memory:
                paper.memory = paper.requested
            paper.requested = None
            paper.file = paper.compute = automatic_mode(paper.memory, 8)
        self.generation = 1 + len(self.gpus)

    def modes(self) -> list[str]:
        """What the hardware is in."""
        return [f"{paper.compute or 'gone'}/{paper.memory}" for paper in self.gpus.values()]
