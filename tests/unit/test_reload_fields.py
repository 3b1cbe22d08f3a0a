"""Every setting of aimd.toml either takes effect at a reload or says that it needs a restart."""

import msgspec
import pytest

from aimd.config import Allow, Config, Dispatch, Kubernetes, Metrics, Placement, Switching, Waits, needs_restart
from aimd.daemon.dispatch_setup import settings_of
from aimd.daemon.reload import _changed, policy_of

OTHER = {
    "sysfs_root": "/other",
    "allow_memory_mode_change": True,
    "operators": [7],
    "poll_seconds": 9.0,
    "memory_probe": "off",
    "hip_library": "/lib/other",
    "probe_seconds": 9.0,
    "on_memory_overrun": "deny-new-leases",
    "memory_overrun_seconds": 9.0,
    "log_level": "debug",
    "metrics": Metrics("off"),
    "kubernetes": Kubernetes(enabled=True),
    "layout": {"default": "CPX/NPS1"},
}
INNER = {
    "switching": (Switching, dict.fromkeys(("wait_seconds", "settle_seconds", "wish_retry_seconds"), 9.0)),
    "placement": (Placement, {"repartition": "never", "slots_per_partition": 9, "orphan_grace_seconds": 9.0}),
    "dispatch": (
        Dispatch,
        {
            **{field.name: 9 for field in msgspec.structs.fields(Dispatch)},
            "lease_max_seconds": 9.0,
            "lost_seconds": 9.0,
            "patience_seconds": 9.0,
            "wait_seconds": Waits(9.0),
            "allow": [Allow(["*"], user=7)],
        },
    ),
}
CHANGED = {name: Config(**{name: value}) for name, value in OTHER.items()} | {
    f"{table}.{name}": Config(**{table: kind(**{name: value})})
    for table, (kind, values) in INNER.items()
    for name, value in values.items()
}


def taken_up(config):
    return policy_of(config), settings_of(config), config.modes()


def test_every_setting_is_looked_at():
    fields = {field.name for field in msgspec.structs.fields(Config)} - INNER.keys()
    inner = {f"{table}.{field.name}" for table, (kind, _) in INNER.items() for field in msgspec.structs.fields(kind)}
    assert CHANGED.keys() == fields | inner
    assert needs_restart() <= CHANGED.keys()


@pytest.mark.parametrize("name", CHANGED)
def test_a_setting_is_taken_up_or_needs_a_restart(name):
    changed = CHANGED[name]
    assert (taken_up(changed) != taken_up(Config())) is (name not in needs_restart())
    assert _changed(Config(), changed) in ([name], [name.partition(".")[0]])
