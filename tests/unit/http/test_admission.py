"""Who gets a connection when there are many."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.adapters.http.crowd import Admission
from aimd.adapters.http.limits import Limits
from aimd.adapters.http.problems import HttpError
from aimd.adapters.unix.peer import Operators, Peer, _peer

ROOT, ALICE, BOB = Peer(1, 0, False, "uid 0"), Peer(2, 1000, False, "uid 1000"), Peer(3, 1001, False, "uid 1001")
ROOT_IN_POD = Peer(4, 0, True, "pod a")
OPERATORS = Operators(frozenset({0}))
LIMITS = Limits(connections=6, reserved=2, per_account=3)


@dataclass(eq=False)
class Connected:
    peer: Peer
    since: float
    replaceable: bool = True
    dropped: bool = field(default=False, init=False)

    def drop(self) -> None:
        self.dropped = True


def admitted(admission: Admission[Connected], *connections: Connected) -> list[Connected]:
    for each in connections:
        admission.make_room(each.peer)
        admission.admit(each)
    return list(connections)


def test_the_one_that_was_idle_for_the_longest_time_makes_room_in_its_account():
    admission = Admission(LIMITS, OPERATORS)
    other, *own = admitted(admission, Connected(BOB, 0), Connected(ALICE, 3), Connected(ALICE, 1), Connected(ALICE, 2))
    admission.make_room(ALICE)
    assert [each.dropped for each in (other, *own)] == [False, False, True, False]
    assert len(admission) == 3


def test_those_in_use_are_kept_and_a_newcomer_is_refused():
    admission = Admission(LIMITS, OPERATORS)
    own = admitted(admission, *(Connected(ALICE, at, replaceable=False) for at in range(3)))
    with pytest.raises(HttpError, match="uid 1000 has 3 connections in use") as caught:
        admission.make_room(ALICE)
    assert (caught.value.status, caught.value.code) == (503, "too_many_connections")
    assert not any(each.dropped for each in own)
    admission.make_room(BOB)


def test_the_reserve_is_for_operators():
    admission = Admission(LIMITS, OPERATORS)
    in_use = [Connected(ALICE, at, replaceable=False) for at in range(3)]
    admitted(admission, *in_use, Connected(BOB, 9, replaceable=False))
    for nobody in (BOB, ROOT_IN_POD):
        with pytest.raises(HttpError, match="aimd has 4 connections in use"):
            admission.make_room(nobody)
    admitted(admission, Connected(ROOT, 1, replaceable=False), Connected(ROOT, 1, replaceable=False))
    with pytest.raises(HttpError, match="aimd has 6 connections in use"):
        admission.make_room(ROOT)
    admission.forget(in_use[0])
    admission.forget(in_use[0])
    admission.make_room(ROOT)


people = st.sampled_from([ROOT, ALICE, BOB, ROOT_IN_POD])
arrivals = st.lists(st.tuples(people, st.booleans(), st.integers(0, 5)), max_size=40)


@given(arrivals)
def test_whoever_comes_the_numbers_are_kept_and_nobody_in_use_is_dropped(arrivals):
    admission: Admission[Connected] = Admission(LIMITS, OPERATORS)
    every: list[Connected] = []
    for peer, replaceable, since in arrivals:
        connection = Connected(peer, since, replaceable)
        try:
            every += admitted(admission, connection)
        except HttpError:
            continue
        there = [each for each in every if not each.dropped]
        assert len(admission) == len(there) <= LIMITS.connections
        for account in {each.peer.account for each in there}:
            assert sum(each.peer.account == account for each in there) <= LIMITS.per_account
    assert not any(each.dropped and not each.replaceable for each in every)


@given(arrivals)
def test_an_operator_always_gets_in_while_it_has_not_used_its_own_share(arrivals):
    admission: Admission[Connected] = Admission(LIMITS, OPERATORS)
    for peer, replaceable, since in arrivals:
        if peer != ROOT:
            try:
                admitted(admission, Connected(peer, since, replaceable))
            except HttpError:
                continue
    admission.make_room(ROOT)


@pytest.mark.parametrize(
    ("cgroup", "in_pod", "account"),
    [
        ("0::/user.slice/user-1000.slice\n", False, "uid 7"),
        (
            "0::/kubepods.slice/kubepods-burstable-pod0a1b2c3d_0a1b_4c1d_8e9f_001122334455.slice/cri-containerd-77.scope\n",
            True,
            "pod 0a1b2c3d-0a1b-4c1d-8e9f-001122334455",
        ),
        (
            "11:memory:/kubepods/burstable/pod0a1b2c3d-0a1b-4c1d-8e9f-001122334455/77\n",
            True,
            "pod 0a1b2c3d-0a1b-4c1d-8e9f-001122334455",
        ),
        ("0::/kubepods.slice/strange\n", True, "pods"),
        (None, True, "pods"),
    ],
)
def test_the_cgroup_tells_pods_and_what_cannot_be_seen_counts_as_one(cgroup, in_pod, account):
    pod = account.removeprefix("pod ") if account.startswith("pod ") else None
    assert _peer(5, 7, cgroup) == Peer(5, 7, in_pod, account, pod)
