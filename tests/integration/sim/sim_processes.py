"""Real processes around a simulated node: KFD clients, and a mount by the real command."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

from aimd.sim.client import SimClient

COMMAND = (sys.executable, "-c", "from aimd.sim.commands import sim; sim()")


def eventually(condition, seconds=10.0):
    """Wait until the condition holds; fails by its last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(0.005)
    return value


def open_to_all(path):
    """Let other users reach a temporary folder, which pytest makes private."""
    for folder in (path, *path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and str(folder) != tempfile.gettempdir():
            folder.chmod(0o755)


def unmount(root):
    if os.getuid() == 0:
        subprocess.run(["umount", "-l", str(root)], check=True)
    else:
        subprocess.run(["fusermount3", "-uz", str(root)], check=True)


@contextmanager
def kfd_client(socket, *gpus):
    """A real process that has joined and sleeps; killed at the end."""
    options = [word for gpu in gpus for word in ("--gpu", gpu)]
    child = subprocess.Popen([*COMMAND, "hold", "--socket", str(socket), *options], stdout=subprocess.PIPE)
    try:
        assert b"is a KFD client" in child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


class Mount:
    """A mounted simulated /sys and the process that serves it."""

    def __init__(self, root, socket, process):
        self.root = root
        self.socket = socket
        self.process = process

    def device(self, name, gpu="0000:05:00.0"):
        return f"{self.root}/bus/pci/devices/{gpu}/{name}"

    @property
    def mode_file(self):
        return self.device("current_compute_partition")

    def client(self):
        return SimClient(self.socket)


@contextmanager
def mounted(directory, *options):
    """`aimd sim mount` with these options, as a process of its own."""
    directory = Path(directory)
    root, socket = directory / "sys", directory / "sim.sock"
    root.mkdir()
    process = subprocess.Popen(
        [*COMMAND, "mount", str(root), "--socket", str(socket), *options], stdout=subprocess.PIPE, text=True
    )
    try:
        line = process.stdout.readline()
        assert line.endswith(f" mounted on {root}, control socket {socket}\n"), line
        yield Mount(root, socket, process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        with suppress(OSError, subprocess.CalledProcessError):
            if os.path.ismount(root):
                unmount(root)
