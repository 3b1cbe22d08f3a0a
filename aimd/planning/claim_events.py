"""What events mean for claims and their holders, as effects; mode changes that claims need are begun by the reconciler."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from aimd.domain.claim import Claim, ClaimState, PodRequest
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import HolderRecord, LedgerState, LedgerWrite
from aimd.domain.ranges import ranges
from aimd.errors import AimdError, ConflictError, NotFoundError
from aimd.planning import effects as fx
from aimd.planning.claims import ClaimDesk, Wanted
from aimd.planning.node_state import NodeState
from aimd.planning.obstacles import process
from aimd.planning.pod_claims import follow
from aimd.planning.underway import NOTHING_UNDER_WAY, UnderWay

Effects = tuple[fx.Effect, ...]


class ClaimEvents:
    """The claims' part of the control loop."""

    def __init__(self, desk: ClaimDesk, node: NodeState) -> None:
        self._desk = desk
        self._node = node

    def started(self, ledger: LedgerState, now: fx.Instant, *, rebooted: bool) -> Effects:
        """Claims go on where they were; their processes are looked for, after a reboot none can live."""
        self._desk.claims = {claim.name: claim for claim in ledger.claims}
        known = [h for h in ledger.holders if h.claim in self._desk.claims or h.released_at is not None]
        self._desk.holders = {(holder.pid, holder.start_time): holder for holder in known}
        strangers = tuple(holder for holder in ledger.holders if holder not in known)
        effects: Effects = (fx.Commit(LedgerWrite(holders_gone=strangers)),) if strangers else ()
        living = [holder for holder in known if holder.ended_at is None]
        if rebooted:
            return (*effects, *(e for holder in living for e in self._found_dead(holder, now)))
        return (*effects, *(fx.WatchProcess(holder.pid, holder.start_time) for holder in living))

    def requested(self, event: fx.ClaimRequested, under_way: UnderWay, now: fx.Instant) -> Effects | Wanted:
        """The answer to a request, or the claim that needs a mode change before it can be placed.

        While another mode change runs, a claim that needs its end is accepted, and pursued when it comes.
        """
        desk = self._desk
        try:
            wanted = desk.request(event.name, event.spec, event.uid, now, self._node, under_way)
        except AimdError as error:
            return (fx.Reply(event.request, error),)
        if event.name in desk.claims:
            return (fx.Reply(event.request, wanted.claim),)
        if wanted.switches:
            return wanted
        return (*self._keep(wanted.claim, f"claim_{wanted.claim.state}", now), fx.Reply(event.request, wanted.claim))

    def released(self, event: fx.ClaimReleased, now: fx.Instant) -> Effects:
        """Forget the claim. Processes that go on keep memory and slots reserved until they end; nobody is signalled."""
        claim = self._desk.claims.get(event.name)
        if claim is None:
            missing = NotFoundError(
                f"claim {event.name!r} does not exist", code="unknown_claim", hint="aimctl get claims lists them"
            )
            return (fx.Reply(event.request, missing),)
        if claim.pods:
            names = ", ".join(str(one.pod) for one in claim.pods)
            kept = ConflictError(
                f"claim {claim.name} is that of pods and lives as long as they do: {names}",
                code="claim_of_pods",
                hint="delete the pods, or what makes them",
            )
            return (fx.Reply(event.request, kept),)
        return (self._forget(claim, now), fx.Reply(event.request, claim))

    def followed(self, requests: Iterable[PodRequest], now: fx.Instant) -> Effects:
        """Claims as pods and ResourceClaims ask for them; who has no place yet waits for one like any pending claim."""
        desk = self._desk
        found = follow(desk.claims, requests, now.wall, desk.policy.slots_per_partition)
        effects: Effects = tuple(self._forget(claim, now) for claim in found.ended)
        ended = {claim.name for claim in found.ended}
        for name, replica in found.left:
            if name not in ended:
                effects += (fx.Commit(self._given_up(name, now, replica)),)
        for claim in found.claims:
            effects += self._keep(claim, "claim_changed" if claim.name in desk.claims else "claim_requested", now)
        return effects

    def _forget(self, claim: Claim, now: fx.Instant) -> fx.Commit:
        del self._desk.claims[claim.name]
        write = self._given_up(claim.name, now)
        running = ", ".join(_living(holder) for holder in write.holders)
        words = _places(claim) + (f"; reserved until it ends: {running}" if running else "")
        note = NodeEvent("claim_released", claim.name, words, now.wall)
        return fx.Commit(replace(write, released=(claim.name,), events=(note,)))

    def _given_up(self, name: str, now: fx.Instant, replica: int | None = None) -> LedgerWrite:
        """What becomes of the holders of a claim, or of a replica of it: the dead are forgotten, what the living have stays."""
        holders = [h for h in self._desk.holders.values() if h.claim == name and h.released_at is None]
        own = [holder for holder in holders if replica in (None, holder.replica)]
        gone = tuple(holder for holder in own if holder.ended_at is not None)
        left = tuple(replace(holder, released_at=now.wall) for holder in own if holder.ended_at is None)
        for holder in gone:
            del self._desk.holders[holder.pid, holder.start_time]
        self._desk.holders.update({(holder.pid, holder.start_time): holder for holder in left})
        return LedgerWrite(holders=left, holders_gone=gone)

    def joined(self, event: fx.HolderJoined, busy: Collection[str]) -> Effects:
        """Make the process a holder before it runs anything, and watch it."""
        try:
            holder = self._desk.join(event, {*busy, *self._awaited(event.claim)})
        except AimdError as error:
            return (fx.Reply(event.request, error),)
        self._desk.holders[holder.pid, holder.start_time] = holder
        watch = fx.WatchProcess(holder.pid, holder.start_time)
        return (fx.Commit(LedgerWrite(holders=(holder,))), fx.Reply(event.request, holder), watch)

    def _awaited(self, name: str) -> tuple[str, ...]:
        """GPUs on which the claim has its places only when its mode change has succeeded."""
        claim = self._desk.claims.get(name)
        if claim is None or claim.state is not ClaimState.SWITCHING:
            return ()
        change = self._node.changes.get(claim.change or "")
        if change is None:
            return tuple(one.gpu for one in claim.assignments)
        return tuple(gpu for gpu, _ in change.wishes)

    def ended(self, event: fx.HolderEnded, now: fx.Instant) -> Effects:
        """A watched end frees the replica at once; one found out later is an orphan for a while.

        Where processes of it go on, nothing is freed: they are named from now on, and watched.
        """
        holder = self._desk.holders.get((event.pid, event.start_time))
        if holder is None or holder.ended_at is not None:
            return ()
        if event.living:
            holder = replace(holder, survivors=event.living)
            self._desk.holders[holder.pid, holder.start_time] = holder
            watch = fx.WatchProcess(holder.pid, holder.start_time, event.living)
            return (fx.Commit(LedgerWrite(holders=(holder,))), watch)
        return self._found_dead(holder, now) if not event.seen else self._gone(holder)

    def expire(self, now: fx.Instant) -> Effects:
        """Release orphans whose grace period is over."""
        limit = now.wall - self._desk.policy.orphan_grace_seconds
        gone = tuple(h for h in self._desk.holders.values() if h.ended_at is not None and h.ended_at <= limit)
        if not gone:
            return ()
        for holder in gone:
            del self._desk.holders[holder.pid, holder.start_time]
        notes = tuple(NodeEvent("orphan_released", h.claim, f"{_who(h)} is released", now.wall) for h in gone)
        return (fx.Commit(LedgerWrite(holders_gone=gone, events=notes)),)

    def settle(self, now: fx.Instant, under_way: UnderWay, hidden: frozenset[str] = frozenset()) -> Effects:
        """Claims whose mode change has ended, those that lost their partition, and those that fit again.

        `hidden` GPUs are between two modes; those of the change under way take nobody.
        """
        effects: Effects = ()
        for claim in self._desk.switched(self._node, now):
            effects += self._keep(claim, f"claim_{claim.state}", now)
        for claim in self._desk.displaced(self._node, hidden):
            effects += self._keep(claim, "claim_displaced", now)
        while (wanted := self._desk.pursue(self._node, under_way, now, switching=False)) is not None:
            effects += self._keep(wanted.claim, f"claim_{wanted.claim.state}", now)
        return effects

    def pursue(self, now: fx.Instant) -> Wanted | None:
        """A pending claim that the mode change of idle GPUs makes room for."""
        return self._desk.pursue(self._node, NOTHING_UNDER_WAY, now, switching=True)

    def _keep(self, claim: Claim, kind: str, now: fx.Instant) -> Effects:
        """Remember the claim, with an event; one that waits on for the same reason has new words, and that is none."""
        before = self._desk.claims.get(claim.name)
        self._desk.claims[claim.name] = claim
        waits_on = before is not None and (before.state, before.reason) == (claim.state, claim.reason)
        if waits_on and kind == "claim_pending":
            return (fx.Commit(LedgerWrite(claims=(claim,))),)
        words = claim.message or _places(claim)
        note = NodeEvent(kind, claim.name, words, now.wall)
        return (fx.Commit(LedgerWrite(claims=(claim,), events=(note,))),)

    def _gone(self, holder: HolderRecord) -> Effects:
        del self._desk.holders[holder.pid, holder.start_time]
        return (fx.Commit(LedgerWrite(holders_gone=(holder,))),)

    def _found_dead(self, holder: HolderRecord, now: fx.Instant) -> Effects:
        """An orphan keeps its replica for a while; where the claim was released there is none to keep."""
        return self._orphaned(holder, now) if holder.released_at is None else self._gone(holder)

    def _orphaned(self, holder: HolderRecord, now: fx.Instant) -> Effects:
        orphan = replace(holder, ended_at=now.wall, survivors=())
        self._desk.holders[holder.pid, holder.start_time] = orphan
        note = NodeEvent("orphan_found", holder.claim, f"{_who(holder)} ended unseen", now.wall)
        return (fx.Commit(LedgerWrite(holders=(orphan,), events=(note,))),)


def _who(holder: HolderRecord) -> str:
    return f"pid {holder.pid} ({holder.command or '?'}) on {holder.claim}/{holder.replica}"


def _living(holder: HolderRecord) -> str:
    names = " and ".join(process(each.pid, each.command) for each in holder.living)
    return f"{names} on {holder.claim}/{holder.replica}"


def _places(claim: Claim) -> str:
    """`llama/0-23 on 0000:05:00.0/0, llama/24,25 on 0000:05:00.0/1`."""
    there: dict[tuple[str, int], list[int]] = {}
    for assignment in claim.assignments:
        there.setdefault(assignment.place, []).append(assignment.replica)
    places = (f"{claim.name}/{ranges(replicas)} on {gpu}/{index}" for (gpu, index), replicas in there.items())
    return ", ".join(places) or "no partition"
