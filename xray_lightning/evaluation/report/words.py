"""What a report says in sentences: the summary, and what each figure shows for those who do not see it."""

from collections.abc import Iterator, Sequence
from typing import Any

from xray_lightning.evaluation.report.data import Comparison, Run
from xray_lightning.evaluation.report.numbers import count, equals, estimate, listed, number, signed, with_interval

MOST_NAMED = 3
SIGNIFICANT = 0.05


def summary(runs: Sequence[Run], comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence or two a data set, of numbers alone."""
    datasets = list(dict.fromkeys(run.row.dataset for run in runs))
    sentences = []
    if len(runs) > 1:
        states = [run.row.state for run in runs]
        told = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        sentences.append(f"{len(runs)} runs on {count(len(datasets), 'data set')}: {told}.")
    for dataset in datasets:
        done = [run for run in runs if run.row.dataset == dataset and run.record]
        if done:
            compared = [c for c in comparisons if c["dataset"] == dataset]
            sentences.append(" ".join([_scores(done), *_references(done), *_differences(compared)]))
    return sentences


def _scores(done: Sequence[Run]) -> str:
    record = done[0].record
    groups = f" of {count(record['groups'], 'patient group')}" if record.get("groups") else ""
    split = "" if record["split"] == "all" else f"{record['split']} "
    text = f"On {count(record['n'], f'{split}image')}{groups} of {record['dataset']}: "
    ranked = sorted(done, key=lambda run: estimate(run.record["metrics"].get("auroc")).value or 0.0, reverse=True)
    if len(ranked) > MOST_NAMED:
        text += f"of {len(ranked)} runs sorted by AUROC, the first and the last have "
        ranked = [ranked[0], ranked[-1]]
    return text + "; ".join(_score(run) for run in ranked) + "."


def _score(run: Run) -> str:
    metrics = run.record["metrics"]
    accuracy, auroc = (with_interval(estimate(metrics.get(name)), 3) for name in ("accuracy", "auroc"))
    return f"{run.name.removeprefix(run.row.dataset + ' · ')} accuracy {accuracy} and AUROC {auroc}"


def _references(done: Sequence[Run]) -> Iterator[str]:
    told: dict[str, str] = {}
    for run in done:
        published = (run.record.get("reference") or {}).get("accuracy")
        if published is not None:
            found = estimate(run.record["metrics"].get("accuracy"))
            told.setdefault(run.row.model, f"{number(published, 3)} for {run.row.model}{_placed(published, found)}")
    if told:
        yield f"The reference study gives accuracy {listed(list(told.values()))}."


def _placed(published: float, found: Any) -> str:
    if not found.bounded:
        return ""
    where = "below" if published < found.low else "above" if published > found.high else "inside"
    return f" ({where} this run's interval)"


def _differences(compared: Sequence[Comparison]) -> Iterator[str]:
    tests = {"accuracy": "mcnemar_p_holm", "auroc": "delong_p_holm"}
    shown = {"accuracy": "accuracy", "auroc": "AUROC"}
    if len(compared) == 1:
        parts = []
        for metric, column in tests.items():
            difference, p = compared[0].get(f"{metric}_difference"), compared[0].get(column)
            if difference and p:
                size = signed(float(difference)).lstrip("+−")
                parts.append(f"by {size} in {shown[metric]} ({equals(float(p))})")
        if parts:
            yield f"The two differ {listed(parts)}."
    elif compared:
        parts = []
        for metric, column in tests.items():
            n = sum(1 for c in compared if c.get(column) and float(c[column]) < SIGNIFICANT)
            parts.append(f"{n} in {shown[metric]}")
        yield f"Of {len(compared)} pairs, {listed(parts)} differ at p < {SIGNIFICANT} after Holm's correction."


def facts(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What to know before believing the scores, and the runs it is about (none named where it is about all)."""
    notes: dict[str, list[str]] = {}
    for run in runs:
        for note in run.record.get("notes") or []:
            notes.setdefault(note, []).append(run.name)
    done = sum(bool(run.record) for run in runs)
    return {note: [] if len(names) == done else names for note, names in notes.items()}


def when(runs: Sequence[Run]) -> str:
    started = min((run.status["started"] for run in runs if run.status.get("started")), default="")
    ended = max((run.status["ended"] for run in runs if run.status.get("ended")), default="")
    times = [moment[:16].replace("T", " ") for moment in (started, ended) if moment]
    if len(times) == 2 and times[0][:10] == times[1][:10]:
        times[1] = times[1][11:]
    zone = " UTC" if (started or ended).endswith("+00:00") else ""
    return " to ".join(times) + zone


def interval_method(record: dict[str, Any]) -> str:
    found = record.get("interval")
    if not found:
        return ""
    return f"{100 * found['level']:.0f} % intervals: {found['method']}, {found['resamples']} resamples."


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
        "most_wrong": lambda r: f"Radiographs with Grad-CAM overlays, from {_wrong(r)} wrong of {r['n']} test images.",
        "least_certain": lambda r: f"Radiographs with Grad-CAM overlays, of {r['n']} test images.",
    }
    more = told[stem](record) if stem in told and record else ""
    return f"{title_of(stem)} of {run.name}. {more}".strip()


def sweep_alt_text(stem: str, runs: Sequence[Run]) -> str:
    scores = [_score(run) for run in runs if run.record][: 2 * MOST_NAMED]
    return f"{title_of(stem)} of the runs of this sweep. {'; '.join(scores)}."


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
