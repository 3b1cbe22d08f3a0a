"""The `aimd` command: run the daemon, read an inventory without one, check a configuration, replay a trace;
drive a simulated node.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
from pathlib import Path
from typing import Any

import click

from aimd import __version__
from aimd.config import Config, read_config
from aimd.errors import AimdError, InvalidInputError
from aimd.exits import of_error, told
from aimd.rundirs import daemon_directories


class Reporting(click.Group):
    """A group whose commands tell an error of aimd in one sentence and its hint, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AimdError as error:
            click.echo(told(error), err=True)
            ctx.exit(of_error(error))


class LazyGroup(Reporting):
    """Loads `sim` and `replay` only when they are asked for: they are no part of what a real node needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "replay", "sim"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "sim":
            from aimd.sim.commands import sim  # noqa: PLC0415

            return sim
        if cmd_name == "replay":
            from aimd.replay.command import replay  # noqa: PLC0415

            return replay
        return super().get_command(ctx, cmd_name)


@click.group(cls=LazyGroup)
@click.version_option(__version__, prog_name="aimd")
def main() -> None:
    """Lets several AI models share the AMD Instinct GPUs of this node."""


_config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="aimd.toml; without it all settings are defaults."
)


@main.command()
@_config_option
@click.option("--simulate", metavar="MODEL:N", help="Run on a simulated node, for example mi300x:8.")
@click.option("--profile", help="Driver generation of the simulated node; 7.2 by default.")
@click.option("--runtime-dir", help="For sockets; default $RUNTIME_DIRECTORY, /run/aimd or $XDG_RUNTIME_DIR/aimd.")
@click.option("--state-dir", help="For the ledger; default $STATE_DIRECTORY, /var/lib/aimd or $XDG_STATE_HOME/aimd.")
@click.option("--sysfs-root", metavar="DIR", help="Instead of /sys: a mounted simulation. Wins over aimd.toml.")
@click.option(
    "--give-up-capabilities",
    is_flag=True,
    help="At once, all of them and for good: as root where nobody else takes them away, as in a privileged container.",
)
def run(
    config_path: Path | None,
    simulate: str | None,
    profile: str | None,
    runtime_dir: str | None,
    state_dir: str | None,
    sysfs_root: str | None,
    *,
    give_up_capabilities: bool,
) -> None:
    """Run the daemon until SIGTERM."""
    if give_up_capabilities:  # before anything is read or opened
        from aimd.adapters import capabilities  # noqa: PLC0415

        capabilities.give_up_capabilities()
    from aimd.daemon.supervision import Supervision  # noqa: PLC0415 - the other commands start faster without it
    from aimd.daemon.wiring import run as run_daemon  # noqa: PLC0415

    node = _simulated(simulate, profile, sysfs_root)
    config = read_config(config_path) if config_path is not None else Config(layout={})
    if sysfs_root is not None:
        config = _with_root(config, sysfs_root)
    supervision = Supervision.of(os.environ, os.getpid())
    _log(config.log_level, in_journal=supervision.journal)
    faulthandler.enable()  # what the threads did when the watchdog's SIGABRT came
    paths = daemon_directories(os.environ, os.getuid(), runtime_dir=runtime_dir, state_dir=state_dir)
    asyncio.run(run_daemon(config, paths, node, config_path, supervision))


def _log(level: str, *, in_journal: bool) -> None:
    """Records as fields where standard error is the journal's, as lines elsewhere."""
    handlers: list[logging.Handler] | None = None
    if in_journal:
        from aimd.adapters.journal import JournalHandler  # noqa: PLC0415

        with contextlib.suppress(OSError):
            handlers = [JournalHandler()]
    words = "%(message)s" if handlers else "%(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=level.upper(), format=words, handlers=handlers)


def _simulated(simulate: str | None, profile: str | None, sysfs_root: str | None) -> tuple[str, str] | None:
    """The simulated node's spec and profile, None for a real one; raises InvalidInputError."""
    if simulate is None:
        if profile is not None:
            raise InvalidInputError("--profile is that of a simulated node", hint="add --simulate, or leave it away")
        return None
    if sysfs_root is not None:
        raise InvalidInputError(
            "--simulate and --sysfs-root exclude each other, expected one of them",
            hint="a mounted simulation (aimd sim mount) is what --sysfs-root can name",
        )
    from aimd.sim.spec import DEFAULT_PROFILE  # noqa: PLC0415 - a real node's daemon does not load the simulator

    return simulate, profile or DEFAULT_PROFILE


def _with_root(config: Config, root: str) -> Config:
    import msgspec  # noqa: PLC0415

    changed: Config = msgspec.structs.replace(config, sysfs_root=root)
    return changed


@main.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/sys"),
    show_default=True,
    help="/sys, or a captured part of it: a folder that holds topology/ is enough.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "name"]),
    default="table",
    show_default=True,
)
def inventory(root: Path, output: str) -> None:
    """Show GPUs and partitions without a daemon. What cannot be read is unknown."""
    click.echo(_inventory(root, output), nl=False)


def _inventory(root: Path, output: str) -> str:
    from aimd.adapters.amdgpu.driver import AmdgpuDriver  # noqa: PLC0415
    from aimd.adapters.amdgpu.layout import locate  # noqa: PLC0415
    from aimd.adapters.amdgpu.sysfs import OsSysfs  # noqa: PLC0415
    from aimd.adapters.processes import command_of  # noqa: PLC0415
    from aimd.ctl.output import render  # noqa: PLC0415
    from aimd.domain.node import NodeSnapshot  # noqa: PLC0415
    from aimd.planning.view import gpu_statuses  # noqa: PLC0415
    from aimd.protocol import convert, messages  # noqa: PLC0415

    if not root.is_dir():
        raise InvalidInputError(f"--root {root} is no folder", hint="name /sys or an unpacked capture of it")
    sysfs = OsSysfs(root)
    observed = AmdgpuDriver(sysfs, command_of, locate(sysfs, str(root))).scan()
    snapshot = NodeSnapshot(
        gpus=gpu_statuses(observed.gpus, {}, {}, None),
        holders=observed.holders,
        topology_generation=observed.topology_generation,
        warnings=observed.warnings,
    )
    message = convert.inventory_message(snapshot, with_epoch=False)
    if not message.gpus:
        click.echo(
            f"warning: {root} shows no GPU: its KFD topology has CPU nodes alone, or none that can be read", err=True
        )
    if output == "json":
        return messages.to_json(message, indent=2).decode() + "\n"
    for warning in message.warnings:
        click.echo(f"warning: {warning}", err=True)
    return render("inventory", messages.to_builtins(message), output)


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Tell whether FILE is a valid aimd.toml."""
    from aimd.daemon.wiring import operator_uids  # noqa: PLC0415

    operator_uids(read_config(file))
    click.echo(f"{file} is valid")
