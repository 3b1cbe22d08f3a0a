"""Processes of this machine: who they are (/proc), and when they end (pidfd)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from aimd.errors import NotFoundError
from aimd.ports import Process

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


def start_time_of(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat (clock ticks after boot), None if there is no such process or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the command before it may hold spaces and parentheses
    return int(fields[19]) if fields[0] != "Z" else None


class LinuxProcesses:
    """ports.Processes by /proc and pidfd_open(2)."""

    def identify(self, pid: int) -> Process:
        start_time = start_time_of(pid)
        if start_time is None:
            raise NotFoundError(f"process {pid} is not there (any more)", code="unknown_process")
        return Process(pid, start_time, command_of(pid))

    async def ended(self, pid: int, start_time: int) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return False
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        try:
            if start_time_of(pid) != start_time:  # the pid was given to another process
                return False
            loop.add_reader(descriptor, over.set)
            await over.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return True
