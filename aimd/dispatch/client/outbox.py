"""Frames on their way out, and answered questions on their way back to who asked: what a session's parts share."""

from __future__ import annotations

from aimd.dispatch.client.errors import DispatchError
from aimd.dispatch.client.records import Question


class Outbox:
    """While no connection is open, frames are dropped: what matters is sent again by whoever remembers it.

    Attributes:
        open: a connection takes frames.
        data: bytes that are to be sent; the driver takes them off the front.
        settled: questions that were answered since the driver last took them.
    """

    __slots__ = ("data", "open", "settled")

    def __init__(self) -> None:
        self.open = False
        self.data = bytearray()
        self.settled: list[Question] = []

    def send(self, frame: bytes) -> None:
        if self.open:
            self.data += frame

    def settle(self, question: Question, error: DispatchError | None = None) -> None:
        question.settled = True
        question.error = error
        self.settled.append(question)
