"""The table from uevent variables to driver events, and what counts as a uevent at all."""

import sys

import pytest

from aimd.adapters import uevents
from aimd.ports import DriverEvent

GPU = "/devices/pci0000:00/0000:00:01.1/0000:05:00.0"
CARD = {"SUBSYSTEM": "drm", "DEVPATH": f"{GPU}/drm/card1", "DEVNAME": "dri/card1", "DEVTYPE": "drm_minor"}
MODULE = {"SUBSYSTEM": "module", "DEVPATH": "/module/amdgpu"}
MI300X = {
    "SUBSYSTEM": "pci",
    "DEVPATH": GPU,
    "PCI_CLASS": "120000",
    "PCI_ID": "1002:74A1",
    "PCI_SLOT_NAME": "0000:05:00.0",
}
AT = "0000:05:00.0"


@pytest.mark.parametrize(
    ("action", "fields", "kind", "address"),
    [
        ("add", MODULE, "driver_reloaded", None),
        ("remove", MODULE, "driver_unloaded", None),
        ("bind", MI300X | {"DRIVER": "amdgpu"}, "gpu_added", AT),
        ("unbind", MI300X, "gpu_removed", AT),
        ("unbind", MI300X | {"DRIVER": "amdgpu"}, "gpu_removed", AT),
        ("unbind", MI300X | {"PCI_CLASS": "38000"}, "gpu_removed", AT),
        ("change", CARD | {"WEDGED": "none"}, "gpu_reset", AT),
        ("change", CARD | {"WEDGED": "rebind,bus-reset", "PID": "7", "TASK": "a=b"}, "gpu_reset", AT),
        ("change", CARD | {"DEVPATH": "/devices/pci10000:e0/10000:e1:00.0/drm/card9", "WEDGED": "none"}, "gpu_reset",
         "10000:e1:00.0"),
        ("change", MI300X | {"DRIVER": "amdgpu", "ERROR_EVENT": "SUCCESSFUL_RECOVERY"}, "gpu_reset", AT),
        ("change", MI300X | {"DRIVER": "amdgpu", "ERROR_EVENT": "FAILED_RECOVERY"}, "gpu_reset", AT),
    ],
)  # fmt: skip
def test_meaning(action, fields, kind, address):
    assert uevents.meaning({"ACTION": action, **fields}) == DriverEvent(kind, address)


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("change", MODULE),
        ("add", MODULE | {"DEVPATH": "/module/amdgpu_lookalike"}),
        ("add", MODULE | {"DEVPATH": "/module/amdgpu/drivers/x"}),
        ("add", {"SUBSYSTEM": "drivers", "DEVPATH": "/bus/pci/drivers/amdgpu"}),
        ("add", MI300X),
        ("remove", MI300X),
        ("bind", MI300X),
        ("bind", MI300X | {"DRIVER": "vfio-pci"}),
        ("unbind", MI300X | {"DRIVER": "vfio-pci"}),
        ("unbind", MI300X | {"PCI_ID": "10DE:2330"}),
        ("unbind", MI300X | {"PCI_CLASS": "40300"}),
        ("unbind", {"SUBSYSTEM": "pci", "PCI_ID": "1002:74A1"}),
        ("unbind", MI300X | {"PCI_CLASS": "none"}),
        ("add", CARD),
        ("change", CARD | {"HOTPLUG": "1"}),
        ("change", CARD | {"DEVPATH": "/devices/platform/gpu/drm/card2", "WEDGED": "none"}),
        ("change", MI300X | {"DRIVER": "amdgpu"}),
        ("change", MI300X | {"DRIVER": "amdgpu", "ERROR_EVENT": "BEGIN_RECOVERY"}),
        ("change", MI300X | {"DRIVER": "nvme", "ERROR_EVENT": "FAILED_RECOVERY"}),
        ("offline", {}),
    ],
)
def test_no_meaning(action, fields):
    assert uevents.meaning({"ACTION": action, **fields}) is None


def test_nothing_is_told_by_an_empty_uevent():
    assert uevents.meaning({}) is None


def test_variables_of_a_uevent():
    datagram = b"add@/module/amdgpu\0ACTION=add\0DEVPATH=/module/amdgpu\0SUBSYSTEM=module\0TASK=a=\xff\0SEQNUM=1\0"
    assert uevents.variables(datagram) == {
        "ACTION": "add",
        "DEVPATH": "/module/amdgpu",
        "SUBSYSTEM": "module",
        "TASK": "a=\N{REPLACEMENT CHARACTER}",
        "SEQNUM": "1",
    }


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\0",
        b"\xff" * 40,
        b"add@/module/amdgpu",
        b"None@None\0",
        b"add@/module/amdgpu\0ACTION=remove\0DEVPATH=/module/amdgpu\0",
        b"libudev\0\xfe\xed\xca\xfe\0\0\0\x28ACTION=add\0DEVPATH=/module/amdgpu\0",
    ],
)
def test_anything_else_is_no_uevent(datagram):
    assert uevents.variables(datagram) is None


def test_pyroute2_is_not_loaded_with_the_module():
    import subprocess

    code = "import sys, aimd.adapters.uevents; sys.exit('pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
