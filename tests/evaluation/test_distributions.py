"""Reliability diagrams, histograms and learning curves: what is drawn, against counts made in the test."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from scipy.stats import binomtest

from xray_lightning.evaluation.distributions import histogram_figure, learning_figure, reliability_figure

TWO, FOUR = ["NORMAL", "PNEUMONIA"], ["Covid", "Healthy", "Lung_infection", "Pneumonia"]
V = {"value": 0.125, "low": 0.1, "high": 0.15}
CALIBRATION = {"temperature": 1.5, "before": {"ece": V, "log_loss": V}, "after": {"ece": V, "log_loss": V}}


def scored(classes: list[str], n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, len(classes), n)
    logits = 2 * (rng.normal(size=(n, len(classes))) + 2 * np.eye(len(classes))[labels])
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def softened(p: np.ndarray) -> np.ndarray:
    root: np.ndarray = np.sqrt(p)
    return root / root.sum(axis=1, keepdims=True)


def draw(figure: Figure) -> None:
    """Fails on any warning of the layout."""
    figure.savefig(BytesIO(), format="png")
    assert figure.get_suptitle()


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("classes", [TWO, FOUR])
def test_reliability_compares_what_was_said_with_what_was_so(classes: list[str]) -> None:
    before, labels = scored(classes)
    after = softened(before)
    figure = reliability_figure(before, after, labels, classes, "title", CALIBRATION)
    draw(figure)
    diagram, *counts = figure.axes
    for stage, (p, container, axes) in enumerate(zip((before, after), diagram.containers, counts, strict=True)):
        said = p[:, 1] if len(classes) == 2 else p.max(axis=1)
        so = labels == 1 if len(classes) == 2 else p.argmax(axis=1) == labels
        place = np.minimum(np.floor(said * 15), 14)
        bins = [place == b for b in range(15) if (place == b).any()]
        points, _, (bars,) = container
        np.testing.assert_allclose(points.get_xdata(orig=False), [said[b].mean() for b in bins])
        np.testing.assert_allclose(points.get_ydata(orig=False), [so[b].mean() for b in bins])
        for segment, b in zip(bars.get_segments(), bins, strict=True):
            exact = binomtest(int(so[b].sum()), int(b.sum())).proportion_ci(method="wilson")
            np.testing.assert_allclose(segment[:, 1], [exact.low, exact.high], atol=1e-9)
        assert [text.get_text() for text in axes.texts] == [str(b.sum()) for b in bins]
        assert [bar.get_height() for bar in axes.patches if isinstance(bar, Rectangle)] == [b.sum() for b in bins]
        name = ("Before", "After (temperature 1.50)")[stage]
        assert f"{name}: ECE 0.125 [0.100, 0.150], log-loss 0.125 [0.100, 0.150]" in legend(figure)
    assert "PNEUMONIA" in diagram.get_ylabel() if len(classes) == 2 else "accuracy" in diagram.get_ylabel()
    assert counts[-1].get_xlabel()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_reliability_of_probabilities_without_doubt(share: float) -> None:
    """Intervals at 0 and 1 must not reach below nothing."""
    p = np.tile([1 - share, share], (30, 1))
    labels = np.full(30, int(share))
    draw(reliability_figure(p, p, labels, TWO, "title", CALIBRATION))
    draw(reliability_figure(p, p, 1 - labels, TWO, "title", CALIBRATION))


def outlines(axes: Axes) -> list[np.ndarray]:
    """Counts of each histogram, in the order in which they are drawn."""
    return [s.get_data().values for s in axes.patches if isinstance(s, StepPatch) and not s.get_fill()]


def test_two_classes_have_a_histogram_each_with_all_their_images() -> None:
    p, labels = scored(TWO)
    points = {"PNEUMONIA": {"default": {"threshold": 0.5}, "balanced": {"threshold": 0.62}}}
    figure = histogram_figure(p, labels, TWO, "title", points)
    draw(figure)
    for c, axes in enumerate(figure.axes):
        (counts,) = outlines(axes)
        np.testing.assert_array_equal(counts, np.histogram(p[labels == c, 1], np.linspace(0, 1, 41))[0])
        assert f"{TWO[c]}: {counts.sum()} images" in axes.get_title()
        assert sorted(line.get_xdata()[0] for line in axes.lines) == [0.5, 0.62]
        assert axes.get_ylabel() == ("Images (log scale)" if axes.get_yscale() == "log" else "Images")
    assert "PNEUMONIA" in figure.axes[1].get_xlabel()
    assert sorted(legend(figure)) == ["Best balanced accuracy: p ≥ 0.6200", "Default: p ≥ 0.5000"]


def test_more_classes_have_a_panel_each_of_their_images_and_the_others() -> None:
    p, labels = scored(FOUR)
    figure = histogram_figure(p, labels, FOUR, "title", {name: {"default": {"threshold": 0.5}} for name in FOUR})
    draw(figure)
    assert len(figure.axes) == 4
    for c, axes in enumerate(figure.axes):
        others, own = outlines(axes)
        np.testing.assert_array_equal(own, np.histogram(p[labels == c, c], np.linspace(0, 1, 41))[0])
        assert own.sum() == (labels == c).sum() and own.sum() + others.sum() == len(labels)
        assert axes.get_xlabel() and axes.get_ylabel()
    assert legend(figure) == ["Images of other classes", "Images of the class", "Default"]


@pytest.mark.parametrize(("tall", "scale"), [(400, "log"), (40, "linear")])
def test_small_bins_are_not_lost_beside_a_tall_one(tall: int, scale: str) -> None:
    positive = np.append(np.full(tall, 0.99), 0.2)
    p = np.column_stack([1 - positive, positive])
    figure = histogram_figure(p, np.ones(tall + 1, dtype=np.int64), TWO, "title", {})
    draw(figure)
    empty, full = figure.axes
    assert full.get_yscale() == scale and full.get_ylim()[0] < 1 < full.get_ylim()[1]
    assert "0 images" in empty.get_title() and outlines(empty)[0].sum() == 0


HISTORY: list[dict[str, Any]] = [
    {"epoch": 0.0, "train/loss": 0.9, "val/log_loss": 0.8, "val/accuracy": 0.6, "val/auroc": 0.7},
    {"epoch": 1.0, "train/loss": 0.5, "val/log_loss": None, "val/accuracy": None, "val/auroc": 0.8},
    {"epoch": 2.0, "train/loss": None, "val/log_loss": 0.4, "val/accuracy": 0.9},
]


def test_learning_curves_are_the_history_and_mark_the_chosen_epoch() -> None:
    figure = learning_figure(HISTORY, 2, "title")
    draw(figure)
    losses, scores = ({str(line.get_label()): line for line in axes.lines} for axes in figure.axes)
    assert losses["Training loss"].get_xydata().tolist() == [[0, 0.9], [1, 0.5]]
    assert losses["Validation log-loss"].get_xydata().tolist() == [[0, 0.8], [2, 0.4]]
    assert scores["Accuracy"].get_xydata().tolist() == [[0, 0.6], [2, 0.9]]
    assert scores["AUROC"].get_xydata().tolist() == [[0, 0.7], [1, 0.8]]
    for lines in (losses, scores):
        assert set(lines["Chosen epoch: 2"].get_xdata()) == {2}
    assert all(axes.get_ylabel() and axes.get_legend() for axes in figure.axes)
    assert figure.axes[1].get_xlabel() == "Epoch"


@pytest.mark.parametrize("epochs", [1, 2, 3, 100])
def test_epochs_are_whole_numbers(epochs: int) -> None:
    history = [{**HISTORY[0], "epoch": float(e)} for e in range(epochs)]
    figure = learning_figure(history, 0, "title")
    draw(figure)
    low, high = figure.axes[1].get_xlim()
    ticks = [tick for tick in figure.axes[1].get_xticks() if low <= tick <= high]
    assert ticks and all(tick == round(tick) for tick in ticks)


def test_a_history_without_values_and_without_a_choice_is_empty_panels() -> None:
    figure = learning_figure([{"epoch": 0.0}], None, "title")
    draw(figure)
    assert not any(axes.lines for axes in figure.axes)
