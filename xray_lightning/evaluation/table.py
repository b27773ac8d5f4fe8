"""Tables of results: results.csv, results.md and the terminal's."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xray_lightning.artifacts import atomic_write, write_csv

METRICS = ("accuracy", "recall", "precision", "f1", "balanced_accuracy", "specificity", "auroc")
COLUMNS = ("dataset", "model", "seed", "state", "n", *METRICS, "seconds", "run", "notes")


@dataclass(frozen=True)
class Row:
    """One run as its folder tells; `record` is its metrics.json once it is done."""

    run: str
    dataset: str
    model: str
    seed: int | None
    state: str
    seconds: float | None
    error: str | None
    record: dict[str, Any] | None

    def value(self, metric: str) -> float | None:
        return self.record["metrics"][metric]["value"] if self.record else None

    @property
    def notes(self) -> str:
        """Why it failed, or what a reader must know before believing the scores."""
        if self.error:
            return self.error.splitlines()[0]
        return ", ".join(self.record["notes"]) if self.record else ""

    @property
    def setting(self) -> str:
        """The run's name without its seed: runs that differ in the seed alone share it."""
        return "_".join(part for part in self.run.split("_") if part != f"s{self.seed}")


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """Writes results.csv, every digit, and results.md, for reading."""
    write_csv(
        folder / "results.csv",
        COLUMNS,
        (
            [
                r.dataset,
                r.model,
                r.seed,
                r.state,
                r.record and r.record["n"],
                *map(r.value, METRICS),
                r.seconds,
                r.run,
                r.notes,
            ]
            for r in rows
        ),
    )
    header, lines = readable(rows)
    with atomic_write(folder / "results.md") as file:
        file.write(f"# Results of {folder.name}\n\n")
        for cells in (header, ["---"] * len(header), *lines):
            file.write("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
        file.write(f"\n{LEGEND}\n")


LEGEND = (
    "Recall, precision and F1 are the positive class's for two classes and weighted by class frequency for "
    "four. 'reference' is the original study's score on a test set of this size."
)


def readable(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: each run, the reference where the test set is the published one, means over seeds."""
    header = [
        "dataset",
        "model",
        "seed",
        "state",
        "n",
        *(m.replace("_", " ") for m in METRICS),
        "time",
        "notes",
    ]
    lines = []
    for setting, runs in _by_setting(rows).items():
        lines += [_line(run) for run in runs]
        reference = next((r.record["reference"] for r in runs if r.record and r.record["reference"]), None)
        if reference:
            scores = [f"{reference[m]:.4f}" if m in reference else "" for m in METRICS]
            lines.append([runs[0].dataset, runs[0].model, "", "reference", "", *scores, "", ""])
        done = [r for r in runs if r.record]
        if len(done) > 1:
            lines.append(
                [
                    runs[0].dataset,
                    runs[0].model,
                    f"{len(done)} seeds",
                    "mean ± sd",
                    "",
                    *_means(done),
                    "",
                    setting,
                ]
            )
    return header, lines


def _by_setting(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.setting].append(row)
    return groups


def _line(row: Row) -> list[str]:
    scores = ["" if (v := row.value(m)) is None else f"{v:.4f}" for m in METRICS]
    n = str(row.record["n"]) if row.record else ""
    time = "" if row.seconds is None else f"{row.seconds:.0f} s"
    return [row.dataset, row.model, str(row.seed), row.state, n, *scores, time, row.notes]


def _means(runs: Sequence[Row]) -> list[str]:
    columns = [[v for r in runs if (v := r.value(m)) is not None] for m in METRICS]
    return [f"{mean(c):.4f} ± {stdev(c):.4f}" if len(c) > 1 else "" for c in columns]


def show_results(rows: Sequence[Row], folder: Path) -> None:
    """Prints the table, where results and figures lie, and how to see the curves."""
    console = Console()
    header, lines = readable(rows)
    table = Table(title=f"Results of {folder.name}", title_justify="left")
    numeric = {"seed", "n", "time", *(m.replace("_", " ") for m in METRICS)}
    for name in header:
        table.add_column(name, justify="right" if name in numeric else "left", overflow="fold")
    styles = {"failed": "red", "reference": "dim", "mean ± sd": "bold"}
    for cells in lines:
        table.add_row(*map(Text, cells), style=styles.get(cells[3]))
    console.print(table)
    swept = (folder / "results.md").is_file()
    console.print(Text(f"Results      {folder / ('results.md' if swept else 'metrics.json')}"))
    console.print(Text(f"Figures      {folder}{'/*' if swept else ''}/figures"))
    console.print(Text(f"Curves       tensorboard --logdir {folder}"))
