"""A dispatch daemon for tests of its clients; another implementation is added to DAEMONS."""

import pytest

from tests.fakes.dispatch_daemon import DispatchDaemon

DAEMONS = {"fake": DispatchDaemon}


@pytest.fixture(params=sorted(DAEMONS))
def make_daemon(request, tmp_path):
    """Makes daemons that are started by the test and ended with it; options as DispatchDaemon has them."""
    made = []

    def make(*, start=True, **options):
        daemon = DAEMONS[request.param](tmp_path / "dispatch.sock", **options)
        made.append(daemon)
        return daemon.start() if start else daemon

    yield make
    for daemon in made:
        daemon.kill()


@pytest.fixture
def daemon(make_daemon):
    """One model, "llama", on one partition of two slots."""
    return make_daemon()
