"""The turns of workers themselves."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.turns import group_of, turn


def test_who_shares_the_room_is_there_together_and_who_wants_it_alone_is(tmp_path: Path) -> None:
    inside: list[str] = []
    seen: list[tuple[str, ...]] = []
    both = threading.Barrier(2, timeout=20)

    def shared() -> None:
        with turn(tmp_path, alone=False):
            inside.append("shared")
            both.wait()
            inside.remove("shared")

    def alone() -> None:
        with turn(tmp_path, alone=True):
            inside.append("alone")
            time.sleep(0.05)
            seen.append(tuple(inside))
            inside.remove("alone")

    threads = [threading.Thread(target=target) for target in (shared, shared)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    threads = [threading.Thread(target=alone) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen == [("alone",)] * 3


def test_who_waits_for_the_room_is_let_in_before_those_who_come_later(tmp_path: Path) -> None:
    order: list[str] = []

    def enter(name: str, *, alone: bool) -> threading.Thread:
        def run() -> None:
            with turn(tmp_path, alone=alone):
                order.append(name)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.1)
        return thread

    with turn(tmp_path, alone=False):
        threads = [enter("alone", alone=True), enter("later", alone=False)]
        assert order == []
    for thread in threads:
        thread.join(30)
    assert order == ["alone", "later"]


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("tests/systemd/test_service.py", "systemd"),
        ("tests/unit/planning/test_claims.py", "tests/unit/planning/test_claims.py"),
    ],
)
def test_what_shares_something_big_is_one_group(path: str, group: str) -> None:
    assert group_of(Path("/x") / path, Path("/x")) == group


def test_a_run_by_workers_has_the_groups(request: pytest.FixtureRequest) -> None:
    """Without them tests of one file would be in several workers."""
    (mark,) = request.node.iter_markers("xdist_group")
    assert mark.args == ("tests/unit/test_turns.py",)
    if hasattr(request.config, "workerinput"):
        assert request.node.nodeid.endswith("@tests/unit/test_turns.py")
