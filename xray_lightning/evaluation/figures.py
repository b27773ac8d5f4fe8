"""Figures, drawn without a display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from xray_lightning.artifacts import atomic_write


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """A confusion matrix (classes, classes): counts, and percentages of each row (the actual class)."""
    share = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    size = 3.2 + 1.0 * len(classes)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(100 * share, cmap="Blues", vmin=0, vmax=100)
    for (row, column), count in np.ndenumerate(matrix):
        colour = "white" if share[row, column] > 0.62 else "black"
        text = f"{count}\n{100 * share[row, column]:.1f} %"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=12)
    labels = [name.replace("_", " ") for name in classes]
    axes.set_xticks(range(len(classes)), labels, rotation=20 if len(classes) > 2 else 0, fontsize=11)
    axes.set_yticks(range(len(classes)), labels, fontsize=11)
    axes.set_xlabel("Predicted class", fontsize=12)
    axes.set_ylabel("Actual class", fontsize=12)
    axes.set_title(title, fontsize=12)
    figure.colorbar(image, ax=axes, label="Share of the actual class (%)", shrink=0.8)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    with atomic_write(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
