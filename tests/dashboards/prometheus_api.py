"""The HTTP API of a Prometheus: what a test asks it, by the standard library."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

SECONDS = 30.0


class Series(NamedTuple):
    labels: dict[str, str]
    value: float


class RefusedQuery(Exception):  # noqa: N818 -- what Prometheus says of an expression
    """It does not parse, or cannot be evaluated."""


class PrometheusApi:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def get(self, path: str, **parameters: str | float) -> Any:
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise RefusedQuery(error.read().decode()) from error

    def query(self, expression: str, at: float | None = None) -> list[Series]:
        """The vector at an instant, else now."""
        data = self.get("query", query=expression, **({} if at is None else {"time": at}))
        if data["resultType"] == "scalar":
            return [Series({}, float(data["result"][1]))]
        return [Series(one["metric"], float(one["value"][1])) for one in data["result"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> Any:
        return self.get("query_range", query=expression, start=start, end=end, step=step)

    def samples(
        self, selector: str, seconds: float, at: float
    ) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """As they were scraped in the last seconds: instant and value."""
        data = self.get("query", query=f"{selector}[{math.ceil(seconds)}s]", time=at)
        assert data["resultType"] == "matrix"
        return [(one["metric"], [(at, float(value)) for at, value in one["values"]]) for one in data["result"]]
