"""Shell completion: the scripts for the shells, and the names that the daemon knows.

A completion must be quick and must never complain: without a daemon there are no names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from aimd.ctl.client import ApiClient
from aimd.ctl.fields import items, text, texts
from aimd.ctl.session import Session
from aimd.errors import AimdError

PATIENCE_SECONDS = 0.5
KINDS = {
    "partition": "partitions",
    "claim": "claims",
    "assignment": "assignments",
    "model": "models",
    "slo": "models",
    "plan": "plans",
}

Ask = Callable[[ApiClient], list[str]]


def object_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the objects that `get` and `describe` have been told the kind of."""
    what = str(context.params.get("what"))
    kind = KINDS.get(what, what)
    if kind in KINDS.values():
        return _known(context, incomplete, lambda client: _names(client, kind))
    return gpu_names(context, _parameter, incomplete) if what in ("gpu", "gpus") else []


def gpu_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the GPUs; their addresses once the text begins like one."""

    def ask(client: ApiClient) -> list[str]:
        gpus = items(client.get("/v1/gpus"), "gpus")
        return [text(gpu, key) for key in ("name", "pci_address") for gpu in gpus if incomplete or key == "name"]

    return _known(context, incomplete, ask)


def claim_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the claims."""
    return _known(context, incomplete, lambda client: _names(client, "claims"))


def partition_names(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Names of the partitions that there are now."""
    return _known(context, incomplete, lambda client: _names(client, "partitions"))


def compute_modes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Compute modes that a GPU of the node offers."""
    return _known(context, incomplete.upper(), lambda client: _offered(client, "available_compute_modes"))


def memory_modes(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Memory modes that a GPU of the node offers."""
    return _known(context, incomplete.upper(), lambda client: _offered(client, "available_memory_modes"))


def wishes(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """GPU, MODE, GPU, MODE, ...: the modes are those that the GPU before offers."""
    typed: tuple[str, ...] = context.params.get("wishes") or ()
    if len(typed) % 2 == 0:
        return gpu_names(context, parameter, incomplete)
    gpu = typed[-1]

    def ask(client: ApiClient) -> list[str]:
        found = client.get(f"/v1/gpus/{gpu}")
        memory = texts(found, "available_memory_modes")
        return [name for mode in texts(found, "available_compute_modes") for name in (mode, *_pairs(mode, memory))]

    return _known(context, incomplete.upper(), ask)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete aimctl's command lines.

    \b
    bash: eval "$(aimctl completion bash)"                     in ~/.bashrc
    zsh:  eval "$(aimctl completion zsh)"                      in ~/.zshrc
    fish: aimctl completion fish > ~/.config/fish/completions/aimctl.fish
    """  # noqa: D301 - click's mark for lines that stay as they are
    from click.shell_completion import ShellComplete, get_completion_class  # noqa: PLC0415 - nobody else needs it

    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"this version of click has no completion for {shell}")
    # Not the class's own source(): bash's starts a bash to ask for its version.
    click.echo(ShellComplete.source(completer(context.find_root().command, {}, "aimctl", "_AIMCTL_COMPLETE")))


def _names(client: ApiClient, kind: str) -> list[str]:
    return [text(each, "name") for each in items(client.get(f"/v1/{kind}"), kind)]


def _offered(client: ApiClient, key: str) -> list[str]:
    """The modes of all GPUs, each once."""
    return list(dict.fromkeys(mode for gpu in items(client.get("/v1/gpus"), "gpus") for mode in texts(gpu, key)))


def _pairs(compute: str, memory_modes: list[str]) -> list[str]:
    return [f"{compute}/{memory}" for memory in memory_modes]


def _known(context: click.Context, incomplete: str, ask: Ask) -> list[str]:
    options: dict[str, Any] = context.find_root().params  # its callback has not run: there is no Session yet
    try:
        names = ask(Session(options.get("socket"), PATIENCE_SECONDS).client)
    except AimdError:
        return []
    return [name for name in names if name.startswith(incomplete)]
