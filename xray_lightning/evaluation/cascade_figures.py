"""The figures of a two-stage system: what a more sensitive screen costs and saves, and which classes are mistaken."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xray_lightning.evaluation.cascade_content import (
    ALL,
    ALONE,
    CASCADE,
    MATCHED,
    OPEN,
    UNSEEN,
    Content,
    described,
    parts_shown,
)
from xray_lightning.evaluation.figures import (
    COLOURS,
    GREY,
    SMALL,
    STYLES,
    confusion_figure,
    legend_below,
    readable,
    save_figure,
    style,
    titled_figure,
)

PANELS = {"specificity": "Specificity", "accuracy": "Accuracy over all classes", "spared": "Share spared stage two"}
LABELS = {
    CASCADE: "Cascade",
    OPEN: "Cascade, second stage may say healthy",
    MATCHED: "Diagnosis with a threshold of its own (matched)",
    ALONE: "Diagnosis alone",
}
LOOKS = {
    system: {"color": colour, "linestyle": dash, "marker": marker}
    for system, marker, (colour, dash) in zip((CASCADE, MATCHED, OPEN), "os^", STYLES, strict=False)
}
RING: dict[str, Any] = {"linestyle": "", "markersize": 14, "markeredgewidth": 2, "fillstyle": "none"}
FILES = {UNSEEN: "unseen", ALL: "all"}


def draw_cascade(content: Content, folder: Path) -> None:
    for name, figure in _figures(content):
        save_figure(figure, folder / f"{name}.png")


def _figures(content: Content) -> Iterator[tuple[str, Figure]]:
    names = {role: [readable(content[role][key]) for key in ("model", "dataset")] for role in ("screen", "diagnosis")}
    roles = ", ".join(f"{role} {' of '.join(found)}" for role, found in names.items())
    for name, part in parts_shown(content).items():
        images = described({**content, "dataset": readable(content["dataset"])}, name)
        title = "\n".join([roles, images, *content["notes"]])
        yield f"sweep_{FILES[name]}", sweep_figure(part, content["sensitivity"], f"Two stages and one\n{title}")
        for system, stem in ((CASCADE, "cascade"), (ALONE, "alone")):
            matrix = np.array(part["confusion_matrices"][system])
            figure = confusion_figure(matrix, content["classes"], f"{LABELS[system]}\n{title}")
            yield f"confusion_{stem}_{FILES[name]}", figure


def sweep_figure(part: Content, asked: float, title: str) -> Figure:
    """Specificity, accuracy and the share spared against the sensitivity that each system reaches, with 95 % intervals.

    `part` is one of cascade.json's "test". Every point has thresholds that validation fixed; those of the sensitivity
    `asked` are marked. The diagnosis alone, which has no threshold, is one point.
    """
    figure = titled_figure(9.6, title)
    every = figure.subplots(len(PANELS), 1, sharex=True)
    for axes, (metric, label) in zip(every, PANELS.items(), strict=True):
        style(axes, ylabel=label)
        for system in (CASCADE, OPEN) if metric == "spared" else (CASCADE, OPEN, MATCHED):
            _line(axes, part["sweep"], system, metric, asked)
        if metric != "spared":
            _alone(axes, part["systems"][ALONE], metric)
    every[-1].set_xlabel("Sensitivity to any disease on these images", fontsize=SMALL)
    every[-1].plot([], [], "o", color=GREY, **RING, label=f"Thresholds for sensitivity {asked:g} on validation")
    every[-1].fill_between([], [], [], color=GREY, alpha=0.3, linewidth=0, label="95 % intervals")
    legend_below(figure)
    return figure


def _line(axes: Axes, lines: Sequence[Mapping[str, Any]], system: str, metric: str, asked: float) -> None:
    reached = [line["systems"][system] for line in lines]
    found = [line["spared"] if metric == "spared" else at[metric] for line, at in zip(lines, reached, strict=True)]
    x = _numbers([at["sensitivity"] for at in reached], "value")
    y, low, high = (_numbers(found, key) for key in ("value", "low", "high"))
    look: dict[str, Any] = LOOKS[system]
    axes.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)
    axes.plot(x, y, **look, markersize=5, label=LABELS[system])
    chosen = [line["validation_sensitivity"] == asked for line in lines]
    axes.plot(x[chosen], y[chosen], **look | RING)


def _alone(axes: Axes, found: Mapping[str, Mapping[str, float | None]], metric: str) -> None:
    place, ends = [], []
    for name in ("sensitivity", metric):
        value, low, high = (_numbers([found[name]], key) for key in ("value", "low", "high"))
        place.append(value)
        ends.append(np.stack([value - low, high - value]))
    x, y = place
    bars: dict[str, Any] = {"xerr": ends[0], "yerr": ends[1], "elinewidth": 1}
    axes.errorbar(x, y, **bars, fmt="X", color=COLOURS[6], markersize=9, label=LABELS[ALONE])


def _numbers(found: Sequence[Mapping[str, float | None]], key: str) -> np.ndarray:
    return np.array([value[key] for value in found], dtype=np.float64)  # None is NaN, which is not drawn
