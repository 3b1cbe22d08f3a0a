"""Every expression of every panel, asked of a real Prometheus over a daemon under load: it parses, has a value, the right one."""

from __future__ import annotations

import math

import pytest

from tests.dashboards.expected_values import differences
from tests.dashboards.load_seen import WINDOW, Seen
from tests.dashboards.panel_look import SPAN, Check, Look
from tests.dashboards.panel_targets import DASHBOARDS, Target, targets
from tests.dashboards.panel_values import VALUES

FOUND = [one for path in sorted(DASHBOARDS.glob("*.json")) for one in targets(path, {}, WINDOW, SPAN)]


@pytest.fixture(scope="module")
def look(seen: Seen) -> Look:
    return Look(seen)


def check_of(target: Target) -> Check:
    checks = VALUES[target.dashboard][target.panel]
    return checks["ABCDEFGH".index(target.ref)]


@pytest.mark.parametrize("target", FOUND, ids=lambda one: one.name)
def test_it_shows_what_the_load_was(look: Look, target: Target) -> None:
    found = look.seen.api.query(target.expression, look.at)
    assert found, "no series"
    check = check_of(target)
    values = {tuple(one.labels.get(label, "") for label in check.labels): one.value for one in found}
    told = {name: value for name, value in values.items() if not math.isnan(value)}
    if check.every is not None:
        assert all(check.every.holds(one.value) for one in found), found
        return
    assert check.values is not None
    assert len(values) == len(found), "series that differ by other labels"
    assert differences(told, check.values(look)) == {}


def test_nothing_is_written_down_that_no_panel_asks() -> None:
    asked = {(one.dashboard, one.panel, one.ref) for one in FOUND}
    known = {
        (board, panel, ref)
        for board, panels in VALUES.items()
        for panel, checks in panels.items()
        for ref in "ABCDEFGH"[: len(checks)]
    }
    assert known == asked
