"""The runs of a sweep against each other: comparisons.csv, and figures of them side by side."""

import csv
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from xray_lightning.artifacts import write_csv
from xray_lightning.config import slug
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.comparison import Difference, compare
from xray_lightning.evaluation.figures import save_figure
from xray_lightning.evaluation.forest import ForestRow, RunScores, forest_figure, sweep_roc_figure
from xray_lightning.evaluation.table import Row

log = logging.getLogger(__name__)
MOST_DRAWN = 30  # runs in a figure; of more, those that validation prefers
ALL_PAIRS = 6  # runs of one test set that are all compared; of more, each with the one that validation prefers
COLUMNS = (
    "dataset", "a", "b",
    "accuracy_difference", "accuracy_low", "accuracy_high", "accuracy_p", "accuracy_p_holm",
    "only_a_right", "only_b_right", "mcnemar_p",
    "auroc_difference", "auroc_low", "auroc_high", "delong_p", "delong_p_holm",
)  # fmt: skip


@dataclass(frozen=True)
class Scored:
    """A run with its predictions: probabilities (N, K), labels (N,), and what tells which images these are."""

    row: Row
    probabilities: np.ndarray
    labels: np.ndarray
    groups: tuple[str, ...]
    images: tuple[tuple[str, ...], ...]


def compare_runs(sweep_dir: Path, rows: Sequence[Row]) -> None:
    """Compares all runs that are done and share a test set, and draws the sweep's figures."""
    done = [row for row in rows if row.record]
    sets = test_sets(list(_predicted(sweep_dir, done)))
    write_csv(sweep_dir / "comparisons.csv", COLUMNS, [line for runs in sets for line in _compared(runs)])
    for name, figure in _figures(sweep_dir.name, done, sets):
        save_figure(figure, sweep_dir / "figures" / f"{name}.png")


def _predicted(sweep_dir: Path, done: Sequence[Row]) -> Iterator[Scored]:
    for row in done:
        try:
            yield read_predictions(sweep_dir / row.run, row)
        except XRayError as error:
            log.warning("Left out of comparisons: %s", error)


def read_predictions(folder: Path, row: Row) -> Scored:
    """Raises XRayError where predictions.csv is missing, broken, or not of the run's record."""
    record = row.record or {}
    classes = record.get("classes", [])
    try:
        if not (folder / "predictions.csv").is_file():  # opening a pipe would wait forever
            raise ValueError("there is none")
        with (folder / "predictions.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *lines = csv.reader(file)
            if header[3:] != classes or len(lines) != record["n"]:
                raise ValueError("it is not of metrics.json")
            labels = np.array([classes.index(line[2]) for line in lines])
            probabilities = np.array([[float(p) for p in line[3:]] for line in lines])
            if probabilities.shape != (len(lines), len(classes)) or not np.isfinite(probabilities).all():
                raise ValueError("a probability is missing")
            if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)):
                raise ValueError("probabilities do not sum to 1")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise XRayError(f"{folder.name}: predictions.csv cannot be used ({error}). Run it again.") from error
    images = (tuple(classes), *(tuple(line[:3]) for line in lines))
    return Scored(row, probabilities, labels, tuple(line[1] for line in lines), images)


def test_sets(runs: Sequence[Scored]) -> list[list[Scored]]:
    """Runs that were scored on the same images in the same order, together."""
    sets: dict[tuple[str, tuple[tuple[str, ...], ...]], list[Scored]] = defaultdict(list)
    for run in runs:
        sets[run.row.dataset, run.images].append(run)
    return list(sets.values())


def _compared(runs: Sequence[Scored]) -> Iterator[list[Any]]:
    names = [run.row.run for run in runs]
    pairs = list(combinations(names, 2))
    if len(runs) > ALL_PAIRS:
        best = min(runs, key=lambda run: _validation_loss(run.row)).row.run
        pairs = [(best, name) for name in names if name != best]
    if not pairs:
        return
    first = runs[0]
    probabilities = {run.row.run: run.probabilities for run in runs}
    for found in compare(probabilities, first.labels, first.groups, pairs):
        accuracy, auroc = _cells(found.accuracy), _cells(found.auroc)
        only = [found.only_a, found.only_b, found.mcnemar]
        yield [first.row.dataset, found.a, found.b, *accuracy, *only, *auroc]


def _cells(d: Difference) -> list[float | None]:
    return [d.value, d.low, d.high, d.p, d.adjusted]


def _validation_loss(row: Row) -> float:
    """Of the chosen epoch: what to compare with is not chosen on test."""
    loss = ((row.record or {}).get("validation") or {}).get("log_loss")
    return float("inf") if loss is None else loss


def _of(drawn: Sequence[object], every: Sequence[object]) -> str:
    return f"\n{len(drawn)} of {len(every)} runs, by validation log-loss" if len(drawn) < len(every) else ""


def _figures(name: str, done: Sequence[Row], sets: Sequence[Sequence[Scored]]) -> Iterator[tuple[str, Figure]]:
    drawn = sorted(done, key=_validation_loss)[:MOST_DRAWN]
    title = f"{name}: test scores with 95 % intervals{_of(drawn, done)}"
    shown = [r for r in done if r in drawn]
    lines = [ForestRow(r.dataset, r.label, r.record["metrics"], r.record["reference"]) for r in shown if r.record]
    if lines:
        yield "scores", forest_figure(lines, title)
    several = [runs for runs in sets if len(runs) > 1]
    for number, every in enumerate(several):
        runs = sorted(every, key=lambda run: _validation_loss(run.row))[:MOST_DRAWN]
        dataset, classes = runs[0].row.dataset, runs[0].images[0]
        curves = [
            RunScores(run.row.kind, run.probabilities, run.labels, (run.row.record or {})["metrics"]["auroc"])
            for run in runs
        ]
        same = [r[0].row.dataset for r in several].count(dataset) > 1  # as after a change of split_seed
        name = f"roc_{slug(dataset)}" + f"_{number}" * same
        yield name, sweep_roc_figure(curves, classes, f"{dataset}, {len(runs[0].labels)} images{_of(runs, every)}")
