"""The figures of a sweep: each run's scores in their place, and ROC curves of runs together."""

from io import BytesIO
from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import auc, roc_auc_score, roc_curve

from xray_lightning.evaluation.forest import ForestRow, RunScores, average_roc, forest_figure, sweep_roc_figure

TWO, FOUR = ["NORMAL", "PNEUMONIA"], ["Covid", "Healthy", "Lung_infection", "Pneumonia"]
UNDEFINED = {"value": None, "low": None, "high": None}


def run(dataset: str, name: str, value: float, reference: float | None = None) -> ForestRow:
    scores = {"value": value, "low": value - 0.03, "high": value + 0.02}
    metrics = {"accuracy": scores, "auroc": scores, "macro_f1": UNDEFINED}
    return ForestRow(dataset, name, metrics, None if reference is None else {"accuracy": reference})


ROWS = [run("covid", "cnn s0", 0.83, 0.8317), run("pneumonia", "cnn s0", 0.78), run("covid", "resnet50 s0", 0.88)]


def draw(figure: Figure) -> None:
    """Fails on any warning of the layout."""
    figure.savefig(BytesIO(), format="png")
    assert figure.get_suptitle()
    assert figure.legends[0].get_texts()


def test_each_run_stands_beside_its_name_under_its_data_set() -> None:
    figure = forest_figure(ROWS, "title")
    draw(figure)
    panel = figure.axes[0]
    names = [text.get_text() for text in panel.get_yticklabels()]
    assert names == ["covid", "cnn s0", "resnet50 s0", "pneumonia", "cnn s0"]
    drawn = {str(line.get_label()): line for line in panel.lines}
    assert drawn["Value"].get_xydata().tolist() == [[0.83, 1], [0.88, 2], [0.78, 4]]
    ends = drawn["95 % interval"].get_xydata()
    np.testing.assert_allclose(ends[:, 0], [0.80, 0.85, np.nan, 0.85, 0.90, np.nan, 0.75, 0.80, np.nan])
    assert ends[:, 1].tolist() == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert drawn["Reference study"].get_xydata().tolist() == [[0.8317, 1]]
    assert drawn["Reference study"].get_fillstyle() == "none"
    assert [text.get_text() for text in panel.texts] == ["0.830", "0.880", "0.780"]
    assert panel.get_ylim()[0] > panel.get_ylim()[1]  # the first row is on top


def test_a_metric_that_no_run_defines_is_an_empty_panel() -> None:
    figure = forest_figure(ROWS, "title")
    assert [axes.get_xlabel() for axes in figure.axes] == ["Accuracy", "AUROC", "Macro F1"]
    last = figure.axes[2]
    assert not last.texts and all(len(line.get_xydata()) == 0 for line in last.lines)


def test_a_value_without_an_interval_is_a_dot() -> None:
    bare = ForestRow("covid", "cnn", {"accuracy": {"value": 0.8, "low": None, "high": None}}, None)
    figure = forest_figure([bare], "title", {"accuracy": "Accuracy"})
    draw(figure)
    drawn = {str(line.get_label()): line for line in figure.axes[0].lines}
    assert drawn["Value"].get_xydata().tolist() == [[0.8, 1]]
    assert np.isnan(drawn["95 % interval"].get_xdata()).all()


def test_the_figure_grows_with_its_runs_and_their_names_keep_apart() -> None:
    heights = {}
    for count in (1, 4, 40):
        rows = [run("covid", f"resnet50, model.head.weight_decay=0.0001, s{n}", 0.8) for n in range(count)]
        figure = forest_figure(rows, "title")
        draw(figure)
        heights[count] = figure.get_figheight()
        boxes = [text.get_window_extent() for text in figure.axes[0].get_yticklabels()]
        assert all(above.y0 >= below.y1 for above, below in pairwise(boxes))
        assert figure.axes[0].get_position().width > 0.12
        assert figure.axes[0].get_yticklabels()[count].get_text().endswith(f"s{count - 1}")
    assert heights[1] < heights[4] < heights[40]


def scored(classes: list[str], seed: int, n: int = 500) -> RunScores:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(classes)
    p = rng.dirichlet(np.ones(len(classes)), n) + (0.3 + 0.2 * seed) * np.eye(len(classes))[labels]
    p /= p.sum(axis=1, keepdims=True)
    return RunScores(f"model_{seed}", p, labels, {"value": 0.9 + seed / 100, "low": 0.8, "high": 0.99})


def test_two_classes_draw_the_positive_class_of_each_run() -> None:
    runs = [scored(TWO, 0), scored(TWO, 1)]
    figure = sweep_roc_figure(runs, TWO, "title")
    draw(figure)
    for r, line in zip(runs, figure.axes[0].lines, strict=False):
        x, y, _ = roc_curve(r.labels, r.probabilities[:, 1], drop_intermediate=False)
        np.testing.assert_allclose(line.get_xydata(), np.column_stack([x, y]))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["model 0: AUROC 0.900 [0.800, 0.990]", "model 1: AUROC 0.910 [0.800, 0.990]", "No skill"]
    assert figure.axes[0].get_xlabel() and figure.axes[0].get_ylabel()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_classes_draw_the_average_whose_area_is_the_macro_auroc(seed: int) -> None:
    r = scored(FOUR, seed)
    x, y = average_roc(r.probabilities, r.labels, FOUR)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all() and (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert auc(x, y) == pytest.approx(roc_auc_score(r.labels, r.probabilities, multi_class="ovr"), abs=0.003)
    draw(sweep_roc_figure([r], FOUR, "title"))


def test_seeds_of_a_model_share_a_colour_and_a_line_of_the_legend() -> None:
    runs = [scored(FOUR, seed)._replace(name=name) for seed, name in enumerate(["cnn", "cnn", "resnet50"])]
    figure = sweep_roc_figure(runs, FOUR, "title")
    draw(figure)
    first, second, third, _ = (line.get_color() for line in figure.axes[0].lines)
    assert first == second != third
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["cnn: 2 runs, AUROC 0.900 to 0.910", "resnet50: AUROC 0.920 [0.800, 0.990]", "No skill"]


def test_a_test_set_of_one_class_has_no_curve() -> None:
    r = scored(TWO, 0)
    only = RunScores("cnn", r.probabilities, np.zeros_like(r.labels), UNDEFINED)
    figure = sweep_roc_figure([only], TWO, "title")
    draw(figure)
    assert len(figure.axes[0].lines[0].get_xydata()) == 0
    assert figure.legends[0].get_texts()[0].get_text() == "cnn: AUROC not defined"
