"""The dispatch core as a policy: the compiled one, through its face, with a connection of one process."""

from __future__ import annotations

from aimd.dispatch import Event, Kind, Limits, ModelConfig, NativeCore, Outcome, PartitionConfig
from aimd.errors import RefusedError
from aimd.replay.run import Outcome as Told
from aimd.replay.workload import MAX_NS, Request

MAX_WAITING = 1 << 20

_PARTITION = 0
_QUEUED, _GRANTED, _ENDED, _RELEASED = Kind.QUEUED, Kind.GRANTED, Kind.ENDED, Kind.RELEASED
_TOO_LATE = frozenset({Outcome.EXPIRED, Outcome.DEADLINE_PASSED})


class Core:
    """One partition. Its models have no guarantee, weight 1, and no limit below the capacity. Queues are as long as they
    need to be, so that deadlines decide and not caps.

    Args:
        models: of the trace, each one of the partition's; 0: the whole trace is one model.
        requests: of the whole trace; at most MAX_WAITING can wait at once.
    """

    def __init__(self, capacity: int, models: int, requests: int) -> None:
        self._apart = models > 0
        models = max(1, models)
        waiting = min(requests, MAX_WAITING)
        limits = Limits(
            partitions=1,
            models=models,
            requests=waiting + capacity,
            leases=capacity,
            connections=1,
            requests_per_connection=waiting,
        )
        configs = tuple(ModelConfig(model, queue_cap=waiting) for model in range(models))
        self._core = NativeCore(limits)
        self._core.configure(
            0, _PARTITION, PartitionConfig(configs, capacity=capacity, queue_cap=waiting, lease_max_ns=2 * MAX_NS)
        )
        self._connection = self._core.open(process=0)

    def arrive(self, now: int, request: Request, complete_by: int) -> list[Told]:
        start_by = max(0, complete_by - request.service_ns)  # negative: the class's budget
        model = request.model if self._apart else 0
        return _told(
            self._core.acquire(now, self._connection, request.number, _PARTITION, model, request.klass, start_by)
        )

    def finish(self, now: int, lease: int) -> list[Told]:
        return _told(self._core.release(now, self._connection, lease))


def _told(events: list[Event]) -> list[Told]:
    outcomes: list[Told] = []
    for event in events:
        kind = event[0]
        if kind == _GRANTED:
            outcomes.append((event[2], event[3]))
        elif kind == _ENDED:
            if event[3] not in _TOO_LATE:
                raise RefusedError(
                    f"request {event[2]} was refused ({Outcome(event[3]).name.lower()}), expected at most {MAX_WAITING} to wait",
                    hint="lower the load, or shorten the budgets: nothing waits longer than its deadline",
                )
            outcomes.append((event[2], None))
        elif kind not in {_QUEUED, _RELEASED}:
            raise AssertionError(f"no lease of a replay is renewed, lost or refused: {event}")
    return outcomes
