"""The terminal of a full-screen command: keys without Enter, and everything as it was when the command ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

KEY_BYTES = 64


def on_terminal() -> bool:
    """Whether stdout is a terminal that a screen can be drawn on."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Keys:
    """What is typed, if stdin is a terminal; else there is nothing but the passing of time."""

    def __init__(self) -> None:
        self._stdin = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None

    @contextlib.contextmanager
    def listening(self) -> Iterator[Keys]:
        """Take keys one by one; the settings of the terminal come back, also after SIGTERM. SIGTSTP does nothing."""
        before = termios.tcgetattr(self._stdin) if self._stdin is not None else None
        handlers = {signal.SIGTERM: signal.signal(signal.SIGTERM, _end)}
        handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
        try:
            if self._stdin is not None:
                tty.setcbreak(self._stdin)
            yield self
        finally:
            if self._stdin is not None and before is not None:
                termios.tcsetattr(self._stdin, termios.TCSADRAIN, before)
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def typed(self, seconds: float) -> str:
        """The next keys, as soon as there are some; "" when the time is over."""
        if self._stdin is None:
            time.sleep(seconds)
            return ""
        readable, _, _ = select.select([self._stdin], [], [], max(0.0, seconds))
        if not readable:
            return ""
        try:
            data = os.read(self._stdin, KEY_BYTES)
        except OSError:  # the terminal has gone, or is another's now
            data = b""
        if not data:
            self._stdin = None
        return data.decode("ascii", "replace")


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)
