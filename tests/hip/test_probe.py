"""HipProbe: a helper that is started, asked and gone, whatever the library does to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aimd.adapters.hip import helper
from aimd.adapters.hip.probe import HipProbe, ProbeSettings
from aimd.domain.probe import ProbeState
from tests.hip.simulated import ADDRESSES, client, node_in, probe_of

GPU = ADDRESSES[0]


def ask(node, socket: Path, library: object, seconds: float = 10.0):
    async def story():
        return await probe_of(node, socket, library, seconds).probe(GPU)

    return asyncio.run(story())


EARLIER: set[int] = set()  # what other test files have left running in this process


def all_children() -> set[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return {int(pid) for pid in listed.read_text().split()}


@pytest.fixture(autouse=True)
def earlier() -> None:
    EARLIER.clear()
    EARLIER.update(all_children())


def children() -> set[int]:
    """Living processes that the test has started."""
    return all_children() - EARLIER


def test_the_rest_of_a_probe_is_short_against_the_start_of_hip(stubs, tmp_path: Path) -> None:
    """A start as measured on an MI300A node; what is beside it, about 30 ms, may not come near it."""
    with node_in(tmp_path, mode="CPX/NPS1", count=8) as (node, socket):
        reports = [ask(node, socket, stubs.build("INIT_MILLISECONDS=245")) for _ in range(5)]
    beside = sorted(report.seconds - report.init_seconds for report in reports)
    assert all(report.init_seconds >= 0.245 for report in reports)
    assert beside[0] < 0.2, beside


async def joined(node, count: int = 1) -> None:
    """Wait until so many processes are KFD clients."""
    deadline = time.monotonic() + 10
    while len(node.clients()) < count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("fault", "state", "message"),
    [
        ("FAULT_CRASH", ProbeState.CRASHED, "the helper died of SIGSEGV inside HIP"),
        ("FAULT_FREE", ProbeState.IMPLAUSIBLE, "HIP's answer cannot be true: device 0000:05:00.0 has 206141652993 "),
        ("FAULT_DEVICES", ProbeState.IMPLAUSIBLE, "HIP's answer cannot be true: device 0000:05:00.0 is there twice"),
        ("FAULT_BUS", ProbeState.IMPLAUSIBLE, "HIP's answer cannot be true: device 0000:fe:00.0 is no partition of "),
        ("FAULT_EMPTY", ProbeState.IMPLAUSIBLE, "HIP's answer cannot be true: device 0000:05:00.0 has 0 bytes"),
        ("FAULT_NOISE", ProbeState.READ, None),
    ],
)
def test_a_library_that_misbehaves_is_a_state(stubs, tmp_path: Path, fault: str, state: ProbeState, message) -> None:
    with node_in(tmp_path) as (node, socket):
        report = ask(node, socket, stubs.build(f"STUB_FAULT={fault}"))
        assert (report.state, report.released, node.clients()) == (state, True, [])
    assert report.message == message or report.message.startswith(message)
    assert bool(report.partitions) == (state is ProbeState.READ)
    assert children() == set()


def test_a_library_that_hangs_is_ended_at_the_deadline(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path) as (node, socket):
        began = time.monotonic()
        report = ask(node, socket, stubs.build("STUB_FAULT=FAULT_HANG"), seconds=0.5)
        assert 0.5 <= time.monotonic() - began < 3
        assert (report.state, report.message) == (ProbeState.TIMED_OUT, "HIP has not answered within 0.5 s")
        assert node.listdir("class/kfd/kfd/proc") == []
    assert children() == set()


def test_libraries_that_cannot_be_used(empty_library: Path, tmp_path: Path) -> None:
    with node_in(tmp_path) as (node, socket):
        absent = ask(node, socket, tmp_path / "libamdhip64.so")
        wrong = ask(node, socket, empty_library)
    assert absent.state is ProbeState.NO_LIBRARY
    assert absent.message.endswith("libamdhip64.so: cannot open shared object file: No such file or directory")
    assert wrong.state is ProbeState.WRONG_LIBRARY
    assert "it has no hipInit, hipGetDeviceCount, " in wrong.message


@pytest.mark.parametrize("major", [5, 6, 7])
def test_no_device_of_every_release(stubs, tmp_path: Path, major: int) -> None:
    with node_in(tmp_path) as (node, _):
        report = ask(node, tmp_path / "nobody.sock", stubs.build(f"HIP_MAJOR={major}"))
    code = "hipErrorInvalidDevice (101)" if major == 5 else "hipErrorNoDevice (100)"
    assert report.state is ProbeState.NO_DEVICE
    assert report.message.startswith(f"hipInit failed with {code}: ")


def test_no_helper_can_be_started(stubs, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))  # the interpreter was removed under us
    with node_in(tmp_path) as (node, socket):
        report = ask(node, socket, stubs.build())
    assert (report.state, report.message) == (
        ProbeState.FAILED,
        "the helper could not be started: No such file or directory",
    )


def test_a_gpu_without_partitions_is_not_asked_about(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path) as (node, socket):

        async def story():
            return await probe_of(node, socket, stubs.build()).probe("0000:fe:00.0")

        assert asyncio.run(story()).state is ProbeState.MOVED


def test_a_topology_that_moves_is_no_lie(stubs, tmp_path: Path) -> None:
    """The GPU is switched while the helper is on its way: it is no client yet, and finds other devices than expected."""
    with node_in(tmp_path) as (node, socket):

        class Moving:
            """The node, which is switched right after its topology was read."""

            def __init__(self) -> None:
                self._generations = 0

            def listdir(self, path: str) -> list[str]:
                return node.listdir(path)

            def read(self, path: str) -> bytes:
                content = node.read(path)
                if path.endswith("generation_id"):
                    self._generations += 1
                    if self._generations == 2:
                        node.write(f"bus/pci/devices/{GPU}/current_compute_partition", b"CPX")
                return content

        async def story():
            return await probe_of(Moving(), socket, stubs.build()).probe(GPU)

        report = asyncio.run(story())
    assert (report.state, report.message) == (ProbeState.MOVED, "the topology has moved while HIP was asked")


def test_one_helper_at_a_time_and_each_sees_its_gpu(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path, mode="CPX/NPS1", count=3) as (node, socket):

        async def story():
            probe = probe_of(node, socket, stubs.build("INIT_MILLISECONDS=50"))
            most = 0

            async def watch():
                nonlocal most
                while True:
                    most = max(most, len(probe.pids))
                    await asyncio.sleep(0.005)

            watching = asyncio.ensure_future(watch())
            reports = await asyncio.gather(*(probe.probe(gpu) for gpu in ADDRESSES[:3]))
            watching.cancel()
            return reports, most

        reports, most = asyncio.run(story())
    assert [report.state for report in reports] == [ProbeState.READ] * 3
    assert [len(report.partitions) for report in reports] == [8, 1, 1]
    assert most == 1


def test_hold_ends_the_helper_and_keeps_others_away(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path, reap_seconds=0.1) as (node, socket):

        async def story() -> None:
            probe = probe_of(node, socket, stubs.build("STUB_FAULT=FAULT_HANG"), 30)
            asking = asyncio.ensure_future(probe.probe(GPU))
            await joined(node)
            assert {pid for pid, _ in node.clients()} == probe.pids
            began = time.monotonic()
            assert await probe.hold("a")
            assert 0.1 <= time.monotonic() - began < 2, "until the driver has released it, and no longer"
            assert node.listdir("class/kfd/kfd/proc") == []
            assert (await asking).state is ProbeState.HELD
            assert await probe.hold("a")
            assert await probe.hold("b")
            probe.resume("a")
            probe.resume("a")
            assert (await probe.probe(GPU)).state is ProbeState.HELD
            probe.resume("b")
            await probe.close()
            assert (await probe.probe(GPU)).state is ProbeState.HELD

        asyncio.run(story())
    assert children() == set()


def test_hold_while_a_helper_is_being_started(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path) as (node, socket):

        async def story() -> None:
            probe = probe_of(node, socket, stubs.build("INIT_MILLISECONDS=300"))
            for turns in range(12):
                asking = asyncio.ensure_future(probe.probe(GPU))
                for _ in range(turns):
                    await asyncio.sleep(0)
                assert await probe.hold("a")
                assert node.listdir("class/kfd/kfd/proc") == []
                assert (await asking).state is ProbeState.HELD
                assert children() == set()
                probe.resume("a")

        asyncio.run(story())


def test_who_gives_up_leaves_no_helper(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path) as (node, socket):

        async def story() -> None:
            probe = probe_of(node, socket, stubs.build("STUB_FAULT=FAULT_HANG"), 30)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(probe.probe(GPU), 0.4)
            assert node.listdir("class/kfd/kfd/proc") == []
            assert probe.pids == frozenset()

        asyncio.run(story())
    assert children() == set()


def test_a_stopped_helper_is_ended_too(stubs, tmp_path: Path) -> None:
    with node_in(tmp_path) as (node, socket):

        async def story() -> None:
            probe = probe_of(node, socket, stubs.build("STUB_FAULT=FAULT_HANG"), 1.0)
            asking = asyncio.ensure_future(probe.probe(GPU))
            await joined(node)
            os.kill(min(probe.pids), signal.SIGSTOP)
            assert (await asking).state is ProbeState.TIMED_OUT

        asyncio.run(story())
    assert children() == set()


def test_numbers_of_another_pid_namespace_are_nobody_s_helper(stubs, tmp_path: Path) -> None:
    """In a container without the host's pids the driver's list has other processes by the helper's number."""
    with node_in(tmp_path) as (node, socket):

        class Crowded:
            """The node, with a client of every number that is likely next."""

            def read(self, path: str) -> bytes:
                return node.read(path)

            def listdir(self, path: str) -> list[str]:
                if not path.endswith("/proc"):
                    return node.listdir(path)
                next_ones, wrapped = range(os.getpid(), os.getpid() + 200_000), range(2, 40_000)
                return sorted({*node.listdir(path), *map(str, next_ones), *map(str, wrapped)})

        async def story() -> None:
            probe = probe_of(Crowded(), socket, stubs.build("STUB_FAULT=FAULT_HANG"), 30)
            asking = asyncio.ensure_future(probe.probe(GPU))
            await joined(node)
            assert probe.pids == frozenset(), "a model server of that number must be seen"
            began = time.monotonic()
            assert await probe.hold("a")
            assert time.monotonic() - began < 3, "nobody waits for a stranger to end"
            assert (await asking).state is ProbeState.HELD

        asyncio.run(story())
    assert children() == set()


def test_a_helper_that_the_driver_does_not_release(stubs, tmp_path: Path) -> None:
    """It is a holder like any other then, and HIP is not asked again before it has gone."""
    with node_in(tmp_path, reap_seconds=3600) as (node, socket):

        async def story() -> None:
            settings = ProbeSettings(str(stubs.build()), 10.0, {"AIMD_SIM_SOCKET": str(socket)}, release_seconds=0.2)
            probe = HipProbe(node, settings)
            report = await probe.probe(GPU)
            assert (report.state, report.released) == (ProbeState.READ, False)
            assert probe.pids == frozenset()
            again = await probe.probe(GPU)
            assert again.state is ProbeState.TIMED_OUT
            assert "could not be ended" in again.message
            assert not await probe.hold("a"), "the executor names it"
            node.act(lambda driver, _: driver.settle(float("inf")))
            assert await probe.hold("a")
            probe.resume("a")
            assert (await probe.probe(GPU)).state is ProbeState.READ

        asyncio.run(story())


def test_what_the_helper_has_started_ends_with_it(stubs, tmp_path: Path) -> None:
    """A library may start a process that keeps the answer's pipe open."""
    source, library = tmp_path / "forks.c", tmp_path / "libforks.so"
    source.write_text(
        "#include <unistd.h>\n__attribute__((constructor)) static void start(void) { if (fork() == 0) { sleep(60); _exit(0); } }\n"
    )
    subprocess.run([stubs._compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    with node_in(tmp_path) as (node, socket):
        report = ask(node, socket, library, seconds=1.0)
    assert report.state is ProbeState.TIMED_OUT
    deadline = time.monotonic() + 5
    while any(str(library).encode() in line for line in command_lines()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_leaves_the_helper_s_group_keeps_no_pipe_open(stubs, tmp_path: Path) -> None:
    source, library = tmp_path / "leaves.c", tmp_path / "libleaves.so"
    leaving = "if (fork() == 0) { setsid(); sleep(8); _exit(0); }"
    source.write_text(f"#include <unistd.h>\n__attribute__((constructor)) static void start(void) {{ {leaving} }}\n")
    subprocess.run([stubs._compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    with node_in(tmp_path) as (node, socket):

        async def story() -> None:
            probe = probe_of(node, socket, library, 0.5)
            counts = set()
            for _ in range(3):
                assert (await probe.probe(GPU)).state is ProbeState.TIMED_OUT
                await asyncio.sleep(0)
                counts.add(len(list(Path("/proc/self/fd").iterdir())))
            assert len(counts) == 1

        asyncio.run(story())


def command_lines() -> list[bytes]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes())
        except OSError:
            continue
    return found


def test_the_helper_s_environment_is_made_not_inherited() -> None:
    own = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/rocm/lib",
        "HIP_VISIBLE_DEVICES": "7",
        "HIP_HIDDEN_FREE_MEM": "100",
        "GPU_DEVICE_ORDINAL": "3",
        "LD_PRELOAD": "x.so",
        "PYTHONPATH": "y",
        "AWS_SECRET_ACCESS_KEY": "z",
    }
    assert helper.environment(own, (8, 9, 11), {"A": "b"}) == {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/rocm/lib",
        "ROCR_VISIBLE_DEVICES": "8,9,11",
        "HIP_VISIBLE_DEVICES": "0,1,2",
        "A": "b",
    }


def test_the_helper_holds_every_gpu_whatever_it_sees(stubs, tmp_path: Path) -> None:
    """Why it has to be gone: the visible devices restrict HIP, not the driver's list of clients."""
    variables = {"ROCR_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0"}
    with (
        node_in(tmp_path, count=3) as (node, socket),
        client(stubs.build(), socket, f"0:{1 << 30}", **variables) as process,
    ):
        held = node.listdir(f"class/kfd/kfd/proc/{process.pid}")
        assert len([name for name in held if name.startswith("vram_")]) == 3
