"""Where daemon and clients meet: the rule for run-time and state directories and for the sockets' paths.

Pure functions of an environment and a uid. Nothing is looked for in the file system: the same environment always gives
the same path, so a daemon and a client of one user cannot miss each other because of a left-over socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from aimd.errors import InvalidInputError

API_SOCKET = "aimd.sock"
DISPATCH_SOCKET = "dispatch.sock"
METRICS_SOCKET = "metrics.sock"
_ROOT_RUNTIME = "/run/aimd"
_ROOT_STATE = "/var/lib/aimd"


class RunDirectories(NamedTuple):
    """The daemon's directories: `runtime` has sockets and dies with the boot, `state` has the ledger."""

    runtime: str
    state: str


def daemon_directories(
    environ: Mapping[str, str], uid: int, *, runtime_dir: str | None = None, state_dir: str | None = None
) -> RunDirectories:
    """The daemon's directories: option, then what systemd set, then root's or the user's default.

    A user without XDG_RUNTIME_DIR (no login session) gets `run` in the state directory.

    Raises:
        InvalidInputError: a user without HOME and XDG_STATE_HOME has no default state directory.
    """
    runtime = runtime_dir or _first(environ.get("RUNTIME_DIRECTORY")) or _user_runtime(environ, uid)
    state = state_dir or _first(environ.get("STATE_DIRECTORY"))
    if state is None:
        state = _ROOT_STATE if uid == 0 else _user_state(environ)
    return RunDirectories(runtime or f"{state}/run", state)


def client_socket(
    environ: Mapping[str, str],
    uid: int,
    *,
    option: str | None = None,
    variable: str = "AIMD_SOCKET",
    file_name: str = API_SOCKET,
) -> str:
    """Path of a socket of the daemon: option, then `variable`, then the runtime directory of this user's daemon.

    In a pod every user finds the system's daemon, whose directory is mounted where the node has it; a session's own
    directory ($XDG_RUNTIME_DIR) comes first, since that is where a daemon of that session would be.

    $RUNTIME_DIRECTORY is not read: in a client it names the directory of the unit that the client runs in.

    Raises:
        InvalidInputError: a user without XDG_RUNTIME_DIR, XDG_STATE_HOME and HOME has no default.
    """
    chosen = option or environ.get(variable)
    if chosen:
        return chosen
    runtime = _user_runtime(environ, uid)
    if runtime is None and in_kubernetes(environ):
        runtime = _ROOT_RUNTIME
    if runtime is None:
        try:
            runtime = f"{_user_state(environ)}/run"
        except InvalidInputError as error:
            raise InvalidInputError(
                f"the path of {file_name} is unknown: none of XDG_RUNTIME_DIR, XDG_STATE_HOME and HOME is set",
                code="socket_unknown",
                hint=f"name the socket by --socket PATH or {variable}; the system's daemon has {_ROOT_RUNTIME}/{file_name}",
            ) from error
    return f"{runtime}/{file_name}"


def in_kubernetes(environ: Mapping[str, str]) -> bool:
    """Whether the environment is one that a kubelet has made: it names the API server in every container."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST"))


def _user_runtime(environ: Mapping[str, str], uid: int) -> str | None:
    if uid == 0:
        return _ROOT_RUNTIME
    base = _absolute(environ.get("XDG_RUNTIME_DIR"))
    return None if base is None else f"{base}/aimd"


def _user_state(environ: Mapping[str, str]) -> str:
    base = _absolute(environ.get("XDG_STATE_HOME"))
    if base is not None:
        return f"{base}/aimd"
    home = _absolute(environ.get("HOME"))
    if home is None:
        raise InvalidInputError(
            "the state directory is unknown: neither XDG_STATE_HOME nor HOME is an absolute path",
            code="state_dir_unknown",
            hint="name it by --state-dir DIR",
        )
    return f"{home}/.local/state/aimd"


def _first(directories: str | None) -> str | None:
    """The first of systemd's colon-separated list (systemd.exec(5)); None when unset or empty."""
    return (directories or "").split(":")[0] or None


def _absolute(path: str | None) -> str | None:
    """The path without a trailing slash; the XDG specification has relative ones ignored."""
    if not path or not path.startswith("/"):
        return None
    return path.rstrip("/")
