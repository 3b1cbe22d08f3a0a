"""ports_dra.ContainerDevices: a CDI file for each claim, which the container runtime reads when a container is made.

Format and names: https://github.com/cncf-tags/container-device-interface, SPEC.md and pkg/cdi. A file is whole or not
there, and what is there outlives a power failure. Files of other vendors are never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aimd.domain.dra import DRIVER, ContainerDevice, Rewritten
from aimd.errors import CdiError, InvalidInputError

FOLDER = Path("/var/run/cdi")
VERSION = "0.5.0"  # the first with names that begin with a digit, as a uid may
CLASS = "claim"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")  # of a device (pkg/parser)
_LONGEST = 200  # bytes of a uid; a file name has 255


class CdiFiles:
    """The files `<vendor>-claim_<uid>.json` of a folder.

    Args:
        folder: that the container runtime reads; made if it is missing.
    """

    def __init__(self, folder: Path = FOLDER, vendor: str = DRIVER) -> None:
        self._folder = folder
        self._vendor = vendor
        self._prefix = f"{vendor}-{CLASS}_"

    def write(self, uid: str, devices: Sequence[ContainerDevice]) -> Mapping[str, str]:
        path = self._path(uid)
        content = self._content(uid, devices)
        with _complaint(path):
            self._make_folder()
            self._replace(path, content)
            _sync(self._folder)
        return {each.request: f"{self._kind}={_name(uid, each)}" for each in devices}

    def remove(self, uid: str) -> None:
        path = self._path(uid)
        with _complaint(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            _sync(self._folder)

    def rewrite(self, claims: Mapping[str, Sequence[ContainerDevice]]) -> Rewritten:
        wanted = {self._path(uid): self._content(uid, devices) for uid, devices in claims.items()}
        with _complaint(self._folder):
            self._make_folder()
            removed = [path for path in sorted(self._folder.iterdir()) if self._is_ours(path) and path not in wanted]
        for path in removed:
            with _complaint(path):
                path.unlink(missing_ok=True)
        written = [path for path, content in wanted.items() if not _holds(path, content)]
        for path in written:
            with _complaint(path):
                self._replace(path, wanted[path])
        with _complaint(self._folder):
            _sync(self._folder)
        return Rewritten(tuple(path.name for path in written), tuple(path.name for path in removed))

    @property
    def _kind(self) -> str:
        return f"{self._vendor}/{CLASS}"

    def _path(self, uid: str) -> Path:
        if not _NAME.fullmatch(uid) or len(uid) > _LONGEST:
            raise InvalidInputError(f"claim uid {uid[:_LONGEST]!r} is no name for a device, expected a UUID")
        return self._folder / f"{self._prefix}{uid}.json"

    def _content(self, uid: str, devices: Sequence[ContainerDevice]) -> bytes:
        item = {"cdiVersion": VERSION, "kind": self._kind, "devices": [_device(uid, each) for each in devices]}
        return json.dumps(item, indent=1).encode() + b"\n"

    def _is_ours(self, path: Path) -> bool:
        """Be it a file that was begun and not finished."""
        return path.name.startswith((self._prefix, f".{self._prefix}")) and not path.is_dir()

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)

    def _replace(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # the runtime reads *.json and *.yaml alone
        try:
            with draft.open("xb") as file:
                file.write(content)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise


def _device(uid: str, device: ContainerDevice) -> dict[str, Any]:
    edits: dict[str, Any] = {}
    if device.nodes:
        edits["deviceNodes"] = [
            {"path": node.path} | ({"hostPath": node.host_path} if node.host_path else {}) for node in device.nodes
        ]
    if device.environment:
        edits["env"] = [f"{name}={value}" for name, value in sorted(device.environment.items())]
    if device.mounts:
        edits["mounts"] = [
            {
                "hostPath": mount.host_path,
                "containerPath": mount.container_path,
                "options": ["ro" if mount.read_only else "rw", "nosuid", "nodev", "noexec", "bind"],
            }
            for mount in device.mounts
        ]
    return {"name": _name(uid, device), "containerEdits": edits}


def _name(uid: str, device: ContainerDevice) -> str:
    """Of the device: what a subrequest is separated by is no character of it."""
    name = f"{uid}-{device.request.replace('/', '.')}"
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"request {device.request!r} of claim {uid} is no name for a device, expected a DNS label"
        )
    return name


def _holds(path: Path, content: bytes) -> bool:
    with contextlib.suppress(OSError):
        return path.read_bytes() == content and path.stat().st_mode & 0o777 == 0o644
    return False


def _sync(folder: Path) -> None:
    """Names are durable, too."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _complaint(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CdiError(
            f"CDI file {path} cannot be written or removed ({error.strerror or error}), expected room and the right to",
            hint="without it no container of the claim starts",
        ) from error
