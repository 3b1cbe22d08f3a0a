"""A model server of the load scene: streams of requests whose course is fixed, and a record of every one of them.

    python -m tests.dashboards.load_worker PLAN

PLAN is a file of JSON: {"dispatch", "model", "record", "gpu", "share", "vram", "streams": [{"kind", ...}]}. The process is a
KFD client of its simulated GPU. While it has leases on a partition it keeps it busy, by `share` for each of them, and it
holds `vram` bytes on its first one. It ends when its standard input does, with all requests at their end.

RECORD gets a line of JSON for each request (Request of load_truth) and for each change of its load (Busy).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from itertools import cycle
from pathlib import Path
from typing import Any

from aimd.dispatch import Client
from aimd.dispatch.client import DispatchError
from aimd.sim.client import SimClient

PATIENCE = 30.0


class Hardware:
    """This process's use of the simulated GPUs, which it tells them and records."""

    def __init__(self, plan: dict[str, Any], record: Record) -> None:
        self._plan = plan
        self._record = record
        self._lock = threading.Lock()
        self._sim = SimClient()
        self._sim.join([plan["gpu"]])
        self._numbers: dict[str, int] = {}
        self._leases: Counter[str] = Counter()

    def change(self, partition: str, by: int) -> None:
        """So many leases more or less run on the partition."""
        with self._lock:
            number = self._number(partition)
            self._leases[partition] += by
            share, began = min(1.0, self._leases[partition] * self._plan["share"]), time.time()
            self._sim.compute(number, share)
            self._record.write("busy", partition=partition, share=share, began=began, ended=time.time())

    def _number(self, partition: str) -> int:
        if partition not in self._numbers:
            number = self._numbers[partition] = self._sim.gpu_id(partition)
            if self._plan["vram"] and len(self._numbers) == 1:
                self._sim.use(number, self._plan["vram"])
                self._record.write("memory", partition=partition, bytes=self._plan["vram"], at=time.time())
        return self._numbers[partition]


class Record:
    def __init__(self, path: Path) -> None:
        self._lines = path.open("a", buffering=1)

    def write(self, kind: str, **fields: object) -> None:
        self._lines.write(json.dumps({"kind": kind, **fields}) + "\n")


class Streams:
    """The requests of one process, over one connection."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._record = Record(Path(plan["record"]))
        self._hardware = Hardware(plan, self._record)
        self._client = Client(plan["dispatch"])
        self._over = threading.Event()

    def run(self) -> None:
        threads = [threading.Thread(target=self._stream, args=(one,)) for one in self._plan["streams"]]
        for thread in threads:
            thread.start()
        print("ready", flush=True)
        sys.stdin.read()
        self._over.set()
        for thread in threads:
            thread.join()
        self._client.close()

    def _stream(self, one: dict[str, Any]) -> None:
        """A request of the kind every `period` seconds, the first after `delay`; `period` 0: one after the other."""
        perform = getattr(self, f"_{one['kind']}")
        due = time.monotonic() + one.get("delay", 0.0)
        for turn in cycle(one.get("turns", [{}])):
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            perform({**one, **turn})
            due = max(time.monotonic(), due + one["period"])

    def _lease(self, one: dict[str, Any]) -> None:
        """Acquire, work for `hold` seconds, release `ok` or not."""
        self._hold([self._asked(one, timeout=one.get("timeout", PATIENCE))], one)

    def _burst(self, one: dict[str, Any]) -> None:
        """So many leases at once, held together."""
        self._hold([self._asked(one, timeout=one.get("timeout", PATIENCE)) for _ in range(one["count"])], one)

    def _asked(self, one: dict[str, Any], **how: Any) -> tuple[Any, dict[str, Any]]:
        model = one.get("model", self._plan["model"])
        fields = {"model": model, "klass": one["klass"], "submitted": time.time()}
        pending = self._client.submit(model, klass=one["klass"], **how)
        return pending, {**fields, "sent": time.time()}

    def _hold(self, asked: list[tuple[Any, dict[str, Any]]], one: dict[str, Any]) -> None:
        leases = []
        for pending, fields in asked:
            try:
                lease = pending.result()
            except DispatchError as error:
                self._ended(fields, error.outcome or "unreachable")
                continue
            leases.append((lease, {**fields, "granted": time.time(), "partition": lease.partition}))
            self._hardware.change(lease.partition, 1)
        if leases:
            time.sleep(one.get("hold", 0.0))
        for lease, fields in leases:
            self._hardware.change(lease.partition, -1)
            lost, began = lease.lost, time.time()
            lease.release(ok=one.get("ok", True))
            outcome = "revoked" if lost else "released" if one.get("ok", True) else "failed"
            self._ended({**fields, "releasing": began}, outcome)

    def _nowait(self, one: dict[str, Any]) -> None:
        self._hold([self._asked(one, no_wait=True)], one)

    def _cancel(self, one: dict[str, Any]) -> None:
        """Ask, and take it back while it waits."""
        pending, fields = self._asked(one, timeout=PATIENCE)
        time.sleep(one["hold"])
        pending.cancel()
        self._ended(fields, "cancelled")

    def _ended(self, fields: dict[str, Any], outcome: str) -> None:
        self._record.write("request", **fields, outcome=outcome, ended=time.time())


if __name__ == "__main__":
    Streams(json.loads(Path(sys.argv[1]).read_text())).run()
