"""Runs in the machine: a client that holds a lease of a model until standard input ends.

    python holding.py MODEL

Prints a line when it has the lease, and `released` once the daemon, which has to know it still, has confirmed its end.
"""

import sys

from aimd.dispatch import Client

with Client("/run/aimd/dispatch.sock", patience=60) as client:
    with client.lease(sys.argv[1], timeout=60) as lease:
        print("held", flush=True)
        sys.stdin.read()
        lease.renew()  # which a daemon that has forgotten it refuses
    print("released", flush=True)
