"""Models of a running daemon, with real leases: API and aimctl tell what the clients know, also after a restart."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aimd.dispatch.client import Client, ExpiredError
from tests.e2e.programs import AIMCTL, Daemon

SECONDS = 20
SLO = ("--slo-latency", "0.4", "--slo-objective", "0.9")
BUCKET = 1 / 64  # twice the error of a sketch


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        running = Daemon(Path(folder), "mi300x:1")
        try:
            running.start()
            yield running
        finally:
            running.close()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Client]:
    with Client(str(daemon.runtime / "dispatch.sock")) as client:
        yield client


def claim(daemon: Daemon, name: str, *options: str) -> None:
    assert daemon.aimctl("claim", name, "--memory", "12", *options).returncode == 0


def until(daemon: Daemon, name: str, condition: Callable[[Any], bool]) -> Any:
    """The model as soon as a sample shows what is waited for."""
    deadline = time.monotonic() + SECONDS
    while True:
        model = daemon.get("models", name)
        if model["traffic"] is not None and condition(model["traffic"]["whole"]):
            return model
        assert time.monotonic() < deadline, model
        time.sleep(0.1)


def granted(number: int) -> Callable[[Any], bool]:
    return lambda whole: whole["outcomes"].get("granted") == number and sum(whole["ends"].values()) == number


def test_what_clients_did_is_told(daemon: Daemon, client: Client) -> None:
    claim(daemon, "llama", "--qos", "high", "--guarantee", "4", "--limit", "8", *SLO)
    held = []
    for number in range(60):
        began = time.monotonic()
        with client.lease("llama", klass="high" if number % 2 else "low"):
            time.sleep(0.5 if number < 6 else 0.002)
        held.append(time.monotonic() - began)
    model = until(daemon, "llama", granted(60))
    whole, classes = model["traffic"]["whole"], model["traffic"]
    assert (whole["running"], whole["waiting"], whole["ends"]) == (0, 0, {"ok": 60})
    assert (whole["good"], whole["bad"]) == (54, 6)
    assert [classes[qos]["outcomes"] for qos in ("high", "medium", "low")] == [{"granted": 30}, {}, {"granted": 30}]
    slowest = sorted(held)[56]  # 95 % of 60
    assert 0.5 * (1 - BUCKET) <= whole["total"]["p95"] <= slowest * (1 + BUCKET)
    assert whole["total"]["p99"] <= max(held) * (1 + BUCKET)
    assert whole["total"]["count"] == whole["queue"]["count"] == whole["service"]["count"] == 60
    assert 0 < whole["grants_per_second"] <= 60 / sum(held)
    compliance = model["compliance"]
    assert (compliance["latency"], compliance["good_ratio"]) == ("met", 0.9)
    assert [burn["long"] for burn in compliance["burns"]] == [pytest.approx(1.0)] * 4
    [place] = model["partitions"]
    assert (place["partition_name"], place["guarantee"], place["limit"]) == ("gpu0/0", 4, 8)
    assert place["traffic"]["whole"] == whole


def test_queues_and_rejections(daemon: Daemon, client: Client) -> None:
    claim(daemon, "llama", "--qos", "high", "--limit", "2", *SLO)
    claim(daemon, "batch", "--qos", "low")
    first, second = client.acquire("llama"), client.acquire("llama")
    for _ in range(3):
        with pytest.raises(ExpiredError):
            client.acquire("llama", timeout=0.02)
    waiting = [threading.Thread(target=lambda: client.acquire("llama", timeout=60).release()) for _ in range(5)]
    for each in waiting:
        each.start()
    model = until(daemon, "llama", lambda whole: whole["waiting"] == 5)
    whole = model["traffic"]["whole"]
    assert (whole["running"], whole["outcomes"]) == (2, {"granted": 2, "expired": 3})
    assert whole["rejected_per_second"] > 0
    assert (whole["good"], whole["bad"]) == (0, 3)
    header, llama, batch = daemon.aimctl("top").stdout.splitlines()
    assert header.split()[:5] == ["MODEL", "QOS", "RUNNING", "WAITING", "HI/MED/LO"]
    assert llama.split()[:5] == ["llama", "high", "2/16", "5", "5/0/0"]
    assert batch.split()[:5] == ["batch", "low", "0/16", "0", "0/0/0"]
    told = daemon.aimctl("describe", "model", "llama").stdout
    assert "Outcomes:            granted 2, expired 3\n" in told
    first.release()
    second.release()
    for each in waiting:
        each.join()
    model = until(daemon, "llama", granted(7))
    assert model["traffic"]["whole"]["queue"]["p50"] > 0.02


def test_a_watch_shows_the_traffic(daemon: Daemon, client: Client) -> None:
    claim(daemon, "llama")
    watch = subprocess.Popen(
        [*AIMCTL, "get", "models", "--watch", "-o", "json"], env=daemon.environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["type"] == "ADDED"
        with client.lease("llama"):
            for line in watch.stdout:
                change = json.loads(line)
                traffic = change["object"]["traffic"]
                if traffic is not None and traffic["whole"]["running"] == 1:
                    break
        assert change["type"] == "MODIFIED"
        lines = daemon.aimctl("top", "-o", "json", "--once").stdout.splitlines()
        assert [json.loads(line)["models"][0]["name"] for line in lines] == ["llama"]
    finally:
        watch.send_signal(signal.SIGINT)
        assert watch.wait(SECONDS) == 130
        watch.stdout.close()


def test_a_restart_begins_anew_and_says_so(daemon: Daemon, client: Client) -> None:
    claim(daemon, "llama", *SLO)
    for _ in range(30):
        client.acquire("llama").release()
    lease = client.acquire("llama")
    before = until(daemon, "llama", lambda whole: whole["outcomes"] == {"granted": 31})
    sample = daemon.get("models")["sample"]
    daemon.stop(signal.SIGKILL)
    daemon.start()
    restarted = time.time()
    after = until(daemon, "llama", lambda whole: whole["running"] == 1)
    assert after["traffic"]["whole"]["outcomes"] == {}
    assert before["traffic"]["since"] < restarted - 1 < after["traffic"]["since"]
    assert [burn["long"] for burn in after["compliance"]["burns"]] == [None] * 4
    assert (after["compliance"]["good_ratio"], after["compliance"]["latency"]) == (None, "unknown")
    assert daemon.get("models")["sample"] > sample
    lease.release()
    until(daemon, "llama", lambda whole: whole["ends"] == {"ok": 1})


def test_a_mode_switch_keeps_the_model_and_begins_its_partitions(daemon: Daemon, client: Client) -> None:
    claim(daemon, "llama", *SLO)
    for _ in range(25):
        client.acquire("llama").release()
    until(daemon, "llama", granted(25))
    assert daemon.aimctl("set-mode", "gpu0", "CPX/NPS1", "--drain").returncode == 0
    client.acquire("llama").release()
    model = until(daemon, "llama", granted(26))
    [place] = model["partitions"]
    assert place["traffic"]["whole"]["outcomes"] == {"granted": 1}
    assert place["traffic"]["since"] > model["traffic"]["since"]
    assert (model["compliance"]["latency"], place["compliance"]["latency"]) == ("met", "unknown")
