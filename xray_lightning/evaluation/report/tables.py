"""The tables of a report, as data: each cell with what is shown, its interval, and the number it is sorted by."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from xray_lightning.evaluation.report.data import Comparison, EnsembleLine, Run, images_of
from xray_lightning.evaluation.report.numbers import (
    NONE,
    Estimate,
    as_number,
    duration,
    estimate,
    interval,
    number,
    p_value,
    signed,
)
from xray_lightning.evaluation.table import ENSEMBLE_LEGEND, HEADINGS, READABLE

RESULTS = HEADINGS | {"log_loss": "log-loss", "ece": "ECE"}
OF_ENSEMBLES = READABLE | {"log_loss": "log-loss"}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Cell:
    """What is shown, what stands below it in smaller print, and the sort key (None sorts last)."""

    text: str
    small: str = ""
    key: float | str | None = None
    href: str = ""


@dataclass(frozen=True)
class Column:
    label: str
    numeric: bool = True
    about: str = ""


@dataclass(frozen=True)
class Line:
    """Cells, the first of which heads the row. Sorting leaves lines that are no run's below the runs of their group."""

    cells: Sequence[Cell]
    kind: str = "run"
    group: str = ""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: Sequence[Column]
    lines: Sequence[Line]
    sortable: bool = False


def measured(found: Any, digits: int = 4) -> Cell:
    value = estimate(found)
    return Cell(number(value.value, digits), interval(value), value.value)


def plain(value: float | None, digits: int = 4) -> Cell:
    return Cell(number(value, digits), key=value)


def words(text: object, href: str = "") -> Cell:
    return Cell(str(text), key=str(text), href=href)


def whole(n: int | None) -> Cell:
    return Cell(NONE if n is None else str(n), key=n)


def headed(run: Run, href: str = "") -> Cell:
    """What a row is about: the model, with what else tells the run from others below it."""
    return Cell(run.row.model, run.name.replace(f" · {run.row.model}", "", 1), run.name, href)


def results_table(runs: Sequence[Run], links: Mapping[str, str]) -> Table:
    """A line a run, then the reference's and the mean over seeds; `links` maps run folders' names to addresses."""
    metrics = [Column(heading) for heading in RESULTS.values()]
    columns = [Column("run", False), Column("seed"), Column("state", False), Column("n"), *metrics]
    groups: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.row.dataset, run.row.model, run.row.setting].append(run)
    lines: list[Line] = []
    for i, members in enumerate(groups.values()):
        lines += [_result(run, f"g{i}", links.get(run.row.run, "")) for run in members]
        lines += _derived(members, f"g{i}")
    images = images_of([run.record for run in runs if run.record])
    caption = f"Scores on n {images}. Below each value is its 95 % interval. Of log-loss and ECE, lower is better."
    return Table(caption, [*columns, Column("time")], lines, sortable=len(runs) > 1)


def _result(run: Run, group: str, href: str) -> Line:
    row, metrics = run.row, run.record.get("metrics", {})
    scores = [measured(metrics.get(name)) for name in RESULTS]
    seed = whole(row.seed)
    time = Cell(duration(row.seconds), key=row.seconds)
    cells = [headed(run, href), seed, words(row.state), whole(run.record.get("n")), *scores, time]
    return Line(cells, "run" if run.record else row.state, group)


def _derived(members: Sequence[Run], group: str) -> Iterator[Line]:
    row = members[0].row
    name = " · ".join(part for part in (row.dataset, row.model, row.setting) if part)
    empty = Cell("")
    reference = next((run.record["reference"] for run in members if run.record.get("reference")), None)
    if reference:
        scores = [plain(reference[m]) if m in reference else empty for m in RESULTS]
        yield Line([Cell("reference", name), empty, empty, empty, *scores, empty], "reference", group)
    done = [run.record["metrics"] for run in members if run.record]
    if len(done) > 1:
        scores = [_over_seeds([estimate(metrics.get(m)).value for metrics in done]) for m in RESULTS]
        yield Line(
            [Cell("mean ± sd", f"{name}, {len(done)} seeds"), empty, empty, empty, *scores, empty], "mean", group
        )


def _over_seeds(values: Sequence[float | None]) -> Cell:
    known = [v for v in values if v is not None]
    return Cell(number(mean(known)), f"± {stdev(known):.4f}", mean(known)) if len(known) > 1 else Cell("")


def ensembles_table(ensembles: Sequence[EnsembleLine]) -> Table:
    columns = [Column("ensemble", False), Column("seeds"), Column("n"), *map(Column, OF_ENSEMBLES.values())]
    lines = []
    for found in ensembles:
        about = " · ".join(part for part in (found["dataset"], found.get("setting")) if part)
        counts = [Cell(found[name], key=as_number(found[name])) for name in ("seeds", "n")]
        scores = [measured(_estimate(found, name, ("", "_low", "_high"))._asdict()) for name in OF_ENSEMBLES]
        lines.append(Line([Cell(found["model"], about, f"{about} · {found['model']}"), *counts, *scores]))
    caption = f"{ENSEMBLE_LEGEND} Below each value is its 95 % interval. Of log-loss, lower is better."
    return Table(caption, columns, lines, sortable=len(lines) > 1)


def comparisons_table(comparisons: Sequence[Comparison], names: Mapping[str, str]) -> Table:
    """`names` maps run folders' names to what the report calls the runs."""
    columns = [Column("first run", False), Column("second run", False)]
    for metric, test in (("accuracy", "p"), ("AUROC", "DeLong p")):
        columns += [Column(f"{metric} difference"), Column(test), Column(test, about="Holm")]
    columns.append(Column("McNemar p"))
    lines = []
    for found in comparisons:
        cells = [words(names.get(found[side], found[side])) for side in ("a", "b")]
        for metric, test in (("accuracy", "accuracy"), ("auroc", "delong")):
            difference = _estimate(found, metric, ("_difference", "_low", "_high"))
            cells.append(Cell(signed(difference.value), interval(difference), difference.value))
            cells += [_p(found, f"{test}_p"), _p(found, f"{test}_p_holm")]
        lines.append(Line([*cells, _p(found, "mcnemar_p")]))
    caption = (
        "Differences on one test set, the first run minus the second, with 95 % intervals. "
        "Holm's correction counts all comparisons on that test set. Intervals and their p respect patient groups "
        "(of the AUROC: DeLong's, clustered after Obuchowski). McNemar's exact p takes images as independent: with "
        "several images a patient it is too small."
    )
    return Table(caption, columns, lines, sortable=len(lines) > 1)


def _estimate(found: Mapping[str, str], metric: str, ends: Sequence[str]) -> Estimate:
    """From the columns named after the metric and each of value, low and high."""
    return Estimate(*(as_number(found.get(f"{metric}{end}")) for end in ends))


def _p(found: Comparison, column: str) -> Cell:
    p = as_number(found.get(column))
    return Cell(p_value(p), key=p)
