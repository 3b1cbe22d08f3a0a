"""From the facts of a node to findings: whether aimd can run here, and what will be in its way. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from aimd.doctor.device_rules import rule_findings
from aimd.doctor.facts import ALLOCATION_FILE, COMPUTE_FILE, CONFIG_FOLDER, MEMORY_FILE, PROFILE_FILES, Facts, GpuFacts
from aimd.doctor.finding import FAIL, OK, WARN, Finding
from aimd.doctor.library import library_findings

OWNER_HINTS = {
    "AMD device plugin": "it hands out GPUs to pods without asking aimd: take this node out of its DaemonSet",
    "AMD DRA driver": "it hands out GPUs to pods without asking aimd: take this node out of its DaemonSet",
    "AMD device config manager": "it sets partition modes itself: take this node out of its DaemonSet",
    "AMD device config manager or metrics exporter": "if it is the config manager, it sets partition modes itself: take "
    "this node out of its DaemonSet",
    "AMD metrics exporter": "its gpuagent may keep /dev/kfd open, which blocks mode switches: set GPUAGENT_EVENTS_DISABLE=1",
    "AMD gpuagent": "it may keep /dev/kfd open, which blocks mode switches: set GPUAGENT_EVENTS_DISABLE=1",
    "amd-smi": "it can set partition modes, and may hold the GPUs while it runs: let it end",
    "rocm-smi": "it can set partition modes, and may hold the GPUs while it runs: let it end",
}


def findings(facts: Facts) -> list[Finding]:
    """All checks in the order in which a reader needs them."""
    checks: tuple[Callable[[Facts], Iterable[Finding]], ...] = (
        _driver,
        _gpus,
        _busy_rule,
        _permissions,
        _memory_modes,
        _nodes,
        _devices,
        rule_findings,
        lambda facts: library_findings(facts.library),
        _clients,
        _owners,
    )
    return [finding for check in checks for finding in check(facts)]


def access(facts: Facts, *, hip: bool = True) -> list[Finding]:
    """What a model, or the daemon's helper, needs beside a GPU: device nodes, leave to use them, HIP's library if `hip`."""
    return [*(library_findings(facts.library) if hip else ()), *_devices(facts), *rule_findings(facts)]


def _driver(facts: Facts) -> Iterable[Finding]:
    kernel = f"kernel {facts.kernel}, " if facts.live else ""
    if facts.driver.state is None and not facts.gpus:
        yield Finding(FAIL, "driver", f"{kernel}amdgpu is not loaded", "load it: modprobe amdgpu")
        return
    if facts.driver.state not in (None, "live"):
        hint = "wait until it is loaded; if it stays so, dmesg tells why"
        yield Finding(FAIL, "driver", f"{kernel}amdgpu is in state {facts.driver.state}, expected live", hint)
        return
    version = facts.driver.version
    which = f"amdgpu {version} (dkms)" if version else "amdgpu of the kernel's tree"
    source = f", srcversion {facts.driver.source_version}" if facts.driver.source_version else ""
    yield Finding(OK, "driver", f"{kernel}{which}{source}")


def _gpus(facts: Facts) -> Iterable[Finding]:
    if not facts.gpus:
        hint = f"partitions need an Instinct GPU of the MI300 or MI350 series and a driver with {COMPUTE_FILE}"
        yield Finding(FAIL, "gpus", f"no GPU below {facts.root} can be partitioned", hint)
        return
    for files, group in _grouped(facts.gpus).items():
        present = ", ".join(name for name in PROFILE_FILES if name in files)
        absent = ", ".join(name for name in PROFILE_FILES if name not in files) or "none"
        yield Finding(OK, "driver profile", f"{_listed(group)}: present {present}; absent {absent}")


def _busy_rule(facts: Facts) -> Iterable[Finding]:
    """By files that came with a driver generation: the first is newer than the rule per GPU, the second older."""
    if not facts.gpus:
        return
    files = facts.gpus[0].files
    if ALLOCATION_FILE in files:
        yield Finding(OK, "EBUSY rule", "a GPU cannot be switched while a process holds this GPU")
    elif CONFIG_FOLDER in files:
        message = "cannot be told from this driver's files: per GPU or node-wide"
        yield Finding(WARN, "EBUSY rule", message, "count on the whole node: idle GPUs may answer EBUSY, too")
    else:
        message = "no GPU can be switched while any process holds any GPU of the node"
        yield Finding(WARN, "EBUSY rule", message, "switch modes before models are started, or use a newer driver")


def _permissions(facts: Facts) -> Iterable[Finding]:
    frozen = [gpu for gpu in facts.gpus if COMPUTE_FILE in gpu.read_only]
    denied = [gpu for gpu in facts.gpus if COMPUTE_FILE in gpu.denied]
    if frozen:
        hint = "a virtual function's modes are the host's: partition there"
        yield Finding(FAIL, "mode files", f"{_listed(frozen)}: the driver offers {COMPUTE_FILE} for reading only", hint)
    if denied and facts.sysfs_read_only:
        hint = "give the container a writable /sys, or the unit ReadWritePaths=/sys/devices"
        yield Finding(FAIL, "mode files", f"{facts.root} is mounted read-only: modes cannot be switched", hint)
    elif denied:
        message = f"{_listed(denied)}: uid {facts.uid} may not write {COMPUTE_FILE}"
        hint = "run aimd as root, or give the files to its group by aimd's udev rule"
        yield Finding(WARN if facts.uid else FAIL, "mode files", message, hint)
    writable = [gpu for gpu in facts.gpus if gpu not in frozen and gpu not in denied]
    if writable:
        yield Finding(OK, "mode files", f"{_listed(writable)}: uid {facts.uid} may switch compute modes")


def _memory_modes(facts: Facts) -> Iterable[Finding]:
    fixed = [gpu for gpu in facts.gpus if MEMORY_FILE not in gpu.files or MEMORY_FILE in gpu.read_only]
    if fixed:
        message = f"{_listed(fixed)}: the driver does not take requests for memory modes (NPS)"
        yield Finding(OK, "memory modes", message)


def _nodes(facts: Facts) -> Iterable[Finding]:
    kfd = facts.kfd
    if not kfd.present:
        yield Finding(FAIL, "KFD topology", f"there is none below {facts.root}", "load amdgpu with KFD, see dmesg")
        return
    if kfd.hidden:
        message = (
            f"{kfd.hidden} nodes are hidden from this process (EPERM): its device cgroup denies their render nodes"
        )
        yield Finding(
            FAIL, "KFD topology", message, "allow them: DeviceAllow=char-drm rw, in a container char 226:* rw"
        )
    if kfd.broken:
        yield Finding(WARN, "KFD topology", f"{kfd.broken} nodes have no readable properties", "look at it again")
    if not kfd.gpu_nodes and facts.gpus and not kfd.hidden:
        hint = "a failed switch can do that: reload the driver, see dmesg"
        yield Finding(FAIL, "KFD topology", "it has no GPU node, though there are GPUs", hint)
    elif kfd.gpu_nodes:
        yield Finding(OK, "KFD topology", f"{kfd.gpu_nodes} partitions of {len(facts.gpus)} GPUs")


def _devices(facts: Facts) -> Iterable[Finding]:
    if not facts.devices:
        return
    missing = [device.path for device in facts.devices if not device.present]
    denied = [device.path for device in facts.devices if device.present and not device.permitted]
    if missing:
        message, hint = f"{_shortened(missing)} not there", "models need them: check udev, or the container's devices"
        yield Finding(FAIL if "/dev/kfd" in missing else WARN, "device nodes", message, hint)
    if denied:
        message = f"uid {facts.uid} may not use {_shortened(denied)}"
        yield Finding(WARN, "device nodes", message, "models of this user need group render, or video on older systems")
    if not (missing or denied):
        yield Finding(OK, "device nodes", f"/dev/kfd and {len(facts.devices) - 1} render nodes may be used")


def _clients(facts: Facts) -> Iterable[Finding]:
    for client in facts.clients:
        process = client.process
        gpus = ", ".join(client.gpus) or "/dev/kfd"
        message = f"pid {process.pid} ({process.command or '-'}){_pod(process.pod)} holds {gpus}"
        hint = "mode switches wait for it to end; closing /dev/kfd is not enough"
        yield Finding(WARN, "holders", message, hint)
    if not facts.clients:
        yield Finding(OK, "holders", "no process holds a GPU")
    if facts.unseen:
        message = f"the open files of {facts.unseen} processes could not be looked at"
        yield Finding(OK, "holders", message, "root sees them; KFD's own list of clients is complete")


def _owners(facts: Facts) -> Iterable[Finding]:
    for owner in facts.owners:
        process = owner.process
        message = f"{owner.program} runs: pid {process.pid} ({process.command or '-'}){_pod(process.pod)}"
        yield Finding(WARN, "other managers", message, OWNER_HINTS[owner.program])
    if facts.live and not facts.owners:
        yield Finding(OK, "other managers", "no other program that manages GPUs was found")


def _grouped(gpus: tuple[GpuFacts, ...]) -> dict[frozenset[str], list[GpuFacts]]:
    groups: dict[frozenset[str], list[GpuFacts]] = {}
    for gpu in gpus:
        groups.setdefault(gpu.files, []).append(gpu)
    return groups


def _listed(gpus: list[GpuFacts]) -> str:
    return (
        ", ".join(f"{gpu.name} ({gpu.address})" for gpu in gpus)
        if len(gpus) < 3
        else _shortened([g.name for g in gpus])
    )


def _shortened(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 5 else f"{names[0]}, {names[1]} ... {names[-1]} ({len(names)})"


def _pod(pod: str | None) -> str:
    return f" of pod {pod}" if pod is not None else ""
