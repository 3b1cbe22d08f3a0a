"""Runs in the machine: clients that ask for leases of a model without pause, and what they met.

    python load.py MODEL SECONDS CLIENTS

Prints JSON: leases, the sentences of those that failed, the longest wait for one in seconds.
"""

import json
import sys
import threading
import time

from aimd.dispatch import Client
from aimd.dispatch.client import DispatchError

SOCKET = "/run/aimd/dispatch.sock"
BUDGET_SECONDS = 60.0


def work(model, until, waits, failed):
    with Client(SOCKET, patience=BUDGET_SECONDS) as client:
        while time.monotonic() < until:
            asked = time.monotonic()
            try:
                lease = client.acquire(model, timeout=BUDGET_SECONDS)
            except DispatchError as error:
                failed.append(f"{type(error).__name__}: {error}")
                time.sleep(0.05)
                continue
            waits.append(time.monotonic() - asked)
            time.sleep(0.002)
            lease.release()


def main(model, seconds, clients):
    until, waits, failed = time.monotonic() + float(seconds), [], []
    threads = [threading.Thread(target=work, args=(model, until, waits, failed)) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    json.dump({"leases": len(waits), "failed": failed, "worst": max(waits, default=0.0)}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
