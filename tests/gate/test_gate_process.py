"""`aimctl gate` as people run it: a process with options, signals and exit codes."""

import http.client
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.programs import AIMCTL, ROOT, Daemon

SECONDS = 20


class SlowModel(BaseHTTPRequestHandler):
    """GET /N answers after N seconds."""

    def do_GET(self):
        time.sleep(float(self.path.strip("/") or 0))
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_):
        pass


class GateProcess:
    def __init__(self, *options, environment=None):
        self.process = subprocess.Popen(
            [*AIMCTL, "gate", *options],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stderr, selectors.EVENT_READ)
            assert selector.select(SECONDS), "the gate says nothing"
        self.line = self.process.stderr.readline()
        assert self.line.startswith("aimd gate is ready"), self.line + self.process.stderr.read()
        self.origin = re.search(r"http://\S+", self.line).group()
        return self

    def get(self, path):
        """Status and body."""
        try:
            with urllib.request.urlopen(self.origin + path, timeout=SECONDS) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(SECONDS)


@pytest.fixture
def model():
    with ThreadingHTTPServer(("127.0.0.1", 0), SlowModel) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def make_gate(dispatcher, model):
    made = []

    def make(*options, **more):
        upstream, path = ("--upstream", model), ("--dispatch-socket", str(dispatcher.path))
        made.append(GateProcess("--model", "llama", *upstream, *path, "--listen", "127.0.0.1:0", *options, **more))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.wait()
        each.process.stderr.close()


def answers(gate, path, into):
    thread = threading.Thread(target=lambda: into.append(gate.get(path)))
    thread.start()
    return thread


def ask_in_vain(gate, path):
    with pytest.raises((OSError, http.client.HTTPException)):
        gate.get(path)


def test_sigterm_lets_end_what_runs_and_refuses_what_is_new(make_gate, dispatcher):
    gate = make_gate().ready()
    assert gate.get("/") == (200, b"done")
    told = []
    running = [answers(gate, "/1.5", told) for _ in range(3)]  # two run, one waits
    dispatcher.until(lambda: dispatcher.running() == 2 and dispatcher.waiting() == 1)
    gate.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 5
    while (late := gate.get("/"))[0] == 200 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert late[0] == 503
    assert b'"code": "gate_draining"' in late[1]
    status, health = gate.get("/.aim/healthz")
    assert status == 503
    assert b'"status": "draining"' in health
    for each in running:
        each.join()
    assert told == [(200, b"done")] * 3
    assert gate.process.wait(SECONDS) == 0
    dispatcher.until_idle()


@pytest.mark.parametrize("second", [False, True])
def test_patience_after_sigterm_has_an_end(make_gate, dispatcher, second):
    gate = make_gate("--drain-timeout", "30" if second else "0.3").ready()
    told = []
    running = answers(gate, "/10", told)
    dispatcher.until(lambda: dispatcher.running() == 1)
    began = time.monotonic()
    gate.process.send_signal(signal.SIGTERM)
    if second:
        time.sleep(0.3)
        gate.process.send_signal(signal.SIGTERM)
    assert gate.process.wait(SECONDS) == 0
    assert time.monotonic() - began < 5
    running.join()
    assert told[0][0] == 503
    assert b'"code": "gate_draining"' in told[0][1]
    dispatcher.until_idle()


def test_gate_that_is_killed_leaves_nothing(make_gate, dispatcher):
    gate = make_gate().ready()
    for _ in range(3):
        threading.Thread(target=ask_in_vain, args=(gate, "/3"), daemon=True).start()
    dispatcher.until(lambda: dispatcher.running() == 2 and dispatcher.waiting() == 1)
    gate.end(signal.SIGKILL)
    dispatcher.until_idle()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--listen", "nowhere"), "listen address 'nowhere' is none"),
        (("--listen", "::1:80"), "listen address"),
        (("--listen", ":99999"), "listen address"),
        (("--upstream", "ftp://x"), "is no URL"),
        (("--upstream", "http://u@x"), "user"),
        (("--upstream", "unix:relative"), "absolute path"),
        (("--fail", "sometimes"), "'sometimes' is not one of"),
        (("--listen", "192.0.2.1:80"), "cannot listen on 192.0.2.1:80"),
    ],
)
def test_wrong_options_are_told(make_gate, options, said):
    gate = make_gate(*options)
    _, text = gate.process.communicate(timeout=SECONDS)
    assert said in text
    assert gate.process.returncode == 2
    assert "Traceback" not in text


def test_address_in_use_is_told(make_gate):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        gate = make_gate("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
        _, text = gate.process.communicate(timeout=SECONDS)
    assert "Address already in use" in text
    assert gate.process.returncode == 2


def test_unix_socket_in_use_is_not_stolen(make_gate, tmp_path):
    path = tmp_path / "gate.sock"
    make_gate("--listen", f"unix:{path}").ready()
    gate = make_gate("--listen", f"unix:{path}")
    _, text = gate.process.communicate(timeout=SECONDS)
    assert "somebody listens" in text
    assert gate.process.returncode == 5


def test_model_may_come_from_the_environment_of_the_claim(model):
    gate = GateProcess(
        "--upstream", model, "--listen", "127.0.0.1:0", environment={"AIM_CLAIM": "other", "AIMD_DISPATCH_SOCKET": "/x"}
    ).ready()
    assert "model other" in gate.line
    assert gate.end() == 0
    gate.process.stderr.close()


def test_aimctl_does_not_load_the_gate_for_its_help():
    program = """
import sys
from aimd.ctl.main import program
try:
    program(["gate", "--help"], prog_name="aimctl")
except SystemExit:
    print([name for name in ("aiohttp", "asyncio", "aimd.dispatch.gate.server") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_with_a_whole_daemon_that_is_killed_in_the_middle(model, tmp_path):
    daemon = Daemon(tmp_path, "mi300x:1")
    daemon.start()
    gate = None
    try:
        assert daemon.aimctl("claim", "llama", "--memory", "1").returncode == 0
        socket_path = {"AIMD_DISPATCH_SOCKET": str(daemon.runtime / "dispatch.sock")}
        gate = GateProcess(
            "--model", "llama", "--upstream", model, "--listen", "127.0.0.1:0", "--patience", "20",
            environment=socket_path,
        ).ready()  # fmt: skip
        assert gate.get("/") == (200, b"done")
        told = []
        running = [answers(gate, "/1", told) for _ in range(20)]  # sixteen run, four wait
        time.sleep(0.3)
        daemon.stop(signal.SIGKILL)
        daemon.start()
        for each in running:
            each.join()
        assert told == [(200, b"done")] * 20
        assert gate.end() == 0
    finally:
        daemon.close()
        if gate is not None:
            gate.process.kill()
            gate.process.wait()
            gate.process.stderr.close()
