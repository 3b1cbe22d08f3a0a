"""A ledger of an older aimd is brought to the present schema, in one transaction and with all its rows."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import signal
import sqlite3
import zlib
from pathlib import Path

import pytest

from aimd.adapters.ledger import SCHEMA_VERSION, SqliteLedger
from aimd.domain.claim import Claim
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import GpuRecord, HolderRecord, LedgerWrite
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.switch import SwitchState
from tests.fakes.claims import spec

NOW = 1_700_000_000.5
# What version 1 wrote, as text: the tables of the present code are not used.
VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
CREATE TABLE gpus (key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
CREATE TABLE changes (
  position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, ended INTEGER NOT NULL,
  payload TEXT NOT NULL, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE events (key INTEGER PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
"""
SEAL_1 = zlib.crc32(b"aimd ledger 1") & 0x7FFFFFFF
GPU = '{"address":"0000:05:00.0","mode_epoch":7,"mode":{"compute":"CPX","memory":"NPS1"},"wish":null,"draining":false}'
CHANGE = json.dumps(
    {
        "name": "one",
        "origin": "client",
        "wishes": [["0000:05:00.0", {"compute": "CPX", "memory": None}]],
        "switches": [
            {
                "step": {
                    "kind": "compute",
                    "gpus": ["0000:05:00.0"],
                    "before": {"compute": "SPX", "memory": "NPS1"},
                    "after": {"compute": "CPX", "memory": "NPS1"},
                    "after_reload": False,
                },
                "state": "committed",
                "attempts": 0,
                "deadline": None,
                "reason": None,
                "message": None,
                "began": 1.0,
                "ended": 2.0,
                "write_seconds": 0.25,
            }
        ],
        "boot_id": "b00t",
        "created_at": 1.0,
        "wait_seconds": 30.0,
        "requester_uid": 1000,
    }
)
EVENT = '{"kind":"switch_committed","subject":"one","message":"done","at":5.0,"sequence":0}'


def checksum(table: str, identity: object, payload: str) -> int:
    return zlib.crc32(f"{table}\0{identity}\0{payload}".encode())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of version 1."""
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(VERSION_1)
        database.execute(f"PRAGMA application_id = {SEAL_1}")
        for table, key, payload in (("meta", "boot_id", '"b00t"'), ("gpus", "0000:05:00.0", GPU)):
            database.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (key, payload, checksum(table, key, payload)))
        database.execute(
            "INSERT INTO changes VALUES (1, 'one', 1, ?, ?)", (CHANGE, checksum("changes", "one 1", CHANGE))
        )
        database.execute("INSERT INTO events VALUES (1, ?, ?)", (EVENT, checksum("events", 1, EVENT)))
        database.commit()
    return path


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute("PRAGMA user_version").fetchone()[0]


def test_all_rows_come_along_and_it_is_told(path: Path) -> None:
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
        assert state.boot_id == "b00t"
        assert state.gpus == (GpuRecord("0000:05:00.0", 7, PartitionMode(ComputeMode.CPX, MemoryMode.NPS1)),)
        assert [(change.name, change.state) for change in state.changes] == [("one", SwitchState.COMMITTED)]
        assert (state.claims, state.holders) == ((), ())
        assert ledger.events() == [NodeEvent("switch_committed", "one", "done", 5.0, 1)]
        words = f"the ledger's schema went from version 1 to {SCHEMA_VERSION}"
        assert state.notes == (NodeEvent("ledger_migrated", "node", words, NOW),)
    assert version(path) == SCHEMA_VERSION


def test_what_is_new_can_be_written(path: Path) -> None:
    claim, holder = Claim("m", 0, spec(24), NOW), HolderRecord("m", 0, 7, 1)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.load()
        ledger.commit(LedgerWrite(claims=(claim,), holders=(holder,)))
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
    assert (state.claims, state.holders, state.notes) == ((claim,), (holder,), ())
    assert len(state.changes) == len(state.gpus) == 1


def test_a_second_start_migrates_nothing(path: Path) -> None:
    SqliteLedger(path, NOW).close()
    before = path.read_bytes()
    SqliteLedger(path, NOW).close()
    assert path.read_bytes() == before


def open_and_die(path: Path, kill_at: int) -> None:
    """In a child: killed when SQLite has done so many times fifty steps of its virtual machine."""
    steps = itertools.count(1)

    def step() -> int:
        if next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    class Traced(sqlite3.Connection):
        def __init__(self, *args, **options) -> None:
            super().__init__(*args, **options)
            self.set_progress_handler(step, 50)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Traced)
    SqliteLedger(path, NOW)


@pytest.mark.parametrize("kill_at", range(1, 40, 2))
def test_killed_in_the_middle_of_the_migration(path: Path, kill_at: int) -> None:
    """Either version is there afterwards, with all rows."""
    pid = os.fork()
    if pid == 0:
        open_and_die(path, kill_at)
        os._exit(0)
    os.waitpid(pid, 0)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
    assert {note.kind for note in state.notes} <= {"ledger_migrated"}
    assert (len(state.gpus), len(state.changes), state.boot_id) == (1, 1, "b00t")
    assert version(path) == SCHEMA_VERSION


def test_a_damaged_file_of_version_1_is_salvaged(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[0:16] = bytes(16)
    path.write_bytes(raw)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
        assert len(ledger.events()) == 1
    assert (len(state.gpus), len(state.changes), state.boot_id) == (1, 1, "b00t")
    assert [note.kind for note in state.notes] == ["ledger_quarantined"]
    assert version(path) == SCHEMA_VERSION
