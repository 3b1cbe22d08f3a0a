"""The dispatch thread tells that it turns, and only while it does."""

import time

from tests.dispatch_service.hosting import Host
from tests.dispatch_service.talking import PATIENCE


def test_a_beat_comes_when_it_is_asked_for(tmp_path):
    host = Host(tmp_path).start()
    try:
        for _ in range(3):
            before = host.server.beats
            time.sleep(0.01)
            assert host.server.beats == before  # nobody asked
            host.server.ask_beat()
            until = time.monotonic() + PATIENCE
            while host.server.beats == before:
                assert time.monotonic() < until
                time.sleep(0.001)
    finally:
        host.close()


def test_a_thread_that_does_not_serve_does_not_beat(tmp_path):
    host = Host(tmp_path, answering=False)
    host.server.ask_beat()
    time.sleep(0.05)
    assert host.server.beats == 0
    host.start()
    host.close()
