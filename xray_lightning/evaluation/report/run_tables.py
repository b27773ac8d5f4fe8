"""The tables of one run's section in a report."""

from collections.abc import Sequence
from typing import Any

from xray_lightning.evaluation.report.data import images_of, side_of
from xray_lightning.evaluation.report.tables import (
    SPLITS,
    Cell,
    Column,
    Line,
    Table,
    measured,
    plain,
    whole,
    words,
)
from xray_lightning.evaluation.table import HEADINGS

METRIC_NAMES = HEADINGS | {
    "balanced_accuracy": "balanced accuracy",
    "auprc": "AUPRC",
    "mcc": "MCC",
    "log_loss": "log-loss",
    "brier": "Brier score",
    "ece": "ECE",
    "macro_recall": "macro recall",
    "macro_precision": "macro precision",
    "macro_f1": "macro F1",
}
LOWER_IS_BETTER = ("log_loss", "brier", "ece")
PER_CLASS = ("recall", "precision", "f1", "specificity", "auroc", "auprc")


def metrics_table(record: dict[str, Any]) -> Table:
    validation = record.get("validation") or {}
    side = side_of([record])
    columns = [Column("metric", False), Column("validation"), Column(side)]
    lines = [
        Line([_metric(name), plain(validation.get(name)), measured(found)]) for name, found in record["metrics"].items()
    ]
    epoch = f", validation at the chosen epoch {validation['epoch']}" if "epoch" in validation else ""
    return Table(f"Every metric{epoch}, {side} with 95 % intervals.", columns, lines)


def _metric(name: str) -> Cell:
    small = "lower is better" if name in LOWER_IS_BETTER else ""
    return Cell(METRIC_NAMES.get(name, name.replace("_", " ")), small)


def class_table(record: dict[str, Any]) -> Table:
    columns = [Column("class", False), Column("n")]
    columns += [Column(METRIC_NAMES[name]) for name in PER_CLASS]
    lines = [
        Line([words(name), whole(found["n"]), *(measured(found.get(metric)) for metric in PER_CLASS)])
        for name, found in record.get("per_class", {}).items()
    ]
    return Table(
        f"Each class against the rest, on its n {images_of([record])}, with 95 % intervals.",
        columns,
        lines,
        sortable=len(lines) > 1,
    )


def confusion_table(record: dict[str, Any]) -> Table:
    classes: Sequence[str] = record["classes"]
    columns = [Column("actual class", False), *(Column(f"as {name}") for name in classes), Column("all")]
    lines = []
    for name, row in zip(classes, record.get("confusion_matrix", []), strict=False):
        total = sum(row)
        shares = [Cell(str(n), f"{100 * n / total:.1f} %" if total else "", n) for n in row]
        lines.append(Line([words(name), *shares, whole(total)]))
    images = images_of([record]).capitalize()
    return Table(f"{images} by actual and predicted class, with the share of the actual class.", columns, lines)


def counts_table(record: dict[str, Any]) -> Table:
    classes: Sequence[str] = record["classes"]
    columns = [Column("split", False), *(Column(name) for name in classes), Column("all")]
    lines = []
    for split, counts in (record.get("images") or {}).items():
        cells = [whole(counts.get(name, 0)) for name in classes]
        lines.append(Line([words(SPLITS.get(split, split)), *cells, whole(sum(counts.values()))]))
    return Table("Images of each split and class.", columns, lines)
