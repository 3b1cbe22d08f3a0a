"""Header fields on their way through: what ends at a hop, what a proxy adds (RFC 9110 section 7.6, X-Forwarded-*). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from multidict import CIMultiDict, CIMultiDictProxy

from aimd.dispatch.gate import asking

REQUEST_ID = "X-Request-Id"
VIA = "aimd-gate"
_ID = re.compile(r"[\x21-\x7e]{1,128}")

# Connection names more of them; the last two are the gate's own business with either side.
_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OF_REQUEST = frozenset({"expect"} | {name.lower() for name in asking.FIELDS})


def request_id(fields: CIMultiDictProxy[str], fresh: str) -> str:
    """The client's, if it has one that can be repeated as it is; else the fresh one."""
    said = fields.get(REQUEST_ID, "")
    return said if _ID.fullmatch(said) else fresh


def to_upstream(
    fields: CIMultiDictProxy[str],
    *,
    version: str,
    peer: str | None,
    number: str,
    preserve_host: bool,
) -> CIMultiDict[str]:
    """The fields with which a request goes on.

    Args:
        version: HTTP version in which it came, for Via.
        peer: the client's IP address; None on a Unix socket: X-Forwarded-For stays as it is.
        number: the request's id.
    """
    result = _end_to_end(fields, _OF_REQUEST)
    host = result.get("Host")
    if not preserve_host:
        result.pop("Host", None)
    if host is not None:
        result.setdefault("X-Forwarded-Host", host)
    result.setdefault("X-Forwarded-Proto", "http")
    if peer is not None:
        _append(result, "X-Forwarded-For", peer)
    _append(result, "Via", f"{version} {VIA}")
    result[REQUEST_ID] = number
    return result


def to_client(fields: CIMultiDictProxy[str], *, number: str, waited: float) -> CIMultiDict[str]:
    """The fields with which a response goes back; Server-Timing tells how long the request waited for its lease."""
    result = _end_to_end(fields)
    result.setdefault(REQUEST_ID, number)
    result.setdefault("Server", VIA)  # else aiohttp names itself and Python, with versions
    result.add("Server-Timing", f"aim-wait;dur={waited * 1e3:.3f}")
    return result


def is_upgrade_to_websocket(fields: CIMultiDictProxy[str]) -> bool:
    return "websocket" in _tokens(fields.getall("Upgrade", ()))


def _end_to_end(fields: CIMultiDictProxy[str], also: frozenset[str] = frozenset()) -> CIMultiDict[str]:
    dropped = _HOP | also | _tokens(fields.getall("Connection", ()))
    return CIMultiDict((name, value) for name, value in fields.items() if name.lower() not in dropped)


def _tokens(values: Iterable[str]) -> set[str]:
    return {token.strip().lower() for value in values for token in value.split(",")} - {""}


def _append(fields: CIMultiDict[str], name: str, value: str) -> None:
    before = fields.popall(name, [])
    fields[name] = ", ".join([*before, value])
