"""The file of a socket that the kubelet looks for: it appears when it is served, with the right mode, in one step.

The kubelet's plugin watcher (pkg/kubelet/pluginmanager/pluginwatcher) passes over names that begin with a dot.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from pathlib import Path

from aimd.errors import ConfigError, ConflictError

_LONGEST = 107  # bytes of a path in sockaddr_un, with the zero at its end
_SECONDS_TO_ANSWER = 1.0
_HINT = "look at the kubelet's folder in aimd's configuration, and who may write to it"


class SocketFile:
    """A server listens at `hidden`; `show` gives it its name. Blocks.

    Args:
        folder_mode: of the folder, if it has to be made.
    """

    def __init__(self, path: Path, folder_mode: int = 0o750) -> None:
        self.path = path
        self.hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        self._folder_mode = folder_mode
        self._shown: tuple[int, int] | None = None

    def prepare(self) -> None:
        """Make its folder, and remove what a dead process has left there.

        Raises:
            ConflictError: somebody answers at it.
            ConfigError: it cannot be made here.
        """
        if len(os.fsencode(self.hidden)) > _LONGEST:
            raise ConfigError(
                f"the path of socket {self.hidden} has {len(os.fsencode(self.hidden))} bytes, expected {_LONGEST} at most",
                hint=_HINT,
            )
        try:
            self.path.parent.mkdir(mode=self._folder_mode, parents=True, exist_ok=True)
            for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*")):
                _remove_if_dead(path)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def show(self) -> None:
        """Let it be found. Raises ConfigError."""
        try:
            self.hidden.chmod(0o600)
            found = self.hidden.stat()
            self.hidden.replace(self.path)
        except OSError as error:
            raise _unusable(self.path, error) from error
        self._shown = found.st_dev, found.st_ino

    @property
    def intact(self) -> bool:
        """Whether the file that is there is this one."""
        try:
            found = self.path.lstat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._shown

    def remove(self) -> None:
        """Not another's that has taken its place."""
        with contextlib.suppress(OSError):
            self.hidden.unlink(missing_ok=True)
            if self.intact:
                self.path.unlink()


def _remove_if_dead(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path} is there and is no socket, expected a socket of aimd or nothing", hint=_HINT)
    if _answers(path):
        raise ConflictError(
            f"another process serves socket {path}, expected nobody", hint="end the other aimd of this node first"
        )
    path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_SECONDS_TO_ANSWER)
        try:
            asking.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (TimeoutError, BlockingIOError):  # it listens, and has no time
            return True
        return True


def _unusable(path: Path, error: OSError) -> ConfigError:
    reason = error.strerror or str(error)
    return ConfigError(f"socket {path} cannot be made ({reason}), expected a folder that aimd may write to", hint=_HINT)
