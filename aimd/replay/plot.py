"""The comparison as a picture: the share that was complete in time over the load, of all and of each class.

The one door to matplotlib, which comes with the extra `dev` alone and is imported when a plot is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from aimd.errors import InvalidInputError
from aimd.replay.comparison import OURS
from aimd.replay.report import CLASSES, Comparison, assumption_lines

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("pdf", "png", "svg")


def check_plot(target: Path) -> None:
    """Whether a plot can be drawn there, before minutes are spent on what it would show.

    Raises:
        InvalidInputError: matplotlib is missing, the name's end is none of FORMATS, or its folder does not exist.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 - half a second, and no part of an installed aimd

        del mpl
    except ImportError as error:
        raise InvalidInputError(
            "matplotlib is not installed, expected it for a plot", hint="pip install 'aimd[dev]', or matplotlib alone"
        ) from error
    if target.suffix.removeprefix(".").lower() not in FORMATS:
        raise InvalidInputError(f"plot {target} ends in no known format, expected one of .{', .'.join(FORMATS)}")
    if not target.parent.is_dir():
        raise InvalidInputError(f"plot {target} cannot be written: {target.parent} is no folder")


def draw(comparison: Comparison, target: Path) -> None:
    """A panel for all requests and one for each class that has some; aimd in front.

    Raises:
        InvalidInputError: the file cannot be written.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - see check_plot

    present = [klass for klass, number in enumerate(comparison.results[0].score.arrived) if number]
    panels: list[int | None] = [None, *present]
    figure = Figure(figsize=(3.6 * len(panels) + 1.8, 4.8))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, klass in zip(axes, panels, strict=True):
        _panel(axis, comparison, klass)
        axis.set_title("all requests" if klass is None else CLASSES[klass])
    axes[0].set_ylabel("complete in time, %")
    _annotate(figure, axes[0], comparison)
    try:
        figure.savefig(target, dpi=110)
    except OSError as error:
        raise InvalidInputError(f"plot {target} cannot be written ({error.strerror})") from error


def _panel(axis: Axes, comparison: Comparison, klass: int | None) -> None:
    for name in dict.fromkeys(result.policy for result in comparison.results):
        points = sorted(
            (result.load, percent)
            for result in comparison.results
            if result.policy == name and (percent := result.score.met_percent(klass)) is not None
        )
        own = name == OURS
        axis.plot(
            [load for load, _ in points],
            [percent for _, percent in points],
            marker="o",
            markersize=4,
            label=name,
            linewidth=2.8 if own else 1.3,
            zorder=5 if own else 2,
            color="black" if own else None,
        )
    axis.set_ylim(-3, 103)
    axis.set_xlabel("load")
    axis.grid(visible=True, alpha=0.3)


def _annotate(figure: Figure, axis: Axes, comparison: Comparison) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.text(0.01, 0.01, "\n".join(assumption_lines(comparison)), fontsize=6.5, va="bottom", parse_math=False)
    figure.tight_layout(rect=(0, 0.16, 0.9, 1))
    figure.legend(handles, labels, loc="center right", fontsize=8)
