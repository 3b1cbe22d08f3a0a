"""Reading what a unit's examination needs: systemctl show, the journal, and owners of the mode files."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aimd.doctor.commands import Run
from aimd.doctor.facts import COMPUTE_FILE, MEMORY_FILE
from aimd.doctor.unit_facts import SERVICE, SOCKETS, ModeFile, Service, Socket, UnitFacts

# "Unit failed with result ..." (sd-messages.h, SD_MESSAGE_UNIT_FAILURE_RESULT); one entry for each run that failed.
FAILURE_RESULT = "d9b373ed55a64feb8242e02dbe79a49c"
PROPERTIES = (
    *("Id", "LoadState", "ActiveState", "SubState", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts", "MainPID"),
    *("UnitFileState", "StatusText", "ActiveEnterTimestamp", "User", "Group", "Listen"),
)
SHOW = ("systemctl", "show", f"--property={','.join(PROPERTIES)}", SERVICE, *SOCKETS)
JOURNAL = ("journalctl", "--quiet", "--no-pager", "--boot")
FAILURES = (*JOURNAL, "--output=json", f"UNIT={SERVICE}", f"MESSAGE_ID={FAILURE_RESULT}")
# Of the last run alone: the words of an earlier one are no reason.
LAST = (*JOURNAL, "--output=cat", "--lines=5", f"_SYSTEMD_UNIT={SERVICE}")
_CODES = {"1": "exited", "2": "killed", "3": "dumped"}  # CLD_EXITED, CLD_KILLED, CLD_DUMPED
DRIVER = "sys/bus/pci/drivers/amdgpu"


def read_unit(run: Run, root: Path = Path("/")) -> UnitFacts:
    """All facts; systemd is asked where it is this system's init alone."""
    if not (root / "run/systemd/system").is_dir():  # as sd_booted(3)
        return UnitFacts(booted=False)
    shown = run(SHOW)
    if shown.failure is not None:
        return UnitFacts(booted=True, failure=shown.failure)
    units = {each["Id"]: each for each in _blocks(shown.output) if "Id" in each}
    if SERVICE not in units:
        return UnitFacts(booted=True, failure=f"systemctl show says nothing of {SERVICE}")
    properties = units[SERVICE]
    user = properties.get("User") or "root"
    group = properties.get("Group") or user
    failures = run(FAILURES)
    return UnitFacts(
        booted=True,
        service=_service(properties),
        sockets=tuple(_socket(name, units[name]) for name in SOCKETS if name in units),
        user=user,
        group=group,
        user_known=_uid(user) is not None,
        mode_files=mode_files(root / DRIVER, user, group),
        failures=None if failures.failure is not None else _failures(failures.output),
        last_lines=tuple(run(LAST).output.splitlines()),
    )


def mode_files(folder: Path, user: str, group: str) -> tuple[ModeFile, ...]:
    """The mode files of the driver's GPUs, as the user and group would find them."""
    found = []
    for path in sorted(folder.glob("*:*/current_*_partition")):
        if path.name not in (COMPUTE_FILE, MEMORY_FILE):
            continue
        try:
            told = path.stat()
        except OSError:
            continue  # the GPU has gone
        names = _name_of_user(told.st_uid), _name_of_group(told.st_gid)
        offered = bool(told.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
        writable = offered and _may_write(told, user, group)
        mode = stat.S_IMODE(told.st_mode)
        found.append(ModeFile(path.parent.name, path.name, mode, *names, writable, offered))
    return tuple(found)


def _may_write(told: os.stat_result, user: str, group: str) -> bool:
    """As the kernel decides it for a process without capabilities: the first class that fits is the one that counts."""
    uid, gid = _uid(user), _gid(group)
    if uid == 0:
        return True
    if told.st_uid == uid:
        return bool(told.st_mode & stat.S_IWUSR)
    if told.st_gid in {gid, *_groups_of(user)}:
        return bool(told.st_mode & stat.S_IWGRP)
    return bool(told.st_mode & stat.S_IWOTH)


def _blocks(text: str) -> list[dict[str, str]]:
    """Properties by unit. Listen= comes once for each address."""
    return [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]


def _service(properties: Mapping[str, str]) -> Service:
    code = properties.get("ExecMainCode", "")
    return Service(
        load=properties.get("LoadState", ""),
        active=properties.get("ActiveState", ""),
        sub=properties.get("SubState", ""),
        result=properties.get("Result", ""),
        code=_CODES.get(code, code),
        status=_number(properties.get("ExecMainStatus")),
        restarts=_number(properties.get("NRestarts")),
        enabled=properties.get("UnitFileState", ""),
        told=properties.get("StatusText", ""),
        since=properties.get("ActiveEnterTimestamp", ""),
        pid=_number(properties.get("MainPID")),
    )


def _socket(name: str, properties: Mapping[str, str]) -> Socket:
    path = properties.get("Listen", "").rpartition(" (")[0] or None
    return Socket(
        name,
        properties.get("LoadState", ""),
        properties.get("ActiveState", ""),
        properties.get("Result", ""),
        path,
        path is None or not path.startswith("/") or Path(path).exists(),
    )


def _failures(text: str) -> tuple[tuple[str, float], ...]:
    found = []
    for line in text.splitlines():
        try:
            entry: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("UNIT_RESULT"), str):
            found.append((entry["UNIT_RESULT"], _number(entry.get("__REALTIME_TIMESTAMP")) / 1e6))
    return tuple(found)


def _number(text: object) -> int:
    return int(text) if isinstance(text, str) and text.isdigit() else 0


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _gid(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        return None


def _groups_of(user: str) -> set[int]:
    return {entry.gr_gid for entry in grp.getgrall() if user in entry.gr_mem}


def _name_of_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _name_of_group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
