"""The figures of a two-stage system: each point in its place, the chosen one marked, and legible."""

from copy import deepcopy
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from xray_lightning.evaluation.cascade_content import ALL, ALONE, CASCADE, MATCHED, OPEN
from xray_lightning.evaluation.cascade_figures import LABELS, PANELS, draw_cascade, sweep_figure

from .cascades import cascade_content

CONTENT = cascade_content()


def drawn_lines(axes: Axes) -> dict[str, np.ndarray]:
    return {str(line.get_label()): np.asarray(line.get_xydata()) for line in axes.lines}


def test_each_panel_has_the_points_of_the_sweep_and_marks_the_chosen_one() -> None:
    part = CONTENT["test"][ALL]
    figure = sweep_figure(part, 0.98, "title")
    figure.savefig(BytesIO(), format="png")
    chosen = [line["validation_sensitivity"] for line in part["sweep"]].index(0.98)
    for axes, (metric, label) in zip(figure.axes, PANELS.items(), strict=True):
        assert axes.get_ylabel() == label
        systems = (CASCADE, OPEN) if metric == "spared" else (CASCADE, OPEN, MATCHED)
        lines = drawn_lines(axes)
        rings = [line.get_xydata().tolist() for line in axes.lines if line.get_markersize() == 14]
        for system in systems:
            expected = [
                (line["systems"][system]["sensitivity"]["value"],
                 (line["spared"] if metric == "spared" else line["systems"][system][metric])["value"])
                for line in part["sweep"]
            ]  # fmt: skip
            np.testing.assert_array_equal(lines[LABELS[system]], expected)
            assert [list(expected[chosen])] in rings
    alone = part["systems"][ALONE]
    (bars,) = figure.axes[1].containers
    assert bars[0].get_xydata().tolist() == [[alone["sensitivity"]["value"], alone["accuracy"]["value"]]]
    assert figure.axes[-1].get_xlabel()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "Thresholds for sensitivity 0.98 on validation" in texts and "95 % intervals" in texts
    assert {*LABELS.values()} < {*texts}


@pytest.mark.parametrize(("known", "ends"), [(0, ["all"]), (20, ["all", "unseen"]), (120, ["all"])])
def test_a_part_is_drawn_once_legibly_and_within_its_edges(tmp_path: Path, known: int, ends: list[str]) -> None:
    content = cascade_content(known, dataset="a$b_c$d")
    content["screen"]["dataset"] = "<b>" + "long " * 30
    draw_cascade(content, tmp_path)
    kinds = ("confusion_alone", "confusion_cascade", "sweep")
    assert sorted(f.stem for f in tmp_path.iterdir()) == [f"{kind}_{end}" for kind in kinds for end in ends]
    for file in tmp_path.glob(f"*_{ends[-1]}.png"):
        with Image.open(file) as image:
            assert 500 <= image.width <= 1600 and 400 <= image.height <= 1400
            pixels = np.asarray(image.convert("L"))
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all()


def test_a_title_tells_networks_images_and_notes_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(
        "xray_lightning.evaluation.cascade_figures.confusion_figure", lambda *args: titles.append(args[2]) or Figure()
    )
    draw_cascade(cascade_content(notes=["synthetic radiographs", "random backbone"]), tmp_path)
    assert titles[-1].splitlines()[1:] == [
        "screen cnn of pneumonia, diagnosis cnn of covid",
        "120 test images of covid, of which the screen knows 20",
        "synthetic radiographs",
        "random backbone",
    ]


def test_without_ill_images_nothing_stands_on_the_axis_of_sensitivity() -> None:
    part = deepcopy(CONTENT["test"][ALL])
    for found in (part["systems"], *(line["systems"] for line in part["sweep"])):
        for system in found.values():
            system["sensitivity"] = {"value": None, "low": None, "high": None}
    figure = sweep_figure(part, 0.98, "title")
    figure.savefig(BytesIO(), format="png")
    assert np.isnan(drawn_lines(figure.axes[0])[LABELS[CASCADE]][:, 0]).all()
