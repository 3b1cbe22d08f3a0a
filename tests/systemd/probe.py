"""Runs in the unit's sandbox instead of the daemon: tries what the daemon must not be able to do, and what it must.

Prints one line of JSON: {attempt: errno's name, or "done"}.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
from pathlib import Path

GPU = "/sys/bus/pci/devices/0000:05:00.0"
EXEC_ANON = (0x7, 0x22)  # PROT_READ|WRITE|EXEC, MAP_PRIVATE|ANONYMOUS
PTRACE_ATTACH = 16
CLONE_NEWUSER = 0x10000000

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p


def call(name, *arguments):
    """A function of libc that returns -1 and sets errno."""
    if getattr(libc, name)(*arguments) in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), name)


def write(path, text="x", flags=os.O_WRONLY | os.O_CREAT):
    descriptor = os.open(path, flags, 0o644)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def bound(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
    Path(path).unlink()


def uevents():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE + 15) as listener:
        listener.bind((0, 1))


def of(family, kind=socket.SOCK_STREAM):
    socket.socket(family, kind).close()


def credential():
    """The file itself, not the empty one that stands in for it."""
    if not Path(os.environ["CREDENTIALS_DIRECTORY"], "kubeconfig").read_text().strip():
        raise OSError(errno.ENODATA, "it is empty")


def local_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname()):
            pass


def made_executable():
    with mmap.mmap(-1, 4096) as area:
        address = ctypes.addressof(ctypes.c_char.from_buffer(area))
        call("mprotect", ctypes.c_void_p(address), 4096, 0x5)


ATTEMPTS = {
    "write /etc": lambda: write("/etc/probe"),
    "write /usr": lambda: write("/usr/probe"),
    "write /opt/aimd": lambda: write("/opt/aimd/probe"),
    "write /proc/sys": lambda: write("/proc/sys/kernel/panic", "0", os.O_WRONLY),
    "write a control group": lambda: write("/sys/fs/cgroup/cgroup.procs", "1", os.O_WRONLY),
    "see /home": lambda: os.listdir("/home"),  # noqa: PTH208 - iterdir is lazy
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "ptrace": lambda: call("ptrace", PTRACE_ATTACH, 1, None, None),
    "load a module": lambda: call("syscall", 175, None, 0, b""),
    "writable and executable memory": lambda: call("mmap", None, 4096, *EXEC_ANON, -1, 0),
    "executable memory that was written": made_executable,
    "a user namespace": lambda: call("unshare", CLONE_NEWUSER),
    "become root": lambda: os.setuid(0),
    "a packet socket": lambda: of(socket.AF_PACKET, socket.SOCK_RAW),
    "set the clock": lambda: call("settimeofday", ctypes.create_string_buffer(16), None),
    "make a device": lambda: os.mknod("/var/lib/aimd/null", 0o20600, os.makedev(1, 3)),
    "a set-user-id file": lambda: Path("/var/lib/aimd/mark").chmod(0o4755),
    "real-time scheduling": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "another device": lambda: os.close(os.open("/dev/other", os.O_RDWR)),
    "/dev/kfd": lambda: os.close(os.open("/dev/kfd", os.O_RDWR)),
    "write state": lambda: write("/var/lib/aimd/mark"),
    "write the runtime directory": lambda: write("/run/aimd/mark"),
    "bind a socket": lambda: bound("/run/aimd/probe.sock"),
    "write a partition file": lambda: write(
        f"{GPU}/current_compute_partition", Path(f"{GPU}/current_compute_partition").read_text().strip(), os.O_WRONLY
    ),
    "write another file of a GPU": lambda: write(f"{GPU}/uevent", "add", os.O_WRONLY),
    "hear uevents": uevents,
    "a local TCP port": local_port,
    "see other processes": lambda: Path("/proc/1/cmdline").read_bytes(),
    "watch another process": lambda: os.close(os.pidfd_open(1)),
    "read a credential": credential,
}


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"


json.dump({"probe": {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}}, sys.stdout)
sys.stdout.write("\n")
