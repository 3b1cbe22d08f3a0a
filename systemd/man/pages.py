"""Writes the manual pages aimd(8), aimctl(1), aimd.toml(5) and aimd-metrics(7) into a folder.

    python systemd/man/pages.py DIR

What commands, settings and metrics are is taken from the programs' own help, aimd.toml and the families of the metrics page,
so it is never another text.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from aimd import __version__
from aimd.adapters.journal import message_id
from aimd.adapters.metrics import cluster_families, daemon_families, model_families, node_families, slo_families
from aimd.adapters.metrics.family import Descriptor
from aimd.adapters.metrics.instruments import Instruments
from aimd.cli import main as aimd
from aimd.ctl.main import program as aimctl

HERE = Path(__file__).parent


def escaped(text: str) -> str:
    """Plain text for roff: backslashes, hyphens of options, and lines that would be requests."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def page(name: str, section: int, purpose: str, *parts: str) -> str:
    title = f'.TH {name.upper()} {section} "" "aimd {__version__}" "aimd"\n'
    return title + f".SH NAME\n{name} \\- {escaped(purpose)}\n" + "".join(parts)


def commands(program: click.Group, name: str) -> str:
    """Section COMMANDS: each with its usage, help and options."""
    context = click.Context(program, info_name=name)
    return ".SH COMMANDS\n" + "".join(_command(program, context, [each]) for each in program.list_commands(context))


def _command(group: click.Group, context: click.Context, words: list[str]) -> str:
    command = group.get_command(context, words[-1])
    assert command is not None
    inner = click.Context(command, info_name=words[-1], parent=context)
    if isinstance(command, click.Group):
        return "".join(_command(command, inner, [*words, each]) for each in command.list_commands(inner))
    usage = " ".join([*words, *command.collect_usage_pieces(inner)])
    text = f'.SS "{escaped(usage)}"\n{_paragraphs(command.help or "")}'
    for option in command.get_params(inner):
        record = option.get_help_record(inner)
        if record is not None and "--help" not in record[0]:
            text += f".TP\n.B {escaped(record[0])}\n{escaped(record[1])}\n"
    return text


def _paragraphs(text: str) -> str:
    r"""Help texts mark with \b what stays as it is."""
    parts = [part for part in re.split(r"\n\s*\n", re.sub(r"\n +", "\n", text.strip())) if part.strip()]
    done = ""
    for part in parts:
        kept = part.strip().startswith("\b")
        body = escaped(part.replace("\b", "").strip())
        done += f".PP\n.nf\n{body}\n.fi\n" if kept else f".PP\n{body}\n"
    return done


def entries() -> str:
    """Kinds of journal entries with their ids, as the catalog has them."""
    text = (HERE.parent / "aimd.catalog").read_text()
    found = re.findall(r"^# (\w+)\n-- \w+\nSubject: (.*)$", text, re.MULTILINE)
    return "".join(f".TP\n.B {escaped(kind)}\n{escaped(subject)}\n.br\n{message_id(kind)}\n" for kind, subject in found)


def settings() -> str:
    """aimd.toml as it is shipped."""
    text = (HERE.parent / "aimd.toml").read_text()
    return f".SH SETTINGS\n.nf\n{escaped(text)}\n.fi\n"


def families() -> str:
    """Every metric of aimd's own, with its kind, labels and HELP, by name."""
    modules = (cluster_families, daemon_families, model_families, node_families, slo_families)
    found = [each for module in modules for each in vars(module).values() if isinstance(each, Descriptor)]
    instruments = Instruments()
    for metric in (*instruments.collect(), *instruments.operations.collect()):
        labels = sorted({name for sample in metric.samples for name in sample.labels if name != "le"})
        found.append(Descriptor(metric.name, metric.type, metric.documentation, tuple(labels)))  # type: ignore[arg-type]
    return ".SH FAMILIES\n" + "".join(_family(each) for each in sorted(found, key=lambda each: each.sample_name))


def _family(what: Descriptor) -> str:
    labels = f" by {', '.join(what.labels)}" if what.labels else ""
    return f".TP\n.B {escaped(what.sample_name)}\n{escaped(f'({what.kind}{labels}) {what.help}')}\n"


def written(name: str) -> str:
    """A part that is written by hand."""
    return (HERE / name).read_text()


def pages() -> dict[str, str]:
    """By file name."""
    return {
        "aimd.8": page(
            "aimd", 8, "node daemon that shares AMD Instinct GPUs between AI models",
            written("aimd.8.in"), commands(aimd, "aimd"), ".SH JOURNAL\n", written("journal.in"), entries(), written("see.in"),
        ),
        "aimctl.1": page(
            "aimctl", 1, "ask and steer the GPU daemon aimd", written("aimctl.1.in"), commands(aimctl, "aimctl"), written("see.in")
        ),
        "aimd.toml.5": page("aimd.toml", 5, "configuration of aimd", written("aimd.toml.5.in"), settings(), written("see.in")),
        "aimd-metrics.7": page("aimd-metrics", 7, "metrics of aimd", written("aimd-metrics.7.in"), families(), written("see.in")),
    }  # fmt: skip


def main(folder: str) -> None:
    for name, text in pages().items():
        Path(folder, name).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
