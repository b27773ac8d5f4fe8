"""Ensembles of seeds: what is averaged, what never is, and where it stands."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from xray_lightning.artifacts import write_csv
from xray_lightning.evaluation.ensemble import COLUMNS, write_ensembles
from xray_lightning.evaluation.intervals import intervals
from xray_lightning.evaluation.table import Row, write_results

CLASSES = {2: ["NORMAL", "PNEUMONIA"], 4: ["Covid", "Healthy", "Lung_infection", "Pneumonia"]}
N = 120


def probabilities(seed: int, k: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Those (N, k) of a model that knows something, and the labels (N,), which are the same for every seed."""
    labels = np.random.default_rng(k).integers(0, k, N)
    logits = np.random.default_rng(seed + 100).normal(1.2 * np.eye(k)[labels], 1.0)
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True), labels


def run(folder: Path, seed: int | None, k: int = 2, *, setting: str = "", name: str = "", **more: Any) -> Row:
    """A run folder with predictions."""
    p, labels = probabilities(seed or 0, k)
    name = name or f"lungs_cnn_s{seed}{setting and f'_{setting}'}"
    lines = [[f"{i}.png", f"p{i // 3}", CLASSES[k][y], *p[i].tolist()] for i, y in enumerate(labels)]
    write_csv(folder / name / "predictions.csv", ["path", "group", "label", *CLASSES[k]], lines)
    metrics: dict[str, Any] = {}
    record = {"n": N, "classes": CLASSES[k], "metrics": metrics, "reference": None, "notes": []} | more
    return Row(name, "lungs", "cnn", seed, "done", 1.0, None, record)


def made(folder: Path, rows: list[Row]) -> list[dict[str, str]]:
    """The lines of ensembles.csv; none where there is no such file."""
    write_ensembles(folder, rows)
    try:
        with (folder / "ensembles.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def change(folder: Path, row: Row, old: str, new: str) -> None:
    file = folder / row.run / "predictions.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("k", [2, 4])
def test_scores_are_those_of_the_mean_probabilities_by_scikit_learn(tmp_path: Path, k: int) -> None:
    (line,) = made(tmp_path, [run(tmp_path, seed, k) for seed in range(3)])
    p, labels = np.mean([probabilities(seed, k)[0] for seed in range(3)], axis=0), probabilities(0, k)[1]
    predicted, averaged = p.argmax(axis=1), "binary" if k == 2 else "weighted"
    precision, recall, f1, _ = sk.precision_recall_fscore_support(labels, predicted, average=averaged)
    recalls = [sk.recall_score(labels != c, predicted != c) for c in ([1] if k == 2 else range(k))]
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "recall": recall,
        "precision": precision,
        "f1": f1,
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "specificity": np.mean(recalls),
        "auroc": sk.roc_auc_score(labels, p[:, 1] if k == 2 else p, multi_class="ovr"),
        "log_loss": sk.log_loss(labels, p),
        "macro_f1": sk.f1_score(labels, predicted, average="macro"),
    }
    assert {name: float(line[name]) for name in expected} == pytest.approx(expected, rel=1e-6)
    assert list(line) == list(COLUMNS)
    assert (line["dataset"], line["model"], line["setting"]) == ("lungs", "cnn", "")
    assert (line["seeds"], line["n"]) == ("3", str(N))


def test_intervals_are_those_of_a_run_by_patient_group(tmp_path: Path) -> None:
    (line,) = made(tmp_path, [run(tmp_path, seed) for seed in range(2)])
    p, labels = np.mean([probabilities(seed)[0] for seed in range(2)], axis=0), probabilities(0)[1]
    found = intervals(p, labels, [f"p{i // 3}" for i in range(N)]).scalars
    for name in ("accuracy", "recall", "f1", "auroc", "log_loss", "macro_f1"):
        assert (float(line[f"{name}_low"]), float(line[f"{name}_high"])) == found[name]


def test_images_in_another_order_are_matched_by_their_name(tmp_path: Path) -> None:
    rows = [run(tmp_path, 0), run(tmp_path, 1)]
    before = made(tmp_path, rows)
    file = tmp_path / rows[1].run / "predictions.csv"
    header, *lines = file.read_text().splitlines()
    file.write_text("\n".join([header, *reversed(lines)]))
    assert made(tmp_path, rows) == before


def test_only_done_runs_that_differ_in_nothing_but_the_seed_are_averaged(tmp_path: Path) -> None:
    slow = [run(tmp_path, seed, setting="lr=0.1") for seed in (0, 1, 2)]
    plain = [run(tmp_path, seed) for seed in (0, 1)]
    alone = run(tmp_path, 0, setting="lr=0.5")
    failed = Row("lungs_cnn_s2", "lungs", "cnn", 2, "failed", 1.0, "disk full", None)
    lines = made(tmp_path, [*slow, *plain, alone, failed])
    assert [(line["setting"], line["seeds"]) for line in lines] == [("lr=0.1", "3"), ("", "2")]


@pytest.mark.parametrize("seed", [0, None])
def test_runs_that_share_a_seed_differ_in_something_else(tmp_path: Path, seed: int | None) -> None:
    assert made(tmp_path, [run(tmp_path, seed, name="a"), run(tmp_path, seed, name="b")]) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n7.png,", "\nseven.png,"),
        ("\n7.png,p2,", "\n7.png,p3,"),
        ("NORMAL,0.", "PNEUMONIA,0."),
        ("0.", "x."),
        ("NORMAL", "HEALTHY"),
    ],
)
def test_other_images_or_broken_predictions_leave_that_ensemble_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, old: str, new: str
) -> None:
    rows = [run(tmp_path, seed) for seed in range(3)]
    sound = [run(tmp_path, seed, setting="lr=0.1") for seed in range(2)]
    change(tmp_path, rows[2], old, new)
    assert [line["setting"] for line in made(tmp_path, [*rows, *sound])] == ["lr=0.1"]
    (warning,) = caplog.messages
    assert "No ensemble of the seeds of lungs cnn" in warning and "lungs_cnn_s2" in warning


def test_what_is_not_made_any_more_is_removed(tmp_path: Path) -> None:
    rows = [run(tmp_path, seed) for seed in range(2)]
    assert len(made(tmp_path, rows)) == 1
    assert "Ensembles of seeds" in (tmp_path / "results.md").read_text()
    (tmp_path / rows[1].run / "predictions.csv").unlink()
    assert made(tmp_path, rows) == []
    assert "Ensembles of seeds" not in (tmp_path / "results.md").read_text()


def test_results_md_has_them_below_the_table_of_runs(tmp_path: Path) -> None:
    rows = [run(tmp_path, seed, notes=["synthetic radiographs"]) for seed in range(2)]
    write_results(tmp_path, rows)
    alone = (tmp_path / "results.md").read_text()
    (line,) = made(tmp_path, rows)
    text = (tmp_path / "results.md").read_text()
    assert text.startswith(alone)
    section = text.removeprefix(alone)
    assert section.startswith("\n## Ensembles of seeds\n")
    assert "as many networks at inference as there are seeds, and its score is not the recipe's" in section
    header, _, cells = ([c.strip() for c in row.split("|")[1:-1]] for row in section.splitlines() if row[:1] == "|")
    shown = dict(zip(header, cells, strict=True))
    low, high = (f"{float(line[f'auroc_{end}']):.3f}".removeprefix("0") for end in ("low", "high"))
    assert shown["AUROC"] == f"{float(line['auroc']):.4f} ({low}–{high})"
    assert (shown["seeds"], shown["n"], shown["notes"]) == ("2", str(N), "synthetic radiographs")
    assert "setting" not in shown and shown["macro F1"][:6] == f"{float(line['macro_f1']):.4f}"
    assert line["notes"] == "synthetic radiographs"
