"""Log records as entries of systemd's journal, with fields to search by instead of text alone.

The protocol is the journal's own (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): a datagram of fields. An entry that does
not fit into a datagram is cut. What cannot be sent goes to standard error, which is the journal's as well.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
import uuid
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
LONGEST = 48 * 1024  # bytes of a value; a datagram has to fit net.core.wmem_default (208 KiB)
# syslog(3): debug 7, info 6, warning 4, err 3, crit 2
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
# Of aimd's message ids; never to be changed.
NAMESPACE = uuid.UUID("d0e9a4ae-e03d-44e2-ae8a-a8da158ba28b")


def message_id(event: str) -> str:
    """MESSAGE_ID of a kind of event, 32 hexadecimal digits: the UUID (version 5) of its name in NAMESPACE."""
    return uuid.uuid5(NAMESPACE, event).hex


def about(event: str, subject: str) -> dict[str, dict[str, str]]:
    """`extra` of a log call: the entry gets AIMD_EVENT, AIMD_SUBJECT and the event's MESSAGE_ID."""
    return {"journal": {"AIMD_EVENT": event, "AIMD_SUBJECT": subject}}


class JournalHandler(logging.Handler):
    """Writes records to the journal.

    Raises:
        OSError: there is no journal at this path.
    """

    def __init__(self, path: str = SOCKET) -> None:
        super().__init__()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._socket.send(datagram(self._fields(record)))
        except OSError:  # it is full or gone: the stream is another way to it
            sys.stderr.write(f"<{_priority(record)}>{record.getMessage()}\n")

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        message = self.format(record)
        more: Mapping[str, str] = getattr(record, "journal", {})
        fields = {
            "MESSAGE": message,
            "PRIORITY": str(_priority(record)),
            "SYSLOG_IDENTIFIER": "aimd",
            "AIMD_LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
            **more,
        }
        if "AIMD_EVENT" in fields:
            fields["MESSAGE_ID"] = message_id(fields["AIMD_EVENT"])
        return fields


def datagram(fields: Mapping[str, str]) -> bytes:
    """NAME=value lines; a value with a newline as NAME, its length in 8 bytes (little-endian), and the bytes."""
    parts = []
    for name, text in fields.items():
        value = text.encode("utf-8", "surrogateescape")[:LONGEST]
        if b"\n" in value:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n")
        else:
            parts.append(name.encode() + b"=" + value + b"\n")
    return b"".join(parts)


def _priority(record: logging.LogRecord) -> int:
    return min((value for level, value in PRIORITIES.items() if record.levelno >= level), default=7)
