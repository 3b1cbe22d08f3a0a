"""What one client may cost the daemon: sizes, times and numbers, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the local API; times in seconds, sizes in bytes.

    Attributes:
        body_bytes: a request's body.
        line_bytes, headers: the request line and each header field; how many fields.
        head_bytes: the whole head, all lines together.
        head_seconds: from the connection's begin, or a request's first byte, to the end of its head.
        body_seconds: from the head's end to the body's.
        idle_seconds: between two requests of a connection.
        answer_seconds: until the daemon has an answer; longer than the control loop itself waits.
        write_seconds: how long a client may leave its socket full.
        connections: all together, `reserved` of them for operators alone.
        per_account: those of one uid, or of one pod.
        accepts: how many connections are taken before other work gets its turn.
        backlog: connections that the kernel holds meanwhile; it allows no more than net.core.somaxconn.
        turned_away: connections that were refused and are kept for a moment, so that their clients see why.
        retry_seconds: that moment, and the pause when there are no file descriptors.
    """

    body_bytes: int = 64 * 1024
    line_bytes: int = 8190
    headers: int = 64
    head_bytes: int = 32 * 1024
    head_seconds: float = 5.0
    body_seconds: float = 10.0
    idle_seconds: float = 60.0
    answer_seconds: float = 40.0
    write_seconds: float = 30.0
    connections: int = 256
    reserved: int = 32
    per_account: int = 64
    accepts: int = 4
    backlog: int = 4096
    turned_away: int = 64
    retry_seconds: float = 0.25
