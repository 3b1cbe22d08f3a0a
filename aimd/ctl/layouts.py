"""apply, assert, diff, export: the partition modes of a whole node as a file.

A layout file is TOML with one table, [layout], written as in aimd.toml: `default`, `gpu0` or a PCI address on the left,
the default counting for GPUs that are not named, and modes such as "CPX/NPS1" on the right.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import click

from aimd.ctl import exits
from aimd.ctl.changing import drain_option, new_name, no_follow_option, show_change, submit, wait_option
from aimd.ctl.client import ApiClient
from aimd.ctl.columns import modes
from aimd.ctl.fields import UNKNOWN, items, text
from aimd.ctl.output import render
from aimd.ctl.session import Session, output_option, show
from aimd.errors import ConfigError, NotFoundError, RefusedError
from aimd.exits import Exit

file_option = click.option(
    "-f",
    "--file",
    type=click.File(encoding="utf-8"),
    required=True,
    metavar="FILE",
    help="The layout; - reads it from standard input.",
)


class Wish(NamedTuple):
    """What the layout says of one GPU; "" leaves that mode as it is."""

    gpu: Mapping[str, Any]
    compute: str
    memory: str

    @property
    def modes(self) -> str:
        return "/".join(part for part in (self.compute, self.memory) if part)

    @property
    def met(self) -> bool:
        """Whether the GPU's present modes are those of the layout."""
        present = text(self.gpu, "compute_mode"), text(self.gpu, "memory_mode")
        return all(wished in ("", mode) for wished, mode in zip((self.compute, self.memory), present, strict=True))

    @property
    def kept(self) -> bool:
        """Whether nothing is to be done: the modes are there, and they are what aimd brings the GPU back to."""
        own = text(self.gpu, "wish").split("/")
        return self.met and all(wished in ("", *own) for wished in (self.compute, self.memory))


@click.command()
@file_option
@wait_option
@drain_option
@click.option("--name", help="Name of the change; the same name and layout again are the same change.")
@no_follow_option
@click.pass_context
def apply(
    context: click.Context, file: TextIO, *, wait: float | None, drain: bool, name: str | None, no_follow: bool
) -> None:
    """Bring the GPUs to the layout in FILE, as one change, and keep them there when they are idle.

    If one GPU is refused, none is switched. A switch that fails later ends the change: those before it stay, those
    after it are not tried.
    """
    client = context.obj.client
    wished = wishes(client, file)
    if all(wish.kept for wish in wished):
        click.echo("nothing to do: the GPUs are in this layout")
        return
    name = new_name("apply") if name is None else name
    change = submit(client, name, modes_of(wished), wait=wait, drain=drain, no_follow=no_follow)
    show_change(change, "table")
    context.exit(exits.of_change(change))


@click.command(name="assert")
@file_option
@output_option
@click.pass_context
def assert_(context: click.Context, file: TextIO, *, fmt: str) -> None:
    """Check that the GPUs are in the layout in FILE; exit code 1, and what differs, if not."""
    found = differences(wishes(context.obj.client, file))
    if found or fmt in ("json", "yaml"):
        click.echo(render("differences", {"differences": found}, fmt), nl=False)
    context.exit(Exit.REFUSED if found else Exit.OK)


@click.command()
@file_option
@drain_option
@output_option
@click.pass_context
def diff(context: click.Context, file: TextIO, *, drain: bool, fmt: str) -> None:
    """Show what `apply` would change, what is in its way and what would be refused; exit code 1 if anything differs."""
    client = context.obj.client
    wished = wishes(client, file)
    found = differences(wished)
    if found or fmt in ("json", "yaml"):
        click.echo(render("differences", {"differences": found}, fmt), nl=False)
    if found and fmt in ("table", "wide"):
        body = {"modes": modes_of(wished), "drain": drain, "dry_run": True}
        click.echo()
        show("dry-run", client.put(f"/v1/plans/{new_name('diff')}", body), fmt)
    context.exit(Exit.REFUSED if found else Exit.OK)


@click.command()
@click.option("-f", "--file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write it there.")
@click.pass_obj
def export(session: Session, file: Path | None) -> None:
    """Print the present modes of the GPUs as a layout file, by PCI address."""
    layout = exported(items(session.client.get("/v1/gpus"), "gpus"))
    if file is None:
        click.echo(layout, nl=False)
        return
    try:
        file.write_text(layout, "utf-8")
    except OSError as cause:
        raise RefusedError(f"{file} cannot be written: {cause.strerror}", code="not_written") from cause


def wishes(client: ApiClient, file: TextIO) -> list[Wish]:
    """What the layout says of the node's GPUs, those that it does not name left out.

    Raises:
        ConfigError: the file is no layout, or gives one GPU different modes by its two names.
        NotFoundError: it names a GPU that the node has not.
    """
    from aimd.config import parse_layout  # noqa: PLC0415 - needs msgspec and tomli, which no other command waits for

    name = getattr(file, "name", "the layout")
    try:
        layout = parse_layout(file.read(), name)
    except UnicodeDecodeError as cause:
        raise ConfigError(f"{name} is no UTF-8 text: {cause.reason} at byte {cause.start}") from cause
    gpus = items(client.get("/v1/gpus"), "gpus")
    known = {"default"} | {text(gpu, key) for gpu in gpus for key in ("name", "pci_address")}
    strange = sorted(layout.keys() - known)
    if strange:
        raise NotFoundError(
            f"{name} names {', '.join(strange)}, which this node has not",
            code="unknown_gpu",
            hint="aimctl get gpus lists what there is",
        )
    found = []
    for gpu in gpus:
        named = [key for key in (text(gpu, "pci_address"), text(gpu, "name")) if key in layout]
        if len({layout[key] for key in named}) > 1:
            raise ConfigError(
                f"{name} names one GPU twice, as {' and as '.join(named)}, with different modes; expected one",
                hint="remove one of the two lines",
            )
        mode = next((layout[key] for key in (*named, "default") if key in layout), None)
        if mode is not None:
            found.append(Wish(gpu, str(mode.compute or ""), str(mode.memory or "")))
    return found


def modes_of(wished: list[Wish]) -> dict[str, str]:
    """The whole layout by PCI address, also of GPUs that are in it: a memory mode that others need changes them."""
    return {text(wish.gpu, "pci_address"): wish.modes for wish in wished}


def differences(wished: list[Wish]) -> list[dict[str, Any]]:
    """A line per GPU that is not as the layout says."""
    return [
        {
            "name": text(wish.gpu, "name"),
            "pci_address": text(wish.gpu, "pci_address"),
            "present": modes(wish.gpu),
            "layout": wish.modes,
            "pending_memory_mode": wish.gpu.get("pending_memory_mode"),
        }
        for wish in wished
        if not wish.met
    ]


def exported(gpus: list[dict[str, Any]]) -> str:
    """The layout file of the present modes; of a GPU whose modes are unknown there is a comment alone."""
    lines = ["[layout]"]
    for gpu in gpus:
        known = [word for word in (text(gpu, "compute_mode"), text(gpu, "memory_mode")) if word != UNKNOWN]
        entry = f'"{text(gpu, "pci_address")}" = "{"/".join(known)}"  # {text(gpu, "name")}, {text(gpu, "model")}'
        lines.append(entry if known else f"# {text(gpu, 'pci_address')}: modes unknown ({text(gpu, 'state')})")
    return "\n".join(lines) + "\n"
