"""What a run leaves of its test: metrics.json, predictions.csv and the figure."""

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from xray_lightning.data.phantoms import write_phantoms
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.splits import TEST
from xray_lightning.evaluation import record as evidence
from xray_lightning.evaluation.metrics import PER_CLASS, SCALARS, scalar_metrics
from xray_lightning.models.cnn import CNNClassifier

CONTRACT = {
    "dataset",
    "model",
    "seed",
    "split",
    "n",
    "classes",
    "metrics",
    "per_class",
    "confusion_matrix",
    "notes",
    "images",
    "bad_images",
    "environment",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PneumoniaDataModule:
    root = write_phantoms(tmp_path_factory.mktemp("phantoms") / "data", images=60, size=48)
    module = PneumoniaDataModule(
        name="pneumonia",
        root=str(root / "chest_xray"),
        image_size=16,
        cache_dir=str(root.parent / "cache"),
        seed=5,
    )
    module.setup()
    return module


@pytest.fixture
def model(data: PneumoniaDataModule) -> CNNClassifier:
    return CNNClassifier(name="cnn", class_names=data.class_names, image_size=16, channels=(1, 1, 1))


@pytest.fixture
def scored(data: PneumoniaDataModule) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(data.labels[data.rows_of(TEST)])
    logits = torch.randn(len(labels), 2, generator=torch.Generator().manual_seed(0))
    return logits.softmax(dim=1), labels


@pytest.fixture
def written(
    data: PneumoniaDataModule, model: CNNClassifier, scored: tuple[Tensor, Tensor], tmp_path: Path
) -> dict[str, Any]:
    made = evidence.test_record(data, model, *scored, environment={"python": "3"})
    evidence.write_record(tmp_path, data, data.rows_of(TEST), made, scored[0])
    return json.loads((tmp_path / "metrics.json").read_text())


def test_metrics_json_has_the_keys_of_the_contract(
    written: dict[str, Any], data: PneumoniaDataModule, scored: tuple[Tensor, Tensor]
) -> None:
    labels = scored[1].tolist()
    assert written.keys() >= CONTRACT
    assert (written["dataset"], written["model"], written["seed"], written["split"]) == ("pneumonia", "cnn", 5, "test")
    assert written["n"] == len(labels) == len(data.rows_of(TEST))
    assert written["classes"] == ["NORMAL", "PNEUMONIA"]
    assert written["environment"] == {"python": "3"}
    assert written["images"] == data.counts() and written["bad_images"] == {}
    assert written["metrics"].keys() == set(SCALARS)
    for metric in written["metrics"].values():
        assert metric.keys() == {"value", "low", "high"} and math.isfinite(metric["value"])
    for label, name in enumerate(written["classes"]):
        assert written["per_class"][name].keys() == {"n", *PER_CLASS}
        assert written["per_class"][name]["n"] == labels.count(label) == sum(written["confusion_matrix"][label])


def test_predictions_csv_gives_back_every_metric_to_the_last_digit(
    written: dict[str, Any], data: PneumoniaDataModule, scored: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    with open(tmp_path / "predictions.csv", newline="") as file:
        header, *lines = csv.reader(file)
    assert header == ["path", "group", "label", "NORMAL", "PNEUMONIA"]
    images = [data.rows[r] for r in data.rows_of(TEST)]
    assert [line[:3] for line in lines] == [[i.path, i.group, i.class_name] for i in images]
    probabilities = torch.tensor([[float(p) for p in line[3:]] for line in lines], dtype=torch.float64)
    assert torch.equal(probabilities, scored[0].double())
    labels = torch.tensor([header.index(line[2]) - 3 for line in lines])
    again = {name: value.item() for name, value in scalar_metrics(probabilities, labels).items()}
    assert again == {name: metric["value"] for name, metric in written["metrics"].items()}


@pytest.mark.usefixtures("written")
def test_the_figure_lies_in_its_folder(tmp_path: Path) -> None:
    assert (tmp_path / "figures" / "confusion_matrix.png").stat().st_size > 5000


def test_the_reference_stands_beside_test_sets_of_the_published_size_alone(
    data: PneumoniaDataModule, model: CNNClassifier, scored: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evidence.test_record(data, model, *scored)["reference"] is None
    monkeypatch.setattr(PneumoniaDataModule, "published_test", len(scored[1]))
    reference = evidence.test_record(data, model, *scored)["reference"]
    assert reference == {"accuracy": 0.7756, "recall": 0.9949, "precision": 0.7376, "f1": 0.8472}
    model.name = "another"
    assert not evidence.test_record(data, model, *scored)["reference"]


@pytest.mark.parametrize(
    ("weights", "noted"),
    [("random", True), ("random (fallback)", True), ("IMAGENET1K_V1", False), (None, False)],
)
def test_notes_tell_of_synthetic_images_and_random_weights(
    data: PneumoniaDataModule,
    model: CNNClassifier,
    scored: tuple[Tensor, Tensor],
    weights: str | None,
    noted: bool,
) -> None:
    if weights:
        model.card["weights"] = weights
    notes = evidence.test_record(data, model, *scored)["notes"]
    assert notes == ["synthetic radiographs", *["random backbone"] * noted]


@pytest.mark.parametrize(
    ("leaked", "noted"),
    [
        ({}, []),
        (
            {"test": 3, "val": 9},
            ["leaks: of 3 test and 9 val images a patient, a copy or a twin was trained or chosen on"],
        ),
    ],
)
def test_notes_tell_of_a_test_that_leaks(
    data: PneumoniaDataModule,
    model: CNNClassifier,
    scored: tuple[Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    leaked: dict[str, int],
    noted: list[str],
) -> None:
    monkeypatch.setattr(data, "leaked", leaked)
    _, *notes = evidence.test_record(data, model, *scored)["notes"]
    assert notes == noted


def test_files_that_were_left_out_are_named(
    data: PneumoniaDataModule, model: CNNClassifier, scored: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    root = shutil.copytree(data.root, tmp_path / "chest_xray")
    (root / "train/NORMAL/broken.jpeg").write_bytes(b"<html>")
    skipping = PneumoniaDataModule("pneumonia", str(root), 16, str(tmp_path / "cache"), on_bad_image="skip")
    skipping.setup()
    made = evidence.test_record(skipping, model, *scored)
    assert made["bad_images"] == {"train/NORMAL/broken.jpeg": "is a web page, no image"}
    assert made["images"] == data.counts()


def test_an_undefined_metric_is_null(
    data: PneumoniaDataModule, model: CNNClassifier, scored: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    normal = scored[1] == 0
    rows = data.rows_of(TEST)[normal.numpy()]
    made = evidence.test_record(data, model, scored[0][normal], scored[1][normal])
    evidence.write_record(tmp_path, data, rows, made, scored[0][normal])
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["metrics"]["auroc"]["value"] is None
    assert written["per_class"]["PNEUMONIA"]["auroc"] is None
    assert written["metrics"]["specificity"]["value"] == pytest.approx(
        float((scored[0][normal].argmax(dim=1) == 0).float().mean())
    )


@pytest.mark.parametrize("column", [0, 1])
def test_constant_predictions_are_recorded(
    data: PneumoniaDataModule, model: CNNClassifier, scored: tuple[Tensor, Tensor], column: int
) -> None:
    constant = torch.eye(2)[torch.full_like(scored[1], column)]
    made = evidence.test_record(data, model, constant, scored[1])
    assert made["metrics"]["auroc"]["value"] == 0.5
    assert made["metrics"]["recall"]["value"] == column
    assert np.array(made["confusion_matrix"])[:, column].sum() == made["n"]
