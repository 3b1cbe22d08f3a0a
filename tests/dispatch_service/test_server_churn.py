"""Processes that acquire, release, cancel, exit and are killed at random: T1, T6, T7, and no slot is leaked.

Two hundred for a minute: `pytest -m campaign tests/dispatch_service/test_server_churn.py`.
"""

import json
import subprocess
import sys
import time

import pytest

from aimd.dispatch import End, ModelConfig, Outcome, PartitionConfig
from tests.dispatch_service.churn import CAPACITY
from tests.dispatch_service.hosting import descriptors
from tests.dispatch_service.puppet import PROJECT

CONFIG = PartitionConfig((ModelConfig(0), ModelConfig(1, guarantee=2, limit=5)), capacity=CAPACITY)


def churn(make_host, count, seconds, seed):
    host = make_host(partitions={0: CONFIG}, names={"llama": (0, 0), "sure": (0, 1)})
    host.numbers()
    before = descriptors()
    command = [sys.executable, "-m", "tests.dispatch_service.churn", str(host.path), *map(str, (count, seconds, seed))]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            place = host.server.snapshot().partitions[0]
            assert place.running <= CAPACITY
            assert place.models[1].running <= (5, 5, 5)
            assert sum(place.models[1].running) <= 5
            host.check_balance()
            time.sleep(0.01)
        told = json.loads(process.stdout.read())
    print(told)
    assert told["over"] == told["early"] == told["wrong"] == 0
    assert told["samples"] > seconds * 10
    assert told["most"] >= CAPACITY - 2
    assert told["killed"] > seconds
    host.until_empty()
    assert host.server.busy(0) == (0, 0)
    assert host.numbers()["mirrored"] == 0
    acquires, grants = host.check_balance()
    assert told["answers"] <= acquires <= told["acquires"]
    assert grants > seconds * 100
    model = host.model()
    assert sum(ends[End.LOST] for ends in model.ends)
    assert sum(one[Outcome.EXPIRED] for one in model.outcomes)
    assert descriptors() - before <= 1  # one: the thread that answers may not have begun
    assert host.numbers()["faults"] == host.numbers()["given_up"] == 0


def test_forty_processes(make_host):
    churn(make_host, 40, 4, seed=1)


@pytest.mark.campaign
@pytest.mark.timeout(0)
def test_two_hundred_processes(make_host):
    churn(make_host, 200, 60, seed=2)
