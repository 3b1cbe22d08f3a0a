"""aimd._native.hip on the stand-in: every function, every release, every way in which a library can be unfit."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aimd._native import hip
from tests.hip.calling import CALLS, run
from tests.hip.simulated import ADDRESSES, node_in

BUS_IDS = """
import json, sys
from aimd._native import hip
library = hip.Hip(sys.argv[1])
try:
    print(json.dumps([library.pci_bus_id(number) for number in range(library.device_count())]))
except hip.NoDeviceError:
    print("[]")
"""


def own_library() -> bool:
    try:
        hip.Hip()
    except hip.LibraryAbsentError:
        return False
    except hip.LibraryError:
        return True
    return True


def test_without_rocm_it_is_imported_and_tells_where_it_looked() -> None:
    if own_library():
        pytest.skip("this machine has a libamdhip64")
    with pytest.raises(hip.LibraryAbsentError) as error:
        hip.Hip()
    assert [name for name, _ in error.value.tried] == list(hip.SONAMES)
    assert error.value.tried[0][1] == "cannot open shared object file: No such file or directory"


def test_an_absent_file_is_absent_and_nothing_else_is_tried(tmp_path: Path) -> None:
    with pytest.raises(hip.LibraryAbsentError) as error:
        hip.Hip(str(tmp_path / "libamdhip64.so.6"))
    assert len(error.value.tried) == 1


def test_a_library_without_the_functions_is_unusable_and_they_are_named(empty_library: Path) -> None:
    with pytest.raises(hip.LibraryUnusableError, match=r"hipInit, hipGetDeviceCount, .*, hipGetErrorString$"):
        hip.Hip(str(empty_library))


def test_a_file_that_is_no_library_is_unusable(tmp_path: Path) -> None:
    path = tmp_path / "libamdhip64.so"
    path.write_text("INPUT(libamdhip64.so.6)\n")
    with pytest.raises(hip.LibraryUnusableError, match=r"invalid ELF header|file too short"):
        hip.Hip(str(path))


def test_a_library_that_lacks_another_library_is_unusable(stubs, tmp_path: Path) -> None:
    needed = tmp_path / "libneeded.so"
    subprocess.run([stubs._compiler, "-shared", "-x", "c", "/dev/null", "-o", str(needed)], check=True)
    user = tmp_path / "libamdhip64.so.7"
    link = ["-Wl,--no-as-needed", f"-L{tmp_path}", "-lneeded"]
    subprocess.run([stubs._compiler, "-shared", "-x", "c", "/dev/null", *link, "-o", str(user)], check=True)
    needed.unlink()
    with pytest.raises(hip.LibraryUnusableError, match=r"libneeded.so: cannot open shared object file"):
        hip.Hip(str(user))


@pytest.mark.parametrize("soname", hip.SONAMES)
def test_every_soname_is_found_by_the_loader(stubs, tmp_path: Path, soname: str) -> None:
    library = Path(shutil.copy(stubs.build(), tmp_path / soname))
    script = "import json; from aimd._native import hip; print(json.dumps(hip.Hip().path))"
    assert run(script, LD_LIBRARY_PATH=str(library.parent)) == str(library)


@pytest.mark.parametrize(
    ("major", "code", "name", "text", "count_text"),
    [
        (5, 101, "hipErrorInvalidDevice", "hipErrorInvalidDevice", "hipErrorNoDevice"),
        (6, 100, "hipErrorNoDevice", *["no ROCm-capable device is detected"] * 2),
        (7, 100, "hipErrorNoDevice", *["no ROCm-capable device is detected"] * 2),
    ],
)
def test_without_a_node_there_is_no_device(stubs, major: int, code: int, name: str, text: str, count_text: str) -> None:
    """By the table of hardware notes 4.6, measured with the real libraries."""
    told = run(CALLS, stubs.build(f"HIP_MAJOR={major}"))
    assert told["init"] == ["NoDeviceError", "hipInit", code, name, text]
    assert told["device_count"] == ["NoDeviceError", "hipGetDeviceCount", 100, "hipErrorNoDevice", count_text]
    for call in ("set_device", "memory", "total_memory", "pci_bus_id", "uuid", "attribute"):
        assert (told[call][0], told[call][2]) == ("NoDeviceError", code)
    assert str(told["runtime_version"])[0] == str(major)


@pytest.mark.parametrize("major", [5, 6, 7])
def test_every_call_answers_on_a_node(stubs, tmp_path: Path, major: int) -> None:
    library = stubs.build(f"HIP_MAJOR={major}")
    with node_in(tmp_path, mode="CPX/NPS1") as (_, socket):
        told = run(CALLS, library, AIMD_SIM_SOCKET=str(socket))
    free, total = told["memory"]
    assert told["path"] == str(library)
    # The second GPU, which was not switched, comes first in KFD's list.
    assert (told["device_count"], told["pci_bus_id"]) == (9, "0000:27:00.0")
    assert total == told["total_memory"] == 206141652992
    assert 0 < free < total
    assert told["attribute"] == 304
    assert told["uuid"] == f"{0xA000_0027_0000_5EED:016x}"
    assert told["runtime_version"] == told["driver_version"]


def test_other_errors_keep_hip_s_name_and_text(stubs, tmp_path: Path) -> None:
    script = """
import json, sys
from aimd._native import hip
library = hip.Hip(sys.argv[1])
try:
    library.attribute(999999, 0)
except hip.HipError as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""
    with node_in(tmp_path) as (_, socket):
        told = run(script, stubs.build(), AIMD_SIM_SOCKET=str(socket))
    assert told == ["HipError", "hipDeviceGetAttribute failed with hipErrorInvalidValue (1): invalid argument"]


def test_a_failed_start_stays_failed(stubs, tmp_path: Path) -> None:
    script = """
import json, os, sys
from aimd._native import hip
library = hip.Hip(sys.argv[1])
codes = []
for path in ("/nowhere", sys.argv[2]):
    os.environ["AIMD_SIM_SOCKET"] = path
    try:
        library.init()
    except hip.NoDeviceError as error:
        codes.append(error.code)
print(json.dumps(codes))
"""
    with node_in(tmp_path) as (node, socket):
        assert run(script, stubs.build(), socket) == [100, 100]
        assert node.clients() == []


def test_a_start_during_a_switch_fails(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path, count=1) as (node, socket):
        node.act(lambda driver, now: driver.write_compute(ADDRESSES[0], b"CPX", now + 3600).errno)
        assert run(BUS_IDS, stubs.build(), AIMD_SIM_SOCKET=str(socket)) == []


def test_devices_and_their_order_are_those_of_the_start(stubs, tmp_path: Path) -> None:
    script = BUS_IDS.replace("try:", "library.init()\nprint(flush=True)\nsys.stdin.readline()\ntry:")
    variables = {"PYTHONPATH": str(Path(__file__).parents[2]), "AIMD_SIM_GPUS": "gpu0,gpu1"}
    with node_in(tmp_path, mode="DPX/NPS1", count=3) as (node, socket):
        command = [sys.executable, "-c", script, str(stubs.build())]
        variables["AIMD_SIM_SOCKET"] = str(socket)
        with subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            child.stdout.readline()
            node.write(f"bus/pci/devices/{ADDRESSES[2]}/current_compute_partition", b"CPX")
            told, _ = child.communicate("\n")
    assert json.loads(told) == ["0000:27:00.0", "0000:05:00.0", "0000:05:00.1"]


SHARED = f"GPU-{0xA000_0005_0000_5EED:016x}"  # older drivers: one for all partitions of a GPU


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ["27:00.0", "05:00.0", "05:00.1"]),
        ({"ROCR_VISIBLE_DEVICES": "2,0"}, ["05:00.1", "27:00.0"]),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "1"}, ["05:00.1"]),
        ({"ROCR_VISIBLE_DEVICES": "1,9,2"}, ["05:00.0"]),
        ({"ROCR_VISIBLE_DEVICES": SHARED}, ["05:00.0"]),
        ({"ROCR_VISIBLE_DEVICES": f"GPU-1,{SHARED}"}, []),
        ({"ROCR_VISIBLE_DEVICES": ""}, []),
        ({"HIP_VISIBLE_DEVICES": "2"}, ["05:00.1"]),
        ({"HIP_VISIBLE_DEVICES": "2,-1,0"}, ["05:00.1"]),
        ({"HIP_VISIBLE_DEVICES": SHARED}, []),
        ({"HIP_VISIBLE_DEVICES": "", "CUDA_VISIBLE_DEVICES": "0"}, ["27:00.0"]),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "0"}, ["05:00.0"]),
        ({"AIMD_SIM_GPUS": "gpu0"}, ["05:00.0", "05:00.1"]),
    ],
)
def test_visible_devices(stubs, tmp_path: Path, environment: dict[str, str], expected: list[str]) -> None:
    """The stand-in filters as HSA and HIP do (hardware notes 4.4)."""
    profile = "6.12" if SHARED in str(environment) else "7.2"
    with node_in(tmp_path, mode="DPX/NPS1", profile=profile) as (_, socket):
        told = run(BUS_IDS, stubs.build(), AIMD_SIM_SOCKET=str(socket), **environment)
    assert [bus_id[5:] for bus_id in told] == expected


def test_guard_ends_an_orphan_and_a_process_that_hangs() -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from aimd._native import hip
print(hip.guard(int(sys.argv[1]), int(sys.argv[2])), flush=True)
time.sleep(60)
"""
    hanging = subprocess.Popen([sys.executable, "-c", script, str(os.getpid()), "1"], stdout=subprocess.DEVNULL)
    assert hanging.wait(10) == -14
    starter = f"""
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {script!r}, str(os.getpid()), "60"], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
os._exit(0)
"""
    started = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, timeout=20)
    orphan = int(started.stdout)
    try:
        descriptor = os.pidfd_open(orphan)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 5)[0], "it outlives its parent"
    os.close(descriptor)
