"""What all figures share: their look, how they are saved; and the confusion matrix. Drawn without a display."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from xray_lightning.artifacts import atomic_write
from xray_lightning.console import printable

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")  # Okabe and Ito
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))  # dots are for lines of reference
STYLES = tuple((COLOURS[n % 8], DASHES[(n + n // 8) % 4]) for n in range(32))  # neighbours differ without colours too
GREY = "#6B6B6B"
SMALL, LARGE = 11, 12  # points
WIDTH = 7.0  # inches, 840 pixels: letters can still be read when a phone shrinks the figure
LONGEST_NAME = 40  # letters of a class
LETTERS = 10.5  # of the larger size, an inch


class Mark(NamedTuple):
    """How an operating point is called and drawn."""

    name: str
    colour: str
    marker: str
    dash: Any


MARKS = {  # of each point of the record; what is drawn last can still be seen where several lie on one spot
    "sensitivity_95": Mark("Sensitivity 95 %", COLOURS[1], "o", "--"),
    "sensitivity_98": Mark("Sensitivity 98 %", COLOURS[2], "s", "-."),
    "balanced": Mark("Best balanced accuracy", COLOURS[3], "D", (0, (6, 2, 1, 2, 1, 2))),
    "default": Mark("Default", COLOURS[6], "X", ":"),
}
FIXED = "Operating points: thresholds p were fixed on validation"


def titled_figure(height: float, title: str, width: float = WIDTH) -> Figure:
    """An empty figure of a size in inches under its title, which is wrapped to the width."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.suptitle(wrapped(title, width), fontsize=LARGE, parse_math=False)
    return figure


def wrapped(title: str, width: float) -> str:
    """The lines of a title, none wider than `width` inches."""
    return "\n".join(textwrap.fill(line, int(width * LETTERS)) for line in title.splitlines())


def panels(figure: Figure, count: int, **shared: Any) -> list[Axes]:
    """One panel, or as many as asked for, two abreast."""
    columns = min(count, 2)
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, **shared)
    for unused in grid.flat[count:]:
        figure.delaxes(unused)
    return list(grid.flat[:count])


def style(axes: Axes, xlabel: str = "", ylabel: str = "", title: str = "") -> None:
    axes.set_xlabel(xlabel, fontsize=SMALL)
    axes.set_ylabel(ylabel, fontsize=SMALL)
    axes.set_title(title, fontsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    axes.grid(color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, columns: int = 1, title: str = "") -> None:
    """One legend of what is drawn in all panels, below them, where it hides nothing."""
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if entries:
        figure.legend(
            entries.values(),
            entries.keys(),
            loc="outside lower center",
            ncols=columns,
            title=title,
            title_fontsize=SMALL,
            fontsize=SMALL,
            frameon=False,
        )


def readable(name: str) -> str:
    """The name of a class or a run as it can be drawn: with its middle left out where it is long, so that there is room
    for the figure; dollar signs are not read as mathematics."""
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME // 2 - 1]}…{name[-LONGEST_NAME // 2 :]}"
    return printable(name).replace("_", " ").replace("$", r"\$")


def estimate(value: Mapping[str, float | None] | None) -> str:
    """A value of the record and its interval, such as `0.945 [0.921, 0.964]`."""
    if value is None or value["value"] is None:
        return "not defined"
    text = f"{value['value']:.3f}"
    if value["low"] is None or value["high"] is None:
        return text
    return f"{text} [{value['low']:.3f}, {value['high']:.3f}]"


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix (classes, classes): counts, and percentages of each row (the actual class)."""
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    size = 3.2 + 1.0 * len(classes)
    roomy = ConstrainedLayoutEngine(h_pad=0.08)  # the default cuts the top of titles of some heights
    figure = Figure(figsize=(size + 0.8, size), layout=roomy, facecolor="white")
    axes = figure.add_subplot()
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if share[row, column] > 0.72 else "black"
        text = f"{count}\n{100 * share[row, column]:.1f} %"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=LARGE)
    labels = [readable(name) for name in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=20 if len(classes) > 2 else 0, fontsize=SMALL)
    axes.set_yticks(range(len(classes)), labels, fontsize=SMALL)
    axes.set_xlabel("Predicted class", fontsize=LARGE)
    axes.set_ylabel("Actual class", fontsize=LARGE)
    axes.set_title(wrapped(title, size - 1), fontsize=LARGE, parse_math=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    bar.set_label("Share of the actual class (%)", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
