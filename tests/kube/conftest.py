"""A fake API server per test, and the adapter before it with little patience."""

import contextlib
from functools import partial

import pytest

from aimd.adapters.kube import access, resources
from aimd.adapters.kube.connection import Connection
from aimd.adapters.kube.patience import Patience
from aimd.adapters.kube.pods import pod as read_pod
from aimd.adapters.kube.reflector import Reflector
from tests.fakes.kube_api import FakeApi

QUICK = Patience(
    connect=1.0, answer=0.5, silence=0.5, watch=(60.0, 60.0), first=0.02, longest=0.1, healthy=30.0, conflict=0.005
)


@pytest.fixture
def api():
    server = FakeApi()
    yield server
    server.close()


@pytest.fixture
def connect(api, tmp_path):
    """A function that gives a connection; `token` as for FakeApi.kubeconfig."""
    with contextlib.ExitStack() as ends:

        def make(token="first", patience=QUICK):
            path = api.kubeconfig(tmp_path, token)
            connection = Connection(partial(access.of_kubeconfig, path), "aimd/test", patience)
            ends.callback(connection.close)
            return connection

        yield make


@pytest.fixture
def reflect(connect):
    """A function that starts a reflector of the pods of node a; it ends with the test."""
    with contextlib.ExitStack() as ends:

        def make(on_change=lambda: None, *, patience=QUICK, connection=None, target=None, **more):
            reflector = Reflector(
                connection or connect(patience=patience),
                target or resources.pods(),
                "spec.nodeName=a",
                read_pod,
                patience,
                **more,
            )
            reflector.start(on_change)
            ends.callback(reflector.close)
            return reflector

        yield make
