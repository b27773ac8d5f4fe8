"""Runs of a sweep against each other: which share a test set, what is compared, what is drawn."""

import csv
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xray_lightning.artifacts import write_csv
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.comparison import compare
from xray_lightning.evaluation.table import Row
from xray_lightning.evaluation.versus import ALL_PAIRS, COLUMNS, compare_runs, read_predictions

CLASSES = ["NORMAL", "PNEUMONIA"]
N = 60


def run(folder: Path, name: str, seed: int, *, images: int = 0, loss: float = 0.5, dataset: str = "pneumonia") -> Row:
    """A run folder with the predictions of a model that knows something; `images` names its test set."""
    labels = np.random.default_rng(images).integers(0, 2, N)
    p = 1 / (1 + np.exp(-np.random.default_rng(seed + 100).normal(2 * labels - 1, 1.5)))
    lines = [[f"{images}/{i}.png", f"p{i // 2}", CLASSES[y], 1 - p[i], p[i]] for i, y in enumerate(labels)]
    write_csv(folder / name / "predictions.csv", ["path", "group", "label", *CLASSES], lines)
    metric = {"value": 0.8, "low": 0.7, "high": 0.9}
    record: dict[str, Any] = {
        "n": N,
        "classes": CLASSES,
        "metrics": {m: metric for m in ("accuracy", "auroc", "macro_f1")},
        "reference": None,
        "validation": {"log_loss": loss},
    }
    return Row(name, dataset, "cnn", seed, "done", 1.0, None, record)


def compared(folder: Path) -> list[dict[str, str]]:
    with (folder / "comparisons.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_runs_of_one_test_set_are_compared_as_compare_does(tmp_path: Path) -> None:
    rows = [run(tmp_path, "a", 0), run(tmp_path, "b", 1)]
    compare_runs(tmp_path, rows)
    (line,) = compared(tmp_path)
    assert list(line) == list(COLUMNS) and (line["dataset"], line["a"], line["b"]) == ("pneumonia", "a", "b")
    a, b = (read_predictions(tmp_path / row.run, row) for row in rows)
    (found,) = compare({"a": a.probabilities, "b": b.probabilities}, a.labels, a.groups, [("a", "b")])
    for column, value in (
        ("accuracy_difference", found.accuracy.value),
        ("accuracy_low", found.accuracy.low),
        ("only_a_right", found.only_a),
        ("accuracy_p", found.accuracy.p),
        ("mcnemar_p", found.mcnemar),
        ("auroc_difference", found.auroc.value),
        ("auroc_high", found.auroc.high),
        ("delong_p", found.auroc.p),
        ("delong_p_holm", found.auroc.adjusted),
    ):
        assert float(line[column]) == value
    assert {f.name for f in (tmp_path / "figures").iterdir()} == {"scores.png", "roc_pneumonia.png"}


def test_other_test_sets_are_not_compared(tmp_path: Path) -> None:
    compare_runs(tmp_path, [run(tmp_path, "a", 0), run(tmp_path, "b", 1, images=7), run(tmp_path, "c", 2, dataset="x")])
    assert compared(tmp_path) == []
    assert [f.name for f in (tmp_path / "figures").iterdir()] == ["scores.png"]


def test_few_runs_are_all_compared_and_many_with_the_best_on_validation(tmp_path: Path) -> None:
    rows = [run(tmp_path, f"r{n}", n, loss=0.5 - 0.1 * (n == 3)) for n in range(ALL_PAIRS + 1)]
    compare_runs(tmp_path, rows[:ALL_PAIRS])
    assert len(compared(tmp_path)) == ALL_PAIRS * (ALL_PAIRS - 1) // 2
    compare_runs(tmp_path, rows)
    assert {(line["a"], line["b"]) for line in compared(tmp_path)} == {("r3", f"r{n}") for n in (0, 1, 2, 4, 5, 6)}


def test_holms_adjustment_is_over_one_test_set(tmp_path: Path) -> None:
    compare_runs(tmp_path, [run(tmp_path, f"r{n}", n) for n in range(4)])
    lines = sorted(compared(tmp_path), key=lambda line: float(line["accuracy_p"]))
    assert float(lines[0]["accuracy_p_holm"]) == pytest.approx(min(1, 6 * float(lines[0]["accuracy_p"])))
    assert all(float(x["accuracy_p_holm"]) <= float(y["accuracy_p_holm"]) for x, y in pairwise(lines))


@pytest.mark.parametrize("fault", ["missing", "cut", "other classes", "no numbers", "not finite", "a column short"])
def test_predictions_that_do_not_fit_the_record_are_left_out(tmp_path: Path, fault: str) -> None:
    rows = [run(tmp_path, "a", 0), run(tmp_path, "b", 1)]
    file = tmp_path / "b" / "predictions.csv"
    if fault == "missing":
        file.unlink()
    elif fault == "cut":
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-3]))
    elif fault == "other classes":
        file.write_text(file.read_text().replace("NORMAL", "HEALTHY"))
    elif fault == "no numbers":
        file.write_text(file.read_text().replace("0.", "x."))
    elif fault == "not finite":
        file.write_text(re.sub(r"[\d.e-]+$", "nan", file.read_text(), count=1, flags=re.MULTILINE))
    else:
        header, *lines = file.read_text().splitlines()
        file.write_text("\n".join([header, *(line.rsplit(",", 1)[0] for line in lines)]))
    with pytest.raises(XRayError, match=r"b: predictions.csv cannot be used"):
        read_predictions(tmp_path / "b", rows[1])
    compare_runs(tmp_path, rows)
    assert compared(tmp_path) == []


def test_runs_that_failed_are_left_out(tmp_path: Path) -> None:
    compare_runs(tmp_path, [Row("a", "pneumonia", "cnn", 0, "failed", 1.0, "no images", None)])
    assert compared(tmp_path) == [] and not (tmp_path / "figures").exists()
