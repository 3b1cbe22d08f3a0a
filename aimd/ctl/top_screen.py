"""The screen of `aimctl top`: redrawn in place with rich, and gone when it ends."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, final

from aimd.ctl.fields import item, required, shown, text
from aimd.ctl.top_rows import GAP, ORDERS, WORDS, Object, columns_of, fitting, rows_of, summary
from aimd.errors import AimdError

if TYPE_CHECKING:  # rich costs as much time as the whole of a short command
    from rich.console import RenderableType

HELP = "q quit   p partitions   sort by: " + "  ".join(f"{each.key} {name}" for name, each in ORDERS.items())
AROUND = 4  # lines above and below the rows
ALERTS = {"page": "bold red", "ticket": "yellow"}


@final
class Screen:
    """Draws answers; a context manager in which the terminal's contents are set aside."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - see above
        from rich.live import Live  # noqa: PLC0415

        self._console = Console(highlight=False)
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def draw(self, answer: Object, order: str, *, partitions: bool, trouble: AimdError | None) -> None:
        """Show the answer, and above it why there is no newer one."""
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        window = (
            "" if required(answer, "window_seconds") is None else f", of the last {text(answer, 'window_seconds')} s"
        )
        first = Text(f"aimd: {summary(answer)}{window}", style="bold", no_wrap=True, overflow="ellipsis")
        second = Text(f"sorted by {order}", no_wrap=True, overflow="ellipsis")
        if trouble is not None:
            second = Text(f"as it was: {shown(trouble.message)}", style="bold red", no_wrap=True, overflow="ellipsis")
        rows = rows_of(answer, order, partitions=partitions)
        room = max(1, self._console.height - AROUND)
        more = f"... {len(rows) - room + 1} more" if len(rows) > room else ""
        table = self._table(rows[: room - 1] if more else rows, partitions=partitions)
        foot = Text(f"{more}\n{HELP}" if more else HELP, style="dim", no_wrap=True, overflow="ellipsis")
        self._live.update(Group(first, second, table, foot), refresh=True)

    def _table(self, rows: list[Object], *, partitions: bool) -> RenderableType:
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        columns = fitting(columns_of(partitions=partitions), rows, self._console.width)
        table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="reverse")
        for column in columns:
            table.add_column(column.header, justify="left" if column.header in WORDS else "right", no_wrap=True)
        for each in rows:
            table.add_row(*(Text(column.cell(each)) for column in columns), style=_style(each))
        return table


def _style(each: Object) -> str:
    """Of a row: what burns is seen."""
    if required(each, "compliance") is None:
        return ""
    return ALERTS.get(text(item(each, "compliance"), "alert"), "")
