"""From what is wished and what is observed to an ordered list of switches, or to reasons why not.

Rules: one memory mode per XGMI hive; a compute mode must be offered by the GPU and fit the memory mode; one switch per
GPU that differs, in the order of the node, memory before compute. The same input gives the same plan.
"""

from __future__ import annotations

from aimd.domain.gpu import BusyRule, Gpu, GpuState, Observed
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.plan import Blocker, Desired, Plan, Reason, Refusal, Step, StepKind
from aimd.domain.silicon import automatic_mode, pair_allowed, partition_count


def plan(desired: Desired, observed: Observed) -> Plan:
    """The switches that turn `observed` into `desired`.

    Every wish either is satisfied after the steps or has a refusal; a plan with refusals is shown, never executed.
    """
    refusals = [_unknown_gpu(address, observed) for address in desired.wishes if observed.gpu(address) is None]
    steps: list[Step] = []
    warnings: list[str] = []
    for hive in _hives(observed):
        wished = [observed_gpu for observed_gpu in hive if observed_gpu.pci_address in desired.wishes]
        if not wished:
            continue
        hive_refusals, memory = _memory_target(desired, observed, wished)
        for gpu in wished if not hive_refusals else ():
            refusal = _refusal(gpu, desired.wishes[gpu.pci_address], memory)
            if refusal is not None:
                hive_refusals.append(refusal)
        refusals += hive_refusals
        if not hive_refusals:
            steps += _steps(hive, desired, memory)
            warnings += _warnings(hive, desired, observed, memory)
    done = Plan(tuple(steps), tuple(refusals), warnings=tuple(warnings))
    return Plan(done.steps, done.refusals, blockers(done, observed), done.warnings)


def blockers(planned: Plan, observed: Observed) -> tuple[Blocker, ...]:
    """The processes that would make a compute step of this plan fail with EBUSY now."""
    found = []
    for step in planned.steps:
        if step.kind is not StepKind.COMPUTE or step.after_reload:
            continue
        for holder in observed.holders:
            own = step.gpu in holder.gpus
            if own or observed.busy_rule is BusyRule.NODE_WIDE:
                found.append(Blocker(holder, step.gpu, node_wide=not own))
    return tuple(found)


def _hives(observed: Observed) -> list[list[Gpu]]:
    """GPUs grouped by hive, groups and members in the order of the node."""
    groups: dict[str, list[Gpu]] = {}
    for gpu in observed.gpus:
        groups.setdefault(observed.hive(gpu.pci_address)[0], []).append(gpu)
    return list(groups.values())


def _unknown_gpu(address: str, observed: Observed) -> Refusal:
    known = ", ".join(gpu.pci_address for gpu in observed.gpus) or "none"
    return Refusal(address, Reason.UNKNOWN_GPU, f"GPU {address} is not on this node", f"GPUs of this node: {known}")


def _memory_target(desired: Desired, observed: Observed, wished: list[Gpu]) -> tuple[list[Refusal], MemoryMode | None]:
    """The memory mode that the hive is to change to (None = stays as it is), or the refusals that prevent it."""
    modes = {
        gpu.pci_address: memory for gpu in wished if (memory := desired.wishes[gpu.pci_address].memory) is not None
    }
    if len(set(modes.values())) > 1:
        said = ", ".join(f"{address} {mode}" for address, mode in modes.items())
        return [
            Refusal(
                address,
                Reason.MEMORY_MODE_CONFLICT,
                f"GPU {address} cannot be {mode}: the GPUs of a hive share one memory mode, the wishes are {said}",
                "wish one memory mode for all GPUs of the hive",
            )
            for address, mode in modes.items()
        ], None
    changing = [gpu for gpu in wished if modes.get(gpu.pci_address, gpu.memory_mode) is not gpu.memory_mode]
    refusals = [
        refusal
        for gpu in wished
        if gpu.pci_address in modes
        and (refusal := _memory_refusal(gpu, modes[gpu.pci_address], desired, observed, changing=gpu in changing))
    ]
    return refusals, modes[changing[0].pci_address] if changing else None


def _memory_refusal(
    gpu: Gpu, wanted: MemoryMode, desired: Desired, observed: Observed, *, changing: bool
) -> Refusal | None:
    address = gpu.pci_address
    pending = observed.pending_memory.get(address)
    if pending is not None:
        return Refusal(
            address,
            Reason.MEMORY_MODE_PENDING,
            f"GPU {address} cannot be asked for {wanted}: {pending} is already requested and cannot be cancelled",
            "reload the amdgpu driver (or reboot) first; the request takes effect then",
        )
    if not changing:
        return None
    offered = ", ".join(gpu.memory_modes) if gpu.memory_modes is not None else "no choice"
    if gpu.memory_modes is None or wanted not in gpu.memory_modes:
        return Refusal(
            address,
            Reason.MODE_NOT_AVAILABLE,
            f"GPU {address} does not offer memory mode {wanted}",
            f"it offers {offered} and is in {gpu.memory_mode or 'an unknown mode'}",
        )
    if not gpu.memory_mode_writable:
        return Refusal(
            address,
            Reason.MEMORY_MODE_READ_ONLY,
            f"GPU {address}: this driver does not let the memory mode be changed (current_memory_partition is read-only)",
            "use a driver that offers it, or set the mode in the firmware setup",
        )
    if not desired.allow_memory_mode_change:
        return Refusal(
            address,
            Reason.MEMORY_MODE_DISABLED,
            f"GPU {address} is in {gpu.memory_mode or 'an unknown memory mode'}, {wanted} was wished, "
            "and changing memory modes is not allowed",
            "set allow_memory_mode_change = true in aimd.toml; it concerns the whole hive and needs a driver reload",
        )
    return None


_ABSENT: dict[GpuState, tuple[Reason, str, str]] = {
    GpuState.LOST: (
        Reason.GPU_LOST,
        "has no compute nodes: the driver could not bring it up, or is not loaded",
        "reload the amdgpu driver; dmesg tells why",
    ),
    GpuState.HIDDEN: (
        Reason.GPU_HIDDEN,
        "has no compute nodes that aimd may see: its device cgroup denies them",
        "allow aimd's container or service the devices char 226:* rw; the GPU itself may be well",
    ),
    GpuState.GONE: (
        Reason.GPU_GONE,
        "is not there any more: it has left the bus, or the amdgpu driver does not have it (yet)",
        "dmesg tells why; rescan the bus, bind it to the driver, or reboot",
    ),
}


def _refusal(gpu: Gpu, wish: PartitionMode, memory: MemoryMode | None) -> Refusal | None:
    """Why this GPU cannot get the compute mode of its wish, the hive's memory mode being settled."""
    address = gpu.pci_address
    if gpu.state in _ABSENT:
        reason, words, hint = _ABSENT[gpu.state]
        return Refusal(address, reason, f"GPU {address} {words}", hint)
    wanted = wish.compute
    if wanted is None or (wanted is gpu.compute_mode and memory is None):
        return None  # what it is in needs no offer: a virtual function lists none
    if gpu.compute_mode is None:
        return Refusal(
            address,
            Reason.MODE_UNKNOWN,
            f"GPU {address}: its present compute mode cannot be read, so a change could not be rolled back",
            "aimctl describe gpu shows what the driver offers; such a GPU may not be partitionable",
        )
    after = memory or gpu.memory_mode
    if not offered(gpu, wanted, after, memory_changes=memory is not None):
        offers = [mode.value for mode in ComputeMode if offered(gpu, mode, after, memory_changes=memory is not None)]
        return Refusal(
            address,
            Reason.MODE_NOT_AVAILABLE,
            f"GPU {address} does not offer {wanted} with memory mode {after or 'unknown'}",
            f"it offers {', '.join(offers) or 'nothing'} there",
        )
    return None


def offered(gpu: Gpu, mode: ComputeMode, memory: MemoryMode | None, *, memory_changes: bool = False) -> bool:
    """What the driver lists counts; the silicon's rules besides, because older drivers list without regard to NPS."""
    listed = gpu.compute_modes
    if listed is not None and not memory_changes and mode not in listed:
        return False
    if gpu.model is None:
        return listed is not None
    if listed is None and not memory_changes:
        return False
    if partition_count(mode, gpu.model.xcc_count) is None:
        return False
    return memory is None or pair_allowed(gpu.model.gfx_target, mode, memory)


def _steps(hive: list[Gpu], desired: Desired, memory: MemoryMode | None) -> list[Step]:
    steps = []
    if memory is not None:
        lead = next(gpu for gpu in hive if gpu.memory_mode is not memory)
        members = (lead.pci_address, *(gpu.pci_address for gpu in hive if gpu is not lead))
        steps.append(Step(StepKind.MEMORY, members, PartitionMode(None, lead.memory_mode), PartitionMode(None, memory)))
    for gpu in hive:
        wish = desired.wishes.get(gpu.pci_address)
        now = gpu.compute_mode if memory is None else _after_load(gpu, memory)
        if wish is None or wish.compute is None or wish.compute is now:
            continue
        after = memory or gpu.memory_mode
        steps.append(
            Step(
                StepKind.COMPUTE,
                (gpu.pci_address,),
                PartitionMode(now, after),
                PartitionMode(wish.compute, after),
                after_reload=memory is not None,
            )
        )
    return steps


def _after_load(gpu: Gpu, memory: MemoryMode) -> ComputeMode | None:
    return automatic_mode(memory, gpu.model.xcc_count) if gpu.model is not None else None


def _warnings(hive: list[Gpu], desired: Desired, observed: Observed, memory: MemoryMode | None) -> list[str]:
    """What people should know before they agree."""
    if memory is None:
        return [
            f"GPU {gpu.pci_address}: {observed.pending_memory[gpu.pci_address]} is requested; the next driver load "
            "applies it and chooses the compute mode anew"
            for gpu in hive
            if gpu.pci_address in observed.pending_memory and gpu.pci_address in desired.wishes
        ]
    others = [gpu for gpu in hive if gpu.pci_address not in desired.wishes]
    when = f"{memory} takes effect for all {len(hive)} GPUs of the hive when the amdgpu driver is reloaded"
    told = [f"{when}; until then nothing changes and the request cannot be cancelled"]
    if observed.holders:
        pids = ", ".join(str(holder.pid) for holder in observed.holders)
        told.append(f"the driver cannot be reloaded while processes use GPUs: {pids}")
    told += [
        f"GPU {gpu.pci_address} goes from {gpu.mode} to {_after_load(gpu, memory) or '?'}/{memory} with its hive"
        for gpu in others
    ]
    return told
