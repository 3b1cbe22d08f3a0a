"""ports.Ledger in SQLite: WAL, synchronous=FULL, STRICT tables, a checksum per row, quarantine of a bad file.

All methods block and belong to one thread. Rows hold JSON; a row whose checksum is wrong is left out and reported, a
file that SQLite cannot use is moved aside (`ledger.db.bad-1`, ...) and a new one begun: modes come back from sysfs.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from aimd.domain.ledger import GpuRecord, LedgerState, LedgerWrite
from aimd.domain.node import Event
from aimd.domain.switch import ModeChange
from aimd.errors import LedgerError

SCHEMA_VERSION = 1
KEPT_EVENTS = 10_000
KEPT_CHANGES = 100
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
CREATE TABLE gpus (key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
CREATE TABLE changes (
  position INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, ended INTEGER NOT NULL,
  payload TEXT NOT NULL, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE events (
  key INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT NOT NULL, checksum INTEGER NOT NULL
) STRICT;
"""
Row = TypeVar("Row")


class SqliteLedger:
    """The ledger in one file.

    Args:
        path: the database; its folder exists. Files `-wal` and `-shm` appear beside it.
        wall: seconds since the epoch now, for the notes about the ledger itself.

    Raises:
        LedgerError: the file cannot be opened or created, or its schema is newer than this program.
    """

    def __init__(self, path: Path, wall: float) -> None:
        self._path = path
        self._notes: list[Event] = []
        self._wall = wall
        try:
            self._database = self._open()
        except sqlite3.OperationalError as error:
            raise LedgerError(
                f"ledger {path} cannot be opened ({error})", hint="check that its folder is writable and has space"
            ) from error
        except sqlite3.DatabaseError as error:
            self._quarantine(str(error))
            self._database = self._open()

    # -- ports.Ledger ----------------------------------------------------------------------------------------

    def load(self) -> LedgerState:
        with self._errors("read"):
            meta = dict(self._rows("meta", str))
            gpus = tuple(record for _, record in self._rows("gpus", GpuRecord))
            changes = tuple(change for _, change in self._rows("changes", ModeChange, order="position"))
        notes, self._notes = tuple(self._notes), []
        return LedgerState(meta.get("boot_id"), meta.get("layout_digest"), gpus, changes, notes)

    def commit(self, write: LedgerWrite) -> None:
        with self._errors("written"), self._transaction():
            for key, value in (("boot_id", write.boot_id), ("layout_digest", write.layout_digest)):
                if value is not None:
                    self._put("meta", key, value)
            for record in write.gpus:
                self._put("gpus", record.address, record)
            for change in write.changes:
                self._put_change(change)
            for event in write.events:
                self._put_event(event)

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[Event]:
        with self._errors("read"):
            rows = self._rows("events", Event, where="key > ?", values=(after,), limit=limit)
            return [_numbered(event, key) for key, event in rows]

    def close(self) -> None:
        self._database.close()

    # -- file ------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        """Open, check and if need be create; raises sqlite3.DatabaseError for a file that is not usable."""
        database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise LedgerError(
                    f"ledger {self._path} has schema version {version}, this aimd knows up to {SCHEMA_VERSION}",
                    hint="use the aimd that wrote it, or move the file aside to begin a new ledger",
                )
            if version == 0:
                database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        except BaseException:
            database.close()
            raise
        return database

    def _quarantine(self, why: str) -> None:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.bad-{number}")).exists():
            number += 1
        self._path.replace(aside)
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(f"{aside}{suffix}")
        words = f"the ledger could not be used ({why}); it was moved to {aside.name} and a new one begun"
        self._notes.append(Event("ledger_quarantined", "node", words, self._wall))

    # -- rows ------------------------------------------------------------------------------------------------

    def _rows(
        self,
        table: str,
        kind: type[Row],
        *,
        where: str = "1",
        values: tuple[int, ...] = (),
        order: str = "key",
        limit: int = -1,
    ) -> Iterator[tuple[str, Row]]:
        """Keys and decoded rows; a bad row is reported once, removed and left out."""
        query = f"SELECT key, payload, checksum FROM {table} WHERE {where} ORDER BY {order} LIMIT ?"  # noqa: S608
        for key, payload, checksum in self._database.execute(query, (*values, limit)).fetchall():
            try:
                if checksum != _checksum(table, key, payload):
                    raise ValueError("checksum")
                yield key, msgspec.json.decode(payload, type=kind)
            except ValueError:  # msgspec's errors are ValueErrors, too
                self._database.execute(f"DELETE FROM {table} WHERE key = ?", (key,))  # noqa: S608
                words = f"row {key} of table {table} was damaged and is left out"
                self._notes.append(Event("ledger_row_damaged", "node", words, self._wall))

    def _put(self, table: str, key: str, value: object) -> None:
        payload = msgspec.json.encode(value).decode()
        self._database.execute(
            f"INSERT INTO {table} VALUES (?, ?, ?) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET payload = excluded.payload, checksum = excluded.checksum",
            (key, payload, _checksum(table, key, payload)),
        )

    def _put_change(self, change: ModeChange) -> None:
        payload = msgspec.json.encode(change).decode()
        ended = change.current is None
        self._database.execute(
            "INSERT INTO changes (key, ended, payload, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET ended = excluded.ended, payload = excluded.payload, checksum = excluded.checksum",
            (change.name, ended, payload, _checksum("changes", change.name, payload)),
        )
        if ended:
            self._database.execute(
                "DELETE FROM changes WHERE ended AND position NOT IN "
                "(SELECT position FROM changes WHERE ended ORDER BY position DESC LIMIT ?)",
                (KEPT_CHANGES,),
            )

    def _put_event(self, event: Event) -> None:
        payload = msgspec.json.encode(event).decode()
        cursor = self._database.execute("INSERT INTO events (payload, checksum) VALUES (?, 0)", (payload,))
        key = cursor.lastrowid or 0
        self._database.execute("UPDATE events SET checksum = ? WHERE key = ?", (_checksum("events", key, payload), key))
        self._database.execute("DELETE FROM events WHERE key <= ?", (key - KEPT_EVENTS,))

    # -- errors ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextlib.contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LedgerError(
                f"ledger {self._path} could not be {done} ({error})", hint="check space and health of its disk"
            ) from error


def _checksum(table: str, key: object, payload: str) -> int:
    return zlib.crc32(f"{table}\0{key}\0{payload}".encode())


def _numbered(event: Event, key: str) -> Event:
    return Event(event.kind, event.subject, event.message, event.at, int(key))
