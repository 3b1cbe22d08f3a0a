"""AMD's own libamdhip64 5.2.3 without a GPU: the documented answers, no crash, nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aimd.adapters.hip.probe import HipProbe, ProbeSettings
from aimd.domain.probe import ProbeState
from tests.hip.calling import CALLS, run
from tests.hip.simulated import ADDRESSES, node_in

LEFT = """
import json, os, sys
from aimd._native import hip
def state():
    return sorted(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
before = state()
library = hip.Hip(sys.argv[1])
for number in range(50):
    for call in (library.init, library.device_count, library.memory):
        try:
            call()
        except hip.NoDeviceError:
            pass
print(json.dumps(state() == before))
"""


def test_every_call_answers_as_documented(real_library: Path) -> None:
    """Hardware notes 4.6, first column."""
    told = run(CALLS, real_library, LD_LIBRARY_PATH=str(real_library.parent))
    assert told["path"] == str(real_library)
    assert told["init"] == ["NoDeviceError", "hipInit", 101, *["hipErrorInvalidDevice"] * 2]
    assert told["device_count"] == ["NoDeviceError", "hipGetDeviceCount", 100, *["hipErrorNoDevice"] * 2]
    for call in ("set_device", "memory", "total_memory", "pci_bus_id", "uuid", "attribute"):
        assert told[call][2] == 101
    assert told["runtime_version"] == told["driver_version"] == 50221153


def test_the_stand_in_s_old_flavour_answers_like_it(real_library: Path, stubs) -> None:
    real = run(CALLS, real_library, LD_LIBRARY_PATH=str(real_library.parent))
    stub = run(CALLS, stubs.build("HIP_MAJOR=5"))
    assert {**real, "path": ""} == {**stub, "path": ""}


def test_it_leaves_no_descriptor_and_no_thread(real_library: Path) -> None:
    assert run(LEFT, real_library, LD_LIBRARY_PATH=str(real_library.parent)) is True


def test_the_loader_finds_it_by_its_soname(real_library: Path) -> None:
    script = "import json; from aimd._native import hip; print(json.dumps(hip.Hip().path))"
    assert run(script, LD_LIBRARY_PATH=str(real_library.parent)) == str(real_library)


def test_a_library_whose_dependency_is_not_found_is_unusable(real_library: Path, tmp_path: Path) -> None:
    lonely = tmp_path / real_library.name
    lonely.write_bytes(real_library.read_bytes())
    script = """
import json, sys
from aimd._native import hip
try:
    hip.Hip(sys.argv[1])
except hip.LibraryUnusableError as error:
    print(json.dumps(str(error)))
"""
    assert ": cannot open shared object file" in run(script, lonely)


def test_the_helper_tells_no_device_and_is_gone(real_library: Path, tmp_path: Path) -> None:
    with node_in(tmp_path, mode="CPX/NPS1") as (node, _):

        async def story() -> None:
            probe = HipProbe(node, ProbeSettings(None, 20.0, {"LD_LIBRARY_PATH": str(real_library.parent)}))
            await probe.probe(ADDRESSES[0])  # the event loop's own descriptors are there now
            before = len(list(Path("/proc/self/fd").iterdir()))
            for _ in range(5):
                report = await probe.probe(ADDRESSES[0])
                assert (report.state, report.released) == (ProbeState.NO_DEVICE, True)
                assert report.message == "hipInit failed with hipErrorInvalidDevice (101): hipErrorInvalidDevice"
            assert len(list(Path("/proc/self/fd").iterdir())) == before
            assert str(real_library.parent) not in Path("/proc/self/maps").read_text()

        asyncio.run(story())
