"""A pure model of the amdgpu driver's partitioning: what a write does, when, and with which errno.

Time is an argument (seconds). Nothing here blocks: a write answers when it will return and with what, and the front
ends (sim/node.py) do the waiting. Every method first settles what was due. Sources per rule: hardware notes sections
1.3 to 1.6 and 2.1 to 2.2, which name the kernel functions.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass

from aimd.domain.modes import ComputeMode, MemoryMode
from aimd.domain.silicon import automatic_mode, pair_allowed, partition_count
from aimd.sim.attributes import compute_mode
from aimd.sim.faults import armed, spend
from aimd.sim.hardware import CU_SLOTS_PER_XCC, XCP_PER_GPU, gpu_id, partition_sizes
from aimd.sim.state import CONDITIONS, FaultKind, KfdNode, SimClient, SimFault, SimGpu, SimState


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """When a write(2) returns, and its errno (0 = success)."""

    until: float
    errno: int = 0


class Blocked(Exception):  # noqa: N818 -- not an error: the system call sleeps
    """The call sleeps on a lock of the driver and can go on at `until` (seconds)."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


class Driver:
    """The driver of one node.

    Attributes:
        events: (kind, PCI address) pairs of ports.DriverEvent, for the front end to take.
        version: moves with every change of the node list, unlike generation_id across driver loads, too.
        devices_version: moves when devices come or go.
    """

    def __init__(self, state: SimState) -> None:
        self.state = state
        self.events: list[tuple[str, str | None]] = []
        self.version = 0
        self.devices_version = 0

    # -- driver load -----------------------------------------------------------------------------------------

    def load(self, now: float = 0.0) -> None:
        """Module load: memory requests take effect, then the GPUs are bound one after the other from `now` on.

        Each chooses its compute mode from its memory mode, and its nodes appear. The module and KFD with the CPU nodes
        are there before the first (amdgpu_init makes KFD before it registers the PCI driver).
        """
        state = self.state
        state.nodes.clear()
        state.additions.clear()
        state.generation = 1  # the CPU nodes, kfd_topology_init
        state.simd_id_next = 0x80001000
        self._apply_memory_requests()
        exhausted = any(fault.kind is FaultKind.MINORS_EXHAUSTED for fault in state.faults)
        minors = iter(range(128, 128 + (63 if exhausted else state.drm_minors)))
        state.module_at = now + state.load_seconds
        for position, gpu in enumerate(state.gpus, start=2):
            gpu.switching_until = gpu.reset_until = None
            gpu.kfd_dead = False
            gpu.compute = gpu.mode_file = gpu.xcp_config = automatic_mode(gpu.memory, gpu.xcc_count)
            gpu.alloc_mode = "CAPPING"
            gpu.isolation = []
            gpu.render_minors = [] if gpu.lost else [next(minors, None) for _ in range(XCP_PER_GPU)]
            gpu.bind_at = None if gpu.lost else now + position * state.load_seconds
        state.hole_until = 0.0
        self._devices_moved()
        self._go_on_loading(now)

    @property
    def loading(self) -> bool:
        return self.state.module_at is not None or any(gpu.bind_at is not None for gpu in self.state.gpus)

    @property
    def next_due(self) -> float | None:
        """When the load under way goes on; None if there is none, or while a fault keeps it where it is."""
        if self.state.module_at is not None:
            return self.state.module_at
        waiting = [gpu for gpu in self.state.gpus if gpu.bind_at is not None]
        return waiting[0].bind_at if waiting and not self._hangs(waiting[0]) else None

    def _hangs(self, gpu: SimGpu) -> bool:
        second_half = self.state.gpus.index(gpu) >= len(self.state.gpus) // 2
        return second_half and armed(self.state, FaultKind.LOAD_HANG, gpu.address) is not None

    def _go_on_loading(self, now: float) -> None:
        """What of a load under way was due: the module, then each GPU; the module's event comes after its GPUs'."""
        state = self.state
        while (due := self.next_due) is not None and due <= now:
            if state.module_at is not None:
                state.module_at = None
            else:
                gpu = next(gpu for gpu in state.gpus if gpu.bind_at is not None)
                gpu.bind_at = None
                for node in self._nodes_of(gpu):
                    self._add(node)
                self.events.append(("gpu_added", gpu.address))
            self._devices_moved()
            if not self.loading:
                self.events.append(("driver_reloaded", None))

    def _devices_moved(self) -> None:
        self.version += 1
        self.devices_version += 1

    def _apply_memory_requests(self) -> None:
        """At unload the firmware is asked for every member of a hive; one refusal rolls back the others."""
        hives: dict[int | str, list[SimGpu]] = {}
        for gpu in self.state.gpus:
            hives.setdefault(gpu.hive_id or gpu.address, []).append(gpu)
        for members in hives.values():
            asked = [gpu for gpu in members if gpu.requested_memory is not None]
            refused = [gpu for gpu in asked if spend(self.state, FaultKind.MEMORY_REFUSAL, gpu.address)]
            for gpu in asked:
                if gpu.requested_memory is not None and not refused:
                    gpu.memory = gpu.requested_memory
                gpu.requested_memory = None

    def reload(self, now: float) -> int:
        """`modprobe -r amdgpu && modprobe amdgpu`; errno EBUSY while a KFD client lives ("in use"), else 0.

        With `load_seconds` the load has only begun then.
        """
        self.settle(now)
        if self.state.clients or self.loading or any(gpu.switching_until is not None for gpu in self.state.gpus):
            return errno.EBUSY
        self.events.append(("driver_unloaded", None))
        self.load(now)
        return 0

    def clear_faults(self, now: float) -> None:
        """Disarm all; a load that hung goes on."""
        self.state.faults.clear()
        self.settle(now)

    def reboot(self, _now: float) -> None:
        """Power cycle: no clients, no faults, every GPU back in SPX/NPS1, a new boot id, the driver loaded."""
        state = self.state
        state.clients.clear()
        state.faults.clear()
        state.boot_id = ""  # randomness is the front end's
        for gpu in state.gpus:
            gpu.lost = False
            gpu.memory, gpu.requested_memory = MemoryMode.NPS1, None
        self.load()
        self._go_on_loading(math.inf)
        self.events.clear()  # nobody was there to hear them

    # -- time ------------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Apply what was due: nodes of a switch that appear, ended switches and resets, released clients."""
        state = self.state
        self._go_on_loading(now)
        for node in sorted((node for node in state.additions if node.due <= now), key=lambda node: node.due):
            state.additions.remove(node)
            self._add(node)
        for gpu in state.gpus:
            if gpu.switching_until is not None and gpu.switching_until <= now:
                gpu.switching_until = None
            if gpu.reset_until is not None and gpu.reset_until <= now:
                gpu.reset_until = None
                if state.driver.wedged_event:
                    self.events.append(("gpu_reset", gpu.address))
        if any(gpu.reset_until is not None for gpu in state.gpus):
            return  # kfd_process_wq_release waits for a reset to finish first
        state.clients[:] = [client for client in state.clients if client.reap_at is None or client.reap_at > now]

    def blocked_until(self, address: str, now: float) -> float | None:
        """When the mode file can be read or written again: xcp_lock is held for the whole of a switch."""
        self.settle(now)
        return self.state.gpu(address).switching_until

    def nodes_visible(self, now: float) -> bool:
        """Whether nodes/ has entries: each addition or removal tears the tree down and builds it again.

        generation_id is raised before the hole when a node goes, but after it when one comes (kfd_topology_remove_device,
        kfd_topology_add_device): a reader within the hole of an addition sees a generation that does not move.
        """
        self.settle(now)
        if now < self.state.hole_until:
            return False
        return not any(0 < node.due - now <= self._rebuild_seconds(node.address) for node in self.state.additions)

    # -- compute mode ----------------------------------------------------------------------------------------

    def write_compute(self, address: str, data: bytes, now: float) -> WriteOutcome:
        """`current_compute_partition` store, checks in the kernel's order (amdgpu_gfx_set_compute_partition).

        Raises:
            Blocked: another write switches this GPU; ask again when it has ended.
        """
        self.settle(now)
        gpu = self.state.gpu(address)
        mode = compute_mode(data)
        refusal = self._compute_refusal(gpu, mode)
        if refusal is not None or mode is None:
            return WriteOutcome(now, refusal or 0)
        return self._begin(gpu, mode, now)

    def _compute_refusal(self, gpu: SimGpu, mode: ComputeMode | None) -> int | None:
        """Errno of the first check that fails, 0 for a success without effect, None to go on."""
        profile = self.state.driver
        if not gpu.bound:
            return errno.ENODEV
        if gpu.xcc_count % 2 or mode is None or partition_count(mode, gpu.xcc_count) is None:
            return errno.EINVAL
        if gpu.switching_until is not None:  # the cached mode is "in transition", so the next check lets nobody pass
            raise Blocked(gpu.switching_until)
        if gpu.reset_until is not None and profile.reset_eperm:
            return errno.EPERM
        if mode is gpu.mode_file or gpu.vf:
            return 0
        if not pair_allowed(self.state.hardware.gfx_target, mode, gpu.memory):
            return errno.EINVAL
        locked = self.state.gpus if profile.node_wide_busy else [gpu]
        if self.holders(gpu.address) or any(self._kfd_locked(other) for other in locked):
            return errno.EBUSY
        return errno.EBUSY if spend(self.state, FaultKind.BUSY, gpu.address) else None

    def _kfd_locked(self, gpu: SimGpu) -> bool:
        return gpu.reset_until is not None or gpu.switching_until is not None

    def _begin(self, gpu: SimGpu, mode: ComputeMode, now: float) -> WriteOutcome:
        """Take the nodes away now and schedule the new ones to appear inside the write."""
        state = self.state
        slow = spend(state, FaultKind.SLOW_WRITE, gpu.address)
        for node in [node for node in state.nodes if node.address == gpu.address]:
            state.nodes.remove(node)
            self._rebuilt(now, gpu.address)
        gpu.isolation = []
        gpu.mode_file = gpu.xcp_config = mode
        gpu.alloc_mode = "CAPPING"  # amdgpu_xcp_init resets it
        until = now + state.switch_seconds + (slow.seconds if slow else 0.0)
        if spend(state, FaultKind.KFD_FAILURE, gpu.address):
            gpu.compute, gpu.kfd_dead, gpu.switching_until = mode, True, until
            return WriteOutcome(until, errno.EIO)
        if not spend(state, FaultKind.FIRMWARE_REFUSAL, gpu.address):
            gpu.compute = mode
        nodes = [] if gpu.kfd_dead else self._nodes_of(gpu)
        step = 2 * self._rebuild_seconds(gpu.address)  # between two rebuilds the tree is whole for a moment
        for position, node in enumerate(nodes):
            node.due = until + (position + 1) * step
        state.additions += nodes
        gpu.switching_until = until + len(nodes) * step
        return WriteOutcome(gpu.switching_until)

    # -- memory mode -----------------------------------------------------------------------------------------

    def write_memory(self, address: str, data: bytes, now: float) -> WriteOutcome:
        """`current_memory_partition` store: records a request for the whole hive, effective at the next load."""
        self.settle(now)
        gpu = self.state.gpu(address)
        if not gpu.bound:
            return WriteOutcome(now, errno.ENODEV)
        wanted = next((m for m in self.state.hardware.memory_modes if data.upper().startswith(m.value.encode())), None)
        if wanted is None or not self.memory_writable(gpu):
            return WriteOutcome(now, errno.EINVAL)
        if wanted is not gpu.memory:  # the current mode is skipped before the store: a request cannot be cancelled
            for member in self.state.gpus:
                if member is gpu or (gpu.hive_id and member.hive_id == gpu.hive_id):
                    member.requested_memory = wanted
        return WriteOutcome(now)

    def memory_writable(self, gpu: SimGpu) -> bool:
        """Whether current_memory_partition is 0644: newer drivers, more than one mode, no virtual function."""
        state = self.state
        return state.driver.memory_writable and len(state.hardware.memory_modes) > 1 and not gpu.vf

    # -- KFD clients -----------------------------------------------------------------------------------------

    def join(self, pid: int, start_time: int, now: float, *, permitted: frozenset[str] | None = None) -> int:
        """Open /dev/kfd for this process on the permitted GPUs (None = all); EINVAL while KFD is locked, else 0."""
        self.settle(now)
        visible = [node for node in self.state.nodes if permitted is None or node.address in permitted]
        locked = {gpu.address for gpu in self.state.gpus if self._kfd_locked(gpu)}
        if permitted is not None and not self.state.driver.node_wide_busy:
            locked &= permitted
        if locked or not visible:
            return errno.EINVAL
        if not any(client.pid == pid and client.start_time == start_time for client in self.state.clients):
            gpus = list(dict.fromkeys(node.address for node in visible))
            self.state.clients.append(SimClient(pid, start_time, {node.gpu_id: 0 for node in visible}, gpus))
        return 0

    def leave(self, pid: int, now: float) -> None:
        """The process died; the driver frees it asynchronously."""
        self.settle(now)
        for client in self.state.clients:
            if client.pid == pid and client.reap_at is None:
                client.reap_at = now + self.state.reap_seconds

    def holders(self, address: str) -> list[SimClient]:
        """The clients that make a switch of this GPU fail, by the profile's rule."""
        if self.state.driver.node_wide_busy:
            return list(self.state.clients)
        return [client for client in self.state.clients if address in client.gpus]

    # -- faults ----------------------------------------------------------------------------------------------

    def inject(self, fault: SimFault, now: float) -> None:
        """Arm a fault, or act at once where it is an event (reset, device lost)."""
        self.settle(now)
        targets = [gpu for gpu in self.state.gpus if fault.gpu in (None, gpu.address) and not gpu.lost]
        if fault.kind is FaultKind.RESET:
            for gpu in targets:
                # The switch holds the reset domain's lock: a reset waits for its end.
                gpu.reset_until = max(now, gpu.switching_until or now) + fault.seconds
        elif fault.kind is FaultKind.DEVICE_LOST:
            for gpu in targets:
                self._lose(gpu, now)
        elif fault.kind in CONDITIONS:
            self._set_condition(SimFault(fault.kind, fault.gpu, None, fault.seconds))
        else:
            self.state.faults.append(fault)

    def _set_condition(self, fault: SimFault) -> None:
        """It lasts until cleared; a second one of the same kind on the same GPUs takes the place of the first."""
        others = [known for known in self.state.faults if (known.kind, known.gpu) != (fault.kind, fault.gpu)]
        self.state.faults[:] = [*others, fault]

    def _lose(self, gpu: SimGpu, now: float) -> None:
        gpu.lost, gpu.switching_until, gpu.bind_at = True, None, None
        self.state.additions[:] = [node for node in self.state.additions if node.address != gpu.address]
        for node in [node for node in self.state.nodes if node.address == gpu.address]:
            self.state.nodes.remove(node)
            self._rebuilt(now, gpu.address)
        self.devices_version += 1
        self.events.append(("gpu_removed", gpu.address))

    # -- topology --------------------------------------------------------------------------------------------

    def _nodes_of(self, gpu: SimGpu) -> list[KfdNode]:
        """The KFD nodes of a GPU in its present hardware mode; an XCP without a DRM device gets none."""
        sizes = partition_sizes(self.state.hardware, gpu.compute, gpu.memory, gpu.xcc_count)
        each = gpu.xcc_count // len(sizes)
        nodes = []
        for index, size in enumerate(sizes):
            minor = gpu.render_minors[index]
            if minor is None:
                continue
            identity = gpu_id(
                bus=gpu.bus,
                device_id=self.state.hardware.device_id,
                memory_bytes=size,
                first_xcc=index * each,
                xcc_count=each,
            )
            nodes.append(KfdNode(gpu.address, index, index * each, each, size, identity, minor, 0))
        return nodes

    def _add(self, node: KfdNode) -> None:
        """Append to the node list: numbers of others never grow, the new one gets the highest."""
        taken = {other.gpu_id for other in self.state.nodes} | {0}
        while node.gpu_id in taken:
            node.gpu_id = node.gpu_id + 1 & 0xFFFF
        node.simd_id_base = self.state.simd_id_next
        self.state.simd_id_next += CU_SLOTS_PER_XCC
        self.state.nodes.append(node)
        self._moved()

    def _rebuilt(self, at: float, address: str) -> None:
        """One node went: generation_id moves, then the tree has a hole while it is built again."""
        self._moved()
        self.state.hole_until = max(self.state.hole_until, at + self._rebuild_seconds(address))

    def _moved(self) -> None:
        self.version += 1
        self.state.generation += 1

    def _rebuild_seconds(self, address: str) -> float:
        window = armed(self.state, FaultKind.REBUILD_WINDOW, address)
        return window.seconds if window is not None else self.state.rebuild_seconds
