"""The tables of a report that are about how far to trust the scores: thresholds, calibration, subgroups."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xray_lightning.evaluation.report.data import Run, images_of, side_of
from xray_lightning.evaluation.report.numbers import estimate, interval, signed
from xray_lightning.evaluation.report.tables import Cell, Column, Line, Table, headed, measured, plain, whole, words

OF_MANY = "sensitivity_95"
POINTS = {
    "default": "0.5",
    "sensitivity_95": "sensitivity 0.95",
    "sensitivity_98": "sensitivity 0.98",
    "balanced": "balanced accuracy",
}


def operating_table(runs: Sequence[Run], whole_in: str = "") -> Table:
    """Every point, or of runs with more than two classes one a class where `whole_in` says where all of them are."""
    records = [run.record for run in runs]
    side, images = side_of(records), images_of(records)
    columns = _named(runs, "class", "threshold set for")
    columns += [Column("threshold")]
    columns += [
        Column("sensitivity", about="validation"),
        Column("sensitivity", about=side),
        Column("gap", about="sensitivity"),
    ]
    columns += [
        Column("specificity", about="validation"),
        Column("specificity", about=side),
        Column("gap", about="specificity"),
    ]
    columns += [Column("PPV", about=side), Column("NPV", about=side), Column("accuracy", about=side)]
    lines = []
    left_out = False
    for run in runs:
        for name, points in (run.record.get("operating_points") or {}).items():
            for point, found in points.items():
                if whole_in and not run.record.get("positive") and point != OF_MANY:
                    left_out = True
                    continue
                cells = _heads(runs, run, name, POINTS.get(point, point))
                lines.append(Line([*cells, plain(found["threshold"]), *_promises(found)]))
    caption = (
        f"Thresholds on the calibrated probability, chosen on validation images only, and what they gave on {side}. "
        f"Gap: {side} minus validation. PPV, NPV and accuracy hold for the share of each class among the {images}."
    )
    if left_out:
        shown = POINTS[OF_MANY]
        caption += f" Of runs with more than two classes, only the threshold for {shown} is here; {whole_in} has all."
    return Table(caption, columns, lines, sortable=len(lines) > 1)


def _promises(found: Mapping[str, Any]) -> Iterator[Cell]:
    for metric in ("sensitivity", "specificity"):
        yield plain((found.get("validation") or {}).get(metric), 3)
        yield measured(found["test"].get(metric), 3)
        gap = estimate((found.get("gap") or {}).get(metric))
        yield Cell(signed(gap.value), interval(gap), gap.value)
    yield measured(found["test"].get("ppv"), 3)
    yield measured(found["test"].get("npv"), 3)
    yield measured(found["test"].get("accuracy"), 3)


def calibration_table(runs: Sequence[Run]) -> Table:
    columns = _named(runs, "probabilities")
    columns += [Column("temperature"), *(Column(m) for m in ("log-loss", "Brier", "ECE"))]
    lines = []
    for run in runs:
        found = run.record.get("calibration") or {}
        for when, temperature in (("before", 1.0), ("after", found.get("temperature"))):
            if when in found:
                scores = [measured(found[when].get(m)) for m in ("log_loss", "brier", "ece")]
                cells = _heads(runs, run, "as trained" if when == "before" else "calibrated")
                lines.append(Line([*cells, plain(temperature, 3), *scores]))
    side = side_of([run.record for run in runs])
    caption = (
        f"Scores on {side} of the probabilities before and after temperature scaling. Validation chose the "
        "temperature. Lower is better."
    )
    return Table(caption, columns, lines, sortable=len(lines) > 2)


def subgroups_table(runs: Sequence[Run]) -> Table:
    images = images_of([run.record for run in runs])
    columns = [*_named(runs, "by", "subgroup", "class"), Column("n"), Column("recall")]
    lines = [
        Line([*_heads(runs, run, s["by"], s["value"], s["class"]), whole(s["n"]), measured(s["recall"])])
        for run in runs
        for s in run.record.get("subgroups") or []
    ]
    caption = f"Recall (sensitivity) within parts of the {images}, each of n images of its class, with 95 % intervals."
    return Table(caption, columns, lines, sortable=len(lines) > 1)


def _named(runs: Sequence[Run], *labels: str) -> list[Column]:
    """Columns of words; the run comes first where there are several."""
    return [Column(label, False) for label in (("run", *labels) if len(runs) > 1 else labels)]


def _heads(runs: Sequence[Run], run: Run, *texts: object) -> list[Cell]:
    return [*([headed(run)] if len(runs) > 1 else []), *map(words, texts)]
