"""Error budgets over several windows: of all that is not good, and of what was merely late.

Windows and factors are those of the SRE workbook (chapter 5) that aimd itself uses (dispatch.md section 6). A short window
beside each long one ends an alert soon after its cause; a least number of requests keeps one bad of two from paging.
"""

from __future__ import annotations

from typing import NamedTuple

from dashboards.rule import Alert, Recording

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
LEAST_REQUESTS = 20


class Pair(NamedTuple):
    """`factor`: how many times faster than it may the budget is used up."""

    factor: float
    long: str
    short: str
    severity: str
    spent: str


PAIRS = (
    Pair(14.4, "1h", "5m", "page", "a thirty-day budget in two days"),
    Pair(6, "6h", "30m", "page", "a thirty-day budget in five days"),
    Pair(3, "1d", "2h", "ticket", "a thirty-day budget in ten days"),
    Pair(1, "3d", "6h", "ticket", "the whole budget, or more"),
)
KINDS = {
    "bad": ("aim_model_slo_bad_total", "Error budget", "requests that are not good"),
    "late": ('aim_model_slo_bad_total{reason="late"}', "Latency budget", "requests that were later than their target"),
}


def _counted(window: str) -> str:
    return " + ".join(
        f"(sum by (model) (increase({family}[{window}])){rest})"
        for family, rest in (
            ("aim_model_slo_good_total", f" or sum by (model) (increase(aim_model_slo_bad_total[{window}])) * 0"),
            ("aim_model_slo_bad_total", f" or sum by (model) (increase(aim_model_slo_good_total[{window}])) * 0"),
        )
    )


RECORDINGS = (
    *(Recording(f"model:aim_model_slo_counted:increase{window}", _counted(window)) for window in WINDOWS),
    *(
        Recording(
            f"model:aim_model_slo_{kind}:ratio{window}",
            f"sum by (model) (increase({family}[{window}])) / (model:aim_model_slo_counted:increase{window} > 0)",
        )
        for kind, (family, _, _) in KINDS.items()
        for window in WINDOWS
    ),
    Recording("model:aim_model_slo_objective:ratio", "max by (model) (aim_model_slo_objective_ratio)"),
)


def _alert(kind: str, pair: Pair) -> Alert:
    _, budget, what = KINDS[kind]
    over = f"> on (model) {pair.factor} * (1 - model:aim_model_slo_objective:ratio)"
    ratio = f"model:aim_model_slo_{kind}:ratio"
    return Alert(
        name=f"Aimd{budget.title().replace(' ', '')}Burn{pair.long.upper()}",
        expression=(
            f"({ratio}{pair.long} {over})\n"
            f"and on (model) ({ratio}{pair.short} {over})\n"
            f"and on (model) model:aim_model_slo_counted:increase{pair.long} >= {LEAST_REQUESTS}"
        ),
        lasting="",
        severity=pair.severity,
        summary=f"Model {{{{ $labels.model }}}} uses up its {budget.lower()} {pair.factor:g} times too fast",
        description=(
            f"{{{{ $value | humanizePercentage }}}} of the last {pair.long} were {what}; so {pair.spent} is used up."
        ),
    )


ALERTS = tuple(_alert(kind, pair) for kind in KINDS for pair in PAIRS)
