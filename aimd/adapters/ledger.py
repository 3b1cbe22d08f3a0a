"""ports.Ledger in SQLite: WAL, synchronous=FULL, STRICT tables, a checksum per row, quarantine of a bad file.

All methods block and belong to one thread. Rows hold JSON; a row whose checksum is wrong is left out and reported, a
file that is damaged is moved aside (`ledger.db.bad-1`, ...) and a new one begun with every row that the old one still
holds. Damage is told from want of space or permission, which is never answered by moving the file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sqlite3
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec

from aimd.adapters.salvage import PAGE_SIZE, SavedRow, row_checksum, surviving_rows
from aimd.adapters.walfile import log_of
from aimd.domain.claim import Claim
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import KEPT_CHANGES, GpuRecord, HolderRecord, LedgerState, LedgerWrite
from aimd.domain.switch import ModeChange
from aimd.errors import LedgerError

KEPT_EVENTS = 10_000
BELOW_ALL = -(1 << 63)  # a flipped bit can make the key of an event 0: who reads all is told of it
PRUNING_INTERVAL = 64  # events; counting them costs more than writing one
_ROWS = "(key TEXT PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT"
# Each makes the schema one version newer; a ledger of an older aimd is brought up in one transaction.
_MIGRATIONS = (
    f"""
CREATE TABLE meta {_ROWS};
CREATE TABLE gpus {_ROWS};
CREATE TABLE changes (
  position INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, ended INTEGER NOT NULL,
  payload TEXT NOT NULL, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE events (key INTEGER PRIMARY KEY, payload TEXT NOT NULL, checksum INTEGER NOT NULL) STRICT;
""",
    f"""
CREATE TABLE claims {_ROWS};
CREATE TABLE holders {_ROWS};
""",
)
SCHEMA_VERSION = len(_MIGRATIONS)
# What identifies a row in its checksum.
_IDENTITY = {
    "meta": "key",
    "gpus": "key",
    "changes": "key || ' ' || ended",
    "events": "key",
    "claims": "key",
    "holders": "key",
}
_SUFFIXES = ("-wal", "-shm", "")
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
        self._notes: list[NodeEvent] = []
        self._damaged: list[tuple[str, int]] = []
        self._wall = wall
        try:
            self._database = self._open_or_begin_anew()
        except (OSError, sqlite3.Error) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise LedgerError(
                f"ledger {path} cannot be opened ({reason}), expected a file in a writable folder with space",
                hint="check the folder's owner, mode and free space",
            ) from error

    # -- ports.Ledger ----------------------------------------------------------------------------------------

    def load(self) -> LedgerState:
        with self._errors("read"):
            meta = {key: value for _, key, value in self._rows("meta", str)}
            gpus = tuple(record for _, _, record in self._rows("gpus", GpuRecord))
            changes = tuple(change for _, _, change in self._rows("changes", ModeChange))
            claims = tuple(claim for _, _, claim in self._rows("claims", Claim))
            holders = tuple(holder for _, _, holder in self._rows("holders", HolderRecord))
        notes, self._notes = (*_events(meta.get("notes", "[]")), *self._notes), []
        return LedgerState(meta.get("boot_id"), meta.get("layout_digest"), gpus, changes, notes, claims, holders)

    def commit(self, write: LedgerWrite) -> None:
        with self._errors("written"), self._transaction():
            self._database.execute("DELETE FROM meta WHERE key = 'notes'")  # who commits has read and kept them
            for table, row in self._damaged:
                self._database.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608
            for key, value in (("boot_id", write.boot_id), ("layout_digest", write.layout_digest)):
                if value is not None:
                    self._put("meta", key, value)
            for record in write.gpus:
                self._put("gpus", record.address, record)
            for change in write.changes:
                self._put_change(change)
            for claim in write.claims:
                self._put("claims", claim.name, claim)
            for name in write.released:
                self._database.execute("DELETE FROM claims WHERE key = ?", (name,))
            for holder in write.holders:
                self._put("holders", _process(holder), holder)
            for holder in write.holders_gone:
                self._database.execute("DELETE FROM holders WHERE key = ?", (_process(holder),))
            for event in write.events:
                self._put_event(event)
        self._damaged = []

    def events(self, *, after: int = 0, limit: int = 1000) -> Sequence[NodeEvent]:
        with self._errors("read"):
            rows = self._rows("events", NodeEvent, where="key > ?", values=(after or BELOW_ALL,), limit=limit)
            found = [replace(event, sequence=row) for row, _, event in rows]
        if self._damaged:
            notes, self._notes = tuple(self._notes), []
            self.commit(LedgerWrite(events=notes))
        return found

    def close(self) -> None:
        self._database.close()

    # -- file ------------------------------------------------------------------------------------------------

    def _open_or_begin_anew(self) -> sqlite3.Connection:
        """Raises sqlite3.Error and OSError for a file that cannot be used without being damaged."""
        if self._path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if self._successor.exists():  # killed while it was put in place
            self._put_in_place()
        log, empty = log_of(self._path, PAGE_SIZE), not self._path.exists() or self._path.stat().st_size == 0
        if log.cut:
            self._note(
                "ledger_log_cut", "the end of the write-ahead log is damaged or was never completed; it is left out"
            )
        if empty and self._path.exists() and not log.frames:
            self._note("ledger_empty", "the ledger was an empty file; a new one was begun")
        damage = "it is empty and its write-ahead log is not" if empty and log.frames else log.damage
        try:
            if damage is not None:
                raise sqlite3.DatabaseError(damage)
            return self._open(self._path)
        except sqlite3.OperationalError:
            raise
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # CORRUPT and NOTADB arrive as DatabaseError itself; a message that quotes damaged text cannot be decoded.
            self._begin_anew(str(error))
            return self._open(self._path)

    def _open(self, path: Path) -> sqlite3.Connection:
        """Open, check and if need be create; raises sqlite3.DatabaseError itself for a damaged file."""
        _check_header(path)
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            database.text_factory = _text
            database.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            # What was deleted must not come back when rows are looked for in a damaged file.
            database.execute("PRAGMA secure_delete = ON")
            # Not quick_check: it passes over an index that disagrees with its table, and a row would be there twice.
            (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            self._check_schema(database)
            (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode not in ("wal", "memory"):
                raise sqlite3.OperationalError(f"its file system allows no write-ahead log, only journal mode {mode}")
            database.execute("PRAGMA synchronous = FULL")
        except BaseException:
            database.close()
            raise
        return database

    def _check_schema(self, database: sqlite3.Connection) -> None:
        """Bring the tables to the present version; raises LedgerError for those of a newer program."""
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (seal,) = database.execute("PRAGMA application_id").fetchone()
        tables = _tables(database)
        fresh = not tables and version == seal == 0
        if seal != _seal(version) and not fresh:
            raise sqlite3.DatabaseError("the schema version in its header is damaged")
        if version > SCHEMA_VERSION:
            raise LedgerError(
                f"ledger {self._path} has schema version {version}, expected at most {SCHEMA_VERSION}: a newer aimd wrote it",
                hint="use the aimd that wrote it, or move the file aside to begin a new ledger",
            )
        with contextlib.closing(sqlite3.connect(":memory:")) as model:
            model.executescript("".join(_MIGRATIONS[:version]))
            if tables != _tables(model):
                raise sqlite3.DatabaseError("its tables are not those of an aimd ledger")
        if version < SCHEMA_VERSION:
            number = f"PRAGMA user_version = {SCHEMA_VERSION}; PRAGMA application_id = {_seal(SCHEMA_VERSION)};"
            database.executescript(f"BEGIN; {''.join(_MIGRATIONS[version:])} {number} COMMIT;")
            if not fresh:
                self._note("ledger_migrated", f"the ledger's schema went from version {version} to {SCHEMA_VERSION}")

    @property
    def _successor(self) -> Path:
        """A complete new ledger that has yet to take the place of a damaged one."""
        return self._path.with_name(f"{self._path.name}.new")

    @property
    def _aside(self) -> Path:
        """Where a damaged file is moved to."""
        numbers = itertools.count(1)
        names = (self._path.with_name(f"{self._path.name}.bad-{number}") for number in numbers)
        return next(name for name in names if not name.exists())

    def _begin_anew(self, why: str) -> None:
        """A new ledger with what the damaged one still holds takes its place; killed at any time, nothing is lost.

        Raises OSError and sqlite3.Error; then the damaged file is where it was.
        """
        rows = surviving_rows(self._path)
        verdict = " ".join(why.split())
        words = f"the ledger could not be used ({verdict}); it was moved to {self._aside.name} and a new one begun"
        if rows:
            counts = Counter(row.table for row in rows)
            words += " with what it still held: " + ", ".join(f"{counts[table]} {table}" for table in sorted(counts))
        note = NodeEvent("ledger_quarantined", "node", words, self._wall)
        draft = self._path.with_name(f"{self._path.name}.draft")
        for suffix in _SUFFIXES:
            Path(f"{draft}{suffix}").unlink(missing_ok=True)
        with contextlib.closing(self._open(draft)) as database:
            database.execute("BEGIN")
            for row in rows:
                _insert(database, row)
            earlier = next((str(row.columns[1]) for row in rows if row.identity == ("meta", "notes")), '"[]"')
            notes = [*_events(msgspec.json.decode(earlier, type=str)), note]
            payload = msgspec.json.encode(msgspec.json.encode(notes).decode()).decode()
            _insert(database, SavedRow("meta", 0, ("notes", payload, row_checksum("meta", "notes", payload))))
            database.execute("COMMIT")
        draft.replace(self._successor)
        self._put_in_place()

    def _put_in_place(self) -> None:
        """The log first: without its database nobody would take it for that of the new one."""
        aside = self._aside
        for suffix in _SUFFIXES:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(f"{aside}{suffix}")
        self._successor.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _note(self, kind: str, words: str) -> None:
        self._notes.append(NodeEvent(kind, "node", words, self._wall))

    # -- rows ------------------------------------------------------------------------------------------------

    def _rows(
        self, table: str, kind: type[Row], *, where: str = "1", values: tuple[int, ...] = (), limit: int = -1
    ) -> Iterator[tuple[int, str, Row]]:
        """Row number, key and decoded row; a bad row is reported, left out, and deleted by the next commit."""
        query = (
            f"SELECT rowid, key, {_IDENTITY[table]}, payload, checksum FROM {table} "  # noqa: S608
            f"WHERE {where} ORDER BY rowid LIMIT ?"
        )
        for row, key, identity, payload, checksum in self._database.execute(query, (*values, limit)).fetchall():
            try:
                if checksum != row_checksum(table, identity, payload):
                    raise ValueError("checksum")
                yield row, key, msgspec.json.decode(payload, type=kind)
            except ValueError:  # msgspec's errors are ValueErrors, too
                self._damaged.append((table, row))
                self._note("ledger_row_damaged", f"row {key} of table {table} was damaged and is left out")

    def _put(self, table: str, key: str, value: object) -> None:
        payload = msgspec.json.encode(value).decode()
        self._database.execute(
            f"INSERT INTO {table} VALUES (?, ?, ?) "  # noqa: S608
            "ON CONFLICT (key) DO UPDATE SET payload = excluded.payload, checksum = excluded.checksum",
            (key, payload, row_checksum(table, key, payload)),
        )

    def _put_change(self, change: ModeChange) -> None:
        payload = msgspec.json.encode(change).decode()
        ended = int(change.current is None)
        self._database.execute(
            "INSERT INTO changes (key, ended, payload, checksum) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
            "SET ended = excluded.ended, payload = excluded.payload, checksum = excluded.checksum",
            (change.name, ended, payload, row_checksum("changes", f"{change.name} {ended}", payload)),
        )
        if ended:
            self._database.execute(
                "DELETE FROM changes WHERE ended AND position NOT IN "
                "(SELECT position FROM changes WHERE ended ORDER BY position DESC LIMIT ?)",
                (KEPT_CHANGES,),
            )

    def _put_event(self, event: NodeEvent) -> None:
        payload = msgspec.json.encode(event).decode()
        key = self._database.execute("INSERT INTO events (payload, checksum) VALUES (?, 0)", (payload,)).lastrowid or 0
        self._database.execute(
            "UPDATE events SET checksum = ? WHERE key = ?", (row_checksum("events", key, payload), key)
        )
        if key % PRUNING_INTERVAL == 0:
            self._database.execute(
                "DELETE FROM events WHERE key <= (SELECT key FROM events ORDER BY key DESC LIMIT 1 OFFSET ?)",
                (KEPT_EVENTS,),
            )

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
                f"ledger {self._path} could not be {done} ({error})",
                hint="check space and health of its disk, and that no other program has it open",
            ) from error


def _insert(database: sqlite3.Connection, row: SavedRow) -> None:
    """Rows come in the order of their numbers; only of events the number itself matters."""
    columns = row.columns if row.table != "changes" else (None, *row.columns[1:])
    places = ", ".join("?" * len(columns))
    database.execute(f"INSERT OR REPLACE INTO {row.table} VALUES ({places})", columns)  # noqa: S608


def _events(text: str) -> list[NodeEvent]:
    return msgspec.json.decode(text, type=list[NodeEvent])


def _check_header(path: Path) -> None:
    """Raise sqlite3.DatabaseError for header values that SQLite answers like want of permission or a mistake in SQL.

    The file format's offsets 18 and 19 are the write and read versions (2 = WAL; a greater write version means
    "read-only"), 44 the schema format, 56 the text encoding (1 = UTF-8): https://sqlite.org/fileformat2.html
    """
    try:
        with path.open("r+b") as file:  # for writing, too: SQLite would open what it may not write all the same
            header = file.read(100)
    except FileNotFoundError:
        return
    if not header:
        return
    versions, schema_format, encoding = header[18:20], header[44:48], header[56:60]
    never_used = not any(schema_format + encoding)
    used = schema_format == b"\0\0\0\4" and encoding == b"\0\0\0\1"
    if versions not in (b"\1\1", b"\2\2") or not (used or never_used):
        raise sqlite3.DatabaseError("its header is damaged")


def _tables(database: sqlite3.Connection) -> list[tuple[str, str]]:
    return database.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()


def _process(holder: HolderRecord) -> str:
    return f"{holder.pid} {holder.start_time}"


def _seal(version: int) -> int:
    """Checksum of the schema version, kept as application_id: a flipped bit is not taken for a newer aimd."""
    return zlib.crc32(f"aimd ledger {version}".encode()) & 0x7FFFFFFF


def _text(raw: bytes) -> str:
    """Damaged text is still text; its checksum tells."""
    return raw.decode("utf-8", "replace")
