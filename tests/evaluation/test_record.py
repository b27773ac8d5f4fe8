"""metrics.json: each number of a test, with its interval."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xray_lightning.data.phantoms import write_phantoms
from xray_lightning.data.pneumonia import PneumoniaDataModule
from xray_lightning.data.seen import Seen
from xray_lightning.data.splits import TEST
from xray_lightning.evaluation import record as evidence
from xray_lightning.evaluation.calibration import temper
from xray_lightning.evaluation.metrics import PER_CLASS, SCALARS, scalar_metrics
from xray_lightning.models.cnn import CNNClassifier

CONTRACT = {
    "dataset", "model", "seed", "split", "n", "groups", "classes", "positive", "metrics", "per_class",
    "confusion_matrix", "interval", "calibration", "operating_points", "validation", "subgroups", "reference", "seen",
    "audit", "notes", "images", "bad_images", "environment",
}  # fmt: skip
Scored = tuple[np.ndarray, np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PneumoniaDataModule:
    root = write_phantoms(tmp_path_factory.mktemp("phantoms") / "data", images=300, size=48)
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
def scored(data: PneumoniaDataModule) -> Scored:
    """Positions, probabilities that tell something and are overconfident, and labels."""
    rows = data.rows_of(TEST)
    labels = data.labels[rows]
    logits = 5 * (np.random.default_rng(0).normal(size=(len(rows), 2)) + np.eye(2)[labels])
    return rows, temper(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1.0), labels


@pytest.fixture
def made(data: PneumoniaDataModule, model: CNNClassifier, scored: Scored) -> dict[str, Any]:
    """A record of a model with a card as training leaves it."""
    model.card |= {
        "temperature": 2.0,
        "operating_points": {"PNEUMONIA": {"default": {"threshold": 0.5, "tp": 9, "fn": 1, "tn": 6, "fp": 2}}},
        "validation": {"n": 18, "epoch": 3, "accuracy": 15 / 18},
    }
    return evidence.test_record(data, model, *scored, environment={"python": "3"})


def test_the_record_has_the_keys_of_the_contract(
    made: dict[str, Any], data: PneumoniaDataModule, scored: Scored
) -> None:
    labels = scored[2].tolist()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made.keys() >= CONTRACT
    assert (made["dataset"], made["model"], made["seed"], made["split"]) == ("pneumonia", "cnn", 5, "test")
    assert made["n"] == len(labels) == len(data.rows_of(TEST))
    assert made["groups"] == len({data.rows[r].group for r in scored[0]}) == made["interval"]["groups"]
    assert made["classes"] == ["NORMAL", "PNEUMONIA"] and made["positive"] == "PNEUMONIA"
    assert made["environment"] == {"python": "3"} and made["seen"] is None
    assert made["images"] == data.counts() and made["bad_images"] == {}
    assert made["metrics"].keys() == set(SCALARS)
    for label, name in enumerate(made["classes"]):
        assert made["per_class"][name].keys() == {"n", *PER_CLASS}
        assert made["per_class"][name]["n"] == labels.count(label) == sum(made["confusion_matrix"][label])


def test_what_the_images_have_in_common_is_told(made: dict[str, Any], data: PneumoniaDataModule) -> None:
    assert data.collection is not None
    known = sum(row.patient != "" for row in data.rows)
    assert made["audit"] == {
        "images": len(data.rows),
        "groups": len({row.group for row in data.rows}),
        "patients_known": known,
        "identical": len(data.rows) - len({row.digest for row in data.rows}),
        "near_identical": len(data.collection.twins),
        "leaked": {},
    }


def test_every_metric_has_an_interval_around_it(made: dict[str, Any]) -> None:
    each = [made["per_class"][name][metric] for name in made["classes"] for metric in PER_CLASS]
    for found in (*made["metrics"].values(), *each):
        assert found["low"] <= found["value"] <= found["high"]
    assert made["metrics"]["accuracy"]["low"] < made["metrics"]["accuracy"]["high"]


def test_scores_are_of_the_calibrated_probabilities(made: dict[str, Any], scored: Scored) -> None:
    _, raw, labels = scored
    truth, after = torch.from_numpy(labels), temper(raw, 2.0)
    for when, probabilities in (("before", raw), ("after", after)):
        expected = scalar_metrics(torch.from_numpy(probabilities), truth)
        for name, found in made["calibration"][when].items():
            assert found["value"] == pytest.approx(expected[name].item(), rel=1e-9)
    assert made["calibration"]["temperature"] == 2.0
    assert {name: made["metrics"][name] for name in made["calibration"]["after"]} == made["calibration"]["after"]
    assert made["calibration"]["after"]["log_loss"]["value"] < made["calibration"]["before"]["log_loss"]["value"]


def test_what_validation_promised_stands_beside_what_test_gave(made: dict[str, Any], scored: Scored) -> None:
    _, raw, labels = scored
    point = made["operating_points"]["PNEUMONIA"]["default"]
    sensitivity = float((raw[labels == 1, 1] >= 0.5).mean())
    assert point["validation"]["sensitivity"] == 0.9
    assert point["test"]["sensitivity"]["value"] == pytest.approx(sensitivity)
    assert point["gap"]["sensitivity"]["value"] == pytest.approx(sensitivity - 0.9)
    assert made["validation"]["epoch"] == 3


def test_subtypes_are_told_apart(made: dict[str, Any], data: PneumoniaDataModule, scored: Scored) -> None:
    rows, raw, _ = scored
    found = {s["value"]: s for s in made["subgroups"] if s["by"] == "subtype"}
    assert found.keys() == {"bacteria", "virus"}
    for value, subgroup in found.items():
        own = np.array([data.rows[r].subtype == value for r in rows])
        assert subgroup["class"] == "PNEUMONIA" and subgroup["n"] == own.sum() > 0
        assert subgroup["recall"]["value"] == pytest.approx((raw[own].argmax(axis=1) == 1).mean())


def test_the_reference_stands_beside_test_sets_of_the_published_size_alone(
    data: PneumoniaDataModule, model: CNNClassifier, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evidence.test_record(data, model, *scored)["reference"] is None
    monkeypatch.setattr(PneumoniaDataModule, "published_test", len(scored[2]))
    reference = evidence.test_record(data, model, *scored)["reference"]
    assert reference == {"accuracy": 0.7756, "recall": 0.9949, "precision": 0.7376, "f1": 0.8472}
    model.card["data"] = {"arguments": {"name": "lungs", "seed": 9}}
    other = Seen(n=len(scored[2]), trained=0, chosen=0, identical=0)
    assert evidence.test_record(data, model, *scored, seen=other)["reference"] is None
    model.name = "another"
    assert not evidence.test_record(data, model, *scored)["reference"]


def test_other_images_than_its_own_are_named_as_such(
    data: PneumoniaDataModule, model: CNNClassifier, scored: Scored
) -> None:
    model.card["data"] = {"arguments": {"name": "lungs", "seed": 9}}
    seen = Seen(n=60, trained=7, chosen=0, identical=2)
    made = evidence.test_record(data, model, *scored, split="all", seen=seen)
    assert made["split"] == "all" and made["seed"] == 9
    assert made["seen"] == {"trained": 7, "chosen": 0, "identical": 2}
    _, *notes = made["notes"]
    assert notes == ["trained on lungs and scored on pneumonia", "7 of 60 images or their patients were trained on"]


@pytest.mark.parametrize(
    ("weights", "noted"),
    [("random", True), ("random (fallback)", True), ("IMAGENET1K_V1", False), (None, False)],
)
def test_notes_tell_of_synthetic_images_and_random_weights(
    data: PneumoniaDataModule,
    model: CNNClassifier,
    scored: Scored,
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
    scored: Scored,
    monkeypatch: pytest.MonkeyPatch,
    leaked: dict[str, int],
    noted: list[str],
) -> None:
    monkeypatch.setattr(data, "leaked", leaked)
    _, *notes = evidence.test_record(data, model, *scored)["notes"]
    assert notes == noted


def test_files_that_were_left_out_are_named(
    data: PneumoniaDataModule, model: CNNClassifier, scored: Scored, tmp_path: Path
) -> None:
    root = shutil.copytree(data.root, tmp_path / "chest_xray")
    (root / "train/NORMAL/broken.jpeg").write_bytes(b"<html>")
    skipping = PneumoniaDataModule("pneumonia", str(root), 16, str(tmp_path / "cache"), on_bad_image="skip")
    skipping.setup()
    made = evidence.test_record(skipping, model, *scored)
    assert made["bad_images"] == {"train/NORMAL/broken.jpeg": "is a web page, no image"}
    assert made["images"] == data.counts()


def test_an_undefined_metric_is_null(data: PneumoniaDataModule, model: CNNClassifier, scored: Scored) -> None:
    normal = scored[2] == 0
    rows, raw, labels = (part[normal] for part in scored)
    made = evidence.test_record(data, model, rows, raw, labels)
    undefined = {"value": None, "low": None, "high": None}
    assert made["metrics"]["auroc"] == undefined == made["per_class"]["PNEUMONIA"]["auroc"]
    assert made["metrics"]["specificity"]["value"] == pytest.approx((raw.argmax(axis=1) == 0).mean())


@pytest.mark.parametrize("column", [0, 1])
def test_constant_predictions_are_recorded(
    data: PneumoniaDataModule, model: CNNClassifier, scored: Scored, column: int
) -> None:
    rows, _, labels = scored
    made = evidence.test_record(data, model, rows, np.eye(2)[np.full_like(labels, column)], labels)
    assert made["metrics"]["auroc"]["value"] == 0.5
    assert made["metrics"]["recall"]["value"] == column
    assert np.array(made["confusion_matrix"])[:, column].sum() == made["n"]
