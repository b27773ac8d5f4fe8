"""metrics.json: what a model does on images it is scored on, each number with its 95 % interval."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.overlap import IDENTICAL, NEAR, within
from xray_lightning.data.seen import Seen
from xray_lightning.data.splits import ALL, TEST, VAL, leak_note
from xray_lightning.evaluation.bootstrap import RESAMPLES
from xray_lightning.evaluation.calibration import temper
from xray_lightning.evaluation.intervals import METHOD, Bounds, calibration_intervals, intervals
from xray_lightning.evaluation.metrics import confusion_matrix, number, per_class_metrics, scalar_metrics
from xray_lightning.evaluation.operating_points import operating_points
from xray_lightning.evaluation.proportions import LEVEL
from xray_lightning.evaluation.subgroups import subgroups
from xray_lightning.models.classifier import XRayClassifier

CALIBRATION = ("log_loss", "brier", "ece")
Value = dict[str, float | None]


def test_record(
    data: XRayDataModule,
    model: XRayClassifier,
    rows: np.ndarray,
    raw: np.ndarray,
    labels: np.ndarray,
    *,
    split: str = TEST,
    seen: Seen | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The content of metrics.json for images at catalog positions `rows` (N,), with labels (N,).

    `raw` (N, classes) are the probabilities as the network gives them; all results but `calibration.before` are of
    those that the checkpoint's temperature calibrates. A metric that the images do not define, such as the AUROC of a
    class without images, is null; an interval is null where `Intervals` has none.
    """
    images = [data.rows[row] for row in rows]
    groups = [image.group for image in images]
    calibrated = temper(raw, model.card["temperature"])
    metrics, per_class = judged(calibrated, labels, groups)
    own = seen is None
    published = own and split == TEST and len(labels) == data.published_test
    known = model.class_names == list(data.layout.folders)
    counts = np.bincount(labels, minlength=len(model.class_names)).tolist()
    members = Counter(groups)
    return {
        "dataset": data.name,
        "model": model.name,
        "seed": data.seed if own else model.card["data"]["arguments"].get("seed"),
        "split": split,
        "n": len(labels),
        "groups": len(members),
        "classes": model.class_names,
        "positive": model.class_names[1] if len(model.class_names) == 2 else None,
        "metrics": metrics,
        "per_class": {
            name: {"n": counts[i], **{metric: values[i] for metric, values in per_class.items()}}
            for i, name in enumerate(model.class_names)
        },
        "confusion_matrix": confusion_matrix(torch.from_numpy(calibrated), torch.from_numpy(labels)).tolist(),
        "interval": {
            "level": LEVEL,
            "method": METHOD,
            "resamples": RESAMPLES,
            "groups": len(members),
            "largest_group": max(members.values()),
        },
        "calibration": {
            "temperature": model.card["temperature"],
            "fitted_on": "validation",
            "before": _calibration(raw, labels, groups),
            "after": {name: metrics[name] for name in CALIBRATION},
        },
        "operating_points": operating_points(
            model.card["operating_points"], calibrated, labels, groups, model.class_names
        ),
        "validation": model.card.get("validation"),
        "subgroups": subgroups(images, calibrated.argmax(axis=1), labels),
        "reference": dict(data.reference.get(model.name, {})) if published and known else None,
        "seen": None if seen is None else {"trained": seen.trained, "chosen": seen.chosen, "identical": seen.identical},
        "notes": _notes(data, model, split, seen),
        "images": data.counts(),
        "audit": _audit(data),
        "bad_images": data.collection.bad if data.collection else {},
        **more,
    }


def _audit(data: XRayDataModule) -> dict[str, Any] | None:
    """What the images looked through have in common; the audit command lists them."""
    if data.collection is None:
        return None
    pairs = Counter(pair.kind for pair in within(data.collection))
    return {
        "images": len(data.rows),
        "groups": len({row.group for row in data.rows}),
        "patients_known": sum(bool(row.patient) for row in data.rows),
        "identical": pairs[IDENTICAL],
        "near_identical": pairs[NEAR],
        "leaked": dict(data.leaked),
    }


def judged(
    probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str]
) -> tuple[dict[str, Value], dict[str, list[Value]]]:
    """Each metric of probabilities (N, K), labels (N,) and patient groups (N,), and each class's, with its interval."""
    tensors = torch.from_numpy(probabilities), torch.from_numpy(labels)
    found = intervals(probabilities, labels, groups)
    metrics = {name: _with_interval(value, found.scalars[name]) for name, value in scalar_metrics(*tensors).items()}
    per_class = {
        name: [_with_interval(value, bounds) for value, bounds in zip(values, found.per_class[name], strict=True)]
        for name, values in per_class_metrics(*tensors).items()
    }
    return metrics, per_class


def _calibration(probabilities: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> dict[str, Value]:
    """How far probabilities can be believed, with intervals."""
    values = scalar_metrics(torch.from_numpy(probabilities), torch.from_numpy(labels))
    found = calibration_intervals(probabilities, labels, groups)
    return {name: _with_interval(values[name], found[name]) for name in CALIBRATION}


def _with_interval(value: torch.Tensor, bounds: Bounds | None) -> Value:
    low, high = bounds or (None, None)
    return {"value": number(value), "low": low, "high": high}


def _notes(data: XRayDataModule, model: XRayClassifier, split: str, seen: Seen | None) -> list[str]:
    """What a reader must know before believing a score; shown wherever the scores are."""
    notes = ["synthetic radiographs"] if data.synthetic else []
    if seen is None and split != TEST:
        notes.append(f"scored on its own {'validation' if split == VAL else 'training'} images")
    if seen is not None:
        whole = "" if split == ALL else f" ({split})"
        notes += [f"trained on {model.card['data']['arguments']['name']} and scored on {data.name}{whole}"]
        notes += [seen.note] * bool(seen.note)
    if data.leaked:
        notes.append(leak_note(data.leaked))
    if model.class_names != list(data.layout.folders):
        notes.append(f"classes {' + '.join(model.class_names)}")
    weights = str(model.card.get("weights", ""))
    if weights.startswith("random"):
        notes.append("random backbone")
    return notes
