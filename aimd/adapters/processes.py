"""What /proc tells of a process, for people."""

from __future__ import annotations

from pathlib import Path

COMMAND_LIMIT = 200


def command_of(pid: int) -> str | None:
    """Command line (cut at 200 characters; the thread name for kernel threads), None if there is no such process."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        text = b" ".join(words).decode("utf-8", "replace").strip()
        if not text:
            text = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return None
    return text[:COMMAND_LIMIT] or None


def boot_id() -> str:
    """Random id of this boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
