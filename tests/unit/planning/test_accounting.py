"""Whose memory it is, and what of it nobody has reserved."""

from __future__ import annotations

from dataclasses import replace

from aimd.domain.accounting import ClaimUse, PartitionAccount, Place
from aimd.domain.claim import Assignment
from aimd.domain.gpu import Holder
from aimd.domain.ledger import HolderRecord
from aimd.domain.process import Process
from aimd.planning.accounting import accounts, reserved_units, unattributed_use
from aimd.planning.attribution import attributed
from tests.unit.planning.paper import ADDRESSES, GIB, gpu, observed

HERE, OTHER = (ADDRESSES[0], 0), (ADDRESSES[0], 1)
UNITS = 12 * 1024


def client(pid: int, size: int = GIB, place: Place = HERE, start_time: int | None = 1, **more: object) -> Holder:
    return Holder(pid, f"serve {pid}", frozenset({place[0]}), ((*place, size),), start_time=start_time, **more)  # type: ignore[arg-type]


def record(pid: int, claim: str = "m", replica: int = 0, start_time: int = 1, **more: object) -> HolderRecord:
    return HolderRecord(claim, replica, pid, start_time, **more)  # type: ignore[arg-type]


def book(*records: HolderRecord) -> dict[tuple[int, int], HolderRecord]:
    return {(one.pid, one.start_time): one for one in records}


def owners(clients: list[Holder], *records: HolderRecord) -> dict[int, str]:
    return {pid: one.claim for pid, one in attributed(clients, book(*records)).items()}


def account(
    *clients: Holder, records: tuple[HolderRecord, ...] = (), claims: tuple[str, ...] = ("m",)
) -> PartitionAccount:
    """Of the first partition, where each claim has 12 of 24 GB."""
    assignments = [Assignment(name, 0, *HERE, UNITS, 0, 1) for name in claims]
    seen = observed(gpu(0, "CPX/NPS1"), holders=clients)
    return accounts(seen, {ADDRESSES[0]: 1}, reserved_units(assignments), book(*records), {})[HERE]


def test_by_pid_and_start_time() -> None:
    assert owners([client(7)], record(7)) == {7: "m"}
    assert owners([client(7, start_time=2)], record(7)) == {}, "the pid is another process's by now"
    assert owners([client(7, start_time=None)], record(7)) == {7: "m"}, "it has ended and is not released yet"
    assert owners([client(8)], record(7)) == {}


def test_by_what_started_it_and_by_what_is_left() -> None:
    assert owners([client(8, owner=(7, 1))], record(7)) == {8: "m"}
    assert owners([client(8, owner=(7, 2))], record(7)) == {}
    left = record(7, survivors=(Process(8, 1, "worker"),))
    assert owners([client(8), client(9)], left) == {8: "m"}


def test_by_the_pod_where_it_has_one_claim() -> None:
    own, sidecar = client(7, pod="u1"), client(8, pod="u1")
    assert owners([own, sidecar], record(7)) == {7: "m", 8: "m"}
    assert owners([sidecar, own], record(7)) == {7: "m", 8: "m"}
    assert owners([own, client(8, pod="u2")], record(7)) == {7: "m"}
    assert owners([own, client(9, pod="u1"), sidecar], record(7), record(9, "other")) == {7: "m", 9: "other"}
    unknown = [client(7, pod=""), client(8, pod="")]
    assert owners(unknown, record(7)) == {7: "m"}, "pods that cannot be told are not one"


def test_an_account() -> None:
    found = account(
        client(7, 3 * GIB), client(8, GIB), client(9, 5 * GIB, OTHER), records=(record(7),), claims=("m", "n")
    )
    assert (found.capacity_bytes, found.reserved_bytes) == (24 * GIB, 24 * GIB)
    assert (found.used_bytes, found.unattributed_bytes) == (4 * GIB, GIB)
    assert found.claims == (ClaimUse("m", 12 * GIB, 3 * GIB), ClaimUse("n", 12 * GIB, 0))
    assert [(one.pid, one.claim, one.used_bytes) for one in found.processes] == [(7, "m", 3 * GIB), (8, None, GIB)]
    assert found.free_bytes is None


def test_a_claims_process_where_it_has_no_place() -> None:
    """Nobody has reserved that memory: placement must not give it away, and the claim is over its limit there."""
    stray = client(7, 2 * GIB)
    found = account(stray, records=(record(7, "elsewhere"),))
    assert found.unattributed_bytes == 2 * GIB
    assert ClaimUse("elsewhere", 0, 2 * GIB) in found.claims
    places = [Assignment("elsewhere", 0, *OTHER, UNITS, 0, 1)]
    assert unattributed_use([stray], book(record(7, "elsewhere")), places) == {HERE: 2 * GIB}
    assert unattributed_use([stray], book(record(7, "elsewhere")), [replace(places[0], index=0)]) == {}


def test_what_cannot_be_read_is_unknown() -> None:
    blind = replace(client(7), vram=(), unread=(HERE,))
    found = account(blind, client(8), records=(record(7),))
    assert (found.used_bytes, found.unattributed_bytes) == (None, GIB)
    assert found.claims == (ClaimUse("m", 12 * GIB, None),)
    assert [one.used_bytes for one in found.processes] == [GIB, None][::-1]
    strange = account(blind, client(8))
    assert (strange.used_bytes, strange.unattributed_bytes) == (None, None)
    assert strange.claims == (ClaimUse("m", 12 * GIB, 0),)


def test_nothing_is_known_of_a_node_that_could_not_be_looked_at() -> None:
    seen = observed(gpu(0, "CPX/NPS1"), holders=(client(7),))
    found = accounts(seen, {ADDRESSES[0]: 1}, {HERE: {"m": UNITS}}, book(record(7)), {}, readable=False)[HERE]
    assert (found.used_bytes, found.unattributed_bytes, found.processes) == (None, None, ())
    assert found.claims == (ClaimUse("m", 12 * GIB, None),)
    assert found.reserved_bytes == 12 * GIB


def test_a_partition_whose_size_or_number_is_unknown() -> None:
    part = gpu(0, "SPX/NPS1")
    for change in ({"memory_bytes": None}, {"kfd_gpu_id": None}):
        odd = replace(part, partitions=(replace(part.partitions[0], **change),))  # type: ignore[arg-type]
        found = accounts(observed(odd, holders=(client(7),)), {}, {HERE: {"m": UNITS}}, book(record(7)), {})[HERE]
        if "memory_bytes" in change:
            assert (found.capacity_bytes, found.reserved_bytes, found.used_bytes) == (None, None, GIB)
            assert found.claims == (ClaimUse("m", None, GIB),)
        else:
            assert (found.used_bytes, found.unattributed_bytes) == (None, None)
