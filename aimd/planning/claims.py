"""The claims of the node: who asked for what, where it was placed, which processes run on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from aimd.domain.claim import Assignment, Claim, ClaimSpec, ClaimState
from aimd.domain.gpu import Holder, Observed
from aimd.domain.ledger import HolderRecord, holders_on
from aimd.domain.memory import nominal_units
from aimd.domain.modes import PartitionMode
from aimd.domain.plan import Blocker, Plan, Reason, Refusal, StepKind
from aimd.domain.ranges import ranges
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.errors import ConflictError, NotFoundError, RefusedError
from aimd.planning import effects as fx
from aimd.planning.accounting import unattributed_use
from aimd.planning.node_state import NodeState
from aimd.planning.placement import Placement, place
from aimd.planning.policy import Policy
from aimd.planning.reservations import left_behind
from aimd.planning.rooms import Occupancy
from aimd.planning.underway import UnderWay


@dataclass(frozen=True, slots=True)
class Wanted:
    """A claim that was placed, and the modes that GPUs have to be switched to before it is there."""

    claim: Claim
    switches: tuple[tuple[str, PartitionMode], ...] = ()


class ClaimDesk:
    """All claims and their holders.

    Attributes:
        claims: by name, in the order in which they were made.
        holders: living processes and orphans, by pid and start time.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.claims: dict[str, Claim] = {}
        self.holders: dict[tuple[int, int], HolderRecord] = {}
        self._resting: dict[str, float] = {}  # GPUs whose switch has failed, until when (CLOCK_MONOTONIC seconds)

    # -- who is where ----------------------------------------------------------------------------------------

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        return tuple(assignment for claim in self.claims.values() for assignment in claim.assignments)

    @property
    def taken(self) -> frozenset[str]:
        """GPUs that somebody is assigned to."""
        return frozenset(assignment.gpu for assignment in self.assignments)

    def on(self, gpus: frozenset[str]) -> list[Claim]:
        """Claims with a place on one of the GPUs."""
        return [claim for claim in self.claims.values() if any(a.gpu in gpus for a in claim.assignments)]

    def holders_on(self, gpu: str) -> tuple[Holder, ...]:
        """Living processes that joined a claim on the GPU: a drain waits for them."""
        return holders_on(gpu, self.holders.values(), self.claims.values())

    def considered(self, planned: Plan, *, drain: bool) -> Plan:
        """The plan with what claims have to say: without `drain` GPUs with assignments are refused.

        With it, the claims' processes are waited for, whether they have opened the device or not: they are blockers.
        So are, with and without, those that go on after their claim was released.
        """
        if self.policy.rivals and planned.steps:
            return replace(planned, refusals=(*planned.refusals, _rivalled(planned.steps[0].gpu, self.policy.rivals)))
        in_use = [refusal for step in planned.steps if (refusal := self.in_use(step.gpus)) is not None]
        if in_use and not drain:
            return replace(planned, refusals=(*planned.refusals, *in_use))
        named = {(blocker.holder.pid, blocker.gpu) for blocker in planned.blockers}
        registered = [
            Blocker(holder, step.gpu, node_wide=False)
            for step in planned.steps
            if step.kind is StepKind.COMPUTE and not step.after_reload
            for holder in self.holders_on(step.gpu)
            if (holder.pid, step.gpu) not in named
        ]
        return replace(planned, blockers=(*planned.blockers, *registered))

    def in_use(self, gpus: tuple[str, ...]) -> Refusal | None:
        """Why these GPUs cannot be switched without draining: claims are there."""
        claims = self.on(frozenset(gpus))
        if not claims:
            return None
        names = ", ".join(claim.name for claim in claims)
        return Refusal(
            gpus[0],
            Reason.GPU_IN_USE,
            f"GPU {', '.join(gpus)} is in use by claims: {names}",
            "with --drain their processes are waited for and the claims are placed again; or release them",
        )

    # -- requests --------------------------------------------------------------------------------------------

    def request(
        self, name: str, spec: ClaimSpec, uid: int, now: fx.Instant, node: NodeState, under_way: UnderWay
    ) -> Wanted:
        """A new claim with its places, or pending if it has to wait for the mode change that is under way.

        Raises:
            ConflictError: the name is taken by another request.
            RefusedError: it fits nowhere; the code is the reason.
            UnreachableError: before the first scan.
        """
        known = self.claims.get(name)
        if known is not None:
            if known.spec == spec:
                return Wanted(known)
            raise ConflictError(
                f"claim {name} exists and asks for something else",
                code="name_taken",
                hint=f"aimctl release {name} first, or choose another name",
            )
        claim, resting = Claim(name, uid, spec, now.wall), self._at_rest(now)
        wanted = self._place(claim, node, under_way, resting)
        if isinstance(wanted, Refusal) and resting:
            wanted = self._place(claim, node, under_way)
        wanted = self._judged(claim, node, under_way, wanted)
        if isinstance(wanted, Refusal):
            raise RefusedError(wanted.message, code=wanted.reason.value, hint=wanted.hint)
        return wanted

    def _at_rest(self, now: fx.Instant) -> frozenset[str]:
        """GPUs that are not switched now if there is another way: a switch of theirs has failed a moment ago."""
        return frozenset(gpu for gpu, until in self._resting.items() if until > now.monotonic)

    def _place(
        self, claim: Claim, node: NodeState, under_way: UnderWay, resting: frozenset[str] = frozenset()
    ) -> Wanted | Refusal:
        occupancy = replace(
            self._occupancy(node, self.assignments),
            switching=frozenset(under_way.gpus),
            change=under_way.change,
            unswitchable=resting,
        )
        found = _found(claim, node.observed, occupancy)
        if isinstance(found, Refusal):
            return found
        if found.switches and self.policy.rivals:
            return _rivalled(found.switches[0][0], self.policy.rivals)
        placed = claim.placed(tuple(_dated(assignment, node) for assignment in found.assignments))
        if not found.switches:
            return Wanted(placed)
        return Wanted(replace(placed, state=ClaimState.SWITCHING, reason=None, message=None), found.switches)

    def _occupancy(self, node: NodeState, assignments: tuple[Assignment, ...]) -> Occupancy:
        left = left_behind(self.holders.values(), self.assignments, node)
        reserved = (*self.assignments, *(one.kept for one in left))
        return Occupancy(
            assignments=assignments,
            left_behind=left,
            draining=frozenset(record.address for record in node.records.values() if record.draining),
            unattributed=unattributed_use(node.observed.holders, self.holders, reserved),
            wishes={record.address: record.wish for record in node.records.values() if record.wish is not None},
            slots_per_partition=self.policy.slots_per_partition,
            repartition=self.policy.repartition,
        )

    def _judged(self, claim: Claim, node: NodeState, under_way: UnderWay, wanted: Wanted | Refusal) -> Wanted | Refusal:
        """What becomes of the claim when a mode change runs: it waits if it needs another change, or the end of this one."""
        if under_way.change is None or (isinstance(wanted, Wanted) and not wanted.switches):
            return wanted
        if isinstance(wanted, Refusal) and isinstance(self._afterwards(claim, node, under_way), Refusal):
            return wanted
        return Wanted(waiting(claim, under_way.change, wanted if isinstance(wanted, Refusal) else None))

    def _afterwards(self, claim: Claim, node: NodeState, under_way: UnderWay) -> Placement | Refusal:
        """Where it will go if the change succeeds, which takes the places of others on its GPUs away."""
        staying = tuple(
            assignment
            for each in self.claims.values()
            for assignment in each.assignments
            if each.state is ClaimState.SWITCHING or assignment.gpu not in under_way.gpus
        )
        observed = under_way.afterwards(node.observed)
        return _found(claim, observed, self._occupancy(node, staying))

    def join(self, event: fx.HolderJoined, busy: Collection[str]) -> HolderRecord:
        """The process as holder of a replica; the same process again gets the same answer.

        Raises:
            NotFoundError: no such claim or replica.
            ConflictError: the replica has no partition now, or the process holds another claim.
        """
        name, replica, pid = event.claim, event.replica, event.pid
        claim = self.claims.get(name)
        if claim is None:
            raise NotFoundError(f"claim {name!r} does not exist", code="unknown_claim", hint="aimctl get claims")
        if replica is not None and replica not in claim.numbers:
            raise NotFoundError(
                f"claim {name} has no replica {replica}, it has {ranges(claim.numbers)}",
                code="unknown_replica",
            )
        known = self.holders.get((pid, event.start_time))
        if known is not None and known.released_at is not None:
            known = None
        if known is not None and (known.claim != name or replica not in (None, known.replica)):
            raise ConflictError(f"pid {pid} already holds {known.claim}/{known.replica}", code="already_holding")
        wanted = known.replica if known is not None else replica
        placed = {assignment.replica for assignment in claim.assignments if assignment.gpu not in busy}
        if not placed or (wanted is not None and wanted not in placed):
            gone = f"no partition for replica {wanted}" if wanted is not None else "no partition"
            why = "its GPU is being switched" if claim.state is ClaimState.PLACED else claim.waits_for
            raise ConflictError(
                f"claim {name} has {gone} now: {why}",
                code="not_placed",
                hint=f"aimctl describe claim {name} tells what it waits for",
            )
        held = {holder.replica for holder in self.holders.values() if holder.claim == name and not holder.released_at}
        number = min(placed - held, default=min(placed)) if wanted is None else wanted
        place = next(assignment for assignment in claim.assignments if assignment.replica == number)
        return HolderRecord(
            name,
            number,
            pid,
            event.start_time,
            event.command,
            gpu=place.gpu,
            index=place.index,
            mode_epoch=place.mode_epoch,
            memory_units=place.memory_units,
            guarantee=place.guarantee,
        )

    # -- what happens to claims ------------------------------------------------------------------------------

    def switched(self, node: NodeState, now: fx.Instant) -> list[Claim]:
        """Claims whose mode change has ended: placed now, or pending with the reason of its failure."""
        touched = []
        for claim in self.claims.values():
            change = node.changes.get(claim.change or "")
            if claim.state is not ClaimState.SWITCHING or (change is not None and change.current is not None):
                continue
            if change is not None and change.state is SwitchState.COMMITTED:
                touched.append(_arrived(claim, change, node))
            else:
                failed = _failed(change)
                if failed is not None and failed.reason is not Reason.INTERRUPTED_BY_REBOOT:
                    until = now.monotonic + self.policy.wish_retry_seconds
                    self._resting.update(dict.fromkeys(failed.step.gpus, until))
                touched.append(_undone(claim, change))
        return touched

    def displaced(self, node: NodeState, hidden: frozenset[str]) -> list[Claim]:
        """Claims that have lost a place: the partition is gone, or its GPU has another mode epoch.

        Of `hidden` GPUs, which are between two modes, nothing is known yet.
        """
        reserved: dict[tuple[str, int], int] = {}
        for assignment in self.assignments:
            reserved[assignment.place] = reserved.get(assignment.place, 0) + assignment.memory_units
        sizes = _sizes(node)
        touched = []
        for claim in self.claims.values():
            if claim.state is ClaimState.SWITCHING:
                continue
            kept = tuple(
                a
                for a in claim.assignments
                if a.gpu in hidden or sizes.get((*a.place, a.mode_epoch), 0) >= reserved[a.place]
            )
            if kept != claim.assignments:
                words = "its partition is no more; it is placed again when there is room"
                touched.append(
                    replace(claim, state=ClaimState.PENDING, assignments=kept, reason=Reason.NO_ROOM, message=words)
                )
        return touched

    def pursue(self, node: NodeState, under_way: UnderWay, now: fx.Instant, *, switching: bool) -> Wanted | None:
        """The first pending claim, the largest first, that gains a place now or learns why not; None if none does.

        Without `switching` only partitions that are there count. What only a GPU at rest could make room for waits.
        """
        resting = self._at_rest(now)
        pending = [claim for claim in self.claims.values() if claim.state is ClaimState.PENDING]
        for claim in sorted(pending, key=lambda claim: -claim.spec.memory_units):
            wanted = self._place(claim, node, under_way, resting)
            if isinstance(wanted, Refusal) and resting and isinstance(self._place(claim, node, under_way), Wanted):
                continue
            wanted = self._judged(claim, node, under_way, wanted)
            if isinstance(wanted, Refusal):
                wanted = Wanted(replace(claim, reason=wanted.reason, message=f"{wanted.message}; {wanted.hint}"))
            if wanted.claim != claim and (not wanted.switches or switching):
                return wanted
        return None


def _found(claim: Claim, observed: Observed, occupancy: Occupancy) -> Placement | Refusal:
    """Places for all of the claim that has none, or the reason why not.

    Pods need not wait for one another: of those that do not fit together the first one that fits is placed.
    """
    refusals = []
    for spec, numbers in claim.unplaced:
        for some in (numbers, numbers[:1]) if claim.pods and len(numbers) > 1 else (numbers,):
            found = place(claim.name, spec, observed, occupancy, some)
            if not isinstance(found, Refusal):
                return found
            refusals.append(found)
    return refusals[0] if refusals else Placement((), ())


def _rivalled(gpu: str, rivals: tuple[str, ...]) -> Refusal:
    return Refusal(
        gpu,
        Reason.CONFLICTING_MANAGER,
        f"aimd changes no modes on this node: {'; '.join(rivals)}",
        "one manager of partitions per node: turn the other one off, it is seen within a minute",
    )


def waiting(claim: Claim, change: str, refusal: Refusal | None = None) -> Claim:
    """The claim as it waits for the end of the mode change; `refusal` says what that has to do with its places."""
    words = f"mode change {change} is under way, and one runs at a time on a node"
    if refusal is not None and refusal.reason is Reason.SWITCH_IN_PROGRESS:
        words = refusal.message
    message = f"{words}; the claim is placed when it has ended"
    return replace(claim, state=ClaimState.PENDING, reason=Reason.SWITCH_IN_PROGRESS, message=message)


def _dated(assignment: Assignment, node: NodeState) -> Assignment:
    """With the mode epoch that the GPU has now."""
    return replace(assignment, mode_epoch=node.record(assignment.gpu).mode_epoch)


def _sizes(node: NodeState) -> dict[tuple[str, int, int], float]:
    """Nominal units of each partition by GPU, index and mode epoch; one that tells no size has room for what is there."""
    sizes: dict[tuple[str, int, int], float] = {}
    for gpu in node.observed.gpus:
        epoch = node.record(gpu.pci_address).mode_epoch
        for partition in gpu.partitions:
            units = nominal_units(partition.memory_bytes) if partition.memory_bytes is not None else float("inf")
            sizes[gpu.pci_address, partition.index, epoch] = units
    return sizes


def _arrived(claim: Claim, change: ModeChange, node: NodeState) -> Claim:
    """The claim after its mode change was committed; a GPU may have left the mode again before this was noticed."""
    wishes, memory = dict(change.wishes), claim.spec.mode.memory
    places = []
    for assignment in claim.assignments:
        wish, gpu = wishes.get(assignment.gpu), node.observed.gpu(assignment.gpu)
        if wish is None:
            places.append(assignment)
        elif gpu is not None and gpu.compute_mode is wish.compute and memory in (None, gpu.memory_mode):
            places.append(_dated(assignment, node))
    there = replace(claim, assignments=tuple(places), change=None)
    if not there.missing:
        return replace(there, state=ClaimState.PLACED)
    words = "its GPU has left the mode that it was switched to; the claim is placed again when there is room"
    if len(places) == len(claim.assignments):
        words = "not all of its pods have a place yet"
    return replace(there, state=ClaimState.PENDING, reason=Reason.NO_ROOM, message=words)


def _failed(change: ModeChange | None) -> Switch | None:
    switches = change.switches if change is not None else ()
    return next((switch for switch in switches if switch.state is not SwitchState.COMMITTED), None)


def _undone(claim: Claim, change: ModeChange | None) -> Claim:
    """The claim after the mode change that was to make room for it has failed."""
    wished = {gpu for gpu, _ in change.wishes} if change is not None else {a.gpu for a in claim.assignments}
    failed = _failed(change)
    return replace(
        claim,
        state=ClaimState.PENDING,
        assignments=tuple(a for a in claim.assignments if a.gpu not in wished),
        change=None,
        reason=failed.reason if failed is not None else Reason.NO_ROOM,
        message=failed.message if failed is not None else "the mode change that was to make room is not known any more",
    )
