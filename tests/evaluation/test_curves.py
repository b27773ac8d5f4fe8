"""ROC, precision-recall and decision curves: what is drawn, against scikit-learn and naive loops."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve, roc_curve

from xray_lightning.evaluation.curves import decision_figure, precision_recall_figure, roc_figure
from xray_lightning.evaluation.figures import MARKS
from xray_lightning.evaluation.operating_points import POINTS

TWO, FOUR = ["NORMAL", "PNEUMONIA"], ["Covid", "Healthy", "Lung_infection", "Pneumonia"]
AREA = {"value": 0.9, "low": 0.85, "high": 0.94}


def scored(classes: list[str], n: int = 400, decimals: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities with ties, labels and patient groups of two images."""
    rng = np.random.default_rng(len(classes))
    labels = rng.integers(0, len(classes), n)
    logits = rng.normal(size=(n, len(classes))) + 2 * np.eye(len(classes))[labels]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return p.round(decimals), labels, [f"patient {i // 2}" for i in range(n)]


def areas(classes: list[str]) -> dict[str, Any]:
    return {name: {"auroc": AREA, "auprc": AREA} for name in classes}


def points(**thresholds: float | None) -> dict[str, Any]:
    return {"PNEUMONIA": {name: {"threshold": t} for name, t in thresholds.items()}}


def lines(figure: Figure, panel: int = 0) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in figure.axes[panel].lines}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def starting(figure: Figure, start: str) -> Line2D:
    (line,) = [line for label, line in lines(figure).items() if label.startswith(start)]
    return line


def draw(figure: Figure) -> None:
    """Fails on any warning of the layout; each panel and the whole must say what they show."""
    figure.savefig(BytesIO(), format="png")
    assert figure.get_suptitle()
    assert figure.legends and all(legend(figure))


def test_two_classes_draw_the_positive_class_as_scikit_learn_does() -> None:
    p, labels, groups = scored(TWO)
    roc = roc_figure(p, labels, groups, TWO, "title", areas(TWO), {})
    x, y, _ = roc_curve(labels, p[:, 1], drop_intermediate=False)
    np.testing.assert_allclose(starting(roc, "PNEUMONIA").get_xydata(), np.column_stack([x, y]))
    pr = precision_recall_figure(p, labels, groups, TWO, "title", areas(TWO), {})
    precision, recall, _ = precision_recall_curve(labels, p[:, 1])
    np.testing.assert_allclose(starting(pr, "PNEUMONIA").get_xydata(), np.column_stack([recall, precision])[::-1])
    np.testing.assert_allclose(starting(pr, "No skill").get_ydata(), labels.mean())
    for figure in (roc, pr):
        draw(figure)
        assert not [label for label in lines(figure) if label.startswith("NORMAL")]
        assert figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel()


def test_more_classes_draw_each_against_the_rest() -> None:
    p, labels, groups = scored(FOUR)
    roc = roc_figure(p, labels, groups, FOUR, "title", areas(FOUR), {})
    pr = precision_recall_figure(p, labels, groups, FOUR, "title", areas(FOUR), {})
    for c, name in enumerate(FOUR):
        x, y, _ = roc_curve(labels == c, p[:, c], drop_intermediate=False)
        start = name.replace("_", " ")
        np.testing.assert_allclose(starting(roc, start).get_xydata(), np.column_stack([x, y]))
        precision, recall, _ = precision_recall_curve(labels == c, p[:, c])
        np.testing.assert_allclose(starting(pr, start).get_xydata(), np.column_stack([recall, precision])[::-1])
        wanted = f"{start} ({(labels == c).sum()} of {len(labels)}): AUROC 0.900 [0.850, 0.940]"
        assert wanted in legend(roc) and wanted.replace("AUROC", "AUPRC") in legend(pr)
    draw(roc)
    draw(pr)


@pytest.mark.parametrize("make", [roc_figure, precision_recall_figure])
def test_the_band_holds_the_curve(make: Any) -> None:
    p, labels, groups = scored(TWO)
    figure = make(p, labels, groups, TWO, "title", areas(TWO), {})
    (band,) = [c for c in figure.axes[0].collections if isinstance(c, PolyCollection)]
    corners = band.get_paths()[0].vertices
    x, y = starting(figure, "PNEUMONIA").get_data()
    inside = []
    for at in np.linspace(0.05, 0.95, 19):
        reach = corners[np.isclose(corners[:, 0], at), 1]
        height = np.interp(at, x, y)
        assert reach.max() - reach.min() < 0.3
        inside.append(reach.min() - 1e-9 <= height <= reach.max() + 1e-9)
    assert np.mean(inside) > 0.9


def test_an_operating_point_lies_on_the_curve_where_its_threshold_puts_it() -> None:
    p, labels, groups = scored(TWO)
    fixed = points(default=0.5, sensitivity_95=0.213, sensitivity_98=None, balanced=0.61)
    roc = roc_figure(p, labels, groups, TWO, "title", areas(TWO), fixed)
    pr = precision_recall_figure(p, labels, groups, TWO, "title", areas(TWO), fixed)
    for name, threshold in (("Default", 0.5), ("Sensitivity 95 %", 0.213), ("Best balanced accuracy", 0.61)):
        called = p[:, 1] >= threshold
        sensitivity, specificity = called[labels == 1].mean(), (~called)[labels == 0].mean()
        dot = np.array([1 - specificity, sensitivity])
        start = f"{name}, p ≥ {threshold:.4f}"
        np.testing.assert_allclose(starting(roc, start).get_xydata()[0], dot)
        curve = starting(roc, "PNEUMONIA").get_xydata()
        assert np.abs(curve - dot).sum(axis=1).min() < 1e-12
        assert f"{start}: sensitivity {sensitivity:.3f}, specificity {specificity:.3f}" in legend(roc)
        np.testing.assert_allclose(starting(pr, start).get_xydata()[0], [sensitivity, labels[called].mean()])
    assert not [label for label in legend(roc) if "98 %" in label]
    draw(roc)
    draw(pr)


@pytest.mark.parametrize("make", [roc_figure, precision_recall_figure])
@pytest.mark.parametrize("classes", [TWO, FOUR])
def test_a_class_without_test_images_is_told_not_drawn(make: Any, classes: list[str]) -> None:
    p, labels, groups = scored(classes)
    kept = labels != len(classes) - 1
    groups = [group for group, keep in zip(groups, kept, strict=True) if keep]
    undefined = {"value": None, "low": None, "high": None}
    record = areas(classes) | {classes[-1]: {"auroc": undefined, "auprc": undefined}}
    figure = make(p[kept], labels[kept], groups, classes, "title", record, points(default=0.5))
    draw(figure)
    assert len(starting(figure, classes[-1]).get_xydata()) == 0
    assert any(label.startswith(f"{classes[-1]} (0 of") and label.endswith("not defined") for label in legend(figure))


@pytest.mark.parametrize("kind", ["perfect", "equal"])
@pytest.mark.parametrize("make", [roc_figure, precision_recall_figure])
def test_perfect_and_equal_scores_are_drawn(make: Any, kind: str) -> None:
    labels = np.array([0, 1] * 20)
    positive = labels * 1.0 if kind == "perfect" else np.full(40, 0.4)
    p = np.column_stack([1 - positive, positive])
    figure = make(p, labels, [str(i) for i in range(40)], TWO, "title", areas(TWO), points(default=0.5))
    draw(figure)
    drawn = starting(figure, "PNEUMONIA").get_xydata().tolist()
    if make is roc_figure:
        assert drawn == ([[0, 0], [0, 1], [1, 1]] if kind == "perfect" else [[0, 0], [1, 1]])
    else:
        assert drawn == ([[0, 1], [1, 1], [1, 0.5]] if kind == "perfect" else [[0, 1], [1, 0.5]])


@pytest.mark.parametrize("classes", [TWO, FOUR])
def test_decision_curves_weigh_false_positives_by_the_odds(classes: list[str]) -> None:
    p, labels, _ = scored(classes)
    figure = decision_figure(p, labels, classes, "title")
    draw(figure)
    judged = [1] if len(classes) == 2 else range(len(classes))
    assert len(figure.axes) == len(judged)
    for panel, c in enumerate(judged):
        assert classes[c].replace("_", " ") in figure.axes[panel].get_title()
        drawn = lines(figure, panel)
        for t, model, treat_all in zip(*drawn["Model"].get_data(), drawn["Treat all"].get_ydata(), strict=True):
            hits = sum(x >= t and y == c for x, y in zip(p[:, c], labels, strict=True))
            alarms = sum(x >= t and y != c for x, y in zip(p[:, c], labels, strict=True))
            assert model == pytest.approx((hits - alarms * t / (1 - t)) / len(labels))
            share = (labels == c).mean()
            assert treat_all == pytest.approx(share - (1 - share) * t / (1 - t))
        low, high = figure.axes[panel].get_ylim()
        assert low < 0 and high > share and low > -share


def test_a_decision_curve_without_images_of_the_class_is_drawn() -> None:
    p, _, _ = scored(TWO)
    draw(decision_figure(p, np.zeros(len(p), dtype=np.int64), TWO, "title"))


def test_every_operating_point_can_be_drawn() -> None:
    assert set(MARKS) == set(POINTS)


def test_long_titles_and_the_legend_stay_on_the_figure() -> None:
    p, labels, groups = scored(TWO)
    title = (
        "pneumonia, cnn, 400 test images\n"
        + "leaks: of 23 train and 4 validation images a patient was trained on, " * 3
    )
    figure = roc_figure(p, labels, groups, TWO, title, areas(TWO), points(**dict.fromkeys(MARKS, 0.5)))
    draw(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for box in (figure.texts[0].get_window_extent(), figure.legends[0].get_window_extent()):
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    assert figure.axes[0].get_position().height > 0.4
