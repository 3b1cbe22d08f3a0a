"""One helper process: started with an environment of its own, read within limits, ended with all that it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aimd
from aimd.adapters.hip.answer import LONGEST_ANSWER

CHILD = Path(__file__).with_name("child.py")
ROOT = Path(aimd.__file__).parents[1]
LONGEST_COMPLAINT = 4096  # of standard error, the last of it
CHUNK = 16 * 1024
DIE_SECONDS = 5.0  # after SIGKILL; longer only inside an uninterruptible call of the driver
# All that the helper takes over: what the loader, HSA and the stand-in find files by. Nothing else, because half a dozen variables
# change what HIP sees (HIP_VISIBLE_DEVICES, GPU_DEVICE_ORDINAL) or says (HIP_HIDDEN_FREE_MEM, GPU_MAX_HEAP_SIZE).
TAKEN_OVER = ("LD_LIBRARY_PATH", "PATH", "LANG", "ROCM_PATH", "AIMD_SIM_SOCKET")


@dataclass(slots=True)
class Helper:
    """A running helper.

    Attributes:
        output, complaint: what it wrote so far, `complaint` to standard error.
        overlong: it wrote more than any answer needs.
        silent: nothing can come from it any more, nor from what it started.
    """

    process: Process
    transport: asyncio.SubprocessTransport
    output: bytearray = field(default_factory=bytearray)
    complaint: bytearray = field(default_factory=bytearray)
    overlong: bool = False
    silent: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    async def answered(self) -> None:
        """Read until it has ended, or has written too much."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        await asyncio.gather(self._read_answer(self.process.stdout), self._read_complaint(self.process.stderr))
        if not self.overlong:
            self.silent = True
            await self.process.wait()

    async def _read_answer(self, stream: asyncio.StreamReader) -> None:
        while part := await stream.read(CHUNK):
            self.output += part
            if len(self.output) > LONGEST_ANSWER:
                self.overlong = True
                self.kill()
                return

    async def _read_complaint(self, stream: asyncio.StreamReader) -> None:
        while part := await stream.read(CHUNK):
            self.complaint += part
            del self.complaint[:-LONGEST_COMPLAINT]

    def kill(self) -> None:
        """SIGKILL to it and to all that it started: it leads a process group of its own.

        Not when all of that is over: the number of the group may be another's by now.
        """
        if self.silent and self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def end(self) -> bool:
        """Kill what is left of it, and listen no more; False if it does not die."""
        self.kill()
        ended = asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait({ended}, timeout=DIE_SECONDS)  # not wait_for(): see daemon.published
            return ended.done()
        finally:
            ended.cancel()
            self.transport.close()  # what it has started may have its pipes, in a group of its own


async def start(library: str | None, ordinals: Sequence[int], seconds: int, extra: Mapping[str, str]) -> Helper:
    """Start a helper that sees these devices alone.

    Args:
        library: file of libamdhip64; None for what the loader finds.
        ordinals: of the devices, by the order of all GPU nodes of KFD.
        seconds: after which it ends itself, should nobody else be there to do it.
        extra: further variables of its environment.

    Raises:
        OSError: no process can be started.
    """
    loop = asyncio.get_running_loop()
    # As asyncio.create_subprocess_exec does, which keeps to itself what closes the pipes.
    transport, protocol = await loop.subprocess_exec(
        lambda: SubprocessStreamProtocol(limit=2 * CHUNK, loop=loop),
        *(sys.executable, "-I", "-S", str(CHILD), str(ROOT), str(os.getpid()), str(seconds), library or ""),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        env=environment(os.environ, ordinals, extra),
        start_new_session=True,
        cwd="/",
    )
    return Helper(Process(transport, protocol, loop), transport)


def environment(own: Mapping[str, str], ordinals: Sequence[int], extra: Mapping[str, str]) -> dict[str, str]:
    """The helper's environment.

    ROCR_VISIBLE_DEVICES filters what HSA sees and so what is initialised (64 devices take ten seconds, one GPU's less
    than one); indices, because older drivers give all partitions of a GPU one UUID. HIP_VISIBLE_DEVICES counts what is
    left of that; it is set so that CUDA_VISIBLE_DEVICES does not count either.
    """
    taken = {name: own[name] for name in TAKEN_OVER if name in own}
    visible = ",".join(str(ordinal) for ordinal in ordinals)
    counted = ",".join(str(number) for number in range(len(ordinals)))
    return {**taken, "ROCR_VISIBLE_DEVICES": visible, "HIP_VISIBLE_DEVICES": counted, **extra}
