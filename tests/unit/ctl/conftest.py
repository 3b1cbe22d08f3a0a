from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aimd.ctl.main import program
from tests.fakes.api import FakeApi, World
from tests.unit.ctl import samples


@pytest.fixture
def socket_path() -> Iterator[Path]:
    """A path short enough for a Unix socket, whatever the test is called."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory, "aimd.sock")


@pytest.fixture
def world() -> World:
    return samples.world()


@pytest.fixture
def api(socket_path: Path, world: World) -> Iterator[FakeApi]:
    with FakeApi(socket_path, world) as server:
        yield server


@pytest.fixture
def aimctl(api: FakeApi, socket_path: Path):
    """Runs aimctl in this process against the fake API."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(program, ["--socket", str(socket_path), *arguments])

    return run
