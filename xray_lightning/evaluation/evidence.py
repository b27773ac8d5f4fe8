"""What a run leaves of the images it is scored on: metrics.json, predictions.csv and figures."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from matplotlib.figure import Figure

from xray_lightning.artifacts import write_csv, write_json
from xray_lightning.console import progress
from xray_lightning.data.batches import shares
from xray_lightning.data.datamodule import XRayDataModule
from xray_lightning.data.examine import digest_of
from xray_lightning.data.fingerprint import fingerprints
from xray_lightning.data.splits import ALL, TEST
from xray_lightning.environment import environment
from xray_lightning.evaluation.calibration import temper
from xray_lightning.evaluation.curves import decision_figure, precision_recall_figure, roc_figure
from xray_lightning.evaluation.dashboard import log_examples, log_figure
from xray_lightning.evaluation.distributions import histogram_figure, learning_figure, reliability_figure
from xray_lightning.evaluation.figures import confusion_figure, save_figure
from xray_lightning.evaluation.gallery import galleries
from xray_lightning.evaluation.record import test_record
from xray_lightning.history import read_history
from xray_lightning.models.classifier import XRayClassifier
from xray_lightning.resume import went_on

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """A record, and what it was made of: catalog positions (N,) and uncalibrated probabilities (N, classes)."""

    record: dict[str, Any]
    rows: np.ndarray
    raw: np.ndarray


def judge(model: XRayClassifier, data: XRayDataModule, trainer: Trainer, folder: Path, **about: Any) -> Judged:
    """Scores the test side of `data` once and writes metrics.json and predictions.csv. `about` is for `test_record`."""
    trainer.test(model, datamodule=data, verbose=False)
    raw, labels = model.test_metrics.gathered()
    order = data.rows_of(TEST)
    world = trainer.world_size
    rows = np.concatenate([part for rank in range(world) for part in shares(order, data.eval_batch_size, rank, world)])
    sorting = rows.argsort()  # so that runs on other numbers of devices can be compared image by image
    rows, raw, labels = rows[sorting], raw[sorting], labels[sorting]
    where = environment(model.device, str(trainer.precision), trainer.world_size)
    scored = about.get("checkpoint")
    where |= {
        "data": fingerprints(data),
        "backbone": model.backbone_digest(),
        "checkpoint": digest_of(Path(scored).read_bytes()) if scored else None,
        **went_on(trainer),
    }
    if not where["repeatable"]:
        log.info("The same command may give slightly other numbers next time: %s", where["repeatable_reason"])
    record = test_record(data, model, rows, raw, labels, **about, environment=where)
    if trainer.is_global_zero:
        _write_predictions(folder / "predictions.csv", data, rows, record, raw)
        write_json(folder / "metrics.json", record)
    return Judged(record, rows, raw)


def illustrate(judged: Judged, model: XRayClassifier, data: XRayDataModule, trainer: Trainer, folder: Path) -> None:
    """Draws the figures of a record, into its folder and for the loggers, which also get images of a training."""
    history = read_history(folder / "history.csv")
    if history:
        log_examples(trainer, data)
    drawn = _figures(history, data, model, judged.rows, judged.record, judged.raw)
    for name, figure in progress(drawn, "Drawing figures", total=8 + bool(history)):
        save_figure(figure, folder / "figures" / f"{name}.png")
        log_figure(trainer, name, figure)


def _write_predictions(
    path: Path, data: XRayDataModule, rows: np.ndarray, record: dict[str, Any], raw: np.ndarray
) -> None:
    calibrated = temper(raw, record["calibration"]["temperature"]).tolist()
    images = [data.rows[row] for row in rows]
    lines = ([i.path, i.group, i.class_name, *map(repr, p)] for i, p in zip(images, calibrated, strict=True))
    write_csv(path, ["path", "group", "label", *record["classes"]], lines)


def _figures(
    history: Sequence[Mapping[str, float | None]],
    data: XRayDataModule,
    model: XRayClassifier,
    rows: np.ndarray,
    record: dict[str, Any],
    raw: np.ndarray,
) -> Iterator[tuple[str, Figure]]:
    """Each figure with its name, drawn when it is asked for."""
    side = "" if record["split"] == ALL else f"{record['split']} "
    title = f"{record['dataset']}, {record['model']}, {record['n']} {side}images"
    title += f"\n{', '.join(record['notes'])}" * bool(record["notes"])
    classes, per_class, points = record["classes"], record["per_class"], record["operating_points"]
    p = temper(raw, record["calibration"]["temperature"])
    labels = data.labels[rows]
    images = [data.rows[row] for row in rows]
    groups = [image.group for image in images]
    yield "confusion_matrix", confusion_figure(np.array(record["confusion_matrix"]), classes, title)
    yield "roc", roc_figure(p, labels, groups, classes, title, per_class, points)
    yield "precision_recall", precision_recall_figure(p, labels, groups, classes, title, per_class, points)
    yield "reliability", reliability_figure(raw, p, labels, classes, title, record["calibration"])
    yield "histograms", histogram_figure(p, labels, classes, title, points)
    yield "decision_curve", decision_figure(p, labels, classes, title)
    if history:
        yield "learning_curves", learning_figure(history, (record["validation"] or {}).get("epoch"), title)
    paths = [image.path for image in images]
    yield from galleries(model, data.images, rows, paths, p, labels, classes, title).items()
