"""From facts to findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aimd.doctor.facts import (
    ALLOCATION_FILE,
    COMPUTE_FILE,
    CONFIG_FOLDER,
    MEMORY_FILE,
    PROFILE_FILES,
    Client,
    DeviceFacts,
    DriverFacts,
    Facts,
    GpuFacts,
    KfdFacts,
    Owner,
    ProcessFacts,
)
from aimd.doctor.finding import FAIL, OK, WARN
from aimd.doctor.preflight import OWNER_HINTS, findings
from aimd.doctor.processes import OWNERS

GPU = GpuFacts("gpu0", "0000:05:00.0", frozenset(PROFILE_FILES), "SPX", "NPS1")
FIT = Facts(
    root="/sys",
    live=True,
    uid=0,
    kernel="7.2.0",
    driver=DriverFacts("live", None, "ABC"),
    gpus=(GPU,),
    kfd=KfdFacts(True, 1, 0, 0, (128,)),
    devices=(DeviceFacts("/dev/kfd", True, True), DeviceFacts("/dev/dri/renderD128", True, True)),
)


def found(**changed) -> list[tuple[str, str, str]]:
    """What is not ok, as (result, check, message)."""
    return [each[:3] for each in findings(replace(FIT, **changed)) if each.result != OK]


def messages(check: str, **changed) -> list[str]:
    return [each.message for each in findings(replace(FIT, **changed)) if each.check == check]


def test_a_fit_node_has_a_line_per_check() -> None:
    assert [(each.result, each.check) for each in findings(FIT)] == [
        (OK, "driver"),
        (OK, "driver profile"),
        (OK, "EBUSY rule"),
        (OK, "mode files"),
        (OK, "KFD topology"),
        (OK, "device nodes"),
        (OK, "device cgroup"),
        (OK, "holders"),
        (OK, "other managers"),
    ]


def test_what_is_not_ok_has_a_hint() -> None:
    wrong = (
        {"gpus": (), "driver": DriverFacts()},
        {"gpus": (replace(GPU, read_only=(COMPUTE_FILE,)),), "kfd": KfdFacts(True, 0, 3, 2)},
        {"gpus": (replace(GPU, denied=(COMPUTE_FILE,)),), "kfd": KfdFacts()},
        {"devices": (DeviceFacts("/dev/kfd", False, False), DeviceFacts("/dev/dri/renderD128", True, False))},
        {"owners": tuple(Owner(ProcessFacts(1, "x"), program) for program in OWNER_HINTS)},
        {"clients": (Client(ProcessFacts(1, None)),)},
    )
    for changed in wrong:
        assert all(each.hint for each in findings(replace(FIT, **changed)) if each.result != OK)
        assert found(**changed)


@pytest.mark.parametrize(
    ("driver", "message"),
    [
        (DriverFacts("live", "6.16.13", None), "kernel 7.2.0, amdgpu 6.16.13 (dkms)"),
        (DriverFacts("live", None, "ABC"), "kernel 7.2.0, amdgpu of the kernel's tree, srcversion ABC"),
        (DriverFacts(), "kernel 7.2.0, amdgpu of the kernel's tree"),
        (DriverFacts("coming"), "kernel 7.2.0, amdgpu is in state coming, expected live"),
    ],
)
def test_driver_versions(driver, message) -> None:
    assert messages("driver", driver=driver) == [message]


def test_no_driver() -> None:
    assert found(gpus=(), driver=DriverFacts(), kfd=KfdFacts(), devices=()) == [
        (FAIL, "driver", "kernel 7.2.0, amdgpu is not loaded"),
        (FAIL, "gpus", "no GPU below /sys can be partitioned"),
        (FAIL, "KFD topology", "there is none below /sys"),
    ]


def test_the_profile_tells_files_by_group_of_gpus() -> None:
    old = replace(GPU, name="gpu1", address="0000:27:00.0", files=frozenset({COMPUTE_FILE}))
    assert messages("driver profile", gpus=(GPU, old)) == [
        f"gpu0 (0000:05:00.0): present {', '.join(PROFILE_FILES)}; absent none",
        f"gpu1 (0000:27:00.0): present {COMPUTE_FILE}; absent {', '.join(PROFILE_FILES[1:])}",
    ]


@pytest.mark.parametrize(
    ("files", "result", "words"),
    [
        (PROFILE_FILES, OK, "while a process holds this GPU"),
        (set(PROFILE_FILES) - {ALLOCATION_FILE}, WARN, "cannot be told"),
        (set(PROFILE_FILES) - {ALLOCATION_FILE, CONFIG_FOLDER}, WARN, "any process holds any GPU of the node"),
    ],
)
def test_the_busy_rule_by_files(files, result, words) -> None:
    gpus = (replace(GPU, files=frozenset(files)),)
    (rule,) = (each for each in findings(replace(FIT, gpus=gpus)) if each.check == "EBUSY rule")
    assert (rule.result, words in rule.message) == (result, True)


@pytest.mark.parametrize(
    ("uid", "read_only", "gpu", "expected"),
    [
        (0, False, {"read_only": (COMPUTE_FILE,)}, [(FAIL, "offers current_compute_partition for reading only")]),
        (0, False, {"denied": (COMPUTE_FILE,)}, [(FAIL, "uid 0 may not write current_compute_partition")]),
        (1000, False, {"denied": (COMPUTE_FILE,)}, [(WARN, "uid 1000 may not write current_compute_partition")]),
        (0, True, {"denied": (COMPUTE_FILE,)}, [(FAIL, "/sys is mounted read-only")]),
        (0, True, {"read_only": (COMPUTE_FILE,)}, [(FAIL, "for reading only")]),
        (0, False, {"denied": (MEMORY_FILE,)}, []),
    ],
)
def test_permissions(uid, read_only, gpu, expected) -> None:
    wrong = found(uid=uid, sysfs_read_only=read_only, gpus=(replace(GPU, **gpu),))
    assert [(result, check) for result, check, _ in wrong] == [(result, "mode files") for result, _ in expected]
    assert all(words in message for (_, words), (_, _, message) in zip(expected, wrong, strict=True))


def test_the_gpus_that_may_be_switched_are_named_beside_those_that_may_not() -> None:
    other = replace(GPU, name="gpu1", address="0000:27:00.0", denied=(COMPUTE_FILE,))
    lines = messages("mode files", gpus=(GPU, other), uid=7)
    assert [line.partition(":")[0] for line in lines] == ["gpu1 (0000", "gpu0 (0000"]


@pytest.mark.parametrize("gpu", [{"read_only": (MEMORY_FILE,)}, {"files": frozenset({COMPUTE_FILE, CONFIG_FOLDER})}])
def test_a_memory_mode_that_is_fixed_is_no_fault(gpu) -> None:
    lines = messages("memory modes", gpus=(replace(GPU, **gpu),))
    assert lines == ["gpu0 (0000:05:00.0): the driver does not take requests for memory modes (NPS)"]


@pytest.mark.parametrize(
    ("kfd", "expected"),
    [
        (KfdFacts(), [(FAIL, "there is none")]),
        (KfdFacts(True, 1, 3), [(FAIL, "3 nodes are hidden")]),
        (KfdFacts(True, 0, 3), [(FAIL, "3 nodes are hidden")]),
        (KfdFacts(True, 1, 0, 2), [(WARN, "2 nodes have no readable properties")]),
        (KfdFacts(True, 0), [(FAIL, "no GPU node, though there are GPUs")]),
    ],
)
def test_topology(kfd, expected) -> None:
    wrong = found(kfd=kfd)
    assert [(result, check) for result, check, _ in wrong] == [(result, "KFD topology") for result, _ in expected]
    assert all(words in message for (_, words), (_, _, message) in zip(expected, wrong, strict=True))


def devices(*states: tuple[bool, bool]) -> tuple[DeviceFacts, ...]:
    names = ["/dev/kfd", *(f"/dev/dri/renderD{128 + number}" for number in range(len(states) - 1))]
    return tuple(DeviceFacts(name, *state) for name, state in zip(names, states, strict=True))


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([(False, False), (True, True)], [(FAIL, "/dev/kfd not there")]),
        ([(True, True), (False, False)], [(WARN, "/dev/dri/renderD128 not there")]),
        ([(True, False), (True, True)], [(WARN, "uid 0 may not use /dev/kfd")]),
        (
            [(True, True), *[(False, False)] * 8],
            [(WARN, "/dev/dri/renderD128, /dev/dri/renderD129 ... /dev/dri/renderD135 (8) not there")],
        ),
        ([(True, False), (False, False)], [(WARN, "renderD128 not there"), (WARN, "may not use /dev/kfd")]),
    ],
)
def test_device_nodes(states, expected) -> None:
    wrong = found(devices=devices(*states))
    assert [(result, check) for result, check, _ in wrong] == [(result, "device nodes") for result, _ in expected]
    assert all(words in message for (_, words), (_, _, message) in zip(expected, wrong, strict=True))


def test_holders_are_named_with_command_and_pod() -> None:
    clients = (
        Client(ProcessFacts(4711, "python3 serve.py", "1-2"), ("gpu0", "gpu1")),
        Client(ProcessFacts(9, None)),
    )
    assert found(clients=clients) == [
        (WARN, "holders", "pid 4711 (python3 serve.py) of pod 1-2 holds gpu0, gpu1"),
        (WARN, "holders", "pid 9 (-) holds /dev/kfd"),
    ]


def test_processes_that_could_not_be_looked_at_are_said() -> None:
    assert messages("holders", unseen=3) == [
        "no process holds a GPU",
        "the open files of 3 processes could not be looked at",
    ]


@pytest.mark.parametrize("program", sorted(set(OWNERS.values())))
def test_other_managers(program) -> None:
    ((result, check, message),) = found(owners=(Owner(ProcessFacts(7, "x -y", "?"), program),))
    assert (result, check, message) == (WARN, "other managers", f"{program} runs: pid 7 (x -y) of pod ?")


def test_another_root_says_nothing_of_this_machine() -> None:
    checks = {each.check: each.message for each in findings(replace(FIT, live=False, devices=(), root="/mnt"))}
    assert {"device nodes", "other managers"} & set(checks) == set()
    assert "kernel 7" not in checks["driver"]
