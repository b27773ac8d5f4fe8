"""What is said of each figure: its title, what it shows for those who do not see it, and what not to read into it."""

from collections.abc import Sequence
from typing import Any

from xray_lightning.evaluation.report.data import Run, images_of
from xray_lightning.evaluation.report.numbers import estimate, number, with_interval
from xray_lightning.evaluation.report.words import MOST_NAMED, score

GALLERIES = ("most_wrong", "least_certain")
GRAD_CAM = (
    "Grad-CAM shows, coarsely, what spoke for the predicted class, not where disease is. Relevance on bright markers, "
    "corners or borders points at a shortcut rather than at disease."
)
OF_CNN = "The head of this cnn weighs each position by itself, which the map averages away: it locates little."


def title_of(stem: str) -> str:
    """A figure's heading."""
    if stem.startswith("roc_"):
        return f"ROC curves, {stem.removeprefix('roc_')}"
    return TITLES.get(stem, stem.replace("_", " ").capitalize())


TITLES = {
    "scores": "Scores with intervals",
    "confusion_matrix": "Confusion matrix",
    "roc": "ROC curve",
    "precision_recall": "Precision and recall",
    "reliability": "Reliability",
    "histograms": "Predicted probabilities",
    "decision_curve": "Decision curve",
    "learning_curves": "Learning curves",
    "most_wrong": "Most confidently wrong images",
    "least_certain": "Least certain images",
}


def alt_text(stem: str, run: Run) -> str:
    """What a run's figure shows, with its main numbers."""
    record = run.record
    told = {
        "confusion_matrix": _alt_confusion,
        "roc": lambda r: f"Area under the curve {_each(r, 'auroc')}.",
        "precision_recall": lambda r: f"Area under the curve {_each(r, 'auprc')}.",
        "reliability": _alt_reliability,
        "histograms": lambda r: f"Histograms by actual class, {_sizes(r)}.",
        "decision_curve": lambda r: "Net benefit by threshold probability, beside treating all and treating none.",
        "learning_curves": _alt_learning,
        "most_wrong": lambda r: (
            f"Radiographs with Grad-CAM overlays, from {_wrong(r)} wrong of {r['n']} {images_of([r])}."
        ),
        "least_certain": lambda r: f"Radiographs with Grad-CAM overlays, of {r['n']} {images_of([r])}.",
    }
    more = told[stem](record) if stem in told and record else ""
    return f"{title_of(stem)} of {run.name}. {more}".strip()


def sweep_alt_text(stem: str, runs: Sequence[Run]) -> str:
    scores = [score(run) for run in runs if run.record][: 2 * MOST_NAMED]
    return f"{title_of(stem)} of the runs of this sweep. {'; '.join(scores)}."


def caution(stem: str, run: Run) -> str:
    """What a reader of a run's figure could mistake; empty where there is nothing to say."""
    if stem in GALLERIES:
        return f"{GRAD_CAM} {OF_CNN}" if run.row.model == "cnn" else GRAD_CAM
    positive = run.record.get("positive")
    if stem == "reliability" and positive:
        return f"The diagram shows the probability of {positive}, whereas ECE is that of the likeliest class."
    return ""


def _alt_confusion(record: dict[str, Any]) -> str:
    classes = record["classes"]
    rows = [
        f"of {sum(row)} {name}, " + ", ".join(f"{n} as {other}" for n, other in zip(row, classes, strict=False))
        for name, row in zip(classes, record.get("confusion_matrix", []), strict=False)
    ]
    return f"Predicted were {'; '.join(rows)}." if rows else ""


def _each(record: dict[str, Any], metric: str) -> str:
    """The metric of the positive class, or of each class against the rest."""
    if record.get("positive"):
        return with_interval(estimate(record["metrics"].get(metric)), 3)
    of = {name: with_interval(estimate(found.get(metric)), 3) for name, found in record.get("per_class", {}).items()}
    return ", ".join(f"{value} for {name}" for name, value in of.items())


def _alt_reliability(record: dict[str, Any]) -> str:
    found = record.get("calibration")
    if not found:
        return ""
    before, after = (number(estimate(found[w].get("ece")).value, 3) for w in ("before", "after"))
    temperature = number(found["temperature"], 2)
    return f"Expected calibration error {before} before and {after} after scaling by temperature {temperature}."


def _alt_learning(record: dict[str, Any]) -> str:
    validation = record.get("validation") or {}
    if "epoch" not in validation:
        return ""
    loss = number(validation.get("log_loss"), 3)
    return f"By epoch; epoch {validation['epoch']} was chosen, with validation log-loss {loss}."


def _sizes(record: dict[str, Any]) -> str:
    return ", ".join(f"{found['n']} {name}" for name, found in record.get("per_class", {}).items())


def _wrong(record: dict[str, Any]) -> int:
    matrix = record.get("confusion_matrix", [])
    return int(sum(map(sum, matrix)) - sum(row[i] for i, row in enumerate(matrix)))
