"""What a decision at each threshold gives: ROC, precision against recall, and the decision curve."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_lightning.evaluation.bands import precision_band, roc_band
from xray_lightning.evaluation.figures import (
    COLOURS,
    FIXED,
    GREY,
    MARKS,
    SMALL,
    STYLES,
    estimate,
    legend_below,
    panels,
    readable,
    style,
    titled_figure,
)
from xray_lightning.evaluation.operating_points import net_benefit

Record = Mapping[str, Any]  # of each class, as metrics.json has it

GRID = np.linspace(0, 1, 101)


class View(NamedTuple):
    """One class against the rest: probabilities p (N,) of the class, and which images (N,) bool are of it."""

    name: str
    p: np.ndarray
    positive: np.ndarray
    colour: str
    dash: Any

    @property
    def mixed(self) -> bool:
        return 0 < self.positive.sum() < len(self.positive)


def views(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> Iterator[View]:
    """The positive class of two; each class of more."""
    for n, c in enumerate((1,) if len(classes) == 2 else range(len(classes))):
        yield View(classes[c], probabilities[:, c], labels == c, *STYLES[n % len(STYLES)])


def ranked(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and false alarms (F,) when the images with the highest p are called positive: first none, at last all.

    Images of equal p are called together.
    """
    order = np.argsort(-p, kind="stable")
    last = np.append(np.flatnonzero(np.diff(p[order])), len(p) - 1)
    hits = np.cumsum(positive[order])[last]
    return np.append(0, hits), np.append(0, last + 1 - hits)


def roc_points(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 - specificity and sensitivity (F,), both rising from 0 to 1; empty unless there are images of both kinds."""
    if not 0 < positive.sum() < len(positive):
        return np.array([]), np.array([])
    hits, alarms = ranked(p, positive)
    return alarms / alarms[-1], hits / hits[-1]


def precision_recall_points(p: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall (F,), rising from 0 to 1, and precision (F,), which is 1 where nothing is called positive.

    Both are empty unless there are images of both kinds.
    """
    if not 0 < positive.sum() < len(positive):
        return np.array([]), np.array([])
    hits, alarms = ranked(p, positive)
    return hits / hits[-1], np.append(1.0, hits[1:] / (hits + alarms)[1:])


def thresholds_of(points: Record, name: str) -> dict[str, float]:
    """Operating point -> threshold of a class; one that validation did not define is left out."""
    found = {point: points.get(name, {}).get(point, {}).get("threshold") for point in MARKS}
    return {point: threshold for point, threshold in found.items() if threshold is not None}


def roc_figure(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    classes: Sequence[str],
    title: str,
    per_class: Record,
    points: Record,
) -> Figure:
    """ROC of the positive class with its 95 % band and its operating points; of more classes, each against the rest.

    `per_class` and `points` are the record's "per_class", for the areas, and "operating_points".
    """
    figure, axes = _square(title, 8 if len(classes) == 2 else 1 + len(classes))
    style(axes, "1 − specificity (false-positive rate)", "Sensitivity (true-positive rate)")
    for view in views(probabilities, labels, classes):
        label = f"{_counted(view)}: AUROC {estimate(per_class[view.name]['auroc'])}"
        axes.plot(*roc_points(view.p, view.positive), **_line(view, label))
        if view.mixed and len(classes) == 2:
            low, high = roc_band(view.p, view.positive, groups, GRID)
            axes.fill_between(GRID, low, high, color=view.colour, alpha=0.18, linewidth=0, label="95 % band")
            for point, threshold in thresholds_of(points, view.name).items():
                called = view.p >= threshold
                sensitivity, fall_out = called[view.positive].mean(), called[~view.positive].mean()
                text = f"sensitivity {sensitivity:.3f}, specificity {1 - fall_out:.3f}"
                _mark(axes, point, threshold, fall_out, sensitivity, text)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="No skill")
    legend_below(figure, title=FIXED if points and len(classes) == 2 else "")
    return figure


def precision_recall_figure(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[str],
    classes: Sequence[str],
    title: str,
    per_class: Record,
    points: Record,
) -> Figure:
    """Precision against recall, with the arguments of `roc_figure`; no skill is the share of the class."""
    figure, axes = _square(title, 8 if len(classes) == 2 else 1 + len(classes))
    style(axes, "Recall (sensitivity)", "Precision (positive predictive value)")
    for view in views(probabilities, labels, classes):
        label = f"{_counted(view)}: AUPRC {estimate(per_class[view.name]['auprc'])}"
        recall, precision = precision_recall_points(view.p, view.positive)
        axes.plot(recall, precision, drawstyle="steps-pre", **_line(view, label))
        if not view.mixed:
            continue
        if len(classes) == 2:
            low, high = precision_band(view.p, view.positive, groups, GRID[1:])
            axes.fill_between(GRID[1:], low, high, color=view.colour, alpha=0.18, linewidth=0, label="95 % band")
            for point, threshold in thresholds_of(points, view.name).items():
                called = view.p >= threshold
                if called.any():
                    hit, right = called[view.positive].mean(), view.positive[called].mean()
                    _mark(axes, point, threshold, hit, right, f"recall {hit:.3f}, precision {right:.3f}")
        share = view.positive.mean()
        no_skill = f"No skill: {100 * share:.1f} % of the images" if len(classes) == 2 else None
        axes.axhline(share, color=GREY if len(classes) == 2 else view.colour, linestyle=":", label=no_skill)
    if len(classes) > 2:
        axes.plot([], [], color=GREY, linestyle=":", label="No skill: the share of each class")
    legend_below(figure, title=FIXED if points and len(classes) == 2 else "")
    return figure


def decision_figure(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Net benefit against threshold probability (Vickers and Elkin, "Decision curve analysis", 2006).

    The positive class of two; of more, a panel for each class against the rest.
    """
    shown = list(views(probabilities, labels, classes))
    rows = -(-len(shown) // 2)
    figure = titled_figure(5.4 if len(shown) == 1 else 1.4 + 2.9 * rows, title)
    thresholds = GRID[1:-1]
    parts = panels(figure, len(shown), sharex=True)
    for axes, view in zip(parts, shown, strict=True):
        share = view.positive.mean()
        style(axes, title=f"{_counted(view)}")
        model, treat_all = net_benefit(view.p, view.positive, thresholds)
        axes.plot(thresholds, model, color=COLOURS[0], linewidth=2, label="Model")
        axes.plot(thresholds, treat_all, color=COLOURS[1], linestyle="--", label="Treat all")
        axes.axhline(0, color=GREY, linestyle=":", linewidth=2, label="Treat none")
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.15 * max(share, 0.02), 1.1 * max(share, 0.02))  # treating all falls without a limit
    for axes in parts[-2:]:
        axes.set_xlabel("Threshold probability", fontsize=SMALL)
    figure.supylabel("Net benefit (true positives per image,\nnet of weighted false positives)", fontsize=SMALL)
    legend_below(figure, columns=3)
    return figure


def _square(title: str, lines: int) -> tuple[Figure, Axes]:
    """A figure of one panel, a unit square, above a legend of so many lines."""
    figure = titled_figure(5.6 + 0.24 * lines, title)
    axes = figure.add_subplot(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure, axes


def _counted(view: View) -> str:
    return f"{readable(view.name)} ({view.positive.sum()} of {len(view.positive)})"


def _line(view: View, label: str) -> dict[str, Any]:
    return {"color": view.colour, "linestyle": view.dash, "linewidth": 2, "label": label}


def _mark(axes: Axes, point: str, threshold: float, x: float, y: float, achieved: str) -> None:
    """An operating point's dot; the legend tells its name and what it achieves."""
    mark = MARKS[point]
    label = f"{mark.name}, p ≥ {threshold:.4f}: {achieved}"
    axes.plot(
        x, y, mark.marker, color=mark.colour, markeredgecolor="white", markersize=10, linestyle="none", label=label
    )
