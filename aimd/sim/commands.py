"""`aimd sim ...`: mount a simulated node, cause faults on a running one, hold a GPU busy, reset it."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from aimd.errors import AimdError, InvalidInputError, UnreachableError
from aimd.exits import Exit, of_error, told
from aimd.rundirs import client_socket, daemon_directories
from aimd.sim.client import SOCKET_VARIABLE, SimClient
from aimd.sim.hardware import MODELS, PROFILES
from aimd.sim.spec import DEFAULT_PROFILE, SOCKET_FILE, STATE_FILE, open_node, parse_spec
from aimd.sim.state import FaultKind, restore
from aimd.sim.summary import summarize, summarize_faults


class Reporting(click.Group):
    """A group whose commands' errors become one sentence, a hint and aimctl's exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click's own business
            raise
        except (AimdError, OSError) as error:
            click.echo(told(error) if isinstance(error, AimdError) else _system_error(error), err=True)
            ctx.exit(of_error(error) if isinstance(error, AimdError) else _exit_code(error))


def _exit_code(error: OSError) -> Exit:
    if error.errno == errno.EBUSY:
        return Exit.CONFLICT
    return Exit.DENIED if isinstance(error, PermissionError) else Exit.REFUSED


def _system_error(error: OSError) -> str:
    reason = error.strerror or str(error)
    return f"error: {reason}" if error.filename is None else f"error: {error.filename}: {reason}"


_socket_option = click.option(
    "--socket",
    "socket_option",
    type=click.Path(),
    metavar="PATH",
    help=f"Control socket of the simulated node; by default ${SOCKET_VARIABLE}, then {SOCKET_FILE} in the runtime "
    "directory.",
)


def _socket_path(option: str | None) -> str:
    return client_socket(os.environ, os.getuid(), option=option, variable=SOCKET_VARIABLE, file_name=SOCKET_FILE)


def _connect(option: str | None) -> SimClient:
    return SimClient(_socket_path(option))


@click.group(cls=Reporting)
def sim() -> None:
    """A node of simulated AMD Instinct GPUs, for trying aimd out and for tests.

    `aimd run --simulate mi300x:8` has one in its own process; `aimd sim mount` shows one as a directory that is like
    /sys. The other commands speak to either of them through its control socket.
    """


@sim.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--model", default="mi300x:8", show_default=True, metavar="MODEL:COUNT", help=f"One of {', '.join(MODELS)}."
)
@click.option(
    "--profile",
    default=DEFAULT_PROFILE,
    show_default=True,
    type=click.Choice(list(PROFILES)),
    help="Generation of the driver, by kernel version: files and rules differ.",
)
@click.option(
    "--state", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Keep the hardware's state here."
)
@_socket_option
def mount(directory: Path, model: str, profile: str, state: Path | None, socket_option: str | None) -> None:
    """Mount a simulated /sys on DIRECTORY.

    It is served until SIGINT, SIGTERM or umount. Needs the extra `sim` (pip install 'aimd[sim]') and libfuse (Debian: libfuse3-3). One line on standard output tells
    when the mount is there. For example:

    \b
        aimd sim mount /tmp/sys --model mi300x:2 --profile 6.12 &
        echo CPX > /tmp/sys/bus/pci/devices/0000:05:00.0/current_compute_partition
        aimd inventory --root /tmp/sys
    """  # noqa: D301 -- click's mark for lines that stay as they are
    from aimd.sim.fuse import check_mount_point, load_library  # noqa: PLC0415 -- this command alone needs them
    from aimd.sim.fuse import mount as serve_mount  # noqa: PLC0415
    from aimd.sim.thread import ControlThread  # noqa: PLC0415

    load_library()
    check_mount_point(directory)
    path = Path(_socket_path(socket_option))
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    node = open_node(parse_spec(model, profile), state)

    def ready() -> None:
        click.echo(f"{node.description} mounted on {directory}, control socket {path}")

    with ControlThread(node, path):
        serve_mount(node, directory, ready)


@sim.command(epilog="See `aimd sim faults` for what is armed, `aimd sim clear` to disarm.")
@click.argument("kind", type=click.Choice([kind.value for kind in FaultKind]), metavar="KIND")
@click.option("--gpu", metavar="GPU", help="gpu0, gpu1, ... or a PCI address; by default all GPUs.")
@click.option("--times", type=click.IntRange(min=1), help="How often it strikes; once by default.")
@click.option("--until-cleared", is_flag=True, help="It strikes until `aimd sim clear`.")
@click.option("--seconds", type=click.FloatRange(min=0), default=0.0, help="Duration, for those that have one.")
@_socket_option
def fault(
    *, kind: str, gpu: str | None, times: int | None, until_cleared: bool, seconds: float, socket_option: str | None
) -> None:
    """Arm a fault of the driver, firmware or hardware.

    \b
    busy              the mode write answers EBUSY though there is no client
    firmware-refusal  the write succeeds, the mode file says new, the nodes stay old
    kfd-failure       the write answers EIO, the GPU's nodes are gone until a reload
    slow-write        the write takes SECONDS longer, readers of the mode file block
    rebuild-window    nodes/ is empty for SECONDS at each rebuild of the topology
    reset             the GPU is in reset for SECONDS
    device-lost       the PCI device disappears, until the reboot
    minors-exhausted  one DRM minor too few from the next reload on (63 partitions)
    cgroup-denied     KFD files of the GPU answer EPERM
    access-denied     opening a mode file for writing answers EACCES
    read-only         opening a mode file for writing answers EROFS
    load-hang         a driver load stops before the second half of the GPUs
    memory-refusal    the firmware refuses the memory mode at the next reload

    rebuild-window, minors-exhausted, cgroup-denied and load-hang last until `aimd sim clear`.
    """  # noqa: D301 -- click's mark for lines that stay as they are
    if times is not None and until_cleared:
        raise click.UsageError("--times and --until-cleared exclude each other, expected one of them")
    with _connect(socket_option) as node:
        node.fault(kind, gpu, remaining=None if until_cleared else times or 1, seconds=seconds)


@sim.command()
@_socket_option
def faults(socket_option: str | None) -> None:
    """List the armed faults."""
    with _connect(socket_option) as node:
        click.echo(summarize_faults(node.status()))


@sim.command()
@_socket_option
def clear(socket_option: str | None) -> None:
    """Disarm all faults. What happened already, like a lost device, stays until reload or reset."""
    with _connect(socket_option) as node:
        node.clear_faults()


@sim.command()
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@_socket_option
def status(output: str, socket_option: str | None) -> None:
    """Show modes, KFD clients and faults."""
    with _connect(socket_option) as node:
        state = node.status()
    click.echo(json.dumps(state, indent=2) if output == "json" else summarize(state))


@sim.command()
@_socket_option
def reload(socket_option: str | None) -> None:
    """Unload and load the amdgpu driver.

    Memory modes that were requested take effect. As modprobe -r, it is refused (busy) while a process is a KFD client.
    The GPUs come back one after the other; the command ends with the last one.
    """
    with _connect(socket_option) as node:
        node.reload()


@sim.command()
@_socket_option
@click.option(
    "--state-dir", metavar="DIR", help=f"If none runs: where {STATE_FILE} is; by default the daemon's state directory."
)
def reset(socket_option: str | None, state_dir: str | None) -> None:
    """Reboot the simulated node.

    Afterwards it has all GPUs in SPX/NPS1, no clients, no faults and a new boot id. A running daemon or mount does it at once; else the state file that the next daemon will read is rebooted.
    """
    try:
        node = _connect(socket_option)
    except (UnreachableError, InvalidInputError):  # nobody runs, or there is not even a default socket
        path = Path(daemon_directories(os.environ, os.getuid(), state_dir=state_dir).state) / STATE_FILE
        click.echo(_reset_file(path))
        return
    with node:
        node.reboot()
    click.echo(f"simulated node {node.path} rebooted")


def _reset_file(path: Path) -> str:
    """Reboot the node whose state the file keeps; what was done, as a sentence."""
    if not path.exists():
        return f"no simulated node runs and {path} does not exist: nothing to reset"
    try:
        fresh = restore(path.read_bytes())
    except ValueError as cause:
        raise InvalidInputError(
            f"state file {path} does not hold a simulated node ({cause}), expected what an earlier simulation wrote",
            hint="remove it to begin with a new node",
        ) from cause
    open_node(fresh, path).act(lambda driver, now: driver.reboot(now))
    return f"simulated node in {path} rebooted"


@sim.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--gpu", "gpus", multiple=True, metavar="GPU", help="Repeatable; by default all GPUs.")
@click.option(
    "--load",
    type=click.FloatRange(0, 1),
    help="Share of the time that it computes, on every partition of these GPUs; by default it does not.",
)
@_socket_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def hold(gpus: tuple[str, ...], load: float | None, socket_option: str | None, command: tuple[str, ...]) -> None:
    """Keep GPUs in use: be a KFD client of them.

    So is any process that uses HIP, and until it has ended, mode switches of its GPUs answer EBUSY. Without COMMAND it sleeps until it is ended; with `-- COMMAND ...` it becomes COMMAND and stays a client under the
    same pid. (With the real driver exec ends it, because the address space is another one; here the pid counts.)
    """
    with _connect(socket_option) as node:
        node.join(gpus or None)
        if load is not None:
            for device in node.devices():
                node.compute(device["gpu_id"], load)
    click.echo(f"process {os.getpid()} is a KFD client of {', '.join(gpus) or 'all GPUs'}", err=bool(command))
    if command:
        sys.stdout.flush()
        try:
            os.execvp(command[0], command)  # noqa: S606 -- the user's own command
        except OSError as cause:
            raise InvalidInputError(f"{command[0]} cannot be started ({cause.strerror}), expected a program") from cause
    signal.pause()
