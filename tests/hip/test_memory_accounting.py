"""Memory from a real process's hipMalloc to account, finding, event, metric and what the policy does: the whole daemon."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aimd.dispatch import Client
from aimd.dispatch.client import QueueFullError
from tests.e2e.programs import Daemon
from tests.hip.simulated import client
from tests.integration.unix_http import ask

GIB = 1 << 30
PARTITION = 25767706624
RESERVED = PARTITION // 2  # 12 of 24 GB
# A model server that allocates and gives back what it is told to; it says when that is done.
SERVER = """
import ctypes, os, sys
hip = ctypes.CDLL(sys.argv[1])
assert hip.hipSetDevice(0) == 0
print(os.getpid(), flush=True)
blocks = []
for line in sys.stdin:
    size = int(line)
    if size:
        blocks.append(ctypes.c_void_p())
        assert hip.hipMalloc(ctypes.byref(blocks[-1]), ctypes.c_size_t(size)) == 0
    else:
        assert hip.hipFree(blocks.pop()) == 0
    print("done", flush=True)
"""


@pytest.fixture
def start(stubs) -> Iterator[Callable[..., Daemon]]:
    """Starts a daemon that looks often; `policy` is on_memory_overrun."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        home, daemons = Path(folder), []

        def started(policy: str) -> Daemon:
            settings = {"hip_library": str(stubs.build()), "on_memory_overrun": policy, "probe_seconds": 0.2}
            settings |= {"poll_seconds": 0.1, "memory_overrun_seconds": 0.6}
            path = home / "aimd.toml"
            path.write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))
            daemons.append(Daemon(home, "mi300x:1", "--config", str(path)))
            daemons[-1].start()
            return daemons[-1]

        yield started
        for daemon in daemons:
            daemon.close()


class Server:
    """The process, as holder of the claim `llama`."""

    def __init__(self, daemon: Daemon, library: Path) -> None:
        command = [sys.executable, "-m", "aimd.ctl", "exec", "llama", "--", sys.executable, "-c", SERVER, str(library)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=daemon.environment, **pipes)
        self.pid = int(self._process.stdout.readline())

    def _say(self, size: int) -> None:
        self._process.stdin.write(f"{size}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def allocate(self, size: int) -> None:
        self._say(size)

    def give_back(self) -> None:
        self._say(0)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


@pytest.fixture
def serve(stubs) -> Iterator[Callable[[Daemon], Server]]:
    servers = []

    def started(daemon: Daemon) -> Server:
        claimed = daemon.aimctl("claim", "llama", "--memory", "12", "--compute", "CPX")
        assert claimed.returncode == 0, claimed.stderr
        servers.append(Server(daemon, stubs.build()))
        return servers[-1]

    yield started
    for server in servers:
        server.close()


def eventually(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return value


def leased(daemon: Daemon) -> bool:
    """Whether the model gets a lease."""
    with Client(str(daemon.runtime / "dispatch.sock")) as asking:
        try:
            with asking.lease("llama", timeout=5):
                return True
        except QueueFullError as error:
            return "more memory than it was given" not in str(error)


def kinds(daemon: Daemon) -> list[str]:
    return [event["kind"] for event in daemon.get("events")["events"] if event["kind"].startswith("memory_")]


def metrics(daemon: Daemon) -> str:
    return ask(daemon.runtime / "metrics.sock", "/metrics").body.decode()


def test_the_account_of_a_partition(start, serve, stubs) -> None:
    daemon = start("report")
    server = serve(daemon)
    server.allocate(10 * GIB + 1)
    environment = {"HIP_VISIBLE_DEVICES": "0"}
    with client(stubs.build(), Path(daemon.environment["AIMD_SIM_SOCKET"]), f"0:{GIB}", **environment) as stranger:
        used = 11 * GIB + 4096

        def probed() -> Any:
            found = daemon.get("partitions", "gpu0", "0")
            return found if found["free_used_bytes"] == found["used_bytes"] == used else None

        found = eventually(probed)
        wide = daemon.aimctl("get", "partitions", "-o", "wide").stdout
        described = daemon.aimctl("describe", "partition", "gpu0/0").stdout
    assert (found["memory_bytes"], found["reserved_bytes"]) == (PARTITION, RESERVED)
    assert found["unattributed_bytes"] == GIB
    assert found["claims"] == [{"claim": "llama", "reserved_bytes": RESERVED, "used_bytes": 10 * GIB + 4096}]
    assert {(each["pid"], each["claim"]) for each in found["processes"]} == {
        (server.pid, "llama"),
        (stranger.pid, None),
    }
    kept = PARTITION - used - found["free_bytes"]
    assert kept == found["page_tables_bytes"] + found["pins_bytes"] + found["rounding_bytes"]
    assert found["page_tables_bytes"] == (2048 * GIB + 206141652992) >> 14
    assert 0 <= found["rounding_bytes"] < 3 * (2 << 20)
    assert 0 <= found["estimated_free_bytes"] - found["free_bytes"] < 2 << 20
    assert found["memory_findings"] == []
    assert " 11.00 GiB   1.00 GiB " in wide
    assert f"{stranger.pid}" in described
    assert "10.00 GiB   llama/0" in described


@pytest.mark.parametrize("policy", ["report", "deny-new-leases"])
def test_a_claim_over_its_limit_and_back(start, serve, policy: str) -> None:
    daemon = start(policy)
    server = serve(daemon)
    server.allocate(10 * GIB)
    assert leased(daemon)
    server.allocate(3 * GIB)
    (finding,) = eventually(lambda: daemon.get("findings")["findings"])
    assert (finding["kind"], finding["partition_name"], finding["claim"]) == ("over-limit", "gpu0/0", "llama")
    assert finding["denied"] == (policy == "deny-new-leases")
    assert kinds(daemon) == ["memory_over_limit"]
    assert leased(daemon) == (policy == "report")
    told = daemon.aimctl("doctor").stdout
    assert "warn  gpu0/0: claim llama uses 13.000 GiB of 0000:05:00.0/0, where it has 11.999 GiB reserved" in told
    assert "memory by HIP: read" in told
    assert 'aim_gpu_partition_memory_finding{gpu_id="0000:05:00.0",partition_id="0",kind="over-limit"' in metrics(
        daemon
    )
    server.give_back()
    eventually(lambda: not daemon.get("findings")["findings"])
    assert kinds(daemon) == ["memory_over_limit", "memory_within_limit"]
    eventually(lambda: leased(daemon))
    assert "aim_gpu_partition_memory_finding{" not in metrics(daemon)


def test_a_peak_is_not_told(start, serve) -> None:
    daemon = start("deny-new-leases")
    server = serve(daemon)
    for _ in range(3):
        server.allocate(13 * GIB)
        time.sleep(0.2)
        server.give_back()
        time.sleep(0.2)
    assert daemon.get("findings")["findings"] == []
    assert leased(daemon)
    assert kinds(daemon) == []
