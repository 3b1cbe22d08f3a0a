"""Claims that are asked for while a mode change runs: accepted when its end makes them possible, else refused."""

from __future__ import annotations

import errno

import pytest

from aimd.domain.claim import Claim
from aimd.domain.plan import Reason
from aimd.domain.switch import ModeChange, SwitchState
from aimd.errors import RefusedError
from aimd.planning import effects as fx
from tests.fakes.claims import places, spec
from tests.unit.planning.desk import POLICY, Desk, desk
from tests.unit.planning.paper import ADDRESSES, holder
from tests.unit.planning.test_claims import CPX_20, NEVER, PENDING, PLACED, SWITCHING, at, claimed, kinds, shown

THERE = spec(20, "CPX", at=(ADDRESSES[1], 0))


def under_way(*wishes: tuple[int, str], now: tuple[str, ...] = ("SPX/NPS1", "SPX/NPS1"), policy=POLICY) -> Desk:
    """In the middle of the write of the mode change c1."""
    made = desk(*now, policy=policy)
    assert isinstance(made.submit(*wishes), ModeChange)
    made.run_until_state(SwitchState.SWITCHING)
    return made


def refusal(answer: object) -> RefusedError:
    assert isinstance(answer, RefusedError), answer
    return answer


def test_it_waits_durably_and_its_own_switch_is_made_afterwards() -> None:
    made = under_way((0, "DPX"))
    answer = claimed(made, wanted=THERE)
    assert (answer.state, answer.reason, answer.assignments, answer.change) == (
        PENDING,
        Reason.SWITCH_IN_PROGRESS,
        (),
        None,
    )
    assert answer.message == (
        "mode change c1 is under way, and one runs at a time on a node; the claim is placed when it has ended"
    )
    assert made.ledger.claims["m"] == answer
    assert kinds(made) == ["claim_pending"]
    made.run(lambda: shown(made).state is not PENDING)
    assert (shown(made).state, made.ledger.state("c1")) == (SWITCHING, SwitchState.COMMITTED)
    assert (shown(made).reason, shown(made).message) == (None, None)
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0, gpu=1))
    assert kinds(made) == ["claim_pending", "claim_placed"]
    assert made.node.modes() == ["DPX/NPS1", "CPX/NPS1"]


def test_it_needs_no_switch_of_its_own_on_the_gpu_that_is_switched() -> None:
    made = under_way((0, "CPX"))
    answer = claimed(made, wanted=spec(20, at=(ADDRESSES[0], 5)))
    assert (answer.state, answer.reason) == (PENDING, Reason.SWITCH_IN_PROGRESS)
    assert answer.message == (
        f"claim m can go to {ADDRESSES[0]} only, and {ADDRESSES[0]} is being switched by mode change c1; "
        "the claim is placed when it has ended"
    )
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(5))
    assert kinds(made) == ["claim_pending", "claim_placed"]
    assert list(made.ledger.changes) == ["c1"]


def test_the_gpu_is_switched_once_more_when_its_new_mode_does_not_do() -> None:
    made = under_way((0, "DPX"), now=("SPX/NPS1",))
    assert claimed(made).state is PENDING
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))
    assert made.node.modes() == ["CPX/NPS1"]


def test_what_fits_is_placed_meanwhile() -> None:
    made = under_way((0, "DPX"))
    elsewhere = claimed(made, wanted=spec(20))
    assert (elsewhere.state, places(elsewhere)) == (PLACED, at(0, gpu=1))


def test_several_wait_and_all_are_placed() -> None:
    made = under_way((0, "DPX"), now=("SPX/NPS1", "SPX/NPS1", "SPX/NPS1"))
    for number, name in enumerate("mno"):
        assert claimed(made, name, spec(20, "CPX", at=(ADDRESSES[number], 7))).state is PENDING
    made.run()
    assert [shown(made, name).state for name in "mno"] == [PLACED] * 3
    assert [event.kind for event in made.ledger.events if event.subject in "mno"].count("claim_pending") == 3


def test_it_waits_for_the_next_change_if_that_comes_first() -> None:
    """Told once for each: c1 ends, the claim `a` is larger and switches first."""
    made = under_way((0, "DPX"), now=("SPX/NPS1", "SPX/NPS1", "SPX/NPS1"))
    claimed(made, wanted=THERE)
    claimed(made, "a", spec(48, "QPX", at=(ADDRESSES[2], 3)))
    made.run(lambda: shown(made, "a").state is SWITCHING)
    made.run(lambda: shown(made, "a").state is PLACED)
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0, gpu=1))


def test_polls_and_scans_meanwhile_tell_nothing_new() -> None:
    made = under_way((0, "DPX"))
    claimed(made, wanted=THERE)
    claimed(made, "n", spec(20, "CPX", at=(ADDRESSES[0], 1)))
    before = shown(made), shown(made, "n"), len(made.ledger.events)
    made.drain(1, draining=False)
    made.release("nothing")
    claimed(made, wanted=THERE)
    assert (shown(made), shown(made, "n"), len(made.ledger.events)) == before


def test_the_change_fails_and_the_claim_is_placed_by_a_switch_of_its_own() -> None:
    made = under_way((0, "CPX"), now=("SPX/NPS1",))
    made.node.outcomes.append(errno.EINVAL)
    assert claimed(made).state is PENDING
    made.run()
    assert made.ledger.state("c1") is SwitchState.FAILED
    assert (shown(made).state, made.node.modes()) == (PLACED, ["CPX/NPS1"])


def test_it_turns_out_to_be_impossible() -> None:
    """A process takes the other GPU meanwhile: the claim stays, with who holds what as its reason."""
    made = under_way((0, "DPX"))
    claimed(made, wanted=THERE)
    made.node.holders.append(holder(77, 1))
    made.run()
    claim = shown(made)
    assert (claim.state, claim.reason) == (PENDING, Reason.GPU_BUSY)
    assert f"GPU {ADDRESSES[1]}" in claim.message
    assert "is held by pid 77 (python train.py)" in claim.message
    assert made.ledger.claims["m"] == claim
    assert [event.message for event in made.ledger.events if event.kind == "claim_pending"][-1].startswith(
        claim.message
    )
    made.node.holders.clear()
    made.poll()
    assert shown(made).state is PLACED


def test_what_would_not_fit_afterwards_is_refused_now() -> None:
    made = under_way((0, "SPX"), now=("CPX/NPS1", "CPX/NPS1"), policy=NEVER)
    answer = refusal(made.claim("m", spec(20, at=(ADDRESSES[0], 5))))
    assert answer.code == "switch_in_progress"
    assert f"{ADDRESSES[0]} is being switched by mode change c1" in answer.message
    assert made.ledger.claims == {}
    assert refusal(made.claim("m", spec(500))).code == "memory_too_large"


def test_what_is_on_the_other_gpu_is_the_reason_not_the_change() -> None:
    made = desk("SPX/NPS1", "SPX/NPS1")
    claimed(made, "n", spec(20, at=(ADDRESSES[1], 0)))
    made.submit((0, "DPX"))
    made.run_until_state(SwitchState.SWITCHING)
    answer = refusal(made.claim("m", THERE))
    assert (answer.code, answer.message.endswith("is in use by claims: n")) == ("gpu_in_use", True)


def test_a_claim_that_is_displaced_by_the_change_waits_for_its_end() -> None:
    made = desk("CPX/NPS1")
    claimed(made, wanted=spec(20, at=(ADDRESSES[0], 0)))
    made.submit((0, "DPX"), drain=True)
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0))


def test_places_that_the_change_takes_from_others_are_not_counted() -> None:
    made = desk("CPX/NPS1")
    claimed(made, "n")
    made.submit((0, "SPX"), drain=True)
    made.run_until_state(SwitchState.SWITCHING)
    assert claimed(made, wanted=spec(192, at=(ADDRESSES[0], 0))).state is PENDING
    made.run()
    assert [shown(made, name).state for name in "mn"] == [PLACED, PENDING]


@pytest.mark.parametrize("boot", ["boot-1", "boot-2"])
def test_it_is_pursued_after_a_restart(boot: str) -> None:
    made = under_way((0, "DPX"))
    claimed(made, wanted=THERE)
    if boot == "boot-2":
        made.node.reload()
    made.start(boot=boot)
    made.run()
    assert (shown(made).state, places(shown(made))) == (PLACED, at(0, gpu=1))


@pytest.mark.parametrize("cut", [0, 1])
def test_killed_at_its_commit(cut: int) -> None:
    """An answer was given only for what the ledger has."""
    made = under_way((0, "DPX"))
    made.tell(fx.ClaimRequested(99, "m", THERE, 1000), cut=cut)
    assert 99 not in made.replies
    assert ("m" in made.ledger.claims) == bool(cut)
    made.start()
    made.run()
    assert [claim.state for claim in made.snapshot.claims] == [PLACED] * cut


def test_many_replicas_are_one_short_event() -> None:
    made = desk("CPX/NPS1")
    claimed(made, wanted=spec(1, replicas=30))
    (event,) = made.ledger.events
    assert event.message == f"m/0-23 on {ADDRESSES[0]}/0, m/24-29 on {ADDRESSES[0]}/1"


def test_released_while_it_waits() -> None:
    made = under_way((0, "DPX"))
    claimed(made, wanted=THERE)
    assert isinstance(made.release("m"), Claim)
    made.run()
    assert (made.snapshot.claims, made.node.modes()) == ((), ["DPX/NPS1", "SPX/NPS1"])


def test_nobody_joins_a_claim_that_waits() -> None:
    made = under_way((0, "DPX"))
    claimed(made, wanted=THERE)
    answer = made.join("m", 7)
    assert answer.code == "not_placed"
    assert "mode change c1 is under way" in answer.message


def test_the_largest_gets_its_place_first() -> None:
    made = under_way((0, "DPX"), now=("SPX/NPS1",))
    claimed(made, "small", CPX_20)
    claimed(made, "large", spec(90, "DPX"))
    made.run()
    assert (shown(made, "large").state, shown(made, "small").state) == (PLACED, PENDING)
    assert shown(made, "small").reason is Reason.GPU_IN_USE
