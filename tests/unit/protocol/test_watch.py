"""Watching a list: whoever plays the lines, from wherever it was cut off, has the present list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimd.domain.node import NodeSnapshot
from aimd.errors import GoneError
from aimd.protocol.messages import HolderMessage
from aimd.protocol.watch import NOTHING, History, WatchMessage, step

List = dict[str, HolderMessage]

lists = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]), st.builds(HolderMessage, pid=st.integers(1, 3), command=st.none())
)
pasts = st.lists(lists, min_size=1, max_size=8)


def named(objects: List) -> dict[str, HolderMessage]:
    """Objects know their names, as all that are listed do."""
    return {name: HolderMessage(pid=each.pid, command=name) for name, each in objects.items()}


def lines_since(past: dict[int, List], since: int) -> list[WatchMessage[HolderMessage]]:
    """What a watcher gets that is told of every generation after `since`."""
    known, told = since, []
    for generation, present in past.items():
        if generation > since:
            told += step({} if known == NOTHING else past[known], present, since=known, reached=generation)
            known = generation
    return told


def play(known: List, lines: list[WatchMessage[HolderMessage]]) -> List:
    known = dict(known)
    for line in lines:
        if line.type == "DELETED":
            known.pop(line.object.command, None)
        else:
            known[line.object.command] = line.object
    return known


@given(pasts, st.data())
def test_from_any_generation_the_lines_lead_to_the_present_list(states, data):
    past = {100 + 7 * index: named(state) for index, state in enumerate(states)}
    since = data.draw(st.sampled_from([NOTHING, *past]))
    known = {} if since == NOTHING else past[since]
    assert play(known, lines_since(past, since)) == named(states[-1])


@given(pasts, st.data())
def test_a_watcher_that_was_cut_off_anywhere_goes_on_after_its_last_line(states, data):
    past = {100 + 7 * index: named(state) for index, state in enumerate(states)}
    every = lines_since(past, NOTHING)
    heard = every[: data.draw(st.integers(0, len(every)))]
    resumed = heard[-1].generation if heard else NOTHING
    assert play(play({}, heard), lines_since(past, resumed)) == named(states[-1])


@given(lists, lists)
def test_one_line_per_object_that_differs_and_none_else(before, after):
    before, after = named(before), named(after)
    lines = step(before, after, since=1, reached=2)
    told = {line.object.command: line.type for line in lines}
    assert len(told) == len(lines)
    assert told == {
        **{name: "DELETED" for name in before if name not in after},
        **{name: "ADDED" for name in after if name not in before},
        **{name: "MODIFIED" for name in after if name in before and before[name] != after[name]},
    }


def test_a_deleted_object_is_shown_as_it_was_last():
    was = HolderMessage(pid=1, command="a")
    assert step({"a": was}, {}, since=1, reached=2) == [WatchMessage(type="DELETED", generation=2, object=was)]


def test_the_history_is_bounded_and_says_what_is_gone():
    history = History(kept=3)
    shown = [history.keep(NodeSnapshot(generation=generation)) for generation in (10, 20, 20, 30, 40)]
    assert [history.at(generation) for generation in (20, 30, 40)] == [shown[1], shown[3], shown[4]]
    for unknown in (10, 25, 41, 1):
        with pytest.raises(GoneError, match=str(unknown)) as caught:
            history.at(unknown)
        assert caught.value.code == "generation_gone"


def test_whoever_knows_nothing_begins_with_an_empty_node():
    assert History().at(NOTHING) == NodeSnapshot()
