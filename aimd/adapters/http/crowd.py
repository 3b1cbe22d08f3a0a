"""Who gets a connection when there are many: newcomers replace those that nobody waits for, within each account's share."""

from __future__ import annotations

from http import HTTPStatus
from typing import Generic, Protocol, TypeVar

from aimd.adapters.http.limits import Limits
from aimd.adapters.http.problems import HttpError
from aimd.adapters.unix.peer import Operators, Peer


class Admitted(Protocol):
    """A connection, as far as it matters here."""

    @property
    def peer(self) -> Peer: ...

    @property
    def since(self) -> float: ...

    @property
    def replaceable(self) -> bool: ...

    def drop(self) -> None: ...


Kind = TypeVar("Kind", bound=Admitted)


class Admission(Generic[Kind]):
    """The open connections.

    An idle connection is a convenience and a slow one an attack, and they look alike: where there is no room, the one
    that has been so for the longest time is ended. So an honest client, which sends its request at once, gets its
    answer however many others are open. Watches are kept; when they alone fill the room, newcomers are refused.
    """

    def __init__(self, limits: Limits, operators: Operators) -> None:
        self._limits = limits
        self._operators = operators
        self._open: set[Kind] = set()

    def __len__(self) -> int:
        return len(self._open)

    def make_room(self, peer: Peer) -> None:
        """End a connection if it takes that for one of this peer to be admitted.

        Raises:
            HttpError: its account, or the daemon, has as many connections in use as it may have.
        """
        own = [each for each in self._open if each.peer.account == peer.account]
        if len(own) >= self._limits.per_account:
            self._replace_one(own, f"{peer.account} has {len(own)} connections in use")
        reserved = 0 if self._operators.include(peer) else self._limits.reserved
        if len(self._open) >= self._limits.connections - reserved:
            self._replace_one(self._open, f"aimd has {len(self._open)} connections in use")

    def admit(self, connection: Kind) -> None:
        self._open.add(connection)

    def forget(self, connection: Kind) -> None:
        """It has ended; may be called twice."""
        self._open.discard(connection)

    def _replace_one(self, candidates: list[Kind] | set[Kind], fact: str) -> None:
        victim = min((each for each in candidates if each.replaceable), key=lambda each: each.since, default=None)
        if victim is None:
            raise HttpError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_connections",
                f"{fact}, and no more are allowed",
                hint="end watches that are not needed, or try again later",
            )
        self._open.discard(victim)
        victim.drop()
