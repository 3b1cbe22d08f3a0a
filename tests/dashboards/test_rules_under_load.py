"""Recording and alert rules over the load scene: what is recorded is right, and of the alerts those are true that should."""

from __future__ import annotations

import pytest
import yaml

from tests.dashboards.expected_values import Bounds, about
from tests.dashboards.load_scene import CHAT_TARGET_SECONDS
from tests.dashboards.load_seen import Seen
from tests.dashboards.panel_look import OBJECTIVES, Look
from tests.dashboards.panel_targets import DASHBOARDS
from tests.dashboards.panel_values import burn

RULES = [
    rule for group in yaml.safe_load((DASHBOARDS / "aimd.rules.yml").read_text())["groups"] for rule in group["rules"]
]
BURNING = {"1H": 14.4, "6H": 6, "1D": 3, "3D": 1}
# Of what the load is made, not of the daemon: requests beyond what a queue takes, and requests that are late on purpose.
MEANT = {"AimdRequestsRejected", *(f"Aimd{kind}BudgetBurn{long}" for kind in ("Error", "Latency") for long in BURNING)}


@pytest.fixture(scope="module")
def look(seen: Seen) -> Look:
    return Look(seen)


@pytest.mark.parametrize("rule", [rule for rule in RULES if "record" in rule], ids=lambda rule: rule["record"])
def test_recordings(look: Look, rule: dict[str, str]) -> None:
    """Windows are longer than the load: they have all of it, but for what was not sampled yet."""
    name = rule["record"]
    for by_hand in (name, rule["expr"]):
        found = {one.labels["model"]: one.value for one in look.seen.api.query(by_hand, look.at)}
        assert set(found) == set(OBJECTIVES)
        for model, value in found.items():
            assert expected(look, name, model).holds(value), (model, value, expected(look, name, model))


def expected(look: Look, name: str, model: str) -> Bounds:
    objective = OBJECTIVES[model]
    if "objective" in name:
        return about(objective)
    if "counted" in name:
        ends = ("released", "failed", "revoked", "lost")
        low, high = (look.truth.of(model, *ends, until=look.at - age) for age in (7, 0))
        return Bounds(low * 0.95, high * 1.1)
    rate = burn(look)[model, "1h"]
    if "bad" in name:
        return Bounds(rate.low * (1 - objective) * 0.9, rate.high * (1 - objective) * 1.1)
    least, most = look.truth.late("chat", CHAT_TARGET_SECONDS) if model == "chat" else (0, 0)
    whole = look.truth.of(model, "released", "failed", "revoked", "lost")
    return Bounds(least / whole * 0.8 - 0.01, most / whole * 1.2 + 0.01)


@pytest.mark.parametrize("rule", [rule for rule in RULES if "alert" in rule], ids=lambda rule: rule["alert"])
def test_alerts(look: Look, rule: dict[str, str]) -> None:
    found = {one.labels.get("model", ""): one.value for one in look.seen.api.query(rule["expr"], look.at)}
    name = rule["alert"]
    if name not in MEANT:
        assert found == {}
    elif name == "AimdRequestsRejected":
        assert set(found) == {"batch"}
    else:
        long = name[-2:]
        for model, objective in OBJECTIVES.items():
            rate = expected(look, "late" if "Latency" in name else "bad", model)
            limit = BURNING[long] * (1 - objective)
            assert model in found or rate.low <= limit, (model, rate)
            assert model not in found or rate.high >= limit, (model, rate)


def test_rejections_by_their_share(look: Look) -> None:
    """The alert's value is the share of batch's requests that were refused or waited for nothing, of those that would wait."""
    [rule] = [rule for rule in RULES if rule.get("alert") == "AimdRequestsRejected"]
    [value] = [one.value for one in look.seen.api.query(rule["expr"], look.at)]
    ended = [one for one in look.truth.requests if one.model == "batch" and one.ended <= look.at]
    ended = [one for one in ended if one.outcome not in ("cancelled", "would_block")]
    rejected = sum(one.outcome in ("expired", "queue_full_model") for one in ended)
    assert value == pytest.approx(rejected / len(ended), rel=0.1)
