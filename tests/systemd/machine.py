"""A machine: a Debian tree booted by systemd-nspawn, whose /sys shows the GPUs of a mounted simulation.

The simulation stands where a real /sys has its GPUs, so that the unit runs as it is shipped.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.systemd.tree import PROJECT, done

SECONDS = 30
SHOWN = ("class", "bus", "devices", "module")  # folders of the simulation that replace those of /sys
UNTIL_THE_TESTS_END = ("setpriv", "--pdeathsig=KILL")
NSPAWN = (
    *UNTIL_THE_TESTS_END,
    *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"),
    # Device rules are programs of the kernel's (BPF) where control groups are unified.
    *("--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", "--system-call-filter=bpf"),
)
PYTHON = "/opt/aimd/bin/python"


class Simulation:
    """`aimd sim mount` in a folder; `within` is how a command begins that runs in other namespaces."""

    def __init__(self, folder, model="mi300x:8", within=()):
        self.folder = folder / "sys"
        self.folder.mkdir(parents=True)
        environ = {**os.environ, "AIMD_SIM_SOCKET": str(folder / "sim.sock"), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-m", "aimd", "sim", "mount", str(self.folder), "--model", model]
        self._within = within
        inside = [*within, *UNTIL_THE_TESTS_END] if within else []  # what enters has the command as a child
        self._process = subprocess.Popen(
            [*UNTIL_THE_TESTS_END, *inside, *command], env=environ, stdout=subprocess.PIPE, text=True
        )
        assert "mounted on" in self._process.stdout.readline()

    def compute_mode(self, address):
        return (self.folder / "bus/pci/devices" / address / "current_compute_partition").read_text().strip()

    def close(self):
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(SECONDS)
        self._process.stdout.close()
        subprocess.run([*self._within, "umount", "-l", str(self.folder)], stderr=subprocess.DEVNULL, check=False)


class Machine:
    """Booted from a tree, which it does not change, until `close`."""

    def __init__(self, base, folder, simulation):
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self._mounted = _overlaid(base, folder, self.root)
        (self.root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        firstboot = self.root / "etc/systemd/system/systemd-firstboot.service"
        firstboot.unlink(missing_ok=True)
        firstboot.symlink_to("/dev/null")
        binds = [f"--bind={simulation.folder / name}:/sys/{name}" for name in SHOWN]
        self._console = (folder / "console").open("wb")
        self._nspawn = subprocess.Popen(
            [*NSPAWN, f"--machine=aimd-{os.getpid()}-{time.monotonic_ns()}", "-D", str(self.root), *binds],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
        )
        self.leader = None
        try:
            self.leader = until(self._child, "the machine does not start")
            until(lambda: self.run("systemctl", "is-system-running").stdout.strip() == "running", self._failed)
        except BaseException:
            self.close()
            raise

    def _child(self):
        """The machine's first process; nspawn has others before."""
        assert self._nspawn.poll() is None, Path(self._console.name).read_text()
        for pid in Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    return int(pid)
        return None

    def _failed(self):
        asked = self.run("systemctl", "is-system-running"), self.run("systemctl", "--failed")
        return f"not running: {asked}, console: {Path(self._console.name).read_text()}"

    def command(self, *words):
        """The command line that runs a command in the machine."""
        return ["nsenter", "-t", str(self.leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--", *words]

    def run(self, *words, timeout=SECONDS * 2, **more):
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/root"}
        return subprocess.run(
            self.command(*words), env=environ, capture_output=True, text=True, timeout=timeout, check=False, **more
        )

    def done(self, *words, **more):
        """Standard output of a command that has to succeed there."""
        result = self.run(*words, **more)
        assert result.returncode == 0, f"{words} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
        return result.stdout

    def as_user(self, *words):
        """Run as an ordinary user."""
        return self.run("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--", *words)

    def start(self, *words):
        """A process whose standard input and output are pipes."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*words), stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def put(self, source, target):
        """Copy a file into the machine."""
        shutil.copy(source, self.root / target.lstrip("/"))
        return target

    def install(self, package):
        self.put(package, "/root/aimd.deb")
        return self.done("dpkg", "--install", "/root/aimd.deb", timeout=120)

    # -- units -----------------------------------------------------------------------------------------------

    def show(self, unit, *names):
        """Properties of a unit."""
        text = self.done("systemctl", "show", unit, *(f"--property={name}" for name in names))
        return dict(line.split("=", 1) for line in text.splitlines())

    def main_pid(self):
        """Of the daemon, as the machine counts; 0 while none runs."""
        return int(self.show("aimd", "MainPID")["MainPID"])

    def active(self):
        return self.show("aimd", "ActiveState")["ActiveState"] == "active"

    def entries(self, *matches):
        """Of the journal."""
        text = self.done("journalctl", "-u", "aimd", "-o", "json", "--no-pager", *matches)
        return [json.loads(line) for line in text.splitlines()]

    def pid_here(self, pid):
        """What a process of the machine is called outside of it."""
        namespace = Path(f"/proc/{self.leader}/ns/pid").readlink()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if (folder / "ns/pid").readlink() != namespace:
                    continue
                numbers = re.search(r"^NSpid:\s*(.*)$", (folder / "status").read_text(), re.MULTILINE)[1].split()
            except (OSError, TypeError):
                continue
            if int(numbers[-1]) == pid:
                return int(folder.name)
        raise AssertionError(f"process {pid} of the machine is not there")

    def close(self):
        """At once, as by a power cut: what an orderly end is worth has tests of its own."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.leader or self._nspawn.pid, signal.SIGKILL)
        try:
            self._nspawn.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait(SECONDS)
        self._console.close()
        if self._mounted:
            subprocess.run(["umount", "-l", str(self.root)], check=False)
        shutil.rmtree(self.root.parent, ignore_errors=True)


def _overlaid(base, folder, root):
    """Show the tree at `root` so that changes go elsewhere; where overlays cannot be mounted, a copy, which gives False."""
    upper, work = folder / "upper", folder / "work"
    upper.mkdir()
    work.mkdir()
    layers = f"lowerdir={base},upperdir={upper},workdir={work}"
    command = ["mount", "-t", "overlay", "aimd-machine", "-o", layers, str(root)]
    if subprocess.run(command, capture_output=True, check=False).returncode == 0:
        return True
    done("cp", "-a", "--reflink=auto", f"{base}/.", root)
    return False


def until(condition, complaint, seconds=SECONDS):
    """What the condition gives once that is true; it is asked every hundredth of a second."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, complaint() if callable(complaint) else complaint
        time.sleep(0.01)
    return found
