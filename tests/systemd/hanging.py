"""One thread of a process is held still as a debugger does it (ptrace): it hangs, the others go on."""

import contextlib
import ctypes
import os
import re
from pathlib import Path

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
WALL = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


def _ptrace(request, thread):
    if _libc.ptrace(request, thread, None, None):
        raise OSError(ctypes.get_errno(), f"ptrace request {request:#x} of thread {thread}")


class Held:
    """A thread that does nothing until it is killed. The caller has to look at `ended` now and then: a killed one is gone
    for the others, its parent among them, when its tracer knows of it.
    """

    def __init__(self, thread):
        self._thread = thread
        _ptrace(SEIZE, thread)
        _ptrace(INTERRUPT, thread)
        os.waitpid(thread, WALL)
        self.ended = False

    def look(self):
        """Whether it has ended."""
        if not self.ended:
            found, status = os.waitpid(self._thread, os.WNOHANG | WALL)
            self.ended = found != 0 and not os.WIFSTOPPED(status)
        return self.ended

    def close(self):
        with contextlib.suppress(OSError):
            _ptrace(DETACH, self._thread)


def dispatch_thread(pid):
    """The thread that has all signals blocked."""
    for folder in Path(f"/proc/{pid}/task").iterdir():
        blocked = re.search(r"^SigBlk:\s*(\w+)$", (folder / "status").read_text(), re.MULTILINE)[1]
        if int(blocked, 16).bit_count() > 50:
            return int(folder.name)
    raise AssertionError(f"process {pid} has no dispatch thread")
