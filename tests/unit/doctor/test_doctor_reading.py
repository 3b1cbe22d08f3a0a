"""Facts from a simulated /sys in this process, and from a made-up /proc and /dev."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aimd.doctor import processes
from aimd.doctor.facts import COMPUTE_FILE, MEMORY_FILE, PROFILE_FILES, ProcessFacts
from aimd.doctor.files import OsFiles
from aimd.doctor.finding import FAIL
from aimd.doctor.preflight import findings
from aimd.doctor.reading import read_devices, read_facts, read_gpus
from aimd.sim.node import SimulatedNode
from aimd.sim.state import FaultKind
from tests.unit.sim.machines import Machine, machine

GPU0, GPU1 = "0000:05:00.0", "0000:27:00.0"
POD = "0a1b2c3d-1111-2222-3333-444455556666"


class SimulatedFiles:
    """doctor.files.Files of a simulated node, for a caller that may write everything but `forbidden`."""

    def __init__(self, node: SimulatedNode, forbidden: str = "nothing") -> None:
        self.read, self.listdir, self.writable = node.read, node.listdir, node.writable
        self._forbidden = forbidden

    def permitted(self, path: str) -> bool:
        return not path.endswith(self._forbidden)

    def read_only(self) -> bool:
        return False


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def start(proc: Path, pid: int, *words: str, cgroup: str = "0::/user.slice\n", opened: tuple[str, ...] = ()) -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "cmdline").write_text("".join(f"{word}\0" for word in words))
    (folder / "comm").write_text("kthread\n")
    (folder / "cgroup").write_text(cgroup)
    for number, target in enumerate(opened):
        (folder / "fd" / str(number)).symlink_to(target)


def facts_of(sim: Machine, proc: Path, forbidden: str = "nothing"):
    return read_facts(SimulatedFiles(sim.node, forbidden), Path("/nonexistent"), proc=proc)


@pytest.mark.parametrize(
    ("profile", "absent"),
    [("7.2", set()), ("6.12", set(PROFILE_FILES) - {COMPUTE_FILE, "available_compute_partition", MEMORY_FILE})],
)
def test_gpus_of_each_driver_generation(proc: Path, profile, absent) -> None:
    facts = facts_of(machine(profile=profile), proc)
    assert [(gpu.name, gpu.address) for gpu in facts.gpus] == [("gpu0", GPU0), ("gpu1", GPU1)]
    assert all(gpu.files == frozenset(PROFILE_FILES) - absent for gpu in facts.gpus)
    assert [(gpu.compute_mode, gpu.memory_mode) for gpu in facts.gpus] == [("SPX", "NPS1")] * 2
    assert facts.gpus[0].read_only == ((MEMORY_FILE,) if profile == "6.12" else ())
    assert facts.driver.state == "live"
    assert facts.driver.version is None


def test_what_the_caller_may_not_write(proc: Path) -> None:
    assert facts_of(machine(), proc, COMPUTE_FILE).gpus[0].denied == (COMPUTE_FILE,)
    assert facts_of(machine(profile="6.12"), proc, MEMORY_FILE).gpus[0].denied == (), "it is nobody's to write"


def test_topology(proc: Path) -> None:
    sim = machine()
    sim.switch("CPX")
    kfd = facts_of(sim, proc).kfd
    assert (kfd.present, kfd.gpu_nodes, kfd.hidden, kfd.broken) == (True, 9, 0, 0)
    assert kfd.render_minors == tuple(range(128, 137))


def test_hidden_nodes(proc: Path) -> None:
    sim = machine()
    sim.fault(FaultKind("cgroup-denied"), remaining=None)
    facts = facts_of(sim, proc)
    assert (facts.kfd.gpu_nodes, facts.kfd.hidden) == (1, 1)
    assert [each.check for each in findings(facts) if each.result == FAIL] == ["KFD topology"]


def test_clients_by_kfds_own_list(proc: Path) -> None:
    sim = machine()
    sim.switch("DPX", gpu=1)
    sim.join(4711, 1)
    sim.join(4712)
    start(proc, 4711, "python3", "serve.py", cgroup=f"0::/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/x\n")
    assert [(each.process, each.gpus) for each in facts_of(sim, proc).clients] == [
        (ProcessFacts(4711, "python3 serve.py", POD), ("gpu1",)),
        (ProcessFacts(4712, None), ("gpu0", "gpu1")),
    ]


def test_another_root_is_not_this_machine(proc: Path) -> None:
    start(proc, 1, "gpuagent", opened=("/dev/kfd",))
    facts = facts_of(machine(), proc)
    assert (facts.live, facts.owners, facts.devices, facts.clients) == (False, (), (), ())


def test_this_machine_is_looked_at_as_a_whole(proc: Path, tmp_path: Path) -> None:
    start(proc, 7, "gpuagent", opened=("/dev/null", "/dev/kfd"))
    start(proc, 8, "sh", opened=("/dev/kfd2",))
    facts = read_facts(SimulatedFiles(machine().node), Path("/sys"), proc=proc, dev=tmp_path)
    assert facts.live
    assert [(each.process.pid, each.gpus) for each in facts.clients] == [(7, ())]
    assert [each.program for each in facts.owners] == ["AMD gpuagent"]
    assert [each.present for each in facts.devices] == [False, False, False]


def test_nothing_at_all(proc: Path, tmp_path: Path) -> None:
    facts = read_facts(OsFiles(tmp_path), tmp_path, proc=proc)
    assert (facts.gpus, facts.kfd.present, facts.driver.state, facts.clients) == ((), False, None, ())


def test_devices_are_never_opened(tmp_path: Path) -> None:
    """A FIFO without a writer would block whoever opens it for reading."""
    (tmp_path / "dri").mkdir()
    os.mkfifo(tmp_path / "kfd")
    os.mkfifo(tmp_path / "dri" / "renderD128")
    found = read_devices(tmp_path, (128, 129))
    assert [(each.present, each.permitted) for each in found] == [(True, True), (True, True), (False, False)]


def test_a_device_without_a_mode_file_is_no_gpu_to_partition(tmp_path: Path) -> None:
    for address, files in ((GPU0, ["device"]), (GPU1, [COMPUTE_FILE]), ("module", [COMPUTE_FILE])):
        folder = tmp_path / "bus/pci/drivers/amdgpu" / address
        folder.mkdir(parents=True)
        for name in files:
            (folder / name).write_text("SPX\n")
            (folder / name).chmod(0o444)
    (gpu,) = read_gpus(OsFiles(tmp_path))
    assert (gpu.name, gpu.address, gpu.read_only, gpu.memory_mode) == ("gpu0", GPU1, (COMPUTE_FILE,), None)


@pytest.mark.parametrize(
    ("cgroup", "pod"),
    [
        ("0::/user.slice/user-0.slice/session-1.scope\n", None),
        (f"0::/kubepods/burstable/pod{POD}/0123456789abcdef\n", POD),
        (f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{POD.replace('-', '_')}.slice/x\n", POD),
        ("12:devices:/kubepods/besteffort/pod0123456789abcdef0123456789abcdef/x\n", "0123456789abcdef0123456789abcdef"),
        ("0::/kubepods.slice/other\n", "?"),
        ("", None),
    ],
)
def test_pods(cgroup, pod) -> None:
    assert processes.pod_of(cgroup) == pod


@pytest.mark.parametrize(
    ("words", "program"),
    [
        (("./k8s-device-plugin", "-logtostderr=true"), "AMD device plugin"),
        (("/home/amd/bin/server",), "AMD device config manager or metrics exporter"),
        (("/home/amd/bin/gpuagent",), "AMD gpuagent"),
        (("/usr/bin/python3", "/opt/rocm/bin/amd-smi", "monitor"), "amd-smi"),
        (("gpu-kubeletplugin",), "AMD DRA driver"),
        (("/srv/server",), None),
        (("vim", "notes", "amd-smi"), None),
        ((), None),
    ],
)
def test_programs_are_known_by_name(proc: Path, words, program) -> None:
    start(proc, 12, *words)
    assert [each.program for each in processes.owners(proc)] == ([program] if program else [])


def test_processes_of_others(proc: Path) -> None:
    start(proc, 1)
    start(proc, 2, opened=("/dev/kfd",))
    (proc / "3").mkdir()
    assert processes.pids_with_kfd_open(proc) == processes.OpenFiles((2,), 0)
    assert processes.process(proc, 1) == ProcessFacts(1, "kthread", None)
    assert processes.process(proc, 99) == ProcessFacts(99, None, None)


def test_the_real_proc_has_this_process() -> None:
    this = processes.process(Path("/proc"), os.getpid())
    assert Path("/proc/self/cmdline").read_text().split("\0")[0] in (this.command or "")
    assert len(this.command or "") <= processes.COMMAND_LIMIT
    assert processes.pids_with_kfd_open(Path("/proc")).pids == ()
