"""A client process of the dispatch tests: asks for leases, one after the other, until its time is over.

    python -m tests.integration.lease_client SOCKET MODEL SECONDS SEED RECORD

Appends a line of JSON to RECORD for each lease: [lease, first instant, last instant at which it was held for sure], in
nanoseconds of CLOCK_MONOTONIC, and for each thing that went wrong the sentence. Prints how many leases it had.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from aimd.dispatch import Client
from aimd.dispatch.client import DispatchError

BUDGET_SECONDS = 60.0
LONGEST_HOLD_SECONDS = 0.02


def main(socket: str, model: str, seconds: str, seed: str, record: str) -> None:
    dice, until, count = random.Random(int(seed)), time.monotonic() + float(seconds), 0
    with Client(socket) as client, Path(record).open("a", buffering=1) as lines:
        while time.monotonic() < until:
            klass = dice.choice(["high", "medium", "low"])
            try:
                lease = client.acquire(model, timeout=BUDGET_SECONDS, klass=klass)
                first = time.monotonic_ns()
                time.sleep(dice.uniform(0, LONGEST_HOLD_SECONDS))
                last = time.monotonic_ns()
                if lease.lost:
                    lines.write(json.dumps(f"lease {lease.id:#x} was lost") + "\n")
                lease.release(ok=dice.random() < 0.9)
                lines.write(json.dumps([lease.id, first, last]) + "\n")
                count += 1
            except DispatchError as error:
                lines.write(json.dumps(f"{type(error).__name__}: {error}") + "\n")
                time.sleep(0.05)
    sys.stdout.write(f"{count}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
