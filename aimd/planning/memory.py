"""The memory of the node as the control loop follows it: accounts, what HIP said, and findings about both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from aimd.domain.accounting import FindingKind, MemoryBoard, MemoryFinding, OverrunPolicy, PartitionAccount, ProbedGpu
from aimd.domain.claim import Assignment
from aimd.domain.event import NodeEvent
from aimd.domain.gpu import Observed
from aimd.domain.ledger import HolderRecord, LedgerState, LedgerWrite, MemoryRecord
from aimd.domain.memory import GIB
from aimd.domain.probe import ProbeState
from aimd.planning import effects as fx
from aimd.planning.accounting import accounts, reserved_units
from aimd.planning.calibration import calibrations, calm, drift, page_table_bytes
from aimd.planning.claims import ClaimDesk
from aimd.planning.hysteresis import Hysteresis, Level
from aimd.planning.node_state import NodeState
from aimd.planning.reservations import left_behind

Effects = tuple[fx.Effect, ...]
Subject = tuple[FindingKind, str, int, int, "str | None"]  # kind, GPU, index, mode epoch, claim

# A claim may use so much more than it has reserved: code, queues and scratch of its processes are counted to them.
TOLERANCE_BYTES = 64 << 20
PAIR_SECONDS = 5.0  # HIP's answer is compared with counters that are not further away
DRIFT_LOOKS = 2  # answers of HIP in a row
ENDED = {FindingKind.OVER_LIMIT: "memory_within_limit", FindingKind.DRIFT: "memory_drift_over"}
BEGUN = {FindingKind.OVER_LIMIT: "memory_over_limit", FindingKind.DRIFT: "memory_drift"}


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What accounts are made of."""

    observed: Observed
    readable: bool
    assignments: tuple[Assignment, ...]
    holders: tuple[HolderRecord, ...]
    probes: int

    def same(self, other: _Inputs | None) -> bool:
        if other is None or self.observed is not other.observed or self.readable is not other.readable:
            return False
        theirs = other.assignments, other.holders, other.probes
        return (self.assignments, self.holders, self.probes) == theirs


class MemoryWatch:
    """The accounts' part of the control loop."""

    def __init__(self, desk: ClaimDesk, node: NodeState) -> None:
        self._desk = desk
        self._node = node
        self._asked: dict[str, tuple[fx.Probed, fx.Instant]] = {}  # to be compared with the next counters
        self._probed: dict[str, ProbedGpu] = {}
        self._probes = 0
        self._usual: dict[tuple[str, int], int] = {}  # least that partitions lack, by GPU and mode epoch
        self._hysteresis: Hysteresis[Subject] = Hysteresis()
        self._findings: dict[Subject, MemoryFinding] = {}
        self._inputs: _Inputs | None = None
        self._board = MemoryBoard()

    def started(self, ledger: LedgerState, now: fx.Instant, *, rebooted: bool) -> Effects:
        """Findings go on where they were, as does what a GPU usually lacks; a boot has ended all of it."""
        known = {record.address: record.memory for record in ledger.gpus}
        found = {_subject(one): one for kept in known.values() for one in kept.findings}
        if rebooted:
            words = "the machine was booted"
            notes = tuple(NodeEvent(ENDED[one.kind], one.claim or one.gpu, words, now.wall) for one in found.values())
            return self._kept(set(known), notes)
        self._hysteresis.restore(found)
        self._findings = found
        self._usual = {
            (gpu, kept.usual_epoch): kept.usual_bytes for gpu, kept in known.items() if kept.usual_bytes is not None
        }
        return ()

    def probed(self, event: fx.Probed, now: fx.Instant) -> Effects:
        """HIP has answered, or not: KFD's counters are read at once, to be compared with the answer."""
        gpu = event.report.gpu
        self._probes += 1
        if event.report.state is not ProbeState.READ:
            self._asked.pop(gpu, None)
            self._probed[gpu] = ProbedGpu(event.report, now.wall, event.mode_epoch)
            return ()
        self._asked[gpu] = event, now
        return (fx.Poll(),)

    def look(self, now: fx.Instant) -> Effects:
        """Processes and counters were read: compare, judge, and tell what has begun or ended."""
        if not self._node.scanned:
            return ()
        notes: list[NodeEvent] = []
        before = dict(self._findings)
        compared = self._compare(now)
        for gpu in compared:
            notes += self._drifts(gpu, now)
        notes += self._overruns(now)
        notes += self._gone(now)
        return self._kept({*compared, *(gpu for _, gpu, *_ in before.keys() ^ self._findings.keys())}, tuple(notes))

    def _kept(self, gpus: Iterable[str], notes: tuple[NodeEvent, ...]) -> Effects:
        """Makes durable what is to outlive this life of what has changed at these GPUs, together with the notes."""
        changed = []
        for gpu in sorted(gpus):
            record = self._node.record(gpu)
            findings = tuple(one for one in self._findings.values() if one.gpu == gpu)
            usual = next(((size, epoch) for (address, epoch), size in self._usual.items() if address == gpu), (None, 0))
            if record.memory != (kept := MemoryRecord(findings, *usual)):
                changed.append(replace(record, memory=kept))
        self._node.records.update({record.address: record for record in changed})
        write = LedgerWrite(gpus=tuple(changed), events=notes)
        return () if write.empty else (fx.Commit(write),)

    def board(self) -> MemoryBoard:
        """The accounts of now; the same object while nothing has changed."""
        node, desk = self._node, self._desk
        if not node.scanned:
            return self._board
        probes, holders = self._probes, tuple(desk.holders.values())
        inputs = _Inputs(node.observed, node.readable, desk.assignments, holders, probes)
        if not inputs.same(self._inputs):
            self._inputs = inputs
            board = replace(self._board, partitions=self._accounts(), gpus=dict(self._probed))
            self._board = board if board != self._board else self._board
        findings = tuple(
            replace(found, denied=self._deny and found.claim is not None) for found in self._findings.values()
        )
        if findings != self._board.findings:
            self._board = replace(self._board, findings=findings)
        return self._board

    @property
    def _deny(self) -> bool:
        return self._desk.policy.on_memory_overrun is OverrunPolicy.DENY_NEW_LEASES

    def _accounts(self) -> dict[tuple[str, int], PartitionAccount]:
        node, desk = self._node, self._desk
        epochs = {gpu.pci_address: node.record(gpu.pci_address).mode_epoch for gpu in node.observed.gpus}
        placed = [one for one in desk.assignments if one.mode_epoch == epochs.get(one.gpu)]
        left = left_behind(desk.holders.values(), desk.assignments, node)
        reserved = reserved_units([*placed, *(one.kept for one in left)])
        return accounts(node.observed, epochs, reserved, desk.holders, self._probed, readable=node.readable)

    # -- HIP beside KFD --------------------------------------------------------------------------------------

    def _compare(self, now: fx.Instant) -> list[str]:
        """Take the answers that wait for counters; the GPUs that they are of."""
        asked, self._asked = self._asked, {}
        if not asked or not self._node.readable:
            return []
        partitions, observed = self.board().partitions, self._node.observed
        tables = page_table_bytes(observed.gpus, observed.system_bytes)
        taken = []
        for gpu, (event, at) in asked.items():
            here = {index: account for (address, index), account in partitions.items() if address == gpu}
            epochs = {account.mode_epoch for account in here.values()}
            if epochs != {event.mode_epoch} or now.monotonic - at.monotonic > PAIR_SECONDS:
                continue
            used = {index: account.used_bytes for index, account in here.items()}
            found = calibrations(event.report.partitions, used, tables)
            self._probed[gpu] = ProbedGpu(event.report, at.wall, event.mode_epoch, found)
            self._probes += 1
            least = min((one.missing_bytes for one in found.values()), default=0)
            usual = self._usual.get((gpu, event.mode_epoch), least)
            self._usual = {key: bound for key, bound in self._usual.items() if key[0] != gpu}
            self._usual[gpu, event.mode_epoch] = max(0, min(usual, least))
            taken.append(gpu)
        return taken

    def _drifts(self, gpu: str, now: fx.Instant) -> Iterator[NodeEvent]:
        for (address, index), account in self.board().partitions.items():
            found = account.probed
            if address != gpu or found is None:
                continue
            usual = self._usual[gpu, account.mode_epoch]
            words = drift(found, account.capacity_bytes, usual)
            level = Level.BAD if words is not None else Level.GOOD if calm(found, usual) else Level.BETWEEN
            subject = (FindingKind.DRIFT, gpu, index, account.mode_epoch, None)
            if self._hysteresis.look(subject, level, now.monotonic, 0.0, DRIFT_LOOKS):
                yield self._turned(subject, f"partition {gpu}/{index} {words or 'is as KFD counts it again'}", now)

    # -- claims and their limits -----------------------------------------------------------------------------

    def _overruns(self, now: fx.Instant) -> Iterator[NodeEvent]:
        seconds = self._desk.policy.overrun_seconds
        for place, account in self.board().partitions.items():
            for use in account.claims:
                used, limit = use.used_bytes, use.reserved_bytes
                subject = (FindingKind.OVER_LIMIT, *place, account.mode_epoch, use.claim)
                if self._hysteresis.look(subject, _level(used, limit), now.monotonic, seconds):
                    where = f"{place[0]}/{place[1]}"
                    words = f"claim {use.claim} uses {_gib(used)} of {where}, where it has {_gib(limit)} reserved"
                    yield self._turned(subject, words, now)

    def _gone(self, now: fx.Instant) -> Iterator[NodeEvent]:
        """What is not there any more is not bad any more."""
        partitions = self.board().partitions
        present: set[Subject] = set()
        for place, account in partitions.items():
            present.add((FindingKind.DRIFT, *place, account.mode_epoch, None))
            present |= {(FindingKind.OVER_LIMIT, *place, account.mode_epoch, use.claim) for use in account.claims}
        for subject in sorted(self._hysteresis.forget(present), key=str):
            _, gpu, index, _, claim = subject
            what = f"claim {claim} is not on" if claim is not None else "there is no partition"
            yield self._turned(subject, f"{what} {gpu}/{index} any more", now)

    def _turned(self, subject: Subject, words: str, now: fx.Instant) -> NodeEvent:
        kind, gpu, index, epoch, claim = subject
        if subject in self._hysteresis.found:
            self._findings[subject] = MemoryFinding(kind, gpu, index, epoch, claim, words, now.wall)
            words += "; its model gets no new leases there" if self._deny and claim is not None else ""
            return NodeEvent(BEGUN[kind], claim or gpu, words, now.wall)
        self._findings.pop(subject, None)
        return NodeEvent(ENDED[kind], claim or gpu, words, now.wall)


def _subject(found: MemoryFinding) -> Subject:
    return found.kind, found.gpu, found.index, found.mode_epoch, found.claim


def _level(used: int | None, limit: int | None) -> Level | None:
    if used is None or limit is None:
        return None
    if used > limit + TOLERANCE_BYTES:
        return Level.BAD
    return Level.GOOD if used <= limit else Level.BETWEEN


def _gib(size: int | None) -> str:
    return f"{(size or 0) / GIB:.3f} GiB"
