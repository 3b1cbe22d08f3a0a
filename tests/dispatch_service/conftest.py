"""Hosts and raw clients that end with their test; at the end nothing of them may be left in the server."""

import threading

import pytest

from tests.dispatch_service.hosting import Host
from tests.dispatch_service.puppet import Puppet
from tests.dispatch_service.talking import Talk


@pytest.fixture
def make_host(tmp_path):
    """Makes servers; options as Host has them."""
    made = []

    def make(folder=tmp_path, *, start=True, **options):
        host = Host(folder, **options)
        made.append(host)
        return host.start() if start else host

    yield make
    for host in made:
        if hasattr(host.server, "_raw"):
            host.close()


@pytest.fixture
def host(make_host):
    """One model, "llama", on one partition of two slots."""
    return make_host()


@pytest.fixture
def make_puppet():
    """Makes processes that do what they are told."""
    made = []

    def make(**options):
        made.append(Puppet(**options))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def talk(host):
    """Makes clients of `host`."""
    made, before = [], threading.active_count()  # other files' fixtures may have threads in this process

    def make(**options):
        made.append(Talk(host.path, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
    host.until(lambda numbers: numbers["connections"] == 0)
    assert threading.active_count() < before + 10
