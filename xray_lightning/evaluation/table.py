"""Tables of results: results.csv, results.md and the terminal's."""

import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from xray_lightning.artifacts import atomic_write, write_csv
from xray_lightning.config import slug
from xray_lightning.console import table_console
from xray_lightning.markdown import escaped
from xray_lightning.status import FAILED

READABLE = {
    "accuracy": "accuracy",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "macro_f1": "macro F1",
    "balanced_accuracy": "bal. acc.",
    "specificity": "specificity",
    "auroc": "AUROC",
}
HEADINGS = {name: heading for name, heading in READABLE.items() if name != "macro_f1"}
INTERVAL = "95 %"
TERMINAL_LEAVES_OUT = ("notes", "macro F1")
NARROW_LEAVES_OUT = ("bal. acc.", "specificity", "n", "time")
METRICS = tuple(HEADINGS)
COLUMNS = ("dataset", "model", "seed", "state", "n", *METRICS, "seconds", "run", "notes", "macro_f1")


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
        return self._found(metric).get("value")

    def span(self, metric: str) -> str:
        return span(self._found(metric))

    def _found(self, metric: str) -> dict[str, float | None]:
        return self.record["metrics"].get(metric, {}) if self.record else {}

    @property
    def notes(self) -> str:
        """Why it failed, or what a reader must know before believing the scores."""
        if self.error:
            return (self.error.strip().splitlines() or [""])[0]
        return ", ".join(self.record["notes"]) if self.record else ""

    @property
    def setting(self) -> str:
        """What its name tells besides data set, model and seed: whatever else a sweep varies."""
        if ckpt := (self.record or {}).get("checkpoint"):  # of test.py
            return origin(ckpt)
        prefix = f"{slug(self.dataset)}_{slug(self.model)}_s{self.seed}_"
        return self.run[len(prefix) :] if self.run.startswith(prefix) else ""

    @property
    def named(self) -> tuple[str, str, str]:
        return self.dataset, self.model, self.setting

    @property
    def kind(self) -> str:
        """What runs of several seeds share."""
        return f"{self.model} {self.setting}".strip()

    @property
    def label(self) -> str:
        return f"{self.kind}, seed {self.seed}"


def origin(ckpt: str) -> str:
    """What the run is called that the checkpoint comes from; the file's own name where it lies elsewhere."""
    path = Path(ckpt)
    return path.parent.parent.name if path.parent.name == "checkpoints" else path.name


def write_results(folder: Path, rows: Sequence[Row]) -> None:
    """Writes results.csv, every digit, and results.md, for reading; ensembles of fewer runs would stand beside them."""
    (folder / "ensembles.csv").unlink(missing_ok=True)
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
                r.value("macro_f1"),
            ]
            for r in rows
        ),
    )
    write_readable(folder, rows)


def write_readable(folder: Path, rows: Sequence[Row], more: str = "") -> None:
    """Writes results.md: the table, what its columns mean, and `more`, which is Markdown."""
    with atomic_write(folder / "results.md") as file:
        file.write(f"# Results of {escaped(folder.name)}\n\n{markdown_table(*readable(rows))}\n{LEGEND}\n{more}")


def markdown_table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    every = (header, ["---"] * len(header), *lines)  # which escaping leaves as they are
    return "".join("| " + " | ".join(map(escaped, cells)) + " |\n" for cells in every)


LEGEND = (
    "Recall, precision and F1 are the positive class's for two classes and weighted by class frequency for "
    "four. '95 %' is an interval that respects patient groups, of this test set; 'reference' is the original "
    "study's score on a test set of this size."
)
ENSEMBLE_LEGEND = (
    "An ensemble's probability is the mean of its seeds' probabilities: it costs as many networks at inference as "
    "there are seeds, and its score is not the recipe's, which is the mean over single models."
)


def readable(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and cells: each run, the reference where the test set is the published one, statistics over seeds."""
    header = ["dataset", "model", "setting", "seed", "state", "n", *READABLE.values(), "time", "notes"]
    lines = []
    for runs in by_setting(rows).values():
        for run in runs:
            lines.append(_line(run))
            if any(bounds := [run.span(m) for m in READABLE]):
                lines.append([*run.named, "", INTERVAL, "", *bounds, "", ""])
        name = [*runs[0].named, ""]
        reference = next((r.record["reference"] for r in runs if r.record and r.record["reference"]), None)
        if reference:
            scores = [f"{reference[m]:.4f}" if m in reference else "" for m in READABLE]
            lines.append([*name, "reference", "", *scores, "", ""])
        done = [r for r in runs if r.record]
        if len(done) > 1:
            lines.append([*name, "mean", "", *_over_seeds(done, mean), "", f"{len(done)} seeds"])
            lines.append([*name, "± sd", "", *_over_seeds(done, stdev), "", ""])
    if not any(row.setting for row in rows):
        column = header.index("setting")
        header, *lines = ([*cells[:column], *cells[column + 1 :]] for cells in (header, *lines))
    return header, lines


def by_setting(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Runs that differ in nothing but their seed, together, by data set, model and setting."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.named].append(row)
    return groups


def _line(row: Row) -> list[str]:
    scores = ["" if (v := row.value(m)) is None else f"{v:.4f}" for m in READABLE]
    n = str(row.record["n"]) if row.record else ""
    time = "" if row.seconds is None else f"{row.seconds:.0f} s"
    return [*row.named, "" if row.seed is None else str(row.seed), row.state, n, *scores, time, row.notes]


def span(found: Mapping[str, float | None]) -> str:
    """The interval of a metric of a record, empty where there is none."""
    low, high = found.get("low"), found.get("high")
    return "" if low is None or high is None else f"{_short(low)}–{_short(high)}"


def _short(share: float) -> str:
    return f"{share:.3f}".removeprefix("0")


def _over_seeds(runs: Sequence[Row], statistic: Callable[[list[float]], float]) -> list[str]:
    columns = [[v for r in runs if (v := r.value(m)) is not None] for m in READABLE]
    return [f"{statistic(c):.4f}" if len(c) > 1 else "" for c in columns]


def show_results(rows: Sequence[Row], folder: Path) -> None:
    """Prints the table, where results and figures lie, and how to see the curves."""
    console = table_console()
    header, lines = readable(rows)
    wide = console.width >= 110
    shown = [i for i, name in enumerate(header) if name not in TERMINAL_LEAVES_OUT + NARROW_LEAVES_OUT * (not wide)]
    table = Table(title=f"Results of {folder.name}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i in shown:
        texts = header[i] in ("dataset", "model", "setting", "state")
        whole = header[i] != "setting"
        table.add_column(header[i], justify="left" if texts else "right", no_wrap=whole, overflow="fold")
    styles = {FAILED: "red", INTERVAL: "dim", "reference": "dim", "mean": "bold", "± sd": "bold"}
    for cells in lines:
        table.add_row(*(Text(cells[i]) for i in shown), style=styles.get(cells[header.index("state")]))
    console.print(table)
    for note, runs in _by_note(rows).items():
        console.print(Text(f"{', '.join(runs)}: {note}", style="yellow"), soft_wrap=True)
    swept = (folder / "results.md").is_file()
    every = "/*" if swept else ""
    if (folder / "report.html").is_file():
        console.print(Text(f"Report    {folder / 'report.html'}"), soft_wrap=True)
    console.print(Text(f"Results   {folder / ('results.md' if swept else 'metrics.json')}"), soft_wrap=True)
    console.print(Text(f"Figures   {folder}{every}/figures"), soft_wrap=True)
    console.print(Text(f"Curves    tensorboard --logdir {shlex.quote(str(folder))}"), soft_wrap=True)


def _by_note(rows: Sequence[Row]) -> dict[str, list[str]]:
    """What to know before believing the scores, and which runs it is about."""
    notes: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        for note in [row.notes] if row.error else row.notes.split(", "):
            if note:
                notes[note].append(row.run)
    return {note: ["all runs"] if len(runs) == len(rows) > 1 else runs for note, runs in notes.items()}
