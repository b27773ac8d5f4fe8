"""Tables of cascades: the terminal's of one and of a sweep, and a sweep's cascades.csv."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from xray_lightning.artifacts import write_csv
from xray_lightning.console import printable, table_console
from xray_lightning.evaluation.cascade_content import (
    ALONE,
    CASCADE,
    Content,
    against_alone,
    conclusion,
    described,
    parts_shown,
)
from xray_lightning.evaluation.report.numbers import Estimate, estimate, interval, number, signed, with_interval
from xray_lightning.evaluation.table import origin
from xray_lightning.status import FAILED

MEASURED = ("accuracy", "alone_accuracy", "accuracy_difference", "macro_f1", "sensitivity", "specificity", "spared")
HEADINGS = {
    "accuracy": "acc.",
    "alone_accuracy": "alone",
    "accuracy_difference": "difference",
    "macro_f1": "macro F1",
    "sensitivity": "sens.",
    "specificity": "spec.",
    "spared": "spared",
}
NARROW_LEAVES_OUT = ("alone_accuracy", "macro_f1", "sensitivity", "specificity", "spared")
COLUMNS = (
    *("run", "state", "screen", "diagnosis", "validation_sensitivity", "part", "images"),
    *(f"{name}{end}" for name in MEASURED for end in ("", "_low", "_high")),
    *("verdict", "seconds", "notes"),
)


@dataclass(frozen=True)
class CascadeRow:
    """One two-stage system as its folder tells: its checkpoints, and the sensitivity asked of validation; `content` is
    its cascade.json once it is done."""

    run: str
    screen: str
    diagnosis: str
    sensitivity: str
    state: str
    seconds: float | None
    error: str | None
    content: dict[str, Any] | None

    @property
    def notes(self) -> list[str]:
        """Why it failed, or what a reader must know before believing the scores."""
        if self.error:
            return [(self.error.strip().splitlines() or [""])[0]]
        return self.content["notes"] if self.content else []

    @property
    def origins(self) -> tuple[str, str]:
        """What the runs are called that screen and diagnosis come from."""
        return origin(self.screen), origin(self.diagnosis)

    @property
    def parts(self) -> dict[str, Content]:
        """The parts of the test images, the headline first; none before it is done."""
        return parts_shown(self.content) if self.content else {}


def scores_of(part: Content) -> dict[str, Content]:
    """What a line on a cascade tells of a part of the test images, by the names of MEASURED."""
    own = part["systems"][CASCADE]
    found = own | {
        "alone_accuracy": part["systems"][ALONE]["accuracy"],
        "accuracy_difference": against_alone(part)["accuracy"],
        "spared": part["spared"],
    }
    return {name: found[name] for name in MEASURED}


def write_cascades(folder: Path, rows: Sequence[CascadeRow]) -> None:
    """Writes cascades.csv, every digit: a line for each part of the test images of each cascade."""
    write_csv(folder / "cascades.csv", COLUMNS, (line for row in rows for line in _csv_lines(row)))


def _csv_lines(row: CascadeRow) -> Iterator[list[object]]:
    about = [row.run, row.state, row.screen, row.diagnosis, row.sensitivity]
    end = [row.seconds, ", ".join(row.notes)]
    for name, part in row.parts.items():
        numbers = [n for found in scores_of(part).values() for n in estimate(found)]
        yield [*about, name, part["images"], *numbers, conclusion(part["differences"]), *end]
    if not row.parts:
        yield [*about, "", "", *[""] * (3 * len(MEASURED)), "", *end]


def show_cascades(rows: Sequence[CascadeRow], folder: Path) -> None:
    """Prints the cascades of a sweep, a line for each part of the test images, and where the results lie. The
    difference is that of the cascade's accuracy and the diagnosis alone's, with its 95 % interval."""
    console = table_console()
    shown = [name for name in MEASURED if console.width >= 134 or name not in NARROW_LEAVES_OUT]
    table = Table(title=f"Cascades of {folder.name}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run\nscreen → diagnosis", overflow="fold")
    for heading in ("asked", "images", *(HEADINGS[name] for name in shown)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("conclusion")
    for row in rows:
        _add(table, row, shown)
    console.print(table)
    for row in rows:
        for note in row.notes:
            console.print(Text(f"{row.run}: {printable(note)}", style="yellow"), soft_wrap=True)
    _show_places(console, {"Report": folder / "report.html", "Results": folder / "cascades.csv"})


def _add(table: Table, row: CascadeRow, shown: Sequence[str]) -> None:
    names = map(printable, (row.run, row.origins[0], f"→ {row.origins[1]}"))
    about = ["\n".join(names), printable(row.sensitivity)]
    for name, part in row.parts.items():
        found = scores_of(part)
        texts = [_short(estimate(found[metric]), is_difference=metric == "accuracy_difference") for metric in shown]
        table.add_row(
            *map(Text, [*about, f"{part['images']} {name.split()[0]}", *texts, conclusion(part["differences"])])
        )
        about = ["", ""]
    if not row.parts:
        style = "red" if row.state == FAILED else ""
        table.add_row(*map(Text, [*about, "", *[""] * len(shown), row.state]), style=style)


def _short(found: Estimate, *, is_difference: bool) -> str:
    return f"{signed(found.value)}\n{interval(found)}".strip() if is_difference else number(found.value, 3)


def show_cascade(content: Mapping[str, Any], folder: Path) -> None:
    """Prints what each system has on each part of the test images, the verdicts, and where results and figures lie."""
    console = table_console()
    fixed, notes = content["fixed_on"], content["notes"]
    console.print(
        f"Threshold of the screen {content['threshold']:.4f}: sensitivity {content['sensitivity']:g} on "
        f"{fixed['validation']} validation images, of which the screen knows {fixed['seen_by_the_screen']}",
        soft_wrap=True,
    )
    for name, part in parts_shown(content).items():
        _show_part(console, described(content, name), part)
    if notes:
        console.print(Text(", ".join(notes), style="yellow"), soft_wrap=True)
    places = {"Report": folder / "report.html", "Results": folder / "cascade.json", "Figures": folder / "figures"}
    _show_places(console, places)


def _show_places(console: Console, places: Mapping[str, Path]) -> None:
    for what, place in places.items():
        if place.exists():
            console.print(Text(f"{what:<9} {place}"), soft_wrap=True)


def _show_part(console: Console, images: str, part: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{count} {c}" for c, count in part["counts"].items() if count)
    title = Text(f"{images} ({counts})")
    table = Table("system", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for metric in next(iter(part["systems"].values())):
        table.add_column(metric.replace("_f1", " F1"), justify="right")
    for system, found in part["systems"].items():
        table.add_row(system, *(with_interval(estimate(value), 3) for value in found.values()))
    console.print(table)
    spared = estimate(part["spared"])
    console.print(f"Not flagged, so spared the second stage: {with_interval(spared, 3)}", highlight=False)
    console.print(part["verdict"], soft_wrap=True, highlight=False)
