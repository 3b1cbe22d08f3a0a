"""What the executable specification remembers: partitions, models, waiting entries, leases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aimd.dispatch.bounds import check_numbers
from aimd.dispatch.face import (
    TAG_SCALE,
    Class,
    CoreSnapshot,
    End,
    ModelConfig,
    ModelSnapshot,
    Outcome,
    PartitionConfig,
    PartitionSnapshot,
)


def _zeros() -> list[int]:
    return [0, 0, 0]


@dataclass(slots=True, eq=False)
class Model:
    """A model of a partition: its configuration, its lanes (by class, each in order of service) and its counters."""

    config: ModelConfig
    limit: int
    removed: bool = False
    lanes: tuple[list[Entry], ...] = field(default_factory=lambda: ([], [], []))
    running: list[int] = field(default_factory=_zeros)
    tags: list[int] = field(default_factory=_zeros)
    carry: list[int] = field(default_factory=_zeros)
    waited: list[int] = field(default_factory=_zeros)
    outcomes: list[list[int]] = field(default_factory=lambda: [[0] * len(Outcome) for _ in Class])
    ends: list[list[int]] = field(default_factory=lambda: [[0] * len(End) for _ in Class])
    restored: list[int] = field(default_factory=_zeros)
    good: list[int] = field(default_factory=_zeros)
    bad: list[int] = field(default_factory=_zeros)
    running_ns: int = 0
    backlog_ns: int = 0
    colour_ns: list[int] = field(default_factory=_zeros)

    @property
    def run(self) -> int:
        return sum(self.running)

    @property
    def classes(self) -> list[int]:
        """The classes that have entries, the highest first."""
        return [klass for klass in Class if self.lanes[klass]]

    @property
    def kept(self) -> bool:
        """Whether the record outlives the next change of the configuration."""
        return not self.removed or self.run > 0

    def entitled(self) -> list[Entry]:
        return [entry for lane in self.lanes for entry in lane][: max(0, self.config.guarantee - self.run)]

    def loose(self, klass: int) -> list[Entry]:
        entitled = self.entitled()
        return [entry for entry in self.lanes[klass] if entry not in entitled]

    def reconfigure(self, config: ModelConfig, limit: int, tags: Sequence[int]) -> None:
        if config.weight != self.config.weight:
            self.tags = [min(v, tag + TAG_SCALE // config.weight) for v, tag in zip(self.tags, tags, strict=True)]
            self.carry = [0, 0, 0]
        self.config, self.limit, self.removed = config, limit, False

    def snapshot(self) -> ModelSnapshot:
        return ModelSnapshot(
            model=self.config.model,
            removed=self.removed,
            running=tuple(self.running),
            waiting=tuple(map(len, self.lanes)),
            outcomes=tuple(map(tuple, self.outcomes)),
            ends=tuple(map(tuple, self.ends)),
            restored=tuple(self.restored),
            good=tuple(self.good),
            bad=tuple(self.bad),
            running_ns=self.running_ns,
            backlog_ns=self.backlog_ns,
            colour_ns=tuple(self.colour_ns),
        )


@dataclass(slots=True, eq=False)
class Partition:
    """A partition with its models by id; `tags` and `waited` are V and the counters of credit, by class."""

    id: int
    config: PartitionConfig
    removed: bool = False
    draining: bool = False
    models: dict[int, Model] = field(default_factory=dict)
    tags: list[int] = field(default_factory=_zeros)
    waited: list[int] = field(default_factory=_zeros)

    @property
    def run(self) -> int:
        return sum(model.run for model in self.models.values())

    @property
    def capacity(self) -> int:
        return 0 if self.removed else self.config.capacity

    @property
    def kept(self) -> bool:
        return not self.removed or any(model.kept for model in self.models.values())

    def entries(self, klass: int) -> list[Entry]:
        return [entry for model in self.models.values() for entry in model.lanes[klass]]

    def loose(self) -> list[Entry]:
        return [entry for model in self.models.values() for klass in Class for entry in model.loose(klass)]

    def snapshot(self) -> PartitionSnapshot:
        models = tuple(model.snapshot() for _, model in sorted(self.models.items()))
        waiting = sum(sum(model.waiting) for model in models)
        return PartitionSnapshot(self.id, self.removed, self.draining, self.capacity, self.run, waiting, models)


@dataclass(slots=True, eq=False)
class Entry:
    """A waiting acquire."""

    connection: int
    request: int
    partition: Partition
    model: Model
    klass: int
    start_by: int
    seq: int
    submitted: int

    @property
    def order(self) -> tuple[int, int]:
        return self.start_by, self.seq


@dataclass(slots=True, eq=False)
class Lease:
    """A running lease; `connection` is None while it is an orphan, which it may be until `lost_at`."""

    id: int
    partition: Partition
    model: Model
    klass: int
    process: int
    connection: int | None
    submitted: int
    started: int
    deadline: int
    lost_at: int | None = None


@dataclass(slots=True)
class Connection:
    """Whose it is, and the highest class that it may ask for."""

    process: int
    highest: int


@dataclass(slots=True, eq=False)
class TakenSnapshot:
    """A snapshot in steps, as the contract has it; all of it is taken at once."""

    taken: CoreSnapshot
    complete: bool = False
    stale: bool = False

    def step(self, blocks: int = 4) -> bool:
        check_numbers(blocks=blocks)
        self._check()
        self.complete = True
        return False

    def read(self) -> CoreSnapshot:
        self._check()
        if not self.complete:
            raise ValueError("the snapshot is not complete: expected steps until one says that nothing is left")
        return self.taken

    def _check(self) -> None:
        if self.stale:
            raise ValueError("a later snapshot of the core has begun: expected the latest one")
