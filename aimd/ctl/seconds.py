"""Options that are a number of seconds: at least none, at most a day."""

from __future__ import annotations

import math
from typing import Any

import click

DAY = 86400.0


class Seconds(click.FloatRange):
    """Seconds from `at_least` (0, or above it if `above_zero`) to a day.

    NaN is no number of seconds, although it is below and above nothing: neither a socket nor JSON takes it.
    """

    def __init__(self, *, at_least: float = 0, above_zero: bool = False) -> None:
        super().__init__(min=at_least, max=DAY, min_open=above_zero)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        amount = super().convert(value, param, ctx)
        if math.isnan(amount):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return amount
