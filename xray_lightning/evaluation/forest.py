"""The runs of a sweep side by side: their scores with intervals, and their ROC curves."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xray_lightning.evaluation.curves import GRID, roc_points, views
from xray_lightning.evaluation.figures import (
    COLOURS,
    GREY,
    SMALL,
    STYLES,
    estimate,
    legend_below,
    readable,
    style,
    titled_figure,
)

METRICS = {"accuracy": "Accuracy", "auroc": "AUROC", "macro_f1": "Macro F1"}
ROW = 0.3  # inches
LONGEST_NAME = 34  # characters beside the panels


class ForestRow(NamedTuple):
    """A run: "metrics" and "reference" of its record."""

    dataset: str
    name: str
    metrics: Mapping[str, Mapping[str, float | None]]
    reference: Mapping[str, float] | None


class RunScores(NamedTuple):
    """Probabilities (N, K) and labels (N,) of a run's test images, and "auroc" of its record."""

    name: str
    probabilities: np.ndarray
    labels: np.ndarray
    auroc: Mapping[str, float | None] | None


def forest_figure(rows: Sequence[ForestRow], title: str, metrics: Mapping[str, str] = METRICS) -> Figure:
    """A panel a metric (record name -> label), a line a run with its 95 % interval, runs grouped by data set."""
    lines = _lines(rows)
    figure = titled_figure(1.7 + ROW * len(lines), title, width=8.4)
    parts = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, (metric, label) in zip(parts, metrics.items(), strict=True):
        style(axes, label, title=label)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _forest(axes, lines, metric)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.set_yticks([])
        axes.set_ylim(len(lines) - 0.5, -0.6)
    parts[0].set_yticks(range(len(lines)), [_name(line) for line in lines])
    for tick, line in zip(parts[0].get_yticklabels(), lines, strict=True):
        tick.set_fontweight("normal" if isinstance(line, ForestRow) else "bold")
    legend_below(figure, columns=3)
    return figure


def _lines(rows: Sequence[ForestRow]) -> list[ForestRow | str]:
    """Each data set's heading and its runs, data sets in the order in which they first appear."""
    order = list(dict.fromkeys(row.dataset for row in rows))
    ordered = sorted(rows, key=lambda row: order.index(row.dataset))
    return [line for name, group in groupby(ordered, lambda row: row.dataset) for line in (name, *group)]


def _name(line: ForestRow | str) -> str:
    """What stands beside a line; of a long name the middle is left out, as runs tend to differ at the ends."""
    name = line if isinstance(line, str) else line.name
    half = LONGEST_NAME // 2
    return readable(name if len(name) <= LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}")


def _forest(axes: Axes, lines: Sequence[ForestRow | str], metric: str) -> None:
    for y, line in enumerate(lines):
        if isinstance(line, str):
            axes.axhspan(y - 0.5, y + 0.5, color="#F0F0F0", linewidth=0)
    runs = [(y, line) for y, line in enumerate(lines) if isinstance(line, ForestRow)]
    scores: list[tuple[int, Mapping[str, Any]]] = [(y, run.metrics[metric]) for y, run in runs if metric in run.metrics]
    known = [(y, v) for y, v in scores if v["value"] is not None]
    heights = [y for y, _ in known]
    ends = np.array([(v["low"], v["high"], None) for _, v in known], dtype=float)  # None is NaN, which parts the lines
    values = [v["value"] for _, v in known]
    axes.plot(ends.ravel(), np.repeat(heights, 3), color=COLOURS[0], marker="|", markersize=9, label="95 % interval")
    axes.plot(values, heights, "o", color=COLOURS[0], markersize=6, label="Value")
    beside = axes.get_yaxis_transform()
    for y, value in zip(heights, values, strict=True):
        text = axes.annotate(f"{value:.3f}", (1.01, y), xycoords=beside, va="center", fontsize=SMALL)
        text.set_in_layout(y == heights[0])  # all are as wide as the first, and measuring them takes long
    told = np.array([(run.reference[metric], y) for y, run in runs if run.reference and metric in run.reference])
    if len(told):
        axes.plot(*told.T, "D", color=COLOURS[1], fillstyle="none", markersize=8, label="Reference study")


def sweep_roc_figure(runs: Sequence[RunScores], classes: Sequence[str], title: str) -> Figure:
    """ROC curves of runs on one test set: the positive class's, or the average over classes against the rest.

    Runs of one name, such as the seeds of a model, share a colour and a line of the legend.
    """
    names = list(dict.fromkeys(run.name for run in runs))
    figure = titled_figure(5.9 + 0.24 * len(names), title)
    axes = figure.add_subplot(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    averaged = "" if len(classes) == 2 else ", average over classes"
    style(axes, f"1 − specificity (false-positive rate{averaged})", f"Sensitivity (true-positive rate{averaged})")
    for n, name in enumerate(names):
        colour, dash = STYLES[n % len(STYLES)]
        group = [run for run in runs if run.name == name]
        for place, run in enumerate(group):
            x, y = average_roc(run.probabilities, run.labels, classes)
            label = f"{readable(name)}: {_areas(group)}" if place == 0 else None
            axes.plot(x, y, color=colour, linestyle=dash, linewidth=2 if len(group) == 1 else 1.2, label=label)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="No skill")
    legend_below(figure)
    return figure


def average_roc(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """1 - specificity and sensitivity (F,) of the positive class of two; of more, the mean sensitivity of the
    classes that have test images at each of a grid, so that its area is the macro AUROC but for the grid."""
    curves = [roc_points(view.p, view.positive) for view in views(probabilities, labels, classes) if view.mixed]
    if not curves:
        return np.array([]), np.array([])
    if len(classes) == 2:
        return curves[0]
    # np.interp takes the last of equal x, the top of a rise
    return np.append(0, GRID), np.append(0, np.mean([np.interp(GRID, x, y) for x, y in curves], axis=0))


def _areas(runs: Sequence[RunScores]) -> str:
    known = [run.auroc["value"] for run in runs if run.auroc and run.auroc["value"] is not None]
    if len(runs) == 1 or not known:
        return f"AUROC {estimate(runs[0].auroc)}"
    return f"{len(runs)} runs, AUROC {min(known):.3f} to {max(known):.3f}"
