"""Damage to the ledger's file: whatever was not hit by it is in the new ledger.

What the file still holds is computed from the bytes of each row, found by their words in a whole file, and not by the
code that salvages. Every byte: python -m pytest tests/unit/adapters/test_salvage.py -m campaign
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from aimd.adapters.ledger import SqliteLedger
from aimd.adapters.salvage import surviving_rows
from aimd.adapters.walfile import current_pages, log_of
from aimd.domain.claim import Assignment, Claim, ClaimState
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import GpuRecord, HolderRecord, LedgerState, LedgerWrite
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.plan import Step, StepKind
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.errors import LedgerError
from tests.fakes.claims import spec

NOW = 1_700_000_000.5
ADDRESSES = tuple(f"0000:{bus}:00.0" for bus in ("05", "27", "47", "65", "85", "a7", "c7", "e5"))
SPX, CPX = PartitionMode(ComputeMode.SPX, MemoryMode.NPS1), PartitionMode(ComputeMode.CPX, MemoryMode.NPS1)
Rows = dict[tuple[str, object], object]


def change(number: int, switches: int = 1) -> ModeChange:
    """One with many switches is longer than a page of the file."""
    steps = [Step(StepKind.COMPUTE, (ADDRESSES[n % 8],), SPX, CPX) for n in range(switches)]
    done = tuple(Switch(step, SwitchState.COMMITTED, message=f"step {n}") for n, step in enumerate(steps))
    return ModeChange(f"change-{number}", "client", ((ADDRESSES[0], CPX),), done, "b00t", NOW, 30.0)


def claim(number: int) -> Claim:
    wanted = spec(24, "CPX", guarantee=2)
    place = Assignment(f"model-{number}", 0, ADDRESSES[number % 8], number % 8, wanted.memory_units, 2, 1)
    return Claim(f"model-{number}", 1000, wanted, NOW, ClaimState.PLACED, (place,))


def write(number: int) -> LedgerWrite:
    """Something for every table; the numbers make every row another one."""
    return LedgerWrite(
        changes=(change(number, 30 if number == 3 else 1),),
        gpus=(GpuRecord(ADDRESSES[number % 8], number, CPX),),
        events=tuple(NodeEvent("claim_placed", f"model-{number}", f"event {number} {n}", NOW) for n in range(4)),
        boot_id="b00t",
        layout_digest="d1g35t",
        claims=(claim(number),),
        holders=(HolderRecord(f"model-{number}", 0, 100 + number, 7, "python serve.py"),),
    )


def fill(path: Path, *, closed: bool = True, rounds: int = 6) -> None:
    """A small ledger in which rows were replaced and deleted, too; not closed, its log is there as after kill -9."""
    ledger = SqliteLedger(path, NOW)
    for number in range(rounds):
        ledger.commit(write(number))
    ledger.commit(LedgerWrite(released=("model-1",), holders_gone=(HolderRecord("model-2", 0, 102, 7),)))
    ledger.commit(LedgerWrite(claims=(replace(claim(4), owner_uid=4),), gpus=(GpuRecord(ADDRESSES[0], 99, SPX),)))
    if closed:
        ledger.close()
        return
    copy = path.with_name("copy")
    copy.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", copy)
    ledger.close()
    for suffix in ("", "-wal"):
        (copy / f"{path.name}{suffix}").replace(f"{path}{suffix}")
    copy.rmdir()


def read(path: Path) -> tuple[LedgerState, list[NodeEvent]]:
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
        ledger.commit(LedgerWrite(events=state.notes))
        events = [event for event in ledger.events(limit=10_000) if not event.kind.startswith("ledger_")]
        return state, events


def rows_of(state: LedgerState, events: list[NodeEvent]) -> Rows:
    found: Rows = {("meta", "boot_id"): state.boot_id, ("meta", "layout_digest"): state.layout_digest}
    found |= {("gpus", record.address): record for record in state.gpus}
    found |= {("changes", each.name): each for each in state.changes}
    found |= {("claims", each.name): each for each in state.claims}
    found |= {("holders", f"{each.pid} {each.start_time}"): each for each in state.holders}
    found |= {("events", event.sequence): event for event in events}
    return {key: value for key, value in found.items() if value is not None}


@pytest.fixture
def path() -> Iterator[Path]:
    """In memory where there is such a file system: a thousand ledgers are begun."""
    folder = tempfile.mkdtemp(prefix="aimd-test-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield Path(folder, "ledger.db")
    shutil.rmtree(folder)


# -- where each row is -----------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    digits = [number & 0x7F]
    while number := number >> 7:
        digits.append(number & 0x7F | 0x80)
    return bytes(reversed(digits))


def places(path: Path) -> dict[tuple[str, object], list[tuple[int, int]]]:
    """The byte ranges of each row in a closed file, from key and payload (which SQLite gives) and the bytes around.

    A row that continues on overflow pages counts as everywhere on its pages.
    """
    raw = path.read_bytes()
    found: dict[tuple[str, object], list[tuple[int, int]]] = {}
    with contextlib.closing(sqlite3.connect(path)) as database:
        for table in ("meta", "gpus", "changes", "claims", "holders", "events"):
            for key, payload in database.execute(f"SELECT key, payload FROM {table}").fetchall():
                text = f"{key if table != 'events' else ''}{payload}".encode()
                begin = raw.find(text[:300])
                assert raw.count(text[:300]) == 1, "a stale copy of a row is in the file"
                if len(text) > 3000:
                    first = begin // 4096 * 4096
                    further = [
                        at for at in range(0, len(raw), 4096) if any(p in raw[at : at + 4096] for p in pieces(text))
                    ]
                    assert first in further
                    assert len(further) > 1
                    found[table, key] = [(at, at + 4096) for at in further]
                    continue
                # Before it: the record's length, the rowid and the header of the record; after it: the checksum.
                found[table, key] = [(begin - 20, begin + len(text) + 6)]
    return found


def pieces(text: bytes) -> Iterator[bytes]:
    """Of a long text, so that a whole one is on every page that has a part of it."""
    return (text[at : at + 100] for at in range(0, len(text) - 100, 500))


def damaged(raw: bytes, positions: Iterable[int], mask: int) -> Iterator[tuple[int, bytes]]:
    for position in positions:
        copy = bytearray(raw)
        copy[position] ^= mask
        yield position, bytes(copy)


def clean(path: Path) -> None:
    for leftover in path.parent.glob(f"{path.name}*"):
        leftover.unlink()


def check(path: Path, positions: Callable[[int], Iterable[int]], mask: int) -> int:
    """Flip bytes one at a time: all rows but those that the flip may have hit are there. Counts the quarantines."""
    fill(path)
    truth, where = rows_of(*read(path)), places(path)
    raw = path.read_bytes()
    quarantines = 0
    for position, broken in damaged(raw, positions(len(raw)), mask):
        clean(path)
        path.write_bytes(broken)
        state, events = read(path)
        found = rows_of(state, events)
        quarantines += any(note.kind == "ledger_quarantined" for note in state.notes)
        lost = {key for key, value in truth.items() if found.get(key) != value}
        hit = {key for key, ranges in where.items() if any(begin <= position < end for begin, end in ranges)}
        assert lost <= hit, f"byte {position}: {lost - hit} are lost, {[note.message for note in state.notes]}"
        assert set(found) <= set(truth), f"byte {position}: {set(found) - set(truth)} came back"
        assert lost <= {("changes", "change-3")} or len(lost) <= 1
    return quarantines


def test_every_64th_byte_flipped(path: Path) -> None:
    """Each run takes others of the four 16ths; together with the test below all 16ths are in the normal run."""
    assert check(path, lambda size: range(7, size, 64), 0xFF) > 20


@pytest.mark.parametrize("first", [23, 39, 55])
def test_every_other_16th_byte_flipped(path: Path, first: int) -> None:
    assert check(path, lambda size: range(first, size, 64), 0x21) > 5


@pytest.mark.parametrize("mask", [0x01, 0x03, 0x80])
def test_flipped_bytes_of_every_pages_header(path: Path, mask: int) -> None:
    """Kind of page, number of cells, begin of their content: a count that is too small hides rows."""
    check(path, lambda size: [page + at for page in range(4096, size, 4096) for at in range(8)], mask)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(path: Path, mask: int) -> None:
    assert check(path, range, mask) > 200


# -- larger damage -----------------------------------------------------------------------------------------------------


def spoilt(path: Path, spoil: Callable[[bytearray], None]) -> tuple[Rows, list[str]]:
    raw = bytearray(path.read_bytes())
    spoil(raw)
    path.write_bytes(raw)
    state, events = read(path)
    return rows_of(state, events), [note.message for note in state.notes]


def test_without_its_header(path: Path) -> None:
    fill(path)
    truth = rows_of(*read(path))

    def spoil(raw: bytearray) -> None:
        raw[:100] = bytes(100)

    found, (note,) = spoilt(path, spoil)
    assert found == truth
    assert note.endswith(
        "it was moved to ledger.db.bad-1 and a new one begun with what it still held: "
        "6 changes, 5 claims, 24 events, 6 gpus, 5 holders, 2 meta"
    )


def test_without_its_first_page(path: Path) -> None:
    """Header and schema."""
    fill(path)
    truth = rows_of(*read(path))

    def spoil(raw: bytearray) -> None:
        raw[:4096] = b"\xff" * 4096

    assert spoilt(path, spoil)[0] == truth


@pytest.mark.parametrize("page", range(1, 12))
def test_without_one_page(path: Path, page: int) -> None:
    """What is on the others is there."""
    fill(path)
    truth, where = rows_of(*read(path)), places(path)
    begin, end = page * 4096, (page + 1) * 4096

    def spoil(raw: bytearray) -> None:
        raw[begin:end] = os.urandom(4096)

    found, notes = spoilt(path, spoil)
    lost = {key for key, value in truth.items() if found.get(key) != value}
    assert lost <= {key for key, ranges in where.items() if any(b < end and begin < e for b, e in ranges)}
    assert notes
    assert not any("\n" in note for note in notes), "SQLite's verdict has lines"


def test_a_large_ledger_without_the_roots_of_its_trees(path: Path) -> None:
    """Interior pages say where the leaves are; the leaves are found without them."""
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        for number in range(60):
            ledger.commit(write(number))
    truth = rows_of(*read(path))

    def spoil(raw: bytearray) -> None:
        interior = [at for at in range(4096, len(raw), 4096) if raw[at] in (0x02, 0x05)]
        assert len(interior) >= 3
        for at in interior:
            raw[at : at + 4096] = b"\xaa" * 4096

    found, _ = spoilt(path, spoil)
    assert found == truth
    assert [state.name for state in read(path)[0].claims] == [f"model-{number}" for number in range(60)], "in order"


def test_what_was_deleted_does_not_come_back(path: Path) -> None:
    """A released claim would take its partition again: freed pages and cells hold nothing."""
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        for number in range(60):
            ledger.commit(write(number))
        names = tuple(f"model-{number}" for number in range(60))
        gone = tuple(HolderRecord(name, 0, 100 + number, 7) for number, name in enumerate(names))
        ledger.commit(LedgerWrite(released=names, holders_gone=gone))
        for number in range(60):
            ledger.commit(LedgerWrite(gpus=(GpuRecord(ADDRESSES[number % 8], 1000 + number),)))
    truth = rows_of(*read(path))

    def spoil(raw: bytearray) -> None:
        raw[:4096] = bytes(4096)

    found, _ = spoilt(path, spoil)
    assert found == truth
    assert b"python serve.py" not in path.with_name("ledger.db.bad-1").read_bytes()


def test_events_keep_their_numbers(path: Path) -> None:
    fill(path)
    found, _ = spoilt(path, lambda raw: raw.__setitem__(slice(0, 16), bytes(16)))
    assert [key[1] for key in found if key[0] == "events"] == list(range(1, 25))
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(LedgerWrite(events=(NodeEvent("k", "s", "next", NOW),)))
        assert ledger.events(after=25)[0].message == "next"


@pytest.mark.parametrize("length", [*range(3850, 4000, 7), 8050, 8100, 12_150, 12_200])
def test_rows_longer_than_a_page(path: Path, length: int) -> None:
    """Around the lengths from which a row continues on further pages."""
    events = tuple(NodeEvent("k", f"s{number}", "x" * (length + number), NOW) for number in range(7))
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(LedgerWrite(events=events))
    found, _ = spoilt(path, lambda raw: raw.__setitem__(slice(0, 16), bytes(16)))
    assert [value.message for key, value in found.items() if key[0] == "events"] == [e.message for e in events]


def test_a_row_whose_number_became_that_of_another(path: Path) -> None:
    """The number of a change is not in its checksum; both are kept."""
    fill(path)
    truth = rows_of(*read(path))
    raw = path.read_bytes()
    at = raw.index(b'change-0{"name"') - 8
    assert raw[at] == 1

    def spoil(raw: bytearray) -> None:
        raw[at] = 2

    found, notes = spoilt(path, spoil)
    assert found == truth
    assert len(notes) == 1


def test_damaged_again_before_anybody_was_told(path: Path) -> None:
    fill(path)
    for _ in range(2):
        raw = bytearray(path.read_bytes())
        raw[:16] = bytes(16)
        path.write_bytes(raw)
        SqliteLedger(path, NOW).close()
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        notes = ledger.load().notes
    assert ["bad-1" in note.message for note in notes] == [True, False]
    assert ["bad-2" in note.message for note in notes] == [False, True]


# -- the write-ahead log -----------------------------------------------------------------------------------------------


def log_frames(path: Path) -> list[tuple[int, bool]]:
    """Offset of each frame of the log, and whether it ends a commit."""
    raw = Path(f"{path}-wal").read_bytes()
    return [(at, raw[at + 4 : at + 8] != bytes(4)) for at in range(32, len(raw), 24 + 4096)]


def test_a_log_that_is_whole(path: Path) -> None:
    fill(path, closed=False)
    log = log_of(path, 4096)
    assert (log.damage, log.cut, len(log.frames)) == (None, False, len(log_frames(path)))
    with contextlib.closing(sqlite3.connect(path)) as database:
        expected = database.execute("SELECT count(*) FROM events").fetchone()
    assert sum(row.table == "events" for row in surviving_rows(path)) == expected[0]


def test_pages_of_the_log_are_those_that_sqlite_reads(path: Path) -> None:
    fill(path, closed=False)
    pages = current_pages(path, 4096)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert b"".join(pages[number] for number in sorted(pages)) == path.read_bytes()


LAST_COMMIT = {("claims", "model-4"), ("gpus", ADDRESSES[0])}


def hit_in(page: bytes, texts: dict[tuple[str, object], bytes], offset: int) -> set[tuple[str, object]]:
    """Rows that a damaged byte of a page may have hit, as `places` has them."""
    found = set()
    for row, text in texts.items():
        if len(text) > 3000:
            found |= {row} if any(piece in page for piece in pieces(text)) else set()
        elif (begin := page.find(text)) >= 0 and begin - 20 <= offset < begin + len(text) + 6:
            found.add(row)
    return found


def check_log(path: Path, mask: int, positions: Callable[[int], Iterable[int]]) -> None:
    """Flip bytes of the log: all is there but for the row that was hit, and what is not there is told.

    Damage to the page of the last frame of all cannot be told from a commit that was never completed, which nobody was
    answered: such a commit may be missing as a whole.
    """
    fill(path, closed=False)
    main, log = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    frames = [at for at, _ in log_frames(path)]
    newest = {log[at : at + 4]: at for at in frames}
    with contextlib.closing(sqlite3.connect(path)) as database:
        texts = {
            (table, key): f"{key if table != 'events' else ''}{payload}".encode()
            for table in ("meta", "gpus", "changes", "claims", "holders", "events")
            for key, payload in database.execute(f"SELECT key, payload FROM {table}").fetchall()
        }
    clean(path)
    fill(path, closed=False)
    truth = rows_of(*read(path))
    for position, broken in damaged(log, positions(len(log)), mask):
        clean(path)
        path.write_bytes(main)
        Path(f"{path}-wal").write_bytes(broken)
        state, events = read(path)
        found = rows_of(state, events)
        lost = {key for key, value in truth.items() if found.get(key) != value}
        at = max((at for at in frames if at <= position), default=0)
        page = log[at + 24 : at + 24 + 4096]
        hit = hit_in(page, texts, position - at - 24) if at in newest.values() and position >= at + 24 else set()
        hit |= LAST_COMMIT if position >= frames[-1] + 24 else set()
        assert lost <= hit, f"byte {position}: {lost - hit} are lost"
        assert set(found) <= set(truth), f"byte {position}: {set(found) - set(truth)} came back"
        assert not lost or state.notes, f"byte {position}: {lost} are lost without a word"


def test_flipped_bytes_of_the_log(path: Path) -> None:
    check_log(path, 0xFF, lambda size: range(1, size, 2003))


@pytest.mark.parametrize("mask", [0x0C, 0x0D, 0x0E, 0xFF])
def test_flipped_bytes_of_the_last_frames_head(path: Path, mask: int) -> None:
    """Page number, commit mark, salts and checksum, and those of the one before it: their pages are whole."""
    fill(path, closed=False)
    marks = {Path(f"{path}-wal").read_bytes()[at + 7] for at, commits in log_frames(path)[-1:] if commits}
    assert marks == {0x0E}, "one mask takes the mark away"
    clean(path)
    heads = [at for end in (4096, 24 + 2 * 4096) for at in range(-end - 24, -end)]
    check_log(path, mask, lambda size: [size + at for at in heads])


@pytest.mark.parametrize("offset", [*range(0, 32, 3), *range(32, 56, 3)])
def test_a_flipped_byte_of_the_logs_header_or_of_a_frames(path: Path, offset: int) -> None:
    fill(path, closed=False)
    truth = rows_of(*read(path))
    clean(path)
    fill(path, closed=False)
    log = Path(f"{path}-wal")
    raw = bytearray(log.read_bytes())
    raw[offset] ^= 0x40
    log.write_bytes(raw)
    state, events = read(path)
    assert rows_of(state, events) == truth
    assert [note.kind for note in state.notes] == ["ledger_quarantined"]


def test_a_flipped_page_number_of_any_frame_of_the_log(path: Path) -> None:
    """An old version of its page would be read, and the page that it names would be lost."""
    fill(path, closed=False)
    main, log, frames = path.read_bytes(), Path(f"{path}-wal").read_bytes(), log_frames(path)
    truth = rows_of(*read(path))
    for at, _ in frames[:-1]:
        broken = bytearray(log)
        broken[at + 3] ^= 0x03
        clean(path)
        path.write_bytes(main)
        Path(f"{path}-wal").write_bytes(broken)
        state, events = read(path)
        assert rows_of(state, events) == truth, at
        assert [note.kind for note in state.notes] == ["ledger_quarantined"]


def test_a_checksum_that_is_right_by_chance(path: Path) -> None:
    """With this byte flipped the sum of that frame would be right for page 11 instead of 12, which has other rows."""
    fill(path, closed=False)
    log = Path(f"{path}-wal")
    truth = rows_of(*read_copy(path))
    raw = bytearray(log.read_bytes())
    at = log_frames(path)[-3][0] + 24 + 763
    raw[at] ^= 0x81
    log.write_bytes(raw)
    state, events = read(path)
    assert rows_of(state, events) == truth


def test_a_pointer_that_became_that_of_another_row(path: Path) -> None:
    fill(path)
    truth = rows_of(*read(path))
    for page in range(4096, path.stat().st_size, 4096):
        raw = bytearray(path.read_bytes())
        if raw[page] != 0x0D or int.from_bytes(raw[page + 3 : page + 5], "big") < 2:
            continue
        broken = bytearray(raw)
        broken[page + 8 : page + 10] = raw[page + 10 : page + 12]
        clean(path)
        path.write_bytes(broken)
        state, events = read(path)
        assert rows_of(state, events) == truth, page
        clean(path)
        path.write_bytes(raw)


def test_flipped_salts_of_the_last_frame(path: Path) -> None:
    """It looks like a frame of an earlier run of the log; its checksum tells that it continues this one."""
    fill(path, closed=False)
    main, log, frames = path.read_bytes(), bytearray(Path(f"{path}-wal").read_bytes()), log_frames(path)
    truth = rows_of(*read(path))
    clean(path)
    path.write_bytes(main)
    log[frames[-1][0] + 9] ^= 0x10
    Path(f"{path}-wal").write_bytes(log)
    state, events = read(path)
    assert rows_of(state, events) == truth
    assert [note.kind for note in state.notes] == ["ledger_quarantined"]


def test_a_transaction_that_never_committed_is_not_salvaged(path: Path) -> None:
    """Its pages are in the log when memory for them has run out; killed then, it has not happened."""
    fill(path, closed=False)
    truth = rows_of(*read(path))
    clean(path)
    fill(path, closed=False)
    copy = path.with_name("copy.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA cache_size = 2")
        other.execute("BEGIN")
        for number in range(200):
            payload = f'"never {number}{"." * 1000}"'
            sums = zlib.crc32(f"meta\0k{number}\0{payload}".encode())
            other.execute("INSERT INTO meta VALUES (?, ?, ?)", (f"k{number}", payload, sums))
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
        other.execute("ROLLBACK")
    assert b"never 7" in Path(f"{copy}-wal").read_bytes()
    state, events = read_copy(copy)
    assert (rows_of(state, events), state.notes) == (truth, ())
    raw = bytearray(copy.read_bytes())
    raw[:16] = bytes(16)
    copy.write_bytes(raw)
    log = Path(f"{copy}-wal").read_bytes()
    for position in (len(log), 8, 32 + 24 + 100):  # the log is whole, its header is damaged, its first frame
        Path(f"{copy}-wal").write_bytes(next(damaged(log + b"x", [position], 0x10))[1][: len(log)])
        assert not any(row.table == "meta" and str(row.columns[0]).startswith("k") for row in surviving_rows(copy))


def read_copy(path: Path) -> tuple[LedgerState, list[NodeEvent]]:
    """Without changing the original."""
    folder = path.with_name("again")
    folder.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", folder / f"ledger.db{suffix}")
    return read(folder / "ledger.db")


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_every_17th_byte_of_the_log(path: Path) -> None:
    check_log(path, 0x81, lambda size: range(1, size, 17))


def test_a_commit_that_was_never_completed(path: Path) -> None:
    """Killed in the middle of it: what was acknowledged is there, and the file stays where it is."""
    fill(path, closed=False)
    log = Path(f"{path}-wal")
    (begin, _), *_ = [frame for frame in log_frames(path) if frame[0] > log.stat().st_size - 2 * 4120]
    os.truncate(log, begin + 24 + 100)
    state, _ = read(path)
    assert not path.with_name("ledger.db.bad-1").exists()
    assert "model-4" in {each.name for each in state.claims}


def test_an_end_that_is_damaged_is_told(path: Path) -> None:
    fill(path, closed=False)
    log = Path(f"{path}-wal")
    raw = bytearray(log.read_bytes())
    raw[-100] ^= 0xFF
    log.write_bytes(raw)
    state, _ = read(path)
    assert [note.kind for note in state.notes] == ["ledger_log_cut"]


def test_an_empty_file_with_a_log(path: Path) -> None:
    fill(path, closed=False)
    truth = rows_of(*read(path))
    clean(path)
    fill(path, closed=False)
    path.write_bytes(b"")
    state, events = read(path)
    lost = set(truth) - set(rows_of(state, events))
    assert [note.kind for note in state.notes] == ["ledger_quarantined"]
    assert not {key for key in lost if key[0] in ("claims", "gpus", "holders")}


# -- killed and full while it is done ----------------------------------------------------------------------------------


def test_killed_before_the_new_ledger_is_in_place(path: Path) -> None:
    """It is complete beside the damaged one, or that is half moved: the next start goes on."""
    fill(path)
    truth = rows_of(*read(path))
    raw = bytearray(path.read_bytes())
    raw[:16] = bytes(16)
    path.write_bytes(raw)
    read(path)
    bad, new = path.with_name("ledger.db.bad-1"), path.with_name("ledger.db.new")
    for moved in (False, True):
        path.replace(new)
        if not moved:
            bad.replace(path)
            Path(f"{path}-wal").write_bytes(b"x" * 5000)
        state, events = read(path)
        assert rows_of(state, events) == truth
        assert not new.exists()
        assert bad.read_bytes() == bytes(raw)
    assert path.with_name("ledger.db.bad-1-wal").exists()


def test_the_note_is_told_until_it_was_kept(path: Path) -> None:
    fill(path)
    raw = bytearray(path.read_bytes())
    raw[:16] = bytes(16)
    path.write_bytes(raw)
    for _ in range(2):
        with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
            assert [note.kind for note in ledger.load().notes] == ["ledger_quarantined"]
    assert [note.kind for note in read(path)[0].notes] == ["ledger_quarantined"]
    assert read(path)[0].notes == ()


def test_a_draft_of_a_killed_daemon_is_thrown_away(path: Path) -> None:
    fill(path)
    truth = rows_of(*read(path))
    path.with_name("ledger.db.draft").write_bytes(b"half written")
    path.with_name("ledger.db.draft-wal").write_bytes(b"half written")
    found, _ = spoilt(path, lambda raw: raw.__setitem__(slice(0, 16), bytes(16)))
    assert found == truth
    assert sorted(each.name for each in path.parent.iterdir()) == ["ledger.db", "ledger.db.bad-1"]


def test_no_space_for_the_new_ledger(path: Path, requires_root: None) -> None:
    """The damaged one stays where it is, and the next start, with space, salvages it."""
    import subprocess

    fill(path)
    truth = rows_of(*read(path))
    folder = path.parent / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", folder]).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        small = folder / "ledger.db"
        raw = bytearray(path.read_bytes())
        raw[:16] = bytes(16)
        small.write_bytes(raw)
        (folder / "ballast").write_bytes(b"x" * (128 * 1024 - len(raw) - 16 * 1024))
        with pytest.raises(LedgerError, match="cannot be opened"):
            SqliteLedger(small, NOW)
        assert small.read_bytes() == bytes(raw)
        (folder / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", folder], check=True)
        assert rows_of(*read(small)) == truth
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
