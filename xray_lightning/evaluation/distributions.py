"""How probabilities are spread and how far they can be believed; and how they were learned, epoch by epoch."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from xray_lightning.evaluation.calibration import reliability
from xray_lightning.evaluation.curves import thresholds_of, views
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
from xray_lightning.evaluation.metrics import CALIBRATION_BINS
from xray_lightning.evaluation.proportions import wilson

BINS = 40  # of a histogram
STEEP = 50  # a histogram whose bins differ by more than this factor is drawn on a logarithmic scale
LOSSES = {"train/loss": "Training loss", "val/log_loss": "Validation log-loss"}
SCORES = {
    "val/accuracy": "Accuracy",
    "val/auroc": "AUROC",
    "val/macro_f1": "Macro F1",
}


def reliability_figure(
    before: np.ndarray,
    after: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    title: str,
    calibration: Mapping[str, Any],
) -> Figure:
    """Reliability diagram of probabilities (N, K) before and after temperature scaling.

    Two classes: the positive probability against the share of positive images; more: the likeliest class's
    against the accuracy. Bars are 95 % Wilson intervals. `calibration` is the record's part of that name.
    """
    figure = titled_figure(8.4, title)
    diagram, *counts = figure.subplots(3, 1, sharex=True, height_ratios=[4.2, 1, 1])
    two = len(classes) == 2
    subject = f"probability of {readable(classes[1])}" if two else "probability of the likeliest class"
    style(diagram, ylabel=f"Share that is {readable(classes[1])}" if two else "Share that is right (accuracy)")
    diagram.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="Perfectly calibrated")
    stages = ((before, "before", "Before", COLOURS[1], "s"), (after, "after", "After", COLOURS[0], "o"))
    for axes, (probabilities, key, name, colour, marker) in zip(counts, stages, strict=True):
        confidence = probabilities[:, 1] if two else probabilities.max(axis=1)
        correct = labels == 1 if two else probabilities.argmax(axis=1) == labels
        scaled = f" (temperature {calibration['temperature']:.2f})" if key == "after" else ""
        errors = f"ECE {estimate(calibration[key]['ece'])}, log-loss {estimate(calibration[key]['log_loss'])}"
        _reliability(diagram, axes, confidence, correct, colour, marker, f"{name}{scaled}: {errors}")
        style(axes, title=f"{name}: images in each bin")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    diagram.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    counts[-1].set_xlabel(f"Predicted {subject}", fontsize=SMALL)
    legend_below(figure)
    return figure


def _reliability(
    diagram: Axes, counts: Axes, confidence: np.ndarray, correct: np.ndarray, colour: str, marker: str, label: str
) -> None:
    bins = [b for b in reliability(confidence, correct, CALIBRATION_BINS) if b.n]
    low, high = np.array([wilson(round(b.correct * b.n), b.n) for b in bins]).T
    share = np.array([b.correct for b in bins])
    reach = np.clip([share - low, high - share], 0, None)  # rounding can leave a hair below 0
    x = [b.confidence for b in bins]
    diagram.errorbar(x, share, reach, color=colour, marker=marker, capsize=3, markersize=6, label=label)
    width = 1 / CALIBRATION_BINS
    bars = counts.bar([b.low for b in bins], [b.n for b in bins], 0.9 * width, align="edge", color=colour)
    counts.bar_label(bars, fontsize=SMALL, padding=1)
    counts.margins(y=0.5)


def histogram_figure(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str, points: Mapping[str, Any]
) -> Figure:
    """How the predicted probabilities of each actual class are spread; `points` is the record's "operating_points".

    Two classes: the positive probability, a panel an actual class. More: a panel for each class's
    probability, in images of the class and in the others.
    """
    shown = list(views(probabilities, labels, classes))
    edges = np.linspace(0, 1, BINS + 1)
    if len(classes) == 2:
        figure = titled_figure(7.0, title)
        parts = list(figure.subplots(2, 1, sharex=True))
        for c, axes in enumerate(parts):
            own = shown[0].p[labels == c]
            style(axes, title=f"Actual class {readable(classes[c])}: {len(own)} images")
            _spread(axes, [(np.histogram(own, edges)[0], (GREY, COLOURS[0])[c], None)], edges)
            _thresholds(axes, thresholds_of(points, classes[1]), told=True)
        parts[-1].set_xlabel(f"Predicted probability of {readable(classes[1])}", fontsize=SMALL)
    else:
        figure = titled_figure(1.8 + 2.8 * -(-len(shown) // 2), title)
        parts = panels(figure, len(shown))
        for axes, view in zip(parts, shown, strict=True):
            style(axes, title=f"{readable(view.name)}: {view.positive.sum()} images")
            own, others = (np.histogram(view.p[chosen], edges)[0] for chosen in (view.positive, ~view.positive))
            _spread(axes, [(others, GREY, "Images of other classes"), (own, COLOURS[0], "Images of the class")], edges)
            _thresholds(axes, thresholds_of(points, view.name), told=False)
            axes.set_xlabel("Predicted probability of the class", fontsize=SMALL)
    legend_below(figure, columns=2, title=FIXED if points else "")
    return figure


def _spread(axes: Axes, counts: Sequence[tuple[np.ndarray, str, str | None]], edges: np.ndarray) -> None:
    """Histograms over each other, on a logarithmic scale where a linear one would hide the small bins."""
    filled = np.concatenate([values[values > 0] for values, _, _ in counts])
    logarithmic = len(filled) > 0 and filled.max() > STEEP * filled.min()
    floor = 0.5 if logarithmic else 0.0
    if logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
    for values, colour, label in counts:
        axes.stairs(values, edges, color=colour, alpha=0.35, fill=True, baseline=floor)
        axes.stairs(values, edges, color=colour, linewidth=1.8, baseline=floor, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(floor, None if len(filled) else 1))
    axes.set_ylabel("Images (log scale)" if logarithmic else "Images", fontsize=SMALL)


def _thresholds(axes: Axes, thresholds: Mapping[str, float], told: bool) -> None:
    """A line an operating point; its value is told where all panels have the same."""
    for point, threshold in thresholds.items():
        name, colour, _, dash = MARKS[point]
        label = f"{name}: p ≥ {threshold:.4f}" if told else name
        axes.axvline(threshold, color=colour, linestyle=dash, linewidth=1.8, label=label)


def learning_figure(history: Sequence[Mapping[str, float | None]], best_epoch: int | None, title: str) -> Figure:
    """Losses and validation scores of each epoch, from the lines of history.csv; the chosen epoch is marked."""
    figure = titled_figure(6.8, title)
    losses, scores = figure.subplots(2, 1, sharex=True)
    style(losses, ylabel="Loss (nats)")
    style(scores, "Epoch", "Score on validation")
    for axes, names in ((losses, LOSSES), (scores, SCORES)):
        for n, (key, label) in enumerate(names.items()):
            known = [(line["epoch"], line[key]) for line in history if line.get(key) is not None]
            if known:
                colour, dash = STYLES[n]
                marker = "o" if len(known) <= 30 else ""
                axes.plot(*zip(*known, strict=True), color=colour, linestyle=dash, marker=marker, label=label)
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, linestyle=":", linewidth=2, label=f"Chosen epoch: {best_epoch}")
        if axes.lines:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, fontsize=SMALL, frameon=False)
    epochs = [line["epoch"] for line in history if line["epoch"] is not None]
    scores.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    scores.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure
