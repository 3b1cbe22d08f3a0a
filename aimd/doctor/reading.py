"""Reading the facts of a preflight: sysfs by a Files, the rest of the machine from /proc and /dev."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from aimd.doctor import processes
from aimd.doctor.device_rules import read_rules
from aimd.doctor.facts import (
    COMPUTE_FILE,
    MEMORY_FILE,
    PROFILE_FILES,
    Client,
    DeviceFacts,
    DriverFacts,
    Facts,
    GpuFacts,
    KfdFacts,
)
from aimd.doctor.files import Files
from aimd.doctor.library import find_library

SYSTEM_ROOT = Path("/sys")
TOPOLOGY = "class/kfd/kfd/topology/nodes"
CLIENTS = "class/kfd/kfd/proc"
MODULE = "module/amdgpu"
DEVICES = ("bus/pci/drivers/amdgpu", "module/amdgpu/drivers/pci:amdgpu", "bus/pci/devices")
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")


class _Nodes(NamedTuple):
    """The topology, and the names of the GPUs by KFD's gpu_id."""

    facts: KfdFacts
    gpu_by_id: dict[str, str]


def read_facts(files: Files, root: Path, *, proc: Path = Path("/proc"), dev: Path = Path("/dev")) -> Facts:
    """All facts. Device nodes and programs are looked at where the root is this machine's /sys alone."""
    live = root.resolve() == SYSTEM_ROOT
    gpus = read_gpus(files)
    nodes = read_nodes(files, {gpu.address: gpu.name for gpu in gpus})
    opened = processes.pids_with_kfd_open(proc) if live else processes.OpenFiles((), 0)
    return Facts(
        root=str(root),
        live=live,
        uid=os.getuid(),
        kernel=os.uname().release,
        driver=DriverFacts(
            _text(files, f"{MODULE}/initstate"), _text(files, f"{MODULE}/version"), _text(files, f"{MODULE}/srcversion")
        ),
        gpus=gpus,
        kfd=nodes.facts,
        clients=read_clients(files, nodes.gpu_by_id, opened.pids, proc),
        owners=processes.owners(proc) if live else (),
        devices=read_devices(dev, nodes.facts.render_minors) if live else (),
        sysfs_read_only=files.read_only(),
        unseen=opened.unseen,
        library=find_library(os.environ) if live else None,
        device_rules=read_rules(proc) if live else None,
    )


def read_gpus(files: Files) -> tuple[GpuFacts, ...]:
    """The devices with a compute mode file, named as the daemon names them: by the order of their addresses."""
    for folder in DEVICES:
        addresses = [name for name in _names(files, folder) if _ADDRESS.fullmatch(name)]
        if addresses:
            break
    else:
        return ()
    found: list[GpuFacts] = []
    for address in sorted(addresses):
        path = f"{folder}/{address}"
        present = frozenset(_names(files, path)) & frozenset(PROFILE_FILES)
        if COMPUTE_FILE not in present:
            continue
        modes = [name for name in (COMPUTE_FILE, MEMORY_FILE) if name in present]
        read_only = tuple(name for name in modes if not _writable(files, f"{path}/{name}"))
        found.append(
            GpuFacts(
                name=f"gpu{len(found)}",
                address=address,
                files=present,
                compute_mode=_text(files, f"{path}/{COMPUTE_FILE}"),
                memory_mode=_text(files, f"{path}/{MEMORY_FILE}"),
                read_only=read_only,
                denied=tuple(n for n in modes if n not in read_only and not files.permitted(f"{path}/{n}")),
            )
        )
    return tuple(found)


def read_nodes(files: Files, names: dict[str, str]) -> _Nodes:
    """KFD's nodes; `names` are the GPUs' names by PCI address."""
    try:
        numbers = [name for name in files.listdir(TOPOLOGY) if name.isdigit()]
    except OSError:
        return _Nodes(KfdFacts(), {})
    hidden = broken = count = 0
    minors, gpu_by_id = [], {}
    for number in numbers:
        try:
            properties = _pairs(files.read(f"{TOPOLOGY}/{number}/properties"))
        except PermissionError:
            hidden += 1
            continue
        except OSError:
            broken += 1
            continue
        if not properties.get("simd_count"):
            continue
        count += 1
        minors.append(properties.get("drm_render_minor", 0))
        address = _address(properties.get("domain", 0), properties.get("location_id", 0))
        gpu_by_id[_text(files, f"{TOPOLOGY}/{number}/gpu_id") or ""] = names.get(address, address)
    return _Nodes(KfdFacts(True, count, hidden, broken, tuple(sorted(filter(None, minors)))), gpu_by_id)


def read_clients(files: Files, gpu_by_id: dict[str, str], opened: tuple[int, ...], proc: Path) -> tuple[Client, ...]:
    """KFD's own list of clients (kfd/proc), and the processes that have /dev/kfd open beside."""
    held: dict[int, tuple[str, ...]] = dict.fromkeys(opened, ())
    for name in _names(files, CLIENTS):
        if name.isdigit():
            identities = [entry[5:] for entry in _names(files, f"{CLIENTS}/{name}") if entry.startswith("vram_")]
            held[int(name)] = tuple(sorted({gpu_by_id[each] for each in identities if each in gpu_by_id}))
    return tuple(Client(processes.process(proc, pid), held[pid]) for pid in sorted(held))


def read_devices(dev: Path, render_minors: tuple[int, ...]) -> tuple[DeviceFacts, ...]:
    """/dev/kfd and the render nodes of the partitions, by access(2)."""
    paths = [dev / "kfd", *(dev / "dri" / f"renderD{minor}" for minor in render_minors)]
    return tuple(DeviceFacts(str(path), path.exists(), os.access(path, os.R_OK | os.W_OK)) for path in paths)


def _address(domain: int, location_id: int) -> str:
    """As domain.gpu.pci_address: the low three bits are the partition's index."""
    return f"{domain:04x}:{location_id >> 8 & 0xFF:02x}:{location_id >> 3 & 0x1F:02x}.0"


def _pairs(text: bytes) -> dict[str, int]:
    words = (line.split(" ", 1) for line in text.decode("ascii", "replace").splitlines() if " " in line)
    return {name: int(value) for name, value in words if value.strip().lstrip("-").isdigit()}


def _names(files: Files, path: str) -> list[str]:
    try:
        return files.listdir(path)
    except OSError:
        return []


def _writable(files: Files, path: str) -> bool:
    try:
        return files.writable(path)
    except OSError:
        return False


def _text(files: Files, path: str) -> str | None:
    try:
        return files.read(path).decode("ascii", "replace").strip() or None
    except OSError:
        return None
