"""The confusion matrix as a figure: what it says, and that it can be read."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from xray_lightning.evaluation.figures import confusion_figure, save_figure

TWO = np.array([[151, 83], [7, 383]]), ["NORMAL", "PNEUMONIA"]
FOUR = (
    np.array([[480, 20, 41, 2], [11, 1400, 110, 8], [25, 150, 720, 7], [0, 5, 4, 193]]),
    ["Covid", "Healthy", "Lung_infection", "Pneumonia"],
)


def drawn(figure: Figure) -> dict[tuple[int, int], str]:
    """The text in each cell, by row and column."""
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in figure.axes[0].texts}


@pytest.mark.parametrize(("matrix", "classes"), [TWO, FOUR])
def test_each_cell_holds_its_count_and_its_share_of_the_row(matrix: np.ndarray, classes: list[str]) -> None:
    cells = drawn(confusion_figure(matrix, classes, "title"))
    assert len(cells) == matrix.size
    for (row, column), count in np.ndenumerate(matrix):
        assert cells[row, column].split() == [str(count), f"{100 * count / matrix[row].sum():.1f}", "%"]


def test_axes_are_labelled_and_classes_named() -> None:
    axes = confusion_figure(*FOUR, "covid, cnn, 3176 test images").axes[0]
    names = ["Covid", "Healthy", "Lung infection", "Pneumonia"]
    assert [t.get_text() for t in axes.get_xticklabels()] == names
    assert [t.get_text() for t in axes.get_yticklabels()] == names
    assert axes.get_xlabel() == "Predicted class" and axes.get_ylabel() == "Actual class"
    assert axes.get_title() == "covid, cnn, 3176 test images"


def test_a_class_without_images_is_a_row_of_zeros() -> None:
    cells = drawn(confusion_figure(np.array([[3, 1], [0, 0]]), ["A", "B"], "title"))
    assert cells[1, 0].split() == cells[1, 1].split() == ["0", "0.0", "%"]


@pytest.mark.parametrize(("matrix", "classes"), [TWO, FOUR])
def test_saved_figure_opens_at_a_readable_size_and_nothing_overlaps_its_edge(
    tmp_path: Path, matrix: np.ndarray, classes: list[str]
) -> None:
    figure = confusion_figure(matrix, classes, "pneumonia, resnet50, 624 test images\nsynthetic radiographs")
    save_figure(figure, tmp_path / "figures" / "confusion_matrix.png")
    with Image.open(tmp_path / "figures" / "confusion_matrix.png") as image:
        image.load()
        assert image.format == "PNG"
        assert 500 <= image.width <= 1600 and 400 <= image.height <= 1400
        pixels = np.asarray(image.convert("L"))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all()
    assert (pixels < 128).mean() > 0.01
