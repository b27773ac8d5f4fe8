"""Ensembles of seeds, apart from the runs they are made of: ensembles.csv, and a section of results.md."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xray_lightning.artifacts import write_csv
from xray_lightning.errors import XRayError
from xray_lightning.evaluation.record import Value, judged
from xray_lightning.evaluation.table import (
    ENSEMBLE_LEGEND,
    METRICS,
    READABLE,
    Row,
    by_setting,
    markdown_table,
    span,
    write_readable,
)
from xray_lightning.evaluation.versus import Scored, read_predictions

log = logging.getLogger(__name__)
SCORES = (*METRICS, "log_loss", "macro_f1")
BOUNDS = tuple((score, end) for score in SCORES for end in ("low", "high"))
COLUMNS = ("dataset", "model", "setting", "seeds", "n", *SCORES, *(f"{score}_{end}" for score, end in BOUNDS), "notes")


@dataclass(frozen=True)
class Ensemble:
    """The mean of the probabilities of several seeds; `metrics` and `notes` are as in a run's record."""

    dataset: str
    model: str
    setting: str
    seeds: int
    n: int
    metrics: Mapping[str, Value]
    notes: str


def write_ensembles(sweep_dir: Path, rows: Sequence[Row]) -> None:
    """Writes ensembles.csv, and results.md with a section on them. Without any, removes the file and the section."""
    made = ensembles(sweep_dir, rows)
    if made:
        write_csv(sweep_dir / "ensembles.csv", COLUMNS, map(_cells, made))
    else:
        (sweep_dir / "ensembles.csv").unlink(missing_ok=True)
    write_readable(sweep_dir, rows, _section(made) if made else "")


def ensembles(sweep_dir: Path, rows: Sequence[Row]) -> list[Ensemble]:
    """One of all done runs that differ only in their seed, where there are two or more.

    Runs that share a seed differ in something else, and have none. Where predictions of one run cannot be read, or are
    of other images than those of the rest, a warning says why there is none.
    """
    made = []
    for runs in by_setting(rows).values():
        done = [row for row in runs if row.record]
        if 1 < len(done) == len({row.seed for row in done}):
            try:
                made.append(_ensemble(sweep_dir, done))
            except XRayError as error:
                log.warning("No ensemble of the seeds of %s %s: %s", done[0].dataset, done[0].kind, error)
    return made


def _ensemble(sweep_dir: Path, done: Sequence[Row]) -> Ensemble:
    runs = [read_predictions(sweep_dir / row.run, row) for row in done]
    first = runs[0]
    metrics, _ = judged(mean_probabilities(runs), first.labels, first.groups)
    notes = dict.fromkeys(note for row in done for note in (row.record or {})["notes"])
    return Ensemble(*first.row.named, len(runs), len(first.labels), metrics, ", ".join(notes))


def mean_probabilities(runs: Sequence[Scored]) -> np.ndarray:
    """The mean over runs of the probabilities (N, K) of each image, in the order of the first run.

    Raises XRayError where the runs do not list the same images, by path, group and label, and the same classes.
    """
    classes, *images = runs[0].images
    aligned = []
    for run in runs:
        place = {image: i for i, image in enumerate(run.images[1:])}
        if run.images[0] != classes or sorted(run.images[1:]) != sorted(images):
            raise XRayError(
                f"{run.row.run} was not scored on the same images as {runs[0].row.run}. Run both on one split."
            )
        aligned.append(run.probabilities[[place[image] for image in images]])
    return np.mean(aligned, axis=0)


def _cells(made: Ensemble) -> list[object]:
    scores = [made.metrics[score]["value"] for score in SCORES]
    bounds = [made.metrics[score][end] for score, end in BOUNDS]
    return [made.dataset, made.model, made.setting, made.seeds, made.n, *scores, *bounds, made.notes]


def _section(made: Sequence[Ensemble]) -> str:
    """For results.md; the setting is left out where no run has one, as in its first table."""
    settings = any(one.setting for one in made)
    header = ["dataset", "model", *["setting"] * settings, "seeds", "n", *READABLE.values(), "log-loss", "notes"]
    lines = [
        [
            one.dataset,
            one.model,
            *[one.setting] * settings,
            str(one.seeds),
            str(one.n),
            *(_readable(one.metrics[score]) for score in (*READABLE, "log_loss")),
            one.notes,
        ]
        for one in made
    ]
    return f"\n## Ensembles of seeds\n\n{ENSEMBLE_LEGEND}\n\n{markdown_table(header, lines)}"


def _readable(found: Value) -> str:
    value = found["value"]
    bounds = f" ({span(found)})" if span(found) else ""
    return "" if value is None else f"{value:.4f}{bounds}"
