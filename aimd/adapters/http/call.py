"""A request as an operation sees it: names of its path, its query, its body, who sent it; and what may be answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TypeVar

import msgspec

from aimd.adapters.unix.peer import Peer
from aimd.errors import InvalidInputError
from aimd.protocol.messages import Message

TRUE, FALSE = ("1", "true"), ("0", "false")
MAX_NUMBER_DIGITS = 18  # a signed 64-bit integer holds them
Body = TypeVar("Body", bound=Message)


@dataclass(frozen=True, slots=True)
class Answer:
    """One message and the status it is sent with."""

    message: Message
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class Document:
    """JSON that is no message of the API: the description of the API itself."""

    body: bytes
    status: HTTPStatus = HTTPStatus.OK


@dataclass(frozen=True, slots=True)
class Stream:
    """Messages as they come, one a line."""

    messages: AsyncGenerator[Message, None]
    status: HTTPStatus = HTTPStatus.OK


Result = Answer | Document | Stream


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose route is known; the query holds no other names than the route's.

    Attributes:
        path: the variable parts of the path, by name.
        content: the whole body.
    """

    peer: Peer
    path: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""

    def flag(self, name: str) -> bool:
        """A query parameter that switches something on; raises InvalidInputError."""
        text = self.query.get(name, FALSE[0])
        if text not in TRUE + FALSE:
            raise InvalidInputError(f"{name} is {text!r}, expected 1 or 0")
        return text in TRUE

    def number(self, name: str, meaning: str) -> int | None:
        """A query parameter that is a whole number, None without it; raises InvalidInputError with the meaning."""
        text = self.query.get(name)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()) or len(text) > MAX_NUMBER_DIGITS:
            raise InvalidInputError(f"{name} is {text!r}, expected {meaning}")
        return int(text)

    def body(self, kind: type[Body], example: str) -> Body:
        """The body as a message, no body as {}; raises InvalidInputError that names the wrong field."""
        try:
            return msgspec.json.decode(self.content or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise InvalidInputError(
                f"the request's body is not understood: {words}", hint=f"for example {example}"
            ) from (error)
