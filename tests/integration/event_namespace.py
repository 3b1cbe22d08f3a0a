"""A process in a network namespace of its own that feeds datagrams to a UeventListener and reports what came of them.

Reads a JSON list of steps [how, text] from standard input, how being one of
  kernel     the kernel broadcasts the text as its own uevent: a netlink message from a privileged process to port 0 is
             sent on in this namespace with port id 0 (uevent_net_rcv_skb in lib/kobject_uevent.c, Linux 4.18)
  flood      the same, often enough to overrun the listener's buffer
  unicast    user space sends the text to the listener's own port
  multicast  user space sends the text to the kernel's multicast group
and writes one JSON object: events (kind, address), ended (iteration after close), open_sockets (left after close).
Exit status 77: the namespace cannot be had, with the reason on standard error.
"""

import asyncio
import ctypes
import json
import os
import socket
import struct
import sys
from pathlib import Path

from aimd.adapters.uevents import UeventListener

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP = 1
NLMSG_MIN_TYPE = 0x10  # types below are control messages, which the kernel skips
NLM_F_REQUEST = 1
END_ADDRESS = "ffff:ff:1f.7"
END_MARK = f"bind@/end\0ACTION=bind\0DEVPATH=/end\0SUBSYSTEM=pci\0DRIVER=amdgpu\0PCI_SLOT_NAME={END_ADDRESS}\0"
UNAVAILABLE = 77


def enter_namespace():
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWUSER | CLONE_NEWNET
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        print(f"unshare({flags:#x}) as uid {os.geteuid()}: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        sys.exit(UNAVAILABLE)


def sender_socket():
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT)


def send_as_kernel(sender, text):
    payload = text.encode("latin-1")
    header = struct.pack("=IHHII", 16 + len(payload), NLMSG_MIN_TYPE, NLM_F_REQUEST, 0, 0)
    sender.sendto(header + payload, (0, 0))


def listening_ports():
    """Port ids of the sockets in this namespace that hear the kernel's uevents, the kernel's own (0) apart."""
    rows = [line.split() for line in Path("/proc/self/net/netlink").read_text().splitlines()[1:]]
    return [int(row[2]) for row in rows if int(row[1]) == NETLINK_KOBJECT_UEVENT and int(row[2]) and int(row[3], 16)]


def send(sender, how, text):
    if how == "kernel":
        send_as_kernel(sender, text)
    elif how == "flood":
        for _ in range(5000):
            send_as_kernel(sender, text)
    elif how == "unicast":
        (port,) = listening_ports()
        sender.sendto(text.encode("latin-1"), (port, 0))
    elif how == "multicast":
        sender.sendto(text.encode("latin-1"), (0, KERNEL_GROUP))
    else:
        raise ValueError(how)


async def heard_until_mark(listener, sender):
    """Everything up to the end mark, which a full buffer may swallow and which is therefore repeated until heard."""
    events = []
    for _ in range(6):
        send_as_kernel(sender, END_MARK)
        try:
            while True:
                event = await asyncio.wait_for(listener.__anext__(), timeout=0.5)
                if event.address == END_ADDRESS:
                    return events
                events.append([event.kind, event.address])
        except asyncio.TimeoutError:
            continue
    sys.exit(f"The listener is deaf: the end mark was not heard, only {events}.")


async def run(steps):
    listener = UeventListener()
    with sender_socket() as sender:
        for how, text in steps:
            send(sender, how, text)
        events = await heard_until_mark(listener, sender)
    rest = asyncio.ensure_future(rest_of(listener))
    await asyncio.sleep(0)  # it waits for an event when the listener is closed
    await listener.close()
    await listener.close()
    done, _ = await asyncio.wait([rest], timeout=5)
    ended = bool(done) and await rest_of(listener) == []
    return {"events": events, "ended": ended, "open_sockets": len(listening_ports())}


async def rest_of(listener):
    return [event async for event in listener]


if __name__ == "__main__":
    enter_namespace()
    print(json.dumps(asyncio.run(run(json.load(sys.stdin)))))
