"""Runs in the machine: clients that ask for leases of a model without pause until standard input ends, and what they met.

    python load.py MODEL CLIENTS

Prints a line when it has begun, and at the end JSON: leases, the sentences of those that failed, the longest wait for one in seconds.
"""

import json
import sys
import threading
import time

from aimd.dispatch import Client
from aimd.dispatch.client import DispatchError

SOCKET = "/run/aimd/dispatch.sock"
BUDGET_SECONDS = 60.0


def work(model, over, waits, failed):
    with Client(SOCKET, patience=BUDGET_SECONDS) as client:
        while not over.is_set():
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


def main(model, clients):
    over, waits, failed = threading.Event(), [], []
    threads = [threading.Thread(target=work, args=(model, over, waits, failed)) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    while len(waits) + len(failed) < len(threads):
        time.sleep(0.01)
    print("begun", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    json.dump({"leases": len(waits), "failed": failed, "worst": max(waits, default=0.0)}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
