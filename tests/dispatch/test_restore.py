"""Records that no core can have written are refused by restore, and nothing has changed then."""

from dataclasses import replace

import pytest

from aimd.dispatch import LeaseRecord, Limits, NativeCore, Reference

RECORD = LeaseRecord(lease=5 << 16, partition=0, model=0, klass=0, process=9, started=50, deadline=200)


@pytest.mark.parametrize("core", [NativeCore, Reference])
@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("lease", [0, -1, 3, 1 << 62, 1 << 64, 65536.0]),
        ("partition", [-1, 1 << 31, 0.0]),
        ("model", [-1, 1 << 31, 0.0]),
        ("klass", [-1, 3, 0.0]),
        ("process", [1 << 63, -(1 << 63) - 1, 1.0]),
        ("started", [-1, 101, 1.0]),
        ("deadline", [49, 1 << 63, 200.0]),
    ],
)
def test_records_that_no_core_wrote_are_refused(core, field, values):
    fresh = core(Limits())
    for value in values:
        with pytest.raises(ValueError, match=r"to restore: .* expected"):
            fresh.restore(100, [replace(RECORD, **{field: value})])
    assert fresh.snapshot().now == 0
    assert fresh.leases() == ()
    last = replace(RECORD, lease=(1 << 62) - (1 << 16), started=100, deadline=(1 << 63) - 1)
    fresh.restore(100, [last])
    assert fresh.leases() == (last,)
