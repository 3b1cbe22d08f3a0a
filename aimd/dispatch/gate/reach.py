"""Whether somebody listens at the dispatch socket. The client waits for a daemon that restarts; the gate wants to know for
how long already. Time is an argument; a look is one connect on a Unix socket, which never blocks.
"""

from __future__ import annotations

import logging
import socket
from contextlib import closing

log = logging.getLogger("aimd.gate")


class Reach:
    """Since when aimd cannot be reached."""

    def __init__(self, path: str, patience: float) -> None:
        """Args:
        path: of the dispatch socket.
        patience: seconds without aimd that are a restart and no outage.
        """
        self._path = path
        self._patience = patience
        self._gone_since: float | None = None
        self._told = False

    def look(self, now: float) -> bool:
        """Whether it is there now."""
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)) as probe:
            try:
                probe.connect(self._path)
            except BlockingIOError:  # a full backlog is a daemon that is there
                there = True
            except OSError:
                there = False
            else:
                there = True
        if there:
            if self._told:
                log.warning("aimd is back at %s", self._path)
            self._gone_since, self._told = None, False
        elif self._gone_since is None:
            self._gone_since = now
        return there

    def is_out(self, now: float) -> bool:
        """Whether it was not there at the last looks, for longer than a restart takes."""
        out = self._gone_since is not None and now - self._gone_since >= self._patience
        if out and not self._told:
            log.warning("aimd cannot be reached at %s for %g s", self._path, self._patience)
            self._told = True
        return out

    @property
    def doubtful(self) -> bool:
        """The last look found nobody."""
        return self._gone_since is not None
