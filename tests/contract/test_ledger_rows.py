"""The JSON of the ledger's rows is a contract with every ledger that is there: a renamed field must not lose a user's.

ledger_rows.json has a row of each table with every field used. A field may be added, with a default: add it here and
there, and leave a copy of the row as it was in `older`. Fields are not renamed or removed without a migration.
"""

import dataclasses
import json
from enum import Enum
from pathlib import Path

import msgspec
import pytest

from aimd.domain.accounting import FindingKind, MemoryFinding
from aimd.domain.claim import (
    Assignment,
    Claim,
    ClaimSpec,
    ClaimState,
    DeviceShare,
    PartitionRef,
    PodReplica,
    QosClass,
    Slo,
)
from aimd.domain.event import NodeEvent
from aimd.domain.ledger import GpuRecord, HolderRecord, MemoryRecord
from aimd.domain.modes import ComputeMode, MemoryMode, PartitionMode
from aimd.domain.plan import Reason, Step, StepKind
from aimd.domain.pod import PodRef
from aimd.domain.process import Process
from aimd.domain.switch import ModeChange, Switch, SwitchState

FROZEN = json.loads(Path(__file__).with_name("ledger_rows.json").read_text("utf-8"))
GPU = "0000:05:00.0"
CPX = PartitionMode(ComputeMode.CPX, MemoryMode.NPS1)
SPX = PartitionMode(ComputeMode.SPX, MemoryMode.NPS4)
SPEC = ClaimSpec(1024, QosClass.HIGH, CPX, PartitionRef(3, GPU), PartitionRef(2, GPU), 2, 5, 7, 2, Slo(0.5, 0.99, 10.5))
DEVICE = DeviceShare("llama-gpu", "claim-uid", "gpu", "gpu0-cpx-3", "share-uid", prepared=True, also=("other-uid",))
ROWS = {
    "gpus": GpuRecord(
        address=GPU,
        mode_epoch=7,
        mode=SPX,
        wish=CPX,
        draining=True,
        memory=MemoryRecord(
            (MemoryFinding(FindingKind.OVER_LIMIT, GPU, 3, 7, "llama", "it uses more", 1.5, denied=True),), 4096, 6
        ),
    ),
    "changes": ModeChange(
        name="c",
        origin="client",
        wishes=((GPU, CPX),),
        switches=(
            Switch(
                step=Step(StepKind.COMPUTE, (GPU,), SPX, CPX, after_reload=True),
                state=SwitchState.FAILED,
                attempts=3,
                deadline=12.5,
                reason=Reason.GPU_BUSY,
                message="in use",
                began=10.5,
                ended=12.75,
                write_seconds=0.5,
                generation=17,
            ),
        ),
        boot_id="boot",
        created_at=1.5,
        wait_seconds=30.5,
        requester_uid=1000,
    ),
    "claims": Claim(
        name="llama",
        owner_uid=1000,
        spec=SPEC,
        created_at=1.5,
        state=ClaimState.SWITCHING,
        assignments=(Assignment("llama", 1, GPU, 3, 1024, 2, 7),),
        change="c",
        reason=Reason.GPU_BUSY,
        message="no room",
        pods=(PodReplica(1, PodRef("ns", "pod", "uid"), SPEC, "2026-01-01T00:00:00Z", DEVICE),),
    ),
    "holders": HolderRecord(
        claim="llama",
        replica=1,
        pid=77,
        start_time=1234,
        command="serve",
        ended_at=3.5,
        gpu=GPU,
        index=3,
        mode_epoch=7,
        memory_units=1024,
        released_at=2.5,
        guarantee=2,
        survivors=(Process(78, 1235, "child"),),
    ),
    "events": NodeEvent("switch_committed", GPU, "it is done", 1.5, 9),
}
MANY_STATES = (SwitchState, StepKind, Reason, ClaimState, QosClass, FindingKind, ComputeMode, MemoryMode)


@pytest.mark.parametrize("table", ROWS)
def test_a_row_is_written_as_ever(table):
    assert json.loads(msgspec.json.encode(ROWS[table])) == FROZEN["rows"][table]


@pytest.mark.parametrize("table", ROWS)
def test_a_row_is_read_as_ever(table):
    row = json.dumps(FROZEN["rows"][table])
    assert msgspec.json.decode(row, type=type(ROWS[table])) == ROWS[table]


@pytest.mark.parametrize("table", ROWS)
def test_the_row_uses_every_field(table):
    def unused(value):
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                found = getattr(value, field.name)
                yield from [f"{type(value).__name__}.{field.name}"] if found == field.default else unused(found)
        elif isinstance(value, tuple):
            for each in value:
                yield from unused(each)

    assert list(unused(ROWS[table])) == []


@pytest.mark.parametrize(("table", "row"), [(table, row) for table, rows in FROZEN["older"].items() for row in rows])
def test_rows_of_before_are_read(table, row):
    msgspec.json.decode(json.dumps(row), type=type(ROWS[table]))


@pytest.mark.parametrize("kind", MANY_STATES)
def test_no_value_is_lost(kind: type[Enum]):
    """New ones may come; a ledger may have each of the old ones."""
    assert set(FROZEN["values"][kind.__name__]) <= {member.value for member in kind}
