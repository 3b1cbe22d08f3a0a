"""The uevent listener against the kernel itself: events of a network namespace of the test's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACE = Path(__file__).with_name("event_namespace.py")
ROOT = Path(__file__).parents[2]
UNAVAILABLE = 77

GPU = "/devices/pci0000:00/0000:00:01.1/0000:05:00.0"


def uevent(action, devpath, **variables):
    fields = {"ACTION": action, "DEVPATH": devpath, **variables}
    return f"{action}@{devpath}\0" + "".join(f"{key}={value}\0" for key, value in fields.items())


def pci(action, **variables):
    device = {"PCI_CLASS": "120000", "PCI_ID": "1002:74A1", "PCI_SLOT_NAME": "0000:05:00.0"}
    return uevent(action, GPU, SUBSYSTEM="pci", **device, **variables)


MODULE_REMOVED = uevent("remove", "/module/amdgpu", SUBSYSTEM="module")
MODULE_ADDED = uevent("add", "/module/amdgpu", SUBSYSTEM="module")


@pytest.fixture
def heard():
    """What a listener reports of these steps; see event_namespace.py for their kinds."""

    def run(*steps):
        result = subprocess.run(
            [sys.executable, NAMESPACE],
            input=json.dumps(steps),
            capture_output=True,
            text=True,
            timeout=60,
        )
        if result.returncode == UNAVAILABLE:
            pytest.skip(f"no network namespace of the test's own: {result.stderr.strip()}")
        assert result.returncode == 0, result.stderr
        outcome = json.loads(result.stdout)
        assert outcome["ended"], "the iteration goes on after close()"
        assert outcome["open_sockets"] == 0, "close() leaves the socket open"
        return [tuple(event) for event in outcome["events"]]

    return run


def test_reload_of_the_driver_is_heard_in_order(heard):
    events = heard(
        ("kernel", pci("unbind")),
        ("kernel", MODULE_REMOVED),
        ("kernel", pci("bind", DRIVER="amdgpu")),
        ("kernel", MODULE_ADDED),
    )
    assert events == [
        ("gpu_removed", "0000:05:00.0"),
        ("driver_unloaded", None),
        ("gpu_added", "0000:05:00.0"),
        ("driver_reloaded", None),
    ]


def test_reset_names_the_gpu(heard):
    reset = uevent("change", f"{GPU}/drm/card1", SUBSYSTEM="drm", DEVNAME="dri/card1", WEDGED="none")
    assert heard(("kernel", reset)) == [("gpu_reset", "0000:05:00.0")]


def test_other_drivers_are_ignored(heard):
    events = heard(
        ("kernel", uevent("add", "/module/xe", SUBSYSTEM="module")),
        ("kernel", pci("bind", DRIVER="vfio-pci")),
        ("kernel", uevent("change", f"{GPU}/drm/card1", SUBSYSTEM="drm", HOTPLUG="1")),
    )
    assert events == []


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "\0",
        "x",
        "\xff\xfe\0\xff=\xff\0",
        "add@/module/amdgpu",
        MODULE_ADDED.replace("add@", "remove@"),
        "libudev\0" + "\xfe\xed\xca\xfe" * 8 + MODULE_ADDED,
        "=" * 1500,
    ],
)
def test_garbage_is_ignored_and_the_next_event_heard(heard, garbage):
    assert heard(("kernel", garbage), ("kernel", MODULE_ADDED)) == [("driver_reloaded", None)]


@pytest.mark.parametrize("how", ["unicast", "multicast"])
def test_user_space_cannot_speak_for_the_kernel(heard, how):
    assert heard((how, MODULE_ADDED)) == []


def test_overrun_is_reported_and_survived(heard):
    events = heard(("flood", uevent("add", "/devices/virtual/net/x", SUBSYSTEM="net")), ("kernel", MODULE_ADDED))
    assert ("events_lost", None) in events
    events = heard(("flood", MODULE_ADDED))
    assert {("events_lost", None), ("driver_reloaded", None)} == set(events)


def test_the_kernels_event_completes_a_pending_memory_change():
    """Listener and control loop joined: without the event the change stays pending, for no poll comes."""
    command = [sys.executable, "-m", "tests.integration.event_daemon"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    if result.returncode == UNAVAILABLE:
        pytest.skip(f"no network namespace of the test's own: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    outcome = json.loads(result.stdout)
    assert outcome["states"] == ["awaiting_reload", "committed"]
    assert outcome["events"] == ["driver_reloaded"]
    assert outcome["hardware"] == ["QPX QPX/NPS4 4", "CPX CPX/NPS4 8"]
