"""The dispatch service of a running daemon: claims, switches, restarts, and kill -9 under load.

The normal run kills the daemon three times under 16 clients. Ten times under 200, for a minute:

    python -m pytest tests/integration/test_dispatch_running.py -m campaign
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from aimd.dispatch import Client
from aimd.dispatch.client import DrainingError, LeaseLostError, UnknownModelError
from tests.e2e.programs import ROOT, Daemon
from tests.integration.unix_http import ask

SLOTS = 16
NOBODY = 65534


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder whose sockets' paths are short enough."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def daemon(home: Path) -> Iterator[Daemon]:
    daemon = Daemon(home, "mi300x:1")
    daemon.start()
    yield daemon
    daemon.close()


def dispatch(daemon: Daemon) -> str:
    return str(daemon.runtime / "dispatch.sock")


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


def claim(daemon: Daemon, name: str, *options: str) -> None:
    done(daemon.aimctl("claim", name, "--memory", "8", *options))


def background(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "aimd.ctl", *arguments]
    return subprocess.Popen(
        command, env=daemon.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.02)


def test_a_claim_is_a_model_until_it_is_released(daemon: Daemon) -> None:
    claim(daemon, "llama", "--qos", "low", "--compute", "CPX")
    with Client(dispatch(daemon)) as client:
        with client.lease("llama", timeout=5) as lease:
            assert lease.partition.startswith("0000:05:00.0/")
            assert lease.klass.name == "LOW"
        with client.lease("llama", timeout=5, klass="high") as lease:
            assert lease.klass.name == "HIGH", "the daemon's own user is an operator"
        done(daemon.aimctl("release", "llama"))
        with pytest.raises(UnknownModelError):
            client.acquire("llama", timeout=5)
        claim(daemon, "llama")
        with client.lease("llama", timeout=5) as lease:
            assert lease.klass.name == "MEDIUM"


def test_guarantee_and_limit_are_those_of_the_claim(daemon: Daemon) -> None:
    claim(daemon, "llama", "--guarantee", "2", "--limit", "3")
    with Client(dispatch(daemon)) as client:
        leases = client.acquire_many("llama", 3, timeout=5)
        assert [lease.guaranteed for lease in leases] == [True, True, False]
        with pytest.raises(Exception, match="no slot is free now"):
            client.acquire("llama", no_wait=True)
        for lease in leases:
            lease.release()


def refused(client: Client) -> bool:
    try:
        client.acquire("llama", timeout=5).release()
    except DrainingError:
        return True
    return False


def test_a_switch_waits_for_leases_and_lets_nobody_in(daemon: Daemon) -> None:
    claim(daemon, "llama", "--compute", "SPX")
    with Client(dispatch(daemon)) as client:
        lease = client.acquire("llama", timeout=5)
        switch = background(daemon, "set-mode", "gpu0", "CPX/NPS1", "--drain", "--wait", "20")
        until(lambda: daemon.get("gpus")["gpus"][0]["change"] is not None)
        until(lambda: refused(client))
        time.sleep(0.3)
        assert daemon.modes() == ["SPX/NPS1"]
        lease.release()
        assert switch.wait(20) == 0, switch.communicate()
        assert daemon.modes() == ["CPX/NPS1"]


def test_a_switch_that_a_lease_outlives_is_refused_with_its_process(daemon: Daemon) -> None:
    claim(daemon, "llama")
    with Client(dispatch(daemon)) as client, client.lease("llama", timeout=5):
        switch = daemon.aimctl("set-mode", "gpu0", "CPX/NPS1", "--drain", "--wait", "0.3")
        assert switch.returncode == 5, switch
        assert "requests are still running on GPU 0000:05:00.0" in switch.stderr + switch.stdout
        assert f"pid {os.getpid()}" in switch.stderr + switch.stdout
        assert daemon.modes() == ["SPX/NPS1"]
        client.acquire("llama", timeout=5).release()  # open again


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lease_outlives_the_daemon(daemon: Daemon, number: int) -> None:
    claim(daemon, "llama", "--limit", "2")
    with Client(dispatch(daemon)) as client:
        lease, other = client.acquire_many("llama", 2, timeout=5)
        daemon.stop(number)
        daemon.start()
        with Client(dispatch(daemon)) as second, pytest.raises(Exception, match="no slot is free now"):
            second.acquire("llama", no_wait=True)
        lease.release()
        lease = client.acquire("llama", timeout=5)
        assert not other.lost
        assert other.renew() > 0
        other.release()
        lease.release()


def test_a_process_that_ended_with_the_daemon_away_leaves_no_lease(daemon: Daemon, home: Path) -> None:
    claim(daemon, "llama", "--limit", "1")
    script = f"from aimd.dispatch import Client; c = Client({dispatch(daemon)!r}); c.acquire('llama'); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    daemon.stop(signal.SIGKILL)
    holder.kill()
    holder.communicate()
    daemon.start()
    with Client(dispatch(daemon)) as client:
        client.acquire("llama", no_wait=True).release()


def test_after_a_reboot_nothing_runs(daemon: Daemon, home: Path) -> None:
    claim(daemon, "llama", "--limit", "1")
    with Client(dispatch(daemon)) as client:
        lease = client.acquire("llama", timeout=5)
        done(daemon.aimd("sim", "reset"))
        daemon.stop(signal.SIGKILL)
        daemon.start()
        client.acquire("llama", timeout=5).release()
        with pytest.raises(LeaseLostError):
            lease.renew()


@pytest.mark.skipif(os.getuid() != 0, reason="another user's process is started by root only")
def test_another_user_needs_a_rule_and_gets_it_by_a_reload(home: Path) -> None:
    config = home / "aimd.toml"
    config.write_text("")
    daemon = Daemon(home, "mi300x:1", "--config", str(config))
    daemon.start()
    script = (
        f"import os; from aimd.dispatch import Client; from aimd.dispatch.client import UnauthorisedError\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY})\n"  # after the imports: it need not be able to read them
        f"with Client({dispatch(daemon)!r}) as c:\n"
        f"    for klass in ('high', 'medium', None):\n"
        f"        try: c.acquire('llama', timeout=5, klass=klass).release(); print('yes', end=' ')\n"
        f"        except UnauthorisedError: print('no', end=' ')\n"
    )

    def asked() -> str:
        command = [sys.executable, "-c", script]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        claim(daemon, "llama", "--qos", "high")
        assert asked() == "no no no"
        config.write_text(f'[[dispatch.allow]]\nuser = {NOBODY}\nmodels = ["ll*"]\nhighest = "medium"\n')
        done(daemon.aimctl("reload"))
        assert asked() == "no yes yes"
        config.write_text("")
        with Client(dispatch(daemon)) as client:
            client.acquire("llama", timeout=5).release()
            done(daemon.aimctl("reload"))
            client.acquire("llama", timeout=5).release()  # its handle was given under the old rules
        assert asked() == "no no no"
    finally:
        daemon.close()


def test_a_setting_that_a_partition_cannot_have_is_told_and_leaves_it_as_it_was(home: Path) -> None:
    config = home / "aimd.toml"
    config.write_text("")
    daemon = Daemon(home, "mi300x:1", "--config", str(config))
    daemon.start()
    try:
        claim(daemon, "llama", "--guarantee", "8")
        config.write_text("[placement]\nslots_per_partition = 4\n")
        told = daemon.aimctl("reload")
        assert told.returncode == 0
        assert "keeps partition 0000:05:00.0/0 as it was: guarantees come to 8 slots" in told.stderr
        answer = ask(daemon.socket, "/readyz")
        assert (answer.status, list(answer.json["failing"])) == (503, ["dispatch"])
        with Client(dispatch(daemon)) as client:
            for lease in client.acquire_many("llama", SLOTS, timeout=5):
                lease.release()
        config.write_text("")
        done(daemon.aimctl("reload"))
        assert ask(daemon.socket, "/readyz").status == 200
    finally:
        daemon.close()


# -- kill -9 under load --------------------------------------------------------------------------------------------


def start_clients(daemon: Daemon, home: Path, count: int, seconds: float) -> list[subprocess.Popen[str]]:
    program = (sys.executable, "-m", "tests.integration.lease_client")
    return [
        subprocess.Popen(
            [
                *program,
                dispatch(daemon),
                f"model-{number % 2}",
                str(seconds),
                str(number),
                str(home / f"record-{number}"),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]


def most_at_once(spans: list[tuple[int, int]]) -> int:
    """Most of the closed intervals that have an instant in common."""
    edges = sorted([(first, 1) for first, _ in spans] + [(last, -1) for _, last in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("clients", "seconds", "kills"), [(16, 6, 3), pytest.param(200, 60, 10, marks=pytest.mark.campaign)]
)
def test_killed_under_load(daemon: Daemon, home: Path, clients: int, seconds: float, kills: int) -> None:
    """Requests wait, no lease of a living client is lost, and the partition is never over its slots."""
    claim(daemon, "model-0", "--guarantee", "4")
    claim(daemon, "model-1")
    dice = random.Random(clients)
    processes = start_clients(daemon, home, clients, seconds)
    victims = processes[: clients // 4]
    for number in range(kills):
        time.sleep(seconds / (kills + 1) * dice.uniform(0.4, 1.0))
        if number < len(victims):
            victims[number].send_signal(signal.SIGKILL)
        daemon.stop(signal.SIGKILL)
        daemon.start()
    counts = [int(process.communicate(timeout=120)[0] or 0) for process in processes]
    records = [line for path in home.glob("record-*") for line in map(json.loads, path.read_text().splitlines())]
    wrong = [line for line in records if isinstance(line, str)]
    assert wrong == []
    spans = [(first, last) for _, first, last in (line for line in records if not isinstance(line, str))]
    assert len(spans) >= sum(counts)
    assert most_at_once(spans) <= SLOTS
    living = [count for count, process in zip(counts, processes, strict=True) if process.returncode == 0]
    assert len(living) >= clients - kills
    assert min(living) > 0
    with Client(dispatch(daemon)) as client:  # no slot has leaked
        for lease in client.acquire_many("model-0", SLOTS, timeout=10):
            lease.release()
