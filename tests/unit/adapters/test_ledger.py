"""The ledger's file: what is written comes back, damage is told, want of space or permission is not taken for damage."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import pytest

import aimd
from aimd.adapters.ledger import KEPT_EVENTS, PRUNING_INTERVAL, SCHEMA_VERSION, SqliteLedger
from aimd.domain.accounting import FindingKind, MemoryFinding
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import KEPT_CHANGES, GpuRecord, LedgerState, LedgerWrite, MemoryRecord
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.plan import Reason, Step, StepKind
from aimd.domain.switch import ModeChange, Switch, SwitchState
from aimd.errors import LedgerError

NOW = 1_700_000_000.25
SPX, CPX = PartitionMode(ComputeMode.SPX, MemoryMode.NPS1), PartitionMode(ComputeMode.CPX, MemoryMode.NPS1)
COMPUTE = Step(StepKind.COMPUTE, ("0000:05:00.0",), SPX, CPX, after_reload=True)
MEMORY = Step(
    StepKind.MEMORY,
    ("0000:05:00.0", "0000:27:00.0"),
    PartitionMode(None, MemoryMode.NPS1),
    PartitionMode(None, MemoryMode.NPS4),
)
FULL_SWITCH = Switch(
    COMPUTE,
    SwitchState.FAILED,
    attempts=3,
    deadline=12.5,
    reason=Reason.GPU_BUSY,
    message='GPU in use by pid 7 ("träge\nprogram")',
    began=10.125,
    ended=12.75,
    write_seconds=0.0625,
    generation=17,
)
FULL_CHANGE = ModeChange(
    name="full",
    origin="client",
    wishes=(("0000:05:00.0", CPX), ("0000:27:00.0", PartitionMode(None, MemoryMode.NPS4))),
    switches=(Switch(MEMORY, SwitchState.AWAITING_RELOAD), FULL_SWITCH),
    boot_id="b00t",
    created_at=NOW,
    wait_seconds=30.5,
    requester_uid=1000,
)
FINDINGS = (
    MemoryFinding(FindingKind.OVER_LIMIT, "0000:05:00.0", 3, 8, "llama", "claim llama uses more", NOW),
    MemoryFinding(FindingKind.DRIFT, "0000:05:00.0", 0, 8, None, "partition lacks 3 GiB", NOW),
)
RECORDS = (
    GpuRecord(
        "0000:05:00.0",
        mode_epoch=7,
        mode=SPX,
        wish=PartitionMode(ComputeMode.CPX),
        draining=True,
        memory=MemoryRecord(FINDINGS, 1 << 40, 8),
    ),
    GpuRecord("0000:27:00.0"),
)
EVENTS = (
    NodeEvent("switch_committed", "gpu0", "it is done", NOW),
    NodeEvent("driver_reloaded", "node", "ünïcode", NOW + 1),
)


def change(name: str, state: SwitchState = SwitchState.COMMITTED) -> ModeChange:
    return replace(FULL_CHANGE, name=name, switches=(Switch(COMPUTE, state),))


def fill(path: Path) -> None:
    """A small database with something in every table."""
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(
            LedgerWrite(
                changes=(change("first"), FULL_CHANGE),
                gpus=RECORDS,
                events=EVENTS,
                boot_id="b00t",
                layout_digest="d1g35t",
            )
        )


def content(path: Path) -> tuple[LedgerState, list[NodeEvent]]:
    """What a starting daemon reads, and the events, the ledger's own after what it found included."""
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
        ledger.commit(LedgerWrite(events=state.notes))
        ledger.events()
        return state, list(ledger.events())


def kinds(state: LedgerState) -> list[str]:
    return [note.kind for note in state.notes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


# -- round trip ------------------------------------------------------------------------------------------------


def test_a_new_ledger_is_empty(path: Path) -> None:
    assert content(path) == (LedgerState(), [])


def test_everything_comes_back(path: Path) -> None:
    fill(path)
    state, events = content(path)
    assert state == LedgerState("b00t", "d1g35t", RECORDS, (change("first"), FULL_CHANGE))
    assert events == [replace(event, sequence=number) for number, event in enumerate(EVENTS, 1)]


@pytest.mark.parametrize(("value", "untouched"), [(FULL_CHANGE, set()), (FULL_SWITCH, set()), (RECORDS[0], set())])
def test_the_samples_use_every_field(value, untouched) -> None:
    """A field that is left at its default would come back right even if it was never written."""
    defaults = {field.name for field in fields(value) if getattr(value, field.name) == field.default}
    assert defaults == untouched


@pytest.mark.parametrize("state", list(SwitchState))
def test_every_state_comes_back(path: Path, state: SwitchState) -> None:
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(LedgerWrite(changes=(change("one", state),)))
    assert content(path)[0].changes == (change("one", state),)


def test_a_later_write_replaces_and_keeps_the_order(path: Path) -> None:
    fill(path)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(
            LedgerWrite(changes=(change("first", SwitchState.FAILED),), gpus=(replace(RECORDS[0], mode_epoch=8),))
        )
    state, _ = content(path)
    assert [(c.name, c.state) for c in state.changes] == [
        ("first", SwitchState.FAILED),
        ("full", SwitchState.AWAITING_RELOAD),
    ]
    assert state.gpus == (replace(RECORDS[0], mode_epoch=8), RECORDS[1])
    assert state.layout_digest == "d1g35t"


def test_events_are_numbered_and_read_in_pages(path: Path) -> None:
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(LedgerWrite(events=tuple(NodeEvent("k", "node", str(number), NOW) for number in range(5))))
        assert [event.message for event in ledger.events(after=1, limit=2)] == ["1", "2"]
        assert [event.sequence for event in ledger.events(after=3)] == [4, 5]
        assert ledger.events(after=5) == []


def test_the_newest_ended_changes_and_all_others_are_kept(path: Path) -> None:
    waiting = change("waiting", SwitchState.WAITING)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.commit(LedgerWrite(changes=(waiting,)))
        for number in range(KEPT_CHANGES + 5):
            ledger.commit(LedgerWrite(changes=(change(f"c{number}"),)))
        kept = [c.name for c in ledger.load().changes]
    assert kept == ["waiting", *(f"c{number}" for number in range(5, KEPT_CHANGES + 5))]


def test_the_newest_events_are_kept(path: Path) -> None:
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        many = tuple(NodeEvent("k", "node", "m", NOW) for _ in range(KEPT_EVENTS + 10 * PRUNING_INTERVAL))
        ledger.commit(LedgerWrite(events=many))
        kept = ledger.events(limit=2 * KEPT_EVENTS)
    assert KEPT_EVENTS <= len(kept) < KEPT_EVENTS + PRUNING_INTERVAL
    assert kept[-1].sequence == len(many)


# -- durability ------------------------------------------------------------------------------------------------


def test_a_commit_is_all_or_nothing(path: Path) -> None:
    fill(path)
    before = content(path)
    broken = replace(RECORDS[0], mode_epoch=object())  # cannot be encoded
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        with pytest.raises(TypeError):
            ledger.commit(LedgerWrite(changes=(change("new"),), gpus=(broken,), events=EVENTS, boot_id="other"))
        ledger.commit(LedgerWrite())
    assert content(path) == before


def test_the_files_settings(path: Path) -> None:
    """WAL is a property of the file, synchronous one of the connection."""
    ledger = SqliteLedger(path, NOW)
    assert ledger._database.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        statements = [sql for (sql,) in other.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
    assert len(statements) == 6
    assert all(statement.endswith("STRICT") for statement in statements)
    ledger.close()


def test_what_commit_returned_from_survives_a_kill(path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from aimd.adapters.ledger import SqliteLedger\nfrom aimd.domain.ledger import LedgerWrite\n"
        "ledger = SqliteLedger(Path(sys.argv[1]), 0.0)\nledger.commit(LedgerWrite(boot_id='kept'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(aimd.__file__).parent.parent
    ended = subprocess.run([sys.executable, "-c", program, str(path)], env={**os.environ, "PYTHONPATH": str(root)})
    assert ended.returncode == -signal.SIGKILL
    assert Path(f"{path}-wal").stat().st_size > 0, "the database itself was not written to yet"
    assert content(path)[0] == LedgerState(boot_id="kept")


# -- damage ----------------------------------------------------------------------------------------------------


def payload_position(path: Path, word: bytes) -> int:
    raw = path.read_bytes()
    assert raw.count(word) == 1
    return raw.index(word)


def flip(path: Path, position: int, mask: int = 0xFF) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= mask
    path.write_bytes(raw)


@pytest.mark.parametrize("mask", [0x01, 0x20, 0xFF], ids=["a digit", "not JSON", "not UTF-8"])
def test_a_flipped_byte_of_a_payload_is_reported_and_left_out(path: Path, mask: int) -> None:
    fill(path)
    flip(path, payload_position(path, b'"mode_epoch":7') + len(b'"mode_epoch":'), mask)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        state = ledger.load()
        assert state == LedgerState(
            "b00t",
            "d1g35t",
            RECORDS[1:],
            (change("first"), FULL_CHANGE),
            (
                NodeEvent(
                    "ledger_row_damaged", "node", "row 0000:05:00.0 of table gpus was damaged and is left out", NOW
                ),
            ),
        )
    assert content(path)[0].notes == state.notes, "it is told until it was journaled"
    assert content(path)[0] == replace(state, notes=()), "and then the row is gone"


def test_a_damaged_row_can_be_written_again(path: Path) -> None:
    fill(path)
    flip(path, payload_position(path, b'"mode_epoch":7') + len(b'"mode_epoch":'))
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        ledger.load()
        ledger.commit(LedgerWrite(gpus=(replace(RECORDS[0], mode_epoch=9),)))
    assert set(content(path)[0].gpus) == {replace(RECORDS[0], mode_epoch=9), RECORDS[1]}


def test_a_change_cannot_end_by_a_flipped_bit(path: Path) -> None:
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE changes SET ended = 1 WHERE key = 'full'")
        other.commit()
    state, _ = content(path)
    assert ([c.name for c in state.changes], kinds(state)) == (["first"], ["ledger_row_damaged"])


def test_a_damaged_event_is_left_out_and_told_at_once(path: Path) -> None:
    fill(path)
    flip(path, payload_position(path, b"it is done"))
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger:
        assert [event.message for event in ledger.events()] == ["ünïcode"]
        assert [event.kind for event in ledger.events()] == ["driver_reloaded", "ledger_row_damaged"]
    assert [event.kind for event in content(path)[1]] == ["driver_reloaded", "ledger_row_damaged"]


def test_an_event_whose_number_became_zero_is_told(path: Path) -> None:
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE events SET key = 0 WHERE key = 1")
        other.commit()
    assert [event.kind for event in content(path)[1]] == ["driver_reloaded", "ledger_row_damaged"]


def make_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be one" * 200)


def make_short(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0")


def cut_half(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096 + 100)


def another_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE songs (title TEXT)")


def without_a_table(path: Path) -> None:
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE gpus")


def with_a_stale_index(path: Path) -> None:
    """quick_check passes over it; a record would be written a second time beside the old one."""
    fill(path)
    raw = path.read_bytes()
    position = raw.index(b"0000:05:00.0", raw.index(b"0000:05:00.0") + 1)
    while b"\x03" not in raw[position - 3 : position]:  # the index entry: header of three bytes, then the key
        position = raw.index(b"0000:05:00.0", position + 1)
    flip(path, position + 5, 0x01)


DAMAGES = [
    (make_garbage, ""),
    (make_short, ""),
    (another_program, ""),
    (cut_half, " with what it still held: 2 changes, 2 gpus, 2 meta"),
    (without_a_table, " with what it still held: 2 changes, 2 events, 2 meta"),
    (with_a_stale_index, " with what it still held: 2 changes, 2 events, 2 gpus, 2 meta"),
]


@pytest.mark.parametrize(("damage", "held"), DAMAGES)
def test_a_file_that_cannot_be_used_is_moved_aside_and_told(path: Path, damage, held: str) -> None:
    damage(path)
    broken = path.read_bytes()
    state, events = content(path)
    assert kinds(state) == ["ledger_quarantined"]
    assert state.notes[0].message.endswith(f"it was moved to ledger.db.bad-1 and a new one begun{held}")
    assert [event.kind for event in events][-1:] == ["ledger_quarantined"]
    assert (len(state.gpus), len(state.changes), len(events) - 1) == tuple(
        int(held.partition(f" {table}")[0].split()[-1]) if f" {table}" in held else 0
        for table in ("gpus", "changes", "events")
    )
    assert path.with_name("ledger.db.bad-1").read_bytes() == broken
    assert content(path)[0].notes == ()


def test_quarantined_files_are_numbered(path: Path) -> None:
    for number in (1, 2, 3):
        path.write_bytes(b"x" * 1000 * number)
        Path(f"{path}-wal").write_bytes(b"w" * number)
        assert kinds(content(path)[0]) == ["ledger_quarantined"]
        assert path.with_name(f"ledger.db.bad-{number}").stat().st_size == 1000 * number
        assert path.with_name(f"ledger.db.bad-{number}-wal").read_bytes() == b"w" * number


def test_an_empty_file_is_told(path: Path) -> None:
    path.touch()
    state, _ = content(path)
    assert kinds(state) == ["ledger_empty"]
    assert content(path)[0].notes == ()


def test_an_empty_write_ahead_log_is_nothing(path: Path) -> None:
    fill(path)
    before = content(path)
    Path(f"{path}-wal").touch()
    assert content(path) == before


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    fill(path)
    newer = SCHEMA_VERSION + 1
    from aimd.adapters.ledger import _seal

    with contextlib.closing(sqlite3.connect(path)) as other:
        other.executescript(f"PRAGMA user_version = {newer}; PRAGMA application_id = {_seal(newer)}")
    before = path.read_bytes()
    with pytest.raises(LedgerError) as caught:
        SqliteLedger(path, NOW)
    assert caught.value.message == (
        f"ledger {path} has schema version {newer}, expected at most {SCHEMA_VERSION}: a newer aimd wrote it"
    )
    assert "move the file aside" in (caught.value.hint or "")
    assert path.read_bytes() == before
    assert list(path.parent.glob("*.bad-*")) == []


def test_a_version_that_a_flipped_bit_made_newer_is_damage(path: Path) -> None:
    fill(path)
    flip(path, 60, 0x01)
    assert kinds(content(path)[0]) == ["ledger_quarantined"]


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """In memory where there is such a file system: a thousand ledgers are begun."""
    folder = tempfile.mkdtemp(prefix="aimd-test-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    yield Path(folder, "ledger.db")
    shutil.rmtree(folder)


def check_flipped(original: Path, positions: range, mask: int) -> int:
    """Flip each byte in turn: whoever reads gets the truth, or less of it together with a note. Counts the told."""
    truth, true_events = content(original)
    told = 0
    raw = original.read_bytes()
    for position in positions:
        path = original.with_name("flipped.db")
        path.write_bytes(raw)
        flip(path, position, mask)
        state, events = content(path)
        spoken = bool(state.notes) or any(event.kind.startswith("ledger_") for event in events)
        whole = replace(state, notes=()) == truth and events == true_events
        assert whole != spoken, f"byte {position} ^ {mask:#x}: {state} {events}"
        assert set(state.gpus) <= set(truth.gpus), position
        assert set(state.changes) <= set(truth.changes), position
        assert {event for event in events if not event.kind.startswith("ledger_")} <= set(true_events), position
        assert state.boot_id in (truth.boot_id, None), position
        assert state.layout_digest in (truth.layout_digest, None), position
        told += spoken
        for leftover in original.parent.glob("flipped.db*"):
            leftover.unlink()
    return told


def test_every_64th_byte_flipped(memory_path: Path) -> None:
    fill(memory_path)
    assert check_flipped(memory_path, range(5, memory_path.stat().st_size, 64), 0xFF) > 12


def test_every_byte_of_the_header_flipped(memory_path: Path) -> None:
    fill(memory_path)
    assert check_flipped(memory_path, range(100), 0x01) > 20


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_byte_flipped(memory_path: Path, mask: int) -> None:
    """python -m pytest tests/unit/adapters/test_ledger.py -m campaign"""
    fill(memory_path)
    assert check_flipped(memory_path, range(memory_path.stat().st_size), mask) > 500


# -- want of space or permission is no damage --------------------------------------------------------------------


def in_a_child(work) -> str:
    """What `work()` returned in a forked process, whose limits and uid may be changed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = work()
        except BaseException as error:  # noqa: BLE001 -- the parent shows it
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(pid, 0)
    return answer


def test_a_folder_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(LedgerError, match=r"ledger.db cannot be opened \(Is a directory\), expected a file"):
        SqliteLedger(path, NOW)


def test_no_folder(path: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be opened"):
        SqliteLedger(path / "deeper", NOW)


@pytest.fixture
def strangers_folder() -> Iterator[Path]:
    """A folder outside the tests' own, where an unprivileged user gets through."""
    folder = Path(tempfile.mkdtemp(prefix="aimd-test-"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("existing", [True, False], ids=["a ledger", "none"])
def test_a_read_only_folder(strangers_folder: Path, existing) -> None:
    path = strangers_folder / "ledger.db"
    if existing:
        fill(path)
        path.chmod(0o444)
    strangers_folder.chmod(0o555)

    def work() -> str:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            SqliteLedger(path, NOW)
        except LedgerError as error:
            return error.message
        return "opened"

    assert in_a_child(work).startswith(f"ledger {path} cannot be opened (")
    assert [entry.name for entry in strangers_folder.iterdir()] == (["ledger.db"] if existing else [])


def test_damage_in_a_read_only_folder(strangers_folder: Path) -> None:
    """It cannot be moved aside, and that is said."""
    path = strangers_folder / "ledger.db"
    make_garbage(path)
    path.chmod(0o444)  # also for its owner: SQLite reads it, and does not stumble over a log that it cannot create
    strangers_folder.chmod(0o555)

    def work() -> str:
        if os.getuid() == 0:
            os.setuid(65534)
        try:
            SqliteLedger(path, NOW)
        except LedgerError as error:
            return error.message
        return "opened"

    assert in_a_child(work).startswith(f"ledger {path} cannot be opened (Permission denied")
    assert [entry.name for entry in strangers_folder.iterdir()] == ["ledger.db"]


def limit_files(size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_no_space_at_the_start(path: Path) -> None:
    fill(path)
    before = content(path)

    def work() -> str:
        limit_files(0)
        try:
            SqliteLedger(path, NOW).commit(LedgerWrite(boot_id="new"))
        except LedgerError as error:
            return error.message
        return "written"

    assert "could not be written" in (answer := in_a_child(work)) or "cannot be opened" in answer
    assert list(path.parent.glob("*.bad-*")) == []
    assert content(path) == before


def test_space_that_runs_out_and_comes_back(path: Path) -> None:
    big = tuple(NodeEvent("k", "node", "m" * 1000, NOW) for _ in range(500))

    def work() -> str:
        ledger = SqliteLedger(path, NOW)
        ledger.commit(LedgerWrite(boot_id="before"))
        limit_files(200_000)
        with pytest.raises(LedgerError, match="could not be written"):
            ledger.commit(LedgerWrite(boot_id="lost", events=big))
        limit_files(resource.RLIM_INFINITY)
        assert ledger.load().boot_id == "before"
        ledger.commit(LedgerWrite(layout_digest="after"))
        return "went on"

    assert in_a_child(work) == "went on"
    assert content(path) == (LedgerState("before", "after"), [])


def test_a_ledger_that_another_program_has_locked(path: Path) -> None:
    fill(path)
    with contextlib.closing(SqliteLedger(path, NOW)) as ledger, contextlib.closing(sqlite3.connect(path)) as other:
        ledger._database.execute("PRAGMA busy_timeout = 10")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerError, match="could not be written") as caught:
            ledger.commit(LedgerWrite(boot_id="new"))
        assert "no other program has it open" in (caught.value.hint or "")
        other.rollback()
        ledger.commit(LedgerWrite(boot_id="new"))
    assert content(path)[0].boot_id == "new"
