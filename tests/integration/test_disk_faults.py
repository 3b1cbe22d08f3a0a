"""A disk that is full, read-only or broken: the daemon says one clear sentence, or waits, and acknowledges nothing.

A tiny tmpfs is really full; errno EIO, EROFS and ENOSPC of single system calls come from disk_faults.c, preloaded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aimd.adapters.ledger import SqliteLedger
from aimd.daemon.wiring import directories
from aimd.errors import InvalidInputError
from aimd.rundirs import RunDirectories
from tests.e2e.programs import Daemon
from tests.integration.unix_http import ask

SOURCE = Path(__file__).with_name("disk_faults.c")
CLAIM = {"memory_gb": 12, "compute_mode": "SPX"}


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder whose sockets' paths are short enough."""
    with tempfile.TemporaryDirectory(prefix="aimd-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("faults") / "disk_faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE, "-ldl"], check=True)
    return library


class Faulty:
    """A daemon with the library, and the switch for its faults."""

    def __init__(self, home: Path, library: Path) -> None:
        self.daemon = Daemon(home, "mi300x:1")
        self.control = home / "faults"
        self.daemon.environment |= {"LD_PRELOAD": str(library), "AIMD_FAULTS": str(self.control)}

    def fail(self, code: int, *calls: str) -> None:
        self.control.write_text(f"{code} {' '.join(calls)}")

    def heal(self) -> None:
        self.control.write_text("")


def claim(daemon: Daemon, name: str) -> int:
    return ask(daemon.socket, f"/v1/claims/{name}", "PUT", CLAIM).status


def claims(daemon: Daemon) -> list[str]:
    return [each["name"] for each in ask(daemon.socket, "/v1/claims").json["claims"]]


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def refusal_to_start(daemon: Daemon) -> str:
    """What the program says when it does not start: a sentence, a hint, and no traceback."""
    result = subprocess.run(daemon._command, env=daemon.environment, capture_output=True, text=True, timeout=30)
    assert result.returncode in (1, 2), result.stderr
    told = [line for line in result.stderr.splitlines() if not line.startswith(("INFO", "WARNING"))]
    assert "Traceback" not in result.stderr
    assert len([line for line in told if line.startswith("error: ")]) == 1, result.stderr
    assert len(told) <= 2, result.stderr
    return told[0]


def outage(daemon: Daemon, begin: Callable[[], object], finish: Callable[[], None]) -> None:
    """Requests during it are not acknowledged, reads go on; afterwards all is as before, and nothing was lost."""
    assert claim(daemon, "before") in (200, 201)
    begin()
    refused = ask(daemon.socket, "/v1/claims/during", "PUT", CLAIM)
    assert refused.status >= 500, refused.body
    problem = refused.json
    assert problem["code"] == "ledger"
    assert "ledger" in problem["detail"]
    assert problem["hint"]
    assert ask(daemon.socket, "/v1/claims/later", "PUT", CLAIM).status >= 500
    assert ask(daemon.socket, "/v1/claims/before", "DELETE").status >= 500
    began = time.monotonic()
    assert "during" not in claims(daemon), "what is not durable is not shown"
    assert "before" in claims(daemon)
    for path in ("gpus", "partitions", "plans", "node"):
        assert ask(daemon.socket, f"/v1/{path}").status == 200
    assert time.monotonic() - began < 2, "reads do not wait for the disk"
    finish()
    assert within(15, lambda: claim(daemon, "after") in (200, 201)), daemon.log
    assert {"before", "after"} <= set(claims(daemon))
    assert "Traceback" not in daemon.log


def survives_a_kill(daemon: Daemon) -> None:
    """What was acknowledged is there in the next life, and the ledger is whole."""
    shown = claims(daemon)
    daemon.stop(signal.SIGKILL)
    daemon.environment.pop("LD_PRELOAD", None)
    daemon.start()
    assert claims(daemon) == shown
    assert daemon.stop() == 0
    assert not list(daemon.state.glob("ledger.db.bad*"))
    ledger = SqliteLedger(daemon.state / "ledger.db", 0.0)
    kinds = {event.kind for event in ledger.events(limit=10_000)}
    ledger.close()
    assert not any(kind.startswith("ledger_") for kind in kinds), kinds


# -- single calls that fail --------------------------------------------------------------------------------------------

OUTAGES = [
    (errno.EIO, ("pwrite",)),
    (errno.EIO, ("fsync",)),
    (errno.ENOSPC, ("pwrite", "write")),
    (errno.EROFS, ("pwrite", "write", "fsync")),
]


@pytest.mark.parametrize(("code", "calls"), OUTAGES, ids=[f"{errno.errorcode[c]}-{'+'.join(n)}" for c, n in OUTAGES])
def test_a_disk_that_fails_for_a_while(home: Path, faults: Path, code: int, calls: tuple[str, ...]) -> None:
    made = Faulty(home, faults)
    try:
        made.daemon.start()
        outage(made.daemon, lambda: made.fail(code, *calls), made.heal)
        survives_a_kill(made.daemon)
    finally:
        made.daemon.close()


@pytest.mark.parametrize(
    ("code", "calls"),
    [
        (errno.EIO, ("pread",)),
        (errno.EIO, ("pwrite", "fsync")),
        (errno.EIO, ("open",)),
        (errno.EROFS, ("open", "pwrite", "write")),
        (errno.ENOSPC, ("pwrite", "write")),
    ],
)
def test_a_disk_that_fails_at_the_start(home: Path, faults: Path, code: int, calls: tuple[str, ...]) -> None:
    """It says so and ends; it starts with all that it knew when the disk is well again."""
    made = Faulty(home, faults)
    try:
        made.daemon.start()
        assert claim(made.daemon, "known") in (200, 201)
        assert made.daemon.stop(signal.SIGKILL) == -signal.SIGKILL
        made.fail(code, *calls)
        told = refusal_to_start(made.daemon)
        assert "ledger.db cannot be opened" in told or "ledger.db could not be" in told, told
        made.heal()
        made.daemon.start()
        assert claims(made.daemon) == ["known"]
        survives_a_kill(made.daemon)
    finally:
        made.daemon.close()


# -- a file system that is really full, or read-only -------------------------------------------------------------------


@pytest.fixture
def tiny(home: Path, requires_root: None) -> Iterator[Path]:
    """A tmpfs of 400 KiB where the state directory will be."""
    folder = home / "state"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], stderr=subprocess.DEVNULL
    ).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the space that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    assert shutil.disk_usage(folder).free == 0
    return ballast


def test_a_full_disk_while_it_runs(home: Path, tiny: Path) -> None:
    daemon = Daemon(home, "mi300x:1")
    try:
        daemon.start()
        for number in range(3):
            claim(daemon, f"early-{number}")
        outage(daemon, lambda: fill(tiny), (tiny / "ballast").unlink)
        survives_a_kill(daemon)
    finally:
        daemon.close()


def test_a_full_disk_at_the_start(home: Path, tiny: Path) -> None:
    daemon = Daemon(home, "mi300x:1")
    ballast = fill(tiny)
    told = refusal_to_start(daemon)
    assert "No space left" in told or "full" in told, told
    ballast.unlink()
    try:
        daemon.start()
        assert claim(daemon, "m") in (200, 201)
        assert daemon.stop() == 0
        fill(tiny)
        told = refusal_to_start(daemon)
        assert "No space left" in told or "full" in told or "cannot be opened" in told, told
        (tiny / "ballast").unlink()
        daemon.start()
        assert claims(daemon) == ["m"]
    finally:
        daemon.close()


def test_a_read_only_disk_at_the_start(home: Path, tiny: Path) -> None:
    daemon = Daemon(home, "mi300x:1")
    try:
        daemon.start()
        assert claim(daemon, "m") in (200, 201)
        assert daemon.stop() == 0
        subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
        told = refusal_to_start(daemon)
        assert "Read-only file system" in told, told
        subprocess.run(["mount", "-o", "remount,rw", tiny], check=True)
        daemon.start()
        assert claims(daemon) == ["m"]
    finally:
        daemon.close()


@pytest.mark.parametrize("which", ["state", "runtime"])
def test_a_directory_that_another_user_owns(requires_root: None, home: Path, which: str) -> None:
    home.chmod(0o755)
    for name in ("state", "runtime"):
        (home / name).mkdir()
        (home / name).chmod(0o777)
    (home / which).chmod(0o555)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            with directories(RunDirectories(str(home / "runtime"), str(home / "state"))):
                told = "it was made"
        except InvalidInputError as error:
            told = f"{error.message} {error.hint}"
        os.write(writer, told.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    told = os.read(reader, 10_000).decode()
    os.close(reader)
    os.close(writer)
    assert told.startswith(f"directory {home / which} cannot be written (Permission denied), expected")
    assert f"--{which}-dir" in told
