"""Starts hosts and the load client, gives the client its commands, and reads its histograms."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

SPEAKS = {"aimd": "aimd", "aiohttp": "http", "grpcio": "grpc"}  # others: echo
PATIENCE = 20.0


@dataclass
class Sample:
    """What one command has measured: `total` ns of `count`, by buckets of load.c."""

    total: int = 0
    count: int = 0
    buckets: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, line: str) -> Sample:
        total, count, *buckets = line.split()
        pairs = (bucket.split(":") for bucket in buckets)
        return cls(int(total), int(count), Counter({int(bucket): int(number) for bucket, number in pairs}))

    def __add__(self, other: Sample) -> Sample:
        return Sample(self.total + other.total, self.count + other.count, self.buckets + other.buckets)

    @property
    def mean(self) -> float:
        return self.total / self.count

    def percentile(self, percent: float) -> float:
        """ns; the middle of the bucket where it falls."""
        wanted = percent / 100 * sum(self.buckets.values())
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= wanted:
                return (128.5 + bucket % 128) * 2.0 ** (bucket // 128)
        raise ValueError("a percentile of nothing")


class Process:
    """A program that answers each line by a line."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self._process.pid

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"{self._process.args!r} has ended"
        return answer

    def end(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Field:
    """A host of each kind and one client that is connected to all; used as a context.

    Hosts and client share a processor until told otherwise: there a wake-up costs a switch of tasks, and no interrupt to
    another processor that may be asleep. Left to itself, the scheduler would do now the one and now the other, which
    differ by a factor of ten on virtual machines.
    """

    def __init__(self, folder: Path, compiled: Any, kinds: tuple[str, ...]) -> None:
        self._kinds = kinds
        self.processor, *others = sorted(os.sched_getaffinity(0))
        self.other_processor = others[0] if others else None
        self.hosts: dict[str, Process] = {}
        targets = []
        for number, kind in enumerate(kinds):
            path = folder / str(number) / "dispatch.sock"
            path.parent.mkdir()
            command = (sys.executable, "-m", "tests.benchmarks.peers.hosts", kind, path, str(self.processor))
            self.hosts[kind] = Process(*command, compiled("echo.c", shared=True))
            self.hosts[kind].ask("rest")
            wait_for(path)
            targets.append(f"{SPEAKS.get(kind, 'echo')}:{path}")
        self.paths = dict(zip(kinds, (target.partition(":")[2] for target in targets), strict=True))
        self._client = Process(compiled("load.c"), *targets)
        self._client.ask(f"processor {self.processor}")

    def measure(self, what: str, kind: str, *numbers: int) -> Sample:
        """A command of load.c, for the host of this kind."""
        numbers_ = " ".join(map(str, numbers))
        return Sample.of(self._client.ask(f"{what} {self._kinds.index(kind)} {numbers_}"))

    @contextmanager
    def client_on(self, processor: int) -> Iterator[None]:
        """The client runs there meanwhile; -1: on whichever processor."""
        self._client.ask(f"processor {processor}")
        try:
            yield
        finally:
            self._client.ask(f"processor {self.processor}")

    def __enter__(self) -> Field:  # noqa: PYI034 - Self needs Python 3.11
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (self._client, *self.hosts.values()):
            process.end()


def wait_for(path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < until, f"{path} does not come"
        time.sleep(0.01)
    time.sleep(0.1)  # from bind to listen
