"""Makes the socket that a daemon listens at."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listen(path: Path, backlog: int) -> socket.socket:
    """A listening socket at the path, for everyone; a file left there by a dead daemon is replaced.

    The caller holds the daemon's lock. Each change is decided by the peer's credentials.
    """
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listening.bind(os.fspath(path))
        path.chmod(0o666)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening
