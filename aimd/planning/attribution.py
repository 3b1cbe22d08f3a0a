"""Which claim a KFD client belongs to, and what is used where by whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aimd.domain.accounting import Place
from aimd.domain.gpu import Holder
from aimd.domain.ledger import HolderRecord

Records = Mapping[tuple[int, int], HolderRecord]


def attributed(clients: Iterable[Holder], records: Records) -> dict[int, HolderRecord]:
    """The claim holder behind each client that belongs to one, by the client's pid.

    A client is a holder itself (by pid and start time: pids are given again) or what one has left, was started by one
    (its environment says so), or is in the same pod as clients of one claim and of no other.
    """
    own = {(one.pid, one.start_time): record for record in records.values() for one in record.survivors}
    own |= records
    by_pid = {pid: record for (pid, _), record in own.items()}
    found: dict[int, HolderRecord] = {}
    others = []
    for client in clients:
        # One without start time has ended, or is of another machine: nothing more is known of it than its pid.
        ended = client.start_time is None
        record = by_pid.get(client.pid) if ended else own.get((client.pid, client.start_time or 0))
        if record is None and client.owner is not None:
            record = records.get(client.owner)
        if record is not None:
            found[client.pid] = record
        if client.pod:
            others.append(client)
    return found | _by_pod(others, found)


def _by_pod(clients: list[Holder], known: Mapping[int, HolderRecord]) -> dict[int, HolderRecord]:
    """Of clients in pods, those that no record names."""
    pods: dict[str, dict[str, HolderRecord]] = {}
    for client in clients:
        if client.pid in known and client.pod is not None:
            pods.setdefault(client.pod, {}).setdefault(known[client.pid].claim, known[client.pid])
    found = {}
    for client in clients:
        claims = pods.get(client.pod or "", {})
        if client.pid not in known and len(claims) == 1:
            found[client.pid] = next(iter(claims.values()))
    return found


@dataclass(frozen=True, slots=True)
class Use:
    """A client's memory on a partition; `used_bytes` is None where its counter could not be read."""

    place: Place
    client: Holder
    record: HolderRecord | None
    used_bytes: int | None


def uses(clients: Iterable[Holder], records: Records) -> list[Use]:
    """Every use of memory, in the order of the clients."""
    every = tuple(clients)
    owners = attributed(every, records)
    found = []
    for client in every:
        owner = owners.get(client.pid)
        found += [Use((gpu, index), client, owner, size) for gpu, index, size in client.vram]
        found += [Use(place, client, owner, None) for place in client.unread]
    return found


def unattributed(found: Iterable[Use], reserved: Mapping[Place, Mapping[str, object]]) -> dict[Place, int]:
    """Bytes on each partition that nobody has reserved: used by processes of no claim, or where theirs has no place.

    Args:
        reserved: the claims with a place on each partition, by name.
    """
    used: dict[Place, int] = {}
    for use in found:
        own = use.record is not None and use.record.claim in reserved.get(use.place, {})
        if not own and use.used_bytes:
            used[use.place] = used.get(use.place, 0) + use.used_bytes
    return used
