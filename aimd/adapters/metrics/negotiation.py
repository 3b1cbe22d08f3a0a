"""Which format a client prefers, and whether it takes gzip (RFC 9110, 12.5)."""

from __future__ import annotations

from collections.abc import Iterator

from aimd.adapters.metrics.render import OPENMETRICS, TEXT

_FORMATS = (
    ("text/plain", TEXT, frozenset({"", "0.0.4"})),
    ("application/openmetrics-text", OPENMETRICS, frozenset({"", "1.0.0", "0.0.1"})),
)


def content_type(accept: str) -> str:
    """The type of the page for this Accept field: Prometheus' text unless OpenMetrics is preferred to it."""
    best, found = 0.0, TEXT
    for name, parameters in _choices(accept):
        quality = _quality(parameters.get("q", "1"))
        for media_type, offered, versions in _FORMATS:
            if name == media_type and parameters.get("version", "") in versions and quality > best:
                best, found = quality, offered
    return found


def takes_gzip(accept_encoding: str) -> bool:
    """Whether the Accept-Encoding field names gzip, or any, with a quality above 0."""
    qualities = {name: _quality(parameters.get("q", "1")) for name, parameters in _choices(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0


def _choices(field: str) -> Iterator[tuple[str, dict[str, str]]]:
    for choice in field.split(","):
        name, *rest = (part.strip() for part in choice.split(";"))
        pairs = (part.partition("=") for part in rest)
        yield name.lower(), {key.strip().lower(): value.strip().strip('"') for key, _, value in pairs}


def _quality(text: str) -> float:
    """0 for what is no quality; inf and nan are none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
