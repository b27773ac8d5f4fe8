"""What a run leaves of its test: metrics.json, predictions.csv and figures."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from xray_lightning.artifacts import write_csv, write_json
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.evaluation.figures import confusion_figure, save_figure
from xray_lightning.evaluation.metrics import confusion_matrix, per_class_metrics, scalar_metrics
from xray_lightning.models.classifier import XRayClassifier


def test_record(
    data: XRayDataModule, model: XRayClassifier, probabilities: Tensor, labels: Tensor, **more: Any
) -> dict[str, Any]:
    """The content of metrics.json for test probabilities (N, classes) and labels (N,). A metric that the
    images do not define, such as the AUROC of a class without images, is null."""
    each = per_class_metrics(probabilities.double(), labels)
    counts = labels.bincount(minlength=len(model.class_names))
    published = len(labels) == data.published_test and model.class_names == list(data.layout.folders)
    return {
        "dataset": data.name,
        "model": model.name,
        "seed": data.seed,
        "split": "test",
        "n": len(labels),
        "classes": model.class_names,
        "positive": model.class_names[1] if len(model.class_names) == 2 else None,
        "metrics": {
            name: {"value": _number(value), "low": None, "high": None}
            for name, value in scalar_metrics(probabilities, labels).items()
        },
        "per_class": {
            name: {"n": int(counts[i]), **{metric: _number(values[i]) for metric, values in each.items()}}
            for i, name in enumerate(model.class_names)
        },
        "confusion_matrix": confusion_matrix(probabilities, labels).tolist(),
        "reference": dict(data.reference.get(model.name, {})) if published else None,
        "notes": _notes(data, model),
        "images": data.counts(),
        "bad_images": data.collection.bad if data.collection else {},
        **more,
    }


def _notes(data: XRayDataModule, model: XRayClassifier) -> list[str]:
    """What a reader must know before believing a score; shown wherever the scores are."""
    notes = ["synthetic radiographs"] if data.synthetic else []
    if data.leaked:
        counts = " and ".join(f"{count} {side}" for side, count in data.leaked.items())
        notes.append(f"leaks: of {counts} images a patient, a copy or a twin was trained or chosen on")
    if model.class_names != list(data.layout.folders):
        notes.append(f"classes {' + '.join(model.class_names)}")
    weights = str(model.card.get("weights", ""))
    if weights.startswith("random"):
        notes.append("random backbone")
    return notes


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def write_record(
    folder: Path, data: XRayDataModule, rows: np.ndarray, record: dict[str, Any], probabilities: Tensor
) -> Figure:
    """Writes predictions.csv, figures/ and metrics.json for test images at catalog positions `rows`.

    Returns the confusion matrix.
    """
    header = ["path", "group", "label", *record["classes"]]
    write_csv(
        folder / "predictions.csv",
        header,
        (
            [data.rows[r].path, data.rows[r].group, data.rows[r].class_name, *map(repr, p)]
            for r, p in zip(rows, probabilities.double().tolist(), strict=True)
        ),
    )
    title = f"{record['dataset']}, {record['model']}, {record['n']} test images"
    if record["notes"]:
        title += f"\n{', '.join(record['notes'])}"
    figure = confusion_figure(np.array(record["confusion_matrix"]), record["classes"], title)
    save_figure(figure, folder / "figures" / "confusion_matrix.png")
    write_json(folder / "metrics.json", record)
    return figure
